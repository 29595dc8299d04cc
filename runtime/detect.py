"""`peerwatch detect`: a detector on a column of a plain table."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.registry import make
from peerwatch.network.errors import BadInput, UsageError
from peerwatch.runtime.names import shown


class Table(NamedTuple):
    """A CSV file: its header, its rows as text, and one column of them as numbers."""

    header: list[str]
    rows: list[list[str]]
    values: Floats


def read_table(path: Path, column: str) -> Table:
    """Read a table with a header line.

    Raises:
        UsageError: it cannot be read, has no such column, or a value there is no finite number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            lines = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise UsageError(f"cannot read the table {shown(path)}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{shown(path)} is no CSV text: {error}") from None
    (first, header), *rows = lines or [(1, [])]
    if column not in header:
        raise UsageError(
            f'{shown(path)}:{first}: there is no column "{column}"; there are {", ".join(header) or "none"}'
        )
    if header.count(column) > 1:
        raise UsageError(
            f'{shown(path)}:{first}: {header.count(column)} columns are called "{column}"; rename all but one'
        )
    place = header.index(column)
    values = []
    for line, row in rows:
        if len(row) != len(header):
            raise UsageError(f"{shown(path)}:{line}: {len(row)} fields; the header has {len(header)}")
        values.append(_number(row[place], f"{shown(path)}:{line}", column))
    return Table(header, [row for _, row in rows], np.array(values, np.float64))


def _number(text: str, where: str, column: str) -> float:
    try:
        value = float(text) if "_" not in text else np.nan
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise UsageError(f'{where}: "{column}" is "{text}"; expected a finite number')
    return value


def detected(table: Table, method: str, parameters: Mapping[str, Any]) -> list[list[str]]:
    """The header and each row that is flagged, both with the score added.

    Raises:
        UsageError: there is no such method, it does not take these parameters, or there are too few rows.
    """
    try:
        score, _, flagged = make(method, parameters).look_back(table.values[:, None])
    except BadInput as error:
        raise UsageError(str(error)) from None
    found = [[*table.rows[place], f"{score[place]:.6g}"] for place in np.flatnonzero(flagged).tolist()]
    return [[*table.header, "score"], *found]
