"""`peerwatch detect`."""

import csv
import io
from pathlib import Path

import click

from peerwatch.cli.options import FILE, METHOD_SETTINGS, parameters_of
from peerwatch.errors import UsageError


@click.command()
@click.argument("table", type=FILE)
@click.option(
    "--column", "columns", required=True, multiple=True, metavar="NAME", help="A column to judge; repeatable."
)
@click.option("--method", metavar="NAME", help="The detector, as the config names it.  [default: iqr]")
@METHOD_SETTINGS
@click.option(
    "--save", "saved", type=FILE, metavar="MODEL", help="Also fit the detector on the table and save it to this file."
)
@click.option("--model", type=FILE, metavar="MODEL", help="Judge each row by this saved model.")
def detect(
    table: Path,
    *,
    columns: tuple[str, ...],
    method: str | None,
    settings: tuple[str, ...],
    saved: Path | None,
    model: Path | None,
) -> None:
    """Print the rows of a CSV TABLE whose values in some columns a detector flags.

    The rows must be in order of time. Flagged rows are printed as CSV with their score added; standard error shows how
    many there are.

    \b
    peerwatch detect purchases.csv --column amount
    peerwatch detect sensors.csv --column pressure --method spc --set chart=ewma --set k=4
    peerwatch detect may.csv --column amount --column hour --method isolation_forest --save may.npz
    peerwatch detect june.csv --column amount --column hour --model may.npz
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    if model is not None and (method is not None or settings or saved is not None):
        raise UsageError("--model has its own method and parameters; leave out --method, --set and --save")
    parameters = parameters_of(settings)
    from peerwatch.studies.csv_table import read_csv_table  # noqa: PLC0415
    from peerwatch.studies.table_detection import detected, judged  # noqa: PLC0415 (--help and mistakes answer at once)

    found = read_csv_table(table)
    if model is not None:
        rows = judged(found, columns, model)
    else:
        rows = detected(found, columns, method or "iqr", parameters, saved)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    click.echo(out.getvalue(), nl=False)
    click.echo(f"{len(rows) - 1:,} of {len(found.rows):,} rows flagged", err=True)
