"""`peerwatch detect`: applies a detector to columns of a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from peerwatch.detectors.base import Floats, Mask
from peerwatch.detectors.registry import make
from peerwatch.errors import BadInput, TooFewRows, UsageError
from peerwatch.readable import shown
from peerwatch.storage.models import facts, load, save
from peerwatch.studies.csv_table import CsvTable


class AnomalousRow(msgspec.Struct, frozen=True):
    """A flagged row: its index, from 0, and its score, null if that is infinite."""

    index: int
    score: float | None


class Detection(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector says of the rows of a table. A score is null if there is none, or if it is infinite.

    Where there are too few rows for the detector, nothing is flagged, and `reason` says so.
    """

    method: str
    rows: int
    anomalies: list[AnomalousRow]
    scores: list[float | None]
    flagged: list[bool]
    reason: str | None = None


def detection(columns: Mapping[str, ArrayLike], method: str, parameters: Mapping[str, Any]) -> Detection:
    """Judge each row of a table, in order of time, knowing all of them.

    Raises:
        BadInput: the method does not exist or does not take these parameters or values.
    """
    detector = make(method, parameters)
    try:
        score, _, flagged = detector.look_back(np.column_stack([*columns.values()]))
    except TooFewRows as error:
        count = len(next(iter(columns.values())))  # type: ignore[arg-type] # any sequence
        return Detection(
            method=method, rows=count, anomalies=[], scores=[None] * count, flagged=[False] * count, reason=str(error)
        )
    except BadInput:
        raise
    except Exception as error:  # of a library, which such parameters or values are too much for
        raise BadInput(f"{method} failed on these rows: {type(error).__name__}: {error}") from error
    scores, rows = score.tolist(), np.flatnonzero(flagged).tolist()
    return Detection(
        method=method,
        rows=len(scores),
        anomalies=[AnomalousRow(row, scores[row]) for row in rows],
        scores=scores,
        flagged=flagged.tolist(),
    )


def _values(sheet: CsvTable, columns: Sequence[str]) -> Floats:
    """Return columns as numbers, shape [rows, columns].

    Raises:
        UsageError: a column does not exist or is named twice, or a value is not a finite number.
    """
    for place, column in enumerate(columns):
        if column in columns[:place]:
            raise UsageError(f"--column {column}: given twice")
    return np.column_stack([sheet.numbers(column) for column in columns])


def detected(
    sheet: CsvTable, columns: Sequence[str], method: str, parameters: Mapping[str, Any], model: Path | None = None
) -> list[list[str]]:
    """Return the header and the flagged rows of a table, with their scores. Each row is judged knowing all of them.

    The fitted model is saved to the file `model`, if given.

    Raises:
        UsageError: the method does not exist or does not take these parameters, there are too few rows, or the model
            cannot be saved.
    """
    values = _values(sheet, columns)
    try:
        detector = make(method, parameters)
        if model is not None and model.exists():
            facts(model)  # do not overwrite a file that is not a model
        score, _, flagged = detector.look_back(values)
        if model is not None:
            save(detector.fit(values), model, columns=list(columns), rows=len(values))
    except BadInput as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"cannot write the model {shown(model or '')}: {error.strerror}") from None
    return _picked(sheet, score, flagged)


def judged(sheet: CsvTable, columns: Sequence[str], model: Path) -> list[list[str]]:
    """Return the header and the rows that a saved model flags, with their scores.

    Raises:
        UsageError: the model cannot be read, or was fitted on other columns.
    """
    detector, learned = load(model), facts(model).get("columns", "of a run")
    if learned != list(columns):
        raise UsageError(f"{shown(model)} was fitted on the columns {learned}, not on {list(columns)}")
    values = _values(sheet, columns)
    if not len(values):
        return _picked(sheet, np.empty(0), np.empty(0, np.bool_))
    return _picked(sheet, -detector.score_samples(values), detector.decision_function(values) < 0)


def _picked(sheet: CsvTable, score: Floats, flagged: Mask) -> list[list[str]]:
    found = [[*sheet.rows[place], f"{score[place]:.6g}"] for place in np.flatnonzero(flagged).tolist()]
    return [[*sheet.header, "score"], *found]
