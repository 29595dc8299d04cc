"""`peerwatch generate`."""

from functools import partial
from pathlib import Path
from typing import Any, get_args

import click

from peerwatch.cli.options import DIRECTORY
from peerwatch.errors import UsageError
from peerwatch.settings.model import Friendships


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--users", type=click.IntRange(2), default=10_000, show_default=True, help="Number of users.")
@click.option(
    "--batch-events", type=click.IntRange(0), default=200_000, show_default=True, help="Events in the batch log."
)
@click.option(
    "--stream-events", type=click.IntRange(0), default=20_000, show_default=True, help="Events in the stream log."
)
@click.option(
    "--mean-degree", type=click.FloatRange(0), default=10.0, show_default=True, help="Mean number of friends."
)
@click.option("--friend-share", type=click.FloatRange(0, 1), default=0.1, show_default=True,
              help="Share of stream events that make or end friendships.")  # fmt: skip
@click.option("--friendships", type=click.Choice(get_args(Friendships)), default="mutual", show_default=True,
              help="In the header line.")  # fmt: skip
@click.option("--D", "D", type=click.IntRange(1), default=2, show_default=True, help="D in the header line.")
@click.option("--T", "T", type=click.IntRange(2), default=50, show_default=True, help="T in the header line.")
@click.option("--ties", type=click.FloatRange(0, 1), default=0.2, show_default=True,
              help="Share of events with the same timestamp as the one before.")  # fmt: skip
@click.option("--anomalies", type=click.FloatRange(0, 1), default=0.01, show_default=True,
              help="Share of stream purchases made 10 to 50 times too large, named in labels.json.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Same seed, same bytes.")
@click.option("--force", is_flag=True, help="Overwrite existing logs.")
@click.option("--to", metavar="URL", help="Send the stream log there as well, such as kafka://host:9092/topic.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="Send at most N events a second.")
def generate(directory: Path, *, force: bool, to: str | None, rate: float | None, **options: Any) -> None:
    """Write a synthetic batch_log.json, stream_log.json and labels.json into DIRECTORY.

    The number of friends has a heavy tail: a few users have very many. labels.json names the stream lines whose amounts
    were made too large, one JSON object a line.
    """
    from peerwatch.studies.generate import Recipe, write_logs  # noqa: PLC0415 (numpy is slow to import)

    if rate is not None and to is None:
        raise UsageError("--rate is how fast events are sent; name where with --to")
    written = write_logs(directory, Recipe(**options), force=force)
    for path in written:
        click.echo(path)
    if to is not None:
        import anyio  # noqa: PLC0415

        from peerwatch.runtime.copying import copy  # noqa: PLC0415 (loads the kernels)

        sent = anyio.run(partial(copy, str(written[1]), to, rate=rate, warn=partial(click.echo, err=True)))
        click.echo(f"{sent:,} events sent")
