"""Reads tables from CSV text. Errors name the line of an invalid value."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.errors import UsageError
from peerwatch.readable import shown


class CsvTable(NamedTuple):
    """A table as text: its name, its header and the header's line, and each row with its line."""

    name: str
    first: int
    header: list[str]
    lines: list[int]
    rows: list[list[str]]

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

    def numbers(self, column: str) -> Floats:
        """Return a column as finite numbers, shape [rows].

        Raises:
            UsageError: the column does not exist, its name is not unique, or a value is not a finite number.
        """
        values = [number(text) for text in self.texts(column)]
        for line, text, value in zip(self.lines, self.texts(column), values, strict=True):
            if value is None:
                raise UsageError(f'{self.name}:{line}: "{column}" is "{text}"; expected a finite number')
        return np.array(values, np.float64)


def number(text: str) -> float | None:
    """Parse a finite number; None if the text is not one."""
    try:
        value = float(text) if "_" not in text else np.nan
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def parsed(name: str, text: Iterable[str]) -> CsvTable:
    """Parse lines of CSV, of which the first is the header. Blank lines are skipped.

    Raises:
        UsageError: a row does not have as many fields as the header.
        csv.Error: the text is not CSV.
    """
    reader = csv.reader(text)
    (first, header), *rest = [(reader.line_num, row) for row in reader if row] or [(1, [])]
    for line, row in rest:
        if len(row) != len(header):
            raise UsageError(f"{name}:{line}: {len(row)} fields; the header has {len(header)}")
    return CsvTable(name, first, header, [line for line, _ in rest], [row for _, row in rest])


def read_csv_table(path: Path) -> CsvTable:
    """Read a CSV file with a header line.

    Raises:
        UsageError: the file cannot be read, or a row does not have as many fields as the header.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return parsed(shown(path), file)
    except OSError as error:
        raise UsageError(f"cannot read the table {shown(path)}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{shown(path)} is not CSV text: {error}") from None
