"""Reads tables: CSV with any usual separator, plain or compressed with gzip, and Parquet.

Errors name the line of an invalid value (in a Parquet file its row).
"""

import csv
import gzip
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.errors import UsageError
from peerwatch.kernels import Int64s
from peerwatch.readable import shown

SEPARATORS: Final = ",;\t|"
"""What may stand between two fields; the one that cuts the header into most wins, the first of these if they tie."""
GZIP: Final = b"\x1f\x8b"
PARQUET: Final = b"PAR1"
MISSING: Final = {"", "na", "nan", "null", "none", "?"}
"""What stands for a missing value, in lower case."""
RANGE: Final = ".."
MICROS: Final = 1_000_000


class CsvTable(NamedTuple):
    """A table as text: its name, its header and the header's line, each row with its line, and the separator."""

    name: str
    first: int
    header: list[str]
    lines: list[int]
    rows: list[list[str]]
    separator: str = ","

    def texts(self, column: str) -> list[str]:
        """Return a column as text.

        Raises:
            UsageError: the column does not exist, or its name is not unique.
        """
        if column not in self.header:
            raise UsageError(
                f'{self.name}:{self.first}: there is no column "{column}"; there are {", ".join(self.header) or "none"}'
            )
        if self.header.count(column) > 1:
            raise UsageError(
                f'{self.name}:{self.first}: {self.header.count(column)} columns are called "{column}"; rename all but'
                " one"
            )
        place = self.header.index(column)
        return [row[place] for row in self.rows]

    def numbers(self, column: str, *, missing: bool = False) -> Floats:
        """Return a column as finite numbers, shape [rows]; with `missing`, NaN where a value is missing.

        Raises:
            UsageError: the column does not exist, its name is not unique, or a value is not a finite number.
        """
        texts = self.texts(column)
        values = [self._number(text) for text in texts]
        for line, text, value in zip(self.lines, texts, values, strict=True):
            if value is None and not (missing and is_missing(text)):
                raise UsageError(f'{self.name}:{line}: "{column}" is "{text}"; expected a finite number')
        return np.array([np.nan if value is None else value for value in values], np.float64)

    def times(self, column: str) -> Int64s:
        """Return a column as times in microseconds, shape [rows]. They are ISO times (UTC without a zone), or seconds.

        Raises:
            UsageError: the column does not exist, its name is not unique, or a value is not a time.
        """
        found = []
        for line, text in zip(self.lines, self.texts(column), strict=True):
            seconds = number(text)
            try:
                moment = None if seconds is not None else datetime.fromisoformat(text)
            except ValueError:
                raise UsageError(
                    f'{self.name}:{line}: "{column}" is "{text}"; expected a time, as 2026-01-31 12:00:00, or seconds'
                ) from None
            if moment is not None:
                seconds = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
            found.append(round((seconds or 0.0) * MICROS))
        return np.array(found, np.int64)

    def numeric(self, but: Sequence[str | None] = ()) -> list[str]:
        """Return the columns whose first value that is not missing is a number, except those named in `but`."""
        found = []
        for place, column in enumerate(self.header):
            text = next((row[place] for row in self.rows if not is_missing(row[place])), "")
            if column not in but and self._number(text) is not None:
                found.append(column)
        return found

    def between(self, text: str, numeric: Sequence[str]) -> list[str]:
        """Return the columns that a text names: names and ranges of names, `FIRST..LAST`, with commas between them.

        A range holds those of the `numeric` columns that lie in it. A side that is left out reaches to the end.

        Raises:
            UsageError: a column does not exist, or a range holds none.
        """
        found: list[str] = []
        for part in [text] if text in self.header else text.split(","):
            if part in self.header or RANGE not in part:
                found.append(part)
                continue
            first, _, last = part.partition(RANGE)
            for name in filter(None, (first, last)):
                self.texts(name)
            begin, end = (
                self.header.index(first) if first else 0,
                self.header.index(last) if last else len(self.header) - 1,
            )
            inside = [column for column in self.header[begin : end + 1] if column in numeric]
            if not inside:
                raise UsageError(f"{self.name}:{self.first}: no column from {part} begins with a number")
            found += inside
        return found

    def _number(self, text: str) -> float | None:
        if self.separator == ";" and "," in text and "." not in text:
            text = text.replace(",", ".")  # what separates fields by semicolons has decimal commas
        return number(text)


def number(text: str) -> float | None:
    """Parse a finite number; None if the text is not one."""
    try:
        value = float(text) if "_" not in text else np.nan
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def is_missing(text: str) -> bool:
    """Whether a text stands for a missing value."""
    return text.strip().lower() in MISSING


def parsed(name: str, text: Iterable[str]) -> CsvTable:
    """Parse lines of CSV, of which the first is the header. Blank lines are skipped.

    Raises:
        UsageError: a row does not have as many fields as the header.
        csv.Error: the text is not CSV.
    """
    lines = iter(text)
    begun = []
    for written in lines:
        begun.append(written)
        if written.strip("\r\n"):
            break
    separator = _separator(begun[-1]) if begun else ","
    reader = csv.reader(chain(begun, lines), delimiter=separator)
    (first, header), *rest = [(reader.line_num, row) for row in reader if row] or [(1, [])]
    for line, row in rest:
        if len(row) != len(header):
            raise UsageError(f"{name}:{line}: {len(row)} fields; the header has {len(header)}")
    return CsvTable(name, first, header, [line for line, _ in rest], [row for _, row in rest], separator)


def read_csv_table(path: Path) -> CsvTable:
    """Read a table with a header line; `-` is standard input. What kind of file it is, its first bytes say.

    Raises:
        UsageError: the file cannot be read, or a row does not have as many fields as the header.
    """
    name = "standard input" if str(path) == "-" else shown(path)
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        if data.startswith(PARQUET):
            return _from_parquet(name, data)
        if data.startswith(GZIP):
            data = gzip.decompress(data)
        return parsed(name, io.StringIO(data.decode("utf-8-sig"), newline=""))
    except (EOFError, gzip.BadGzipFile) as error:
        raise UsageError(f"{name} is damaged: {error}") from None
    except OSError as error:
        raise UsageError(f"cannot read the table {name}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{name} is not CSV text: {error}") from None


def _separator(header: str) -> str:
    def fields(separator: str) -> int:
        return len(next(csv.reader([header], delimiter=separator), []))

    return max(SEPARATORS, key=fields)


def _from_parquet(name: str, data: bytes) -> CsvTable:
    try:
        import pyarrow as pa  # noqa: PLC0415 (large, and only whoever names a Parquet file needs it)
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise UsageError(f"{name} is a Parquet file, which needs pyarrow: pip install 'peerwatch[parquet]'") from None
    try:
        table = pq.read_table(pa.BufferReader(data))
    except pa.ArrowException as error:
        raise UsageError(f"{name} is no whole Parquet file: {str(error).splitlines()[0]}") from None
    columns: list[Iterator[str]] = [map(_text, column.to_pylist()) for column in table.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return CsvTable(name, 1, table.column_names, [*range(1, len(rows) + 1)], rows)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool) else str(value)
