"""Tables for analysts: printed as text, or written as CSV or Parquet. Money stays exact in all of them."""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from decimal import Context, Decimal
from enum import Enum, auto
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from peerwatch.durable import put_in_place
from peerwatch.errors import SinkError, UsageError
from peerwatch.network.statistics import decimal
from peerwatch.readable import aligned, readable, short, shown, why_unwritable
from peerwatch.runtime.decision_log import moment

FORMATS: Final = (".csv", ".parquet")
ROWS: Final = 1 << 13
"""Rows that are written together."""
LONGEST: Final = 60
"""The most characters of a list of users on the terminal."""
DECIMALS: Final = 6
PRECISIONS: Final = (38, 76)
"""Digits of Parquet's decimals of 128 and 256 bits."""
EXACT: Final = Context(prec=400)
"""As many digits as an amount has, with some left for sums."""


class ColumnKind(Enum):
    """What a column holds: text, a number, millionths, microseconds since 1970 UTC, some users, or some purchases."""

    TEXT = auto()
    COUNT = auto()
    MONEY = auto()
    TIME = auto()
    USERS = auto()
    PURCHASES = auto()


TEXT, COUNT, MONEY, TIME, USERS, PURCHASES = ColumnKind


class ReportPurchase(NamedTuple):
    """A purchase in a row: its event, when (microseconds) and how much (millionths)."""

    seq: int
    timestamp: int
    amount: int


class ReportTable(NamedTuple):
    """A table: what it shows, its columns by name, its rows and how many there are.

    No amount in it is above `largest` (millionths). A value may be None.
    """

    title: str
    columns: dict[str, ColumnKind]
    rows: Iterable[tuple[Any, ...]]
    length: int
    largest: int


def check_output(path: Path, *, force: bool) -> None:
    """Check that a table can be written to `path`, before the work begins.

    Raises:
        UsageError: the name has another extension, a file is there and `force` is not set, the directory is missing, or
            pyarrow is.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"{shown(path)}: a report's name ends in {' or '.join(FORMATS)}")
    if path.exists() and not force:
        raise UsageError(f"{shown(path)} is there already; name another file, or add --force")
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"cannot write {shown(path)}: {why_unwritable(path, OSError())}")
    if path.suffix == ".parquet":
        try:
            import pyarrow as pa  # noqa: F401, PLC0415 (large, and only whoever wants Parquet needs it)
        except ImportError:
            raise UsageError("Parquet needs pyarrow; install it: pip install 'peerwatch[parquet]'") from None


def write(report: ReportTable, path: Path) -> None:
    """Write the whole table; the file is complete when it appears under its name.

    Raises:
        SinkError: it could not be written.
    """
    new = path.with_name(f"{path.name}.new")
    try:
        (_write_csv if path.suffix == ".csv" else _write_parquet)(report, new)
        put_in_place(new, path)
    except OSError as error:
        raise SinkError(f"cannot write {shown(path)}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            new.unlink()


def _write_csv(report: ReportTable, path: Path) -> None:
    formats = [_CELLS[kind] for kind in report.columns.values()]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(report.columns)
        for row in report.rows:
            writer.writerow([
                "" if value is None else form(value) for form, value in zip(formats, row, strict=True)
            ])  # fmt: skip


def _purchases_as_json(purchases: Sequence[ReportPurchase]) -> str:
    rows = [
        {"seq": seq, "timestamp": moment(timestamp), "amount": decimal(amount)} for seq, timestamp, amount in purchases
    ]
    return msgspec.json.encode(rows).decode()


def _as_json(users: Sequence[str]) -> str:
    return msgspec.json.encode(users).decode()


_CELLS: Final[dict[ColumnKind, Callable[[Any], str]]] = {
    TEXT: str, COUNT: str, MONEY: decimal, TIME: lambda micros: moment(micros) or "", USERS: _as_json,
    PURCHASES: _purchases_as_json,
}  # fmt: skip
"""How a value of each kind is written as text."""


def _write_parquet(report: ReportTable, path: Path) -> None:
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    digits = len(str(report.largest))
    fitting = [precision for precision in PRECISIONS if digits <= precision]
    money = pa.string()
    if fitting:
        money = (pa.decimal128 if fitting[0] == PRECISIONS[0] else pa.decimal256)(fitting[0], DECIMALS)
    time = pa.timestamp("us", tz="UTC")
    bought = pa.struct([("seq", pa.int64()), ("timestamp", time), ("amount", money)])
    types = {
        TEXT: pa.string(), COUNT: pa.int64(), MONEY: money, TIME: time,
        USERS: pa.list_(pa.string()), PURCHASES: pa.list_(bought),
    }  # fmt: skip
    amount: Callable[[int], Any] = _as_decimal if fitting else decimal
    values: dict[ColumnKind, Callable[[Any], Any]] = {
        MONEY: amount, PURCHASES: partial(_with_amounts, amount=amount),
    }  # fmt: skip
    schema = pa.schema([(name, types[kind]) for name, kind in report.columns.items()])
    with parquet.ParquetWriter(str(path), schema) as writer:
        for rows in _groups(report.rows):
            columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
            arrays = []
            for column, kind, field in zip(columns, report.columns.values(), schema, strict=True):
                convert = values.get(kind, _same)
                arrays.append(pa.array([None if each is None else convert(each) for each in column], field.type))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _groups(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """The rows, some at a time; once none, if there are none."""
    each = iter(rows)
    group = [*islice(each, ROWS)]
    yield group
    while group := [*islice(each, ROWS)]:
        yield group


def _as_decimal(micros: int) -> Decimal:
    return Decimal(micros).scaleb(-DECIMALS, EXACT)


def _with_amounts(purchases: Sequence[ReportPurchase], amount: Callable[[int], Any]) -> list[dict[str, Any]]:
    return [each._replace(amount=amount(each.amount))._asdict() for each in purchases]


def _same(value: Any) -> Any:
    return value


def as_text(report: ReportTable, top: int) -> str:
    """Format the first rows as text. Purchases are left out."""
    kept = [place for place, kind in enumerate(report.columns.values()) if kind is not PURCHASES]
    kinds = [*report.columns.values()]
    table = [[name for name, kind in report.columns.items() if kind is not PURCHASES]]
    table += [[_shown(kinds[place], row[place]) for place in kept] for row in islice(report.rows, top)]
    right = [at for at, place in enumerate(kept) if kinds[place] in {COUNT, MONEY}]
    more = report.length - len(table) + 1
    lines = [report.title, "", *aligned(table, right)]
    return "\n".join([*lines, *([f"... and {more:,} more; --output FILE.csv writes all"] if more else [])])


def _shown(kind: ColumnKind, value: Any) -> str:
    if value is None:
        return "-"
    if kind is TEXT:
        return readable(value)
    if kind is COUNT:
        return f"{value:,}"
    if kind is TIME:
        return short(moment(value) or "")
    if kind is USERS:
        text = " ".join(map(readable, value))
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
    return _CELLS[kind](value)
