"""`peerwatch detect`."""

import csv
import io
from pathlib import Path

import click

from peerwatch.runtime.options import METHOD_SETTINGS, parameters_of


@click.command()
@click.argument("table", type=Path)
@click.option("--column", required=True, metavar="NAME", help="The column to judge.")
@click.option(
    "--method", default="iqr", show_default=True, metavar="NAME", help="The detector, as the config names it."
)
@METHOD_SETTINGS
def detect(table: Path, *, column: str, method: str, settings: tuple[str, ...]) -> None:
    """Print the rows of a CSV TABLE whose value in one column a detector flags.

    Rows are taken to be in order of time. They are printed as CSV with their score added; how many there are is said on
    standard error.

    \b
    peerwatch detect purchases.csv --column amount
    peerwatch detect sensors.csv --column pressure --method spc --set chart=ewma --set k=4
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    parameters = parameters_of(settings)
    from peerwatch.runtime.detect import detected  # noqa: PLC0415 (--help and mistakes answer at once)
    from peerwatch.runtime.sheets import read_sheet  # noqa: PLC0415

    found = read_sheet(table)
    rows = detected(found, column, method, parameters)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    click.echo(out.getvalue(), nl=False)
    click.echo(f"{len(rows) - 1:,} of {len(found.rows):,} rows flagged", err=True)
