"""`peerwatch detect`."""

import csv
import io
from pathlib import Path

import click

from peerwatch.cli.options import FILE, METHOD_SETTINGS, parameters_of
from peerwatch.errors import UsageError


@click.command()
@click.argument("table", type=FILE)
@click.option("--column", "named", multiple=True, metavar="NAME", help="A column to judge; repeatable.")
@click.option(
    "--columns",
    "ranges",
    multiple=True,
    metavar="A..B,C",
    help="Columns, with ranges.  [default: all numeric]",
)
@click.option("--method", metavar="NAME", help="The detector, as the config names it.  [default: iqr]")
@METHOD_SETTINGS
@click.option("--time", metavar="NAME", help="The column with the times.  [default: timestamp, where order matters]")
@click.option("--window", type=click.IntRange(2), metavar="N", help="Judge each row by the N rows before it.")
@click.option("--by", metavar="NAME", help="Judge each row by its own id's past; NAME is the column of the ids.")
@click.option(
    "--every",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    metavar="N",
    help="With --window or --by: train what learns again after N rows.",
)
@click.option("--lags", type=click.IntRange(0), default=0, metavar="N", help="Add each column's N earlier values.")
@click.option("--impute", type=click.Choice(["median", "previous", "linear"]), help="Fill in missing values.")
@click.option(
    "--quiet-time",
    "quiet",
    metavar="TIME",
    help="After an alarm, tell none for this many rows, or for a time as 90s, 30m, 12h or 7d.",
)
@click.option(
    "--save", "saved", type=FILE, metavar="MODEL", help="Also fit the detector on the table and save it to this file."
)
@click.option("--model", type=FILE, metavar="MODEL", help="Judge each row by this saved model.")
def detect(
    table: Path,
    *,
    named: tuple[str, ...],
    ranges: tuple[str, ...],
    method: str | None,
    settings: tuple[str, ...],
    saved: Path | None,
    model: Path | None,
    time: str | None,
    window: int | None,
    by: str | None,
    every: int,
    lags: int,
    impute: str | None,
    quiet: str | None,
) -> None:
    """Print the rows of a TABLE whose values in some columns a detector flags.

    The table is CSV (with commas, semicolons, tabs or bars, plain or compressed with gzip) or Parquet; - is standard
    input. Without --column and --columns all columns that begin with a number are judged, except timestamp, id, label
    and kind. Rows must be in order of time, or have a column timestamp (or --time). Flagged rows are printed as they
    are, with their score added, and which columns are unusual: how far from the median, in robust standard deviations.
    Standard error shows how many there are.

    \b
    peerwatch detect purchases.csv --column amount
    peerwatch detect sensors.csv --column pressure --method spc --set chart=ewma --set k=4
    peerwatch detect sensors.csv --window 500 --quiet-time 30m
    peerwatch detect may.csv --columns amount..hour --method isolation_forest --save may.npz
    peerwatch detect june.csv --columns amount..hour --model may.npz
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    own_past = window is not None or by is not None
    if model is not None and (method is not None or settings or saved is not None or lags):
        raise UsageError("--model has its own method and parameters; leave out --method, --set, --lags and --save")
    if own_past and (model is not None or saved is not None):
        raise UsageError("--window and --by train many models; leave out --model and --save")
    parameters = parameters_of(settings)
    from peerwatch.studies.csv_table import read_csv_table  # noqa: PLC0415
    from peerwatch.studies.table_detection import detected, judged_by  # noqa: PLC0415 (mistakes answer at once)
    from peerwatch.studies.table_rows import TableOptions, columns_to_judge  # noqa: PLC0415

    options = TableOptions(window, every, by, lags, impute, quiet, time)
    sheet = read_csv_table(table)
    columns = columns_to_judge(sheet, named, ranges, options)
    if model is not None:
        found = judged_by(sheet, columns, model, options)
    else:
        found = detected(sheet, columns, method or "iqr", parameters, saved, options)
    out = io.StringIO()
    csv.writer(out, delimiter=found.separator, lineterminator="\n").writerows(found.rows)
    click.echo(out.getvalue(), nl=False)
    for tie in found.tied:
        click.echo(f"peerwatch: {tie}", err=True)
    told = f", {len(found.rows) - 1:,} of them told" if quiet is not None else ""
    click.echo(f"{found.flagged:,} of {len(sheet.rows):,} rows flagged{told}", err=True)
