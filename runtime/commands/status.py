"""`peerwatch status`."""

from pathlib import Path

import click

from peerwatch.runtime.options import DIRECTORY


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(directory: Path, *, as_json: bool) -> None:
    """Tell how the run on a state DIRECTORY is doing."""
    from peerwatch.runtime.status import describe, read_status  # noqa: PLC0415

    found, running = read_status(directory)
    click.echo(describe(found, running=running, as_json=as_json))
