"""`peerwatch detect`."""

import csv
import io
from pathlib import Path

import click
import msgspec

from peerwatch.network.errors import UsageError


@click.command()
@click.argument("table", type=Path)
@click.option("--column", required=True, metavar="NAME", help="The column to judge.")
@click.option(
    "--method", default="iqr", show_default=True, metavar="NAME", help="The detector, as the config names it."
)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the detector; repeatable.")
def detect(table: Path, *, column: str, method: str, settings: tuple[str, ...]) -> None:
    """Print the rows of a CSV TABLE whose value in one column a detector flags.

    Rows are taken to be in order of time. They are printed as CSV with their score added; how many there are is said on
    standard error.

    \b
    peerwatch detect purchases.csv --column amount
    peerwatch detect sensors.csv --column pressure --method spc --set chart=ewma --set k=4
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    parameters = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {setting}: expected NAME=VALUE")
        parameters[name] = _value(value)
    from peerwatch.runtime.detect import detected, read_table  # noqa: PLC0415 (--help and mistakes answer at once)

    found = read_table(table, column)
    rows = detected(found, method, parameters)
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    click.echo(out.getvalue(), nl=False)
    click.echo(f"{len(rows) - 1:,} of {len(found.rows):,} rows flagged", err=True)


def _value(text: str) -> object:
    """A number if it is written as one, text otherwise."""
    try:
        return msgspec.json.decode(text, type=int | float)
    except msgspec.DecodeError:
        return text
