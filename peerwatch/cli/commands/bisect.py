"""`peerwatch bisect`."""

import sys
from pathlib import Path

import click

from peerwatch.cli.options import FILE


@click.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
def bisect(a: Path, b: Path) -> None:
    """Name the first decision on which two runs differ, by the ledgers A and B that they wrote with --verdicts.

    \b
    Exit codes:
      0  every verdict is the same
      1  one differs, or one ledger ends before the other
      2  a file is not a ledger
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    from peerwatch.replay.ledger import Ledger, compare  # noqa: PLC0415

    found = compare(Ledger(a), Ledger(b))
    click.echo(found.text)
    if not found.same:
        sys.exit(1)
