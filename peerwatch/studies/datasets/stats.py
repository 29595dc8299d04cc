"""Describes a labelled data set: rows, time span, anomalies, and the spread of its columns."""

import csv
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from peerwatch.errors import BadEvent, UsageError
from peerwatch.network.events import Kind, parse_event
from peerwatch.readable import shown
from peerwatch.studies.generate import NAMES

NO_MEASURES: Final = ("timestamp", "id", "label", "kind")
"""Columns that are not measurements."""
MICROS: Final = 1_000_000


class Spread(msgspec.Struct, frozen=True):
    """The spread of some values. `sd` is the population standard deviation."""

    rows: int
    min: float
    median: float
    mean: float
    sd: float
    max: float


class DatasetStatistics(msgspec.Struct, frozen=True):
    """Statistics of a data set. `anomalous` counts rows by kind; `columns` has the spreads of its columns.

    A spread is null if there are no rows of its class, normal or anomalous.
    """

    rows: int
    begin: datetime
    end: datetime
    share: float
    anomalous: dict[str, int]
    columns: dict[str, dict[str, Spread | None]]


@dataclass
class _Read:
    """The rows read so far. `values` holds those of normal and of anomalous rows for each column."""

    columns: list[str]
    rows: int = 0
    times: list[datetime] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    values: dict[bool, list[list[float]]] = field(default_factory=lambda: {False: [], True: []})

    def statistics(self) -> DatasetStatistics:
        spreads: dict[bool, list[Spread | None]] = {
            odd: [_spread(column) for column in np.array(rows).T] if rows else [None] * len(self.columns)
            for odd, rows in self.values.items()
        }
        return DatasetStatistics(
            rows=self.rows,
            begin=min(self.times),
            end=max(self.times),
            share=self.kinds.total() / self.rows,
            anomalous=dict(self.kinds.most_common()),
            columns={
                name: {"normal": spreads[False][place], "anomalous": spreads[True][place]}
                for place, name in enumerate(self.columns)
            },
        )


def _spread(column: NDArray[np.float64]) -> Spread:
    return Spread(
        len(column), float(column.min()), float(np.median(column)), float(column.mean()), float(column.std()),
        float(column.max()),
    )  # fmt: skip


def statistics(path: Path) -> DatasetStatistics:
    """Compute the statistics of a table, or of a directory with the logs of `social`.

    Raises:
        UsageError: the data cannot be read, or a value is invalid; the message names the line.
    """
    read = _logs(path) if path.is_dir() else _table(path)
    if not read.rows:
        raise UsageError(f"{shown(path)} has no rows")
    return read.statistics()


def _table(path: Path) -> _Read:
    with _reading(path), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, None)
        if header is None:
            raise UsageError(f"{shown(path)} is empty; expected a table as `peerwatch datasets make` writes it")
        missing = [name for name in ("timestamp", "label", "kind") if name not in header]
        if missing:
            raise UsageError(f"{shown(path)}:1: no column {', '.join(missing)}; there are {', '.join(header)}")
        read = _Read([name for name in header if name not in NO_MEASURES])
        for row in filter(None, reader):
            where = f"{shown(path)}:{reader.line_num}"
            if len(row) != len(header):
                raise UsageError(f"{where}: {len(row)} values, but the header names {len(header)} columns")
            named = dict(zip(header, row, strict=True))
            if named["label"] not in {"0", "1"}:
                raise UsageError(f"{where}: column label is {named['label']!r}; expected 0 or 1")
            odd = named["label"] == "1"
            read.rows += 1
            read.times.append(_time(where, named["timestamp"]))
            if odd:
                read.kinds[named["kind"] or "unnamed"] += 1
            read.values[odd].append([_number(where, name, named[name]) for name in read.columns])
    return read


def _time(where: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{where}: column timestamp is {text!r}; expected a date and time like 2024-01-01T00:00:00Z"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _number(where: str, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{where}: column {column} is {text!r}; expected a number")
    return value


class LabelledLine(msgspec.Struct, frozen=True):
    """A line of the labels file: the kind of anomaly in a line of the stream log, counted from 1."""

    line: int
    label: str


def _logs(directory: Path) -> _Read:
    """Read a stream log. Friendship events are normal rows without an amount."""
    _, stream, labels = (directory / name for name in NAMES)
    absent = [path.name for path in (stream, labels) if not path.exists()]
    if absent:
        raise UsageError(
            f"no {' and no '.join(absent)} in the directory {shown(directory)}; name a table (FILE.csv), or a directory"
            " that `peerwatch datasets make social` wrote"
        )
    named: dict[int, str] = {}
    with _reading(labels):
        for place, line in enumerate(labels.read_bytes().splitlines(), 1):
            try:
                found = msgspec.json.decode(line, type=LabelledLine)
            except msgspec.DecodeError:
                raise UsageError(
                    f'{shown(labels)}:{place}: no label; expected an object like {{"line": 188, "label": "slow climb"}}'
                ) from None
            named[found.line] = found.label
    read = _Read(["amount"])
    with _reading(stream), stream.open("rb") as file:
        for place, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                event = parse_event(line.rstrip(b"\r\n"))
            except BadEvent as error:
                raise UsageError(f"{shown(stream)}:{place}: {error}") from None
            read.rows += 1
            read.times.append(datetime.fromtimestamp(event.timestamp / MICROS, UTC))
            if event.kind is Kind.PURCHASE:
                kind = named.pop(place, None)
                if kind is not None:
                    read.kinds[kind] += 1
                read.values[kind is not None].append([event.amount / MICROS])
    if named:
        raise UsageError(f"{shown(labels)} names line {min(named)} of {stream.name}, which is not a purchase")
    return read


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot read {shown(path)}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{shown(path)} is not text in UTF-8") from None
    except csv.Error as error:
        raise UsageError(f"{shown(path)} is not a table: {error}") from None


def as_text(found: DatasetStatistics) -> str:
    """Format the statistics as text."""
    odd = sum(found.anomalous.values())
    days = (found.end - found.begin).total_seconds() / 86_400
    counts = [("anomalous", odd), *((f"  {kind}", count) for kind, count in found.anomalous.items())]
    lines = [
        f"{'rows':<20}{found.rows:>10,}",
        *(f"{name:<20}{count:>10,}{count / found.rows:>9.2%}" for name, count in counts),
        f"from {found.begin:%Y-%m-%d %H:%M:%S} to {found.end:%Y-%m-%d %H:%M:%S}, {days:.1f} days",
        "",
    ]
    rows = [("column", "rows of", *Spread.__struct_fields__[1:])]
    for name, parts in found.columns.items():
        for part, spread in parts.items():
            values = ("-",) * 5 if spread is None else [*map(_short, msgspec.structs.astuple(spread)[1:])]
            rows.append((name if part == "normal" else "", part, *values))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        names = f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}"
        lines.append(names + "".join(f"  {text:>{width}}" for text, width in zip(row[2:], widths[2:], strict=True)))
    return "\n".join(lines)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.5g}"
