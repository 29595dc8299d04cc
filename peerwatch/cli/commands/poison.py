"""`peerwatch poison`."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from peerwatch.cli.options import FILE, layers_of, replay_options
from peerwatch.errors import UsageError


@click.command()
@replay_options
@click.option("--labels", type=FILE, metavar="FILE", help="A file that names the lines of STREAM to look at instead.")
@click.option("--line", type=click.IntRange(1), help="Show what the purchase in this line of STREAM did.")
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="The most rows of a table.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every window.")
def poison(
    paths: tuple[str, ...],
    config: Path | None,
    *,
    labels: Path | None,
    line: int | None,
    top: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Show what flagged purchases did to the windows that they were in.

    A flagged purchase raises the threshold of everybody whose network holds its buyer. For each one: whose windows held
    it and for how long, how far it moved their thresholds, and which later purchases would be flagged without it. Those
    that hid the most come first. The logs are read from their beginning.

    \b
    peerwatch poison batch_log.json stream_log.json
    peerwatch poison batch_log.json stream_log.json --line 812 --json
    peerwatch poison batch_log.json stream_log.json --labels labels.json --top 5
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    layers = layers_of(paths, config, options, output=False)
    import anyio  # noqa: PLC0415 (--help and mistakes answer at once)
    import msgspec  # noqa: PLC0415

    from peerwatch import kernels  # noqa: PLC0415
    from peerwatch.cli.console import Console  # noqa: PLC0415
    from peerwatch.studies.poison_table import as_text, details_as_text  # noqa: PLC0415
    from peerwatch.studies.poisoning import poisoning  # noqa: PLC0415

    console = Console(quiet=False, bar=True)
    kernels.load(console.compiling, console.uncached)
    ledger = anyio.run(partial(poisoning, layers, labels=labels, progress=console))
    if line is None:
        click.echo(msgspec.json.encode(ledger).decode() if as_json else as_text(ledger, top))
        return
    one = next((each for each in ledger.purchases if each.line == line), None)
    if one is None:
        raise UsageError(f"line {line:,} is not a {'labelled' if labels is not None else 'flagged'} purchase")
    click.echo(msgspec.json.encode(one).decode() if as_json else details_as_text(one, top))
