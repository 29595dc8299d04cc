"""`peerwatch detect`: a detector on columns of a plain table."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from peerwatch.detectors.base import Floats, Mask
from peerwatch.detectors.registry import make
from peerwatch.network.errors import BadInput, UsageError
from peerwatch.runtime.models import facts, load, save
from peerwatch.runtime.names import shown


class Table(NamedTuple):
    """A CSV file: its header, its rows as text, and some columns of them as numbers, shape [rows, columns]."""

    header: list[str]
    rows: list[list[str]]
    columns: list[str]
    values: Floats


def read_table(path: Path, columns: Sequence[str]) -> Table:
    """Read a table with a header line.

    Raises:
        UsageError: it cannot be read, has not each of these columns once, or a value there is no finite number.
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
    for column in columns:
        if column not in header:
            raise UsageError(
                f'{shown(path)}:{first}: there is no column "{column}"; there are {", ".join(header) or "none"}'
            )
        if header.count(column) > 1:
            raise UsageError(
                f'{shown(path)}:{first}: {header.count(column)} columns are called "{column}"; rename all but one'
            )
        if columns.count(column) > 1:
            raise UsageError(f"--column {column}: given twice")
    places = [header.index(column) for column in columns]
    values = []
    for line, row in rows:
        if len(row) != len(header):
            raise UsageError(f"{shown(path)}:{line}: {len(row)} fields; the header has {len(header)}")
        values.append([_number(row[place], f"{shown(path)}:{line}", header[place]) for place in places])
    numbers = np.array(values, np.float64).reshape(-1, len(columns))
    return Table(header, [row for _, row in rows], list(columns), numbers)


def _number(text: str, where: str, column: str) -> float:
    try:
        value = float(text) if "_" not in text else np.nan
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise UsageError(f'{where}: "{column}" is "{text}"; expected a finite number')
    return value


def detected(table: Table, method: str, parameters: Mapping[str, Any], model: Path | None = None) -> list[list[str]]:
    """Look back: the header and each row that is flagged, both with the score added. `model` is a file to save to.

    Raises:
        UsageError: there is no such method, it does not take these parameters, there are too few rows, or what was
            learned cannot be saved.
    """
    try:
        detector = make(method, parameters)
        score, _, flagged = detector.look_back(table.values)
        if model is not None:
            if model.exists():
                facts(model)  # what is no model is not written over
            save(detector.fit(table.values), model, columns=table.columns, rows=len(table.rows))
    except BadInput as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"cannot write the model {shown(model or '')}: {error.strerror}") from None
    return _picked(table, score, flagged)


def judged(table: Table, model: Path) -> list[list[str]]:
    """The same by what a saved model has learned from another table with these columns.

    Raises:
        UsageError: the model cannot be read, or is one of other columns.
    """
    detector, learned = load(model), facts(model).get("columns", "of a run")
    if learned != table.columns:
        raise UsageError(f"{shown(model)} was taught by the columns {learned}, not by {table.columns}")
    if not table.rows:
        return _picked(table, np.empty(0), np.empty(0, np.bool_))
    return _picked(table, -detector.score_samples(table.values), detector.decision_function(table.values) < 0)


def _picked(table: Table, score: Floats, flagged: Mask) -> list[list[str]]:
    found = [[*table.rows[place], f"{score[place]:.6g}"] for place in np.flatnonzero(flagged).tolist()]
    return [[*table.header, "score"], *found]
