"""`peerwatch status`."""

from pathlib import Path

import click

from peerwatch.cli.options import DIRECTORY


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(directory: Path, *, as_json: bool) -> None:
    """Show how the run with this state DIRECTORY is doing."""
    from peerwatch.storage import status as work  # noqa: PLC0415

    seen = work.look_at_run(directory)
    click.echo(work.as_json(seen) if as_json else work.as_text(seen))
