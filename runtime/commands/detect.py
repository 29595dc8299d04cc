"""`peerwatch detect`."""

import csv
import io
from pathlib import Path

import click
import msgspec

from peerwatch.network.errors import UsageError


@click.command()
@click.argument("table", type=Path)
@click.option(
    "--column", "columns", required=True, multiple=True, metavar="NAME", help="A column to judge; repeatable."
)
@click.option("--method", metavar="NAME", help="The detector, as the config names it.  [default: iqr]")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the detector; repeatable.")
@click.option("--save", "saved", type=Path, metavar="MODEL", help="Save what the table teaches to this file, too.")
@click.option("--model", type=Path, metavar="MODEL", help="Judge each row by this saved model instead of looking back.")
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

    Rows are taken to be in order of time. They are printed as CSV with their score added; how many there are is said on
    standard error.

    \b
    peerwatch detect purchases.csv --column amount
    peerwatch detect sensors.csv --column pressure --method spc --set chart=ewma --set k=4
    peerwatch detect may.csv --column amount --column hour --method isolation_forest --save may.npz
    peerwatch detect june.csv --column amount --column hour --model may.npz
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    parameters = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {setting}: expected NAME=VALUE")
        parameters[name] = _value(value)
    if model is not None and (method is not None or settings or saved is not None):
        raise UsageError("--model has its own method and parameters; leave out --method, --set and --save")
    from peerwatch.runtime.detect import detected, judged, read_table  # noqa: PLC0415 (--help and mistakes answer at once)

    found = read_table(table, columns)
    rows = judged(found, model) if model is not None else detected(found, method or "iqr", parameters, saved)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    click.echo(out.getvalue(), nl=False)
    click.echo(f"{len(rows) - 1:,} of {len(found.rows):,} rows flagged", err=True)


def _value(text: str) -> object:
    """A number, list or mapping if it is written as one in JSON, text otherwise."""
    try:
        return msgspec.json.decode(text, type=int | float | list | dict)
    except msgspec.DecodeError:
        return text
