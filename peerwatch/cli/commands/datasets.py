"""`peerwatch datasets`."""

from pathlib import Path
from typing import Any

import click

from peerwatch.cli.options import DIRECTORY


@click.group()
def datasets() -> None:
    """Make labelled data to try detectors on, and describe it."""


@datasets.command("list")
def datasets_list() -> None:
    """List the data sets: name, description, kinds of anomalies."""
    from peerwatch.studies.datasets.registry import describe  # noqa: PLC0415 (numpy is slow to import)

    click.echo(describe())


@datasets.command("make")
@click.argument("name")
@click.argument("directory", type=DIRECTORY, default=".")
@click.option("--rows", type=click.IntRange(100), default=10_000, show_default=True,
              help="Rows of the table; for social, events in the stream log.")  # fmt: skip
@click.option("--anomalies", type=click.FloatRange(0, 0.5), default=0.02, show_default=True,
              help="Share of the rows that are anomalous.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Same seed, same bytes.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def datasets_make(name: str, directory: Path, *, force: bool, **options: Any) -> None:
    """Write the data set NAME into DIRECTORY (default: the current one).

    A table is written as NAME.csv: a timestamp, numbers, a label (0 or 1) and the kind of anomaly. The data set social
    is batch_log.json, stream_log.json and labels.json.
    """
    from peerwatch.studies.datasets.registry import write  # noqa: PLC0415
    from peerwatch.studies.datasets.table import DatasetOrder  # noqa: PLC0415

    for path in write(name, directory, DatasetOrder(**options), force=force):
        click.echo(path)


@datasets.command("stats")
@click.argument("path", type=DIRECTORY, metavar="FILE.csv|DIRECTORY")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def datasets_stats(path: Path, *, as_json: bool) -> None:
    """Describe a labelled table, or a DIRECTORY with the logs of social: rows, anomalies, columns."""
    import msgspec  # noqa: PLC0415

    from peerwatch.studies.datasets.stats import as_text, statistics  # noqa: PLC0415

    found = statistics(path)
    click.echo(msgspec.json.encode(found) if as_json else as_text(found))
