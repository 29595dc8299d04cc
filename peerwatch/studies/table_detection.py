"""`peerwatch detect`: applies a detector to columns of a table."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from peerwatch.detectors.base import Detector, Floats, Mask
from peerwatch.detectors.registry import make
from peerwatch.detectors.rows import Reason
from peerwatch.errors import BadInput, TiedScores, TooFewRows, UsageError
from peerwatch.judging.online import Online
from peerwatch.kernels import Int64s
from peerwatch.readable import shown
from peerwatch.storage.models import facts, load, save
from peerwatch.studies.csv_table import CsvTable
from peerwatch.studies.table_rows import PLAIN, NamedRows, TableOptions, TableRows, rows_of

FAR: Final = 1e6
"""A distance is shown up to this one."""


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


class FlaggedRows(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of a table that are told: the header and each row, with its score and what is unusual about it.

    `flagged` counts all that are flagged, `tied` is what a detector says of ties.
    """

    rows: list[list[str]]
    flagged: int
    separator: str
    tied: list[str] = []


def detected(
    sheet: CsvTable,
    columns: Sequence[str],
    method: str,
    parameters: Mapping[str, Any],
    model: Path | None = None,
    options: TableOptions = PLAIN,
) -> FlaggedRows:
    """Return the flagged rows of a table. Each row is judged knowing all of them, or as `options` say.

    The fitted model is saved to the file `model`, if given.

    Raises:
        UsageError: the method does not exist or does not take these parameters, there are too few rows, or the model
            cannot be saved.
    """
    try:
        detector = make(method, parameters)
        if model is not None and model.exists():
            facts(model)  # do not overwrite a file that is not a model
        rows = rows_of(sheet, columns, options, in_order=detector.in_order)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", TiedScores)
            judged = _Judged.none(len(sheet.rows))
            if options.own_past:
                for places, values in rows.groups:
                    online = Online(detector, window=options.window, every=options.every)
                    verdicts, _, why = online.explained(rows.named(places, values))
                    judged.fill(places, verdicts.score, verdicts.flagged, why)
            else:
                ((places, values),) = rows.groups
                judged.fill(places, *_looked_back(detector, rows.named(places, values)))
        if model is not None:
            known = {"lags": options.lags} if options.lags else {}
            save(detector, model, columns=list(columns), rows=len(values), **known)
    except BadInput as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        raise UsageError(f"cannot write the model {shown(model or '')}: {error.strerror}") from None
    ties = [*dict.fromkeys(str(each.message) for each in caught if issubclass(each.category, TiedScores))]
    return judged.told(sheet, rows, options, ties)


def judged_by(sheet: CsvTable, columns: Sequence[str], model: Path, options: TableOptions = PLAIN) -> FlaggedRows:
    """Return the rows that a saved model flags. They follow on those that it was fitted on, in order of time.

    Raises:
        UsageError: the model cannot be read, or was fitted on other columns.
    """
    detector, known = load(model), facts(model)
    learned, lags = known.get("columns", "of a run"), known.get("lags", 0)
    if learned != list(columns):
        raise UsageError(f"{shown(model)} was fitted on the columns {learned}, not on {list(columns)}")
    rows = rows_of(sheet, columns, options._replace(lags=lags), in_order=detector.in_order)
    judged = _Judged.none(len(sheet.rows))
    ((places, values),) = rows.groups
    try:
        if len(places):
            given = rows.named(places, values)
            flagged = detector.decision_function(given) < 0
            judged.fill(places, -detector.score_samples(given), flagged, _why(detector, given, flagged, back=False))
    except BadInput as error:
        raise UsageError(f"{shown(model)}: {error}") from None
    return judged.told(sheet, rows, options, [])


class _Judged(NamedTuple):
    """The scores, flags and reasons of all rows of a table."""

    score: Floats
    flagged: Mask
    reasons: list[list[Reason]]

    @classmethod
    def none(cls, count: int) -> Self:
        return cls(np.full(count, np.nan), np.zeros(count, np.bool_), [[] for _ in range(count)])

    def fill(self, places: Int64s, score: Floats, flagged: Mask, reasons: Sequence[list[Reason]]) -> None:
        """Enter what was found for some rows."""
        self.score[places], self.flagged[places] = score, flagged
        for place, each in zip(places.tolist(), reasons, strict=True):
            self.reasons[place] = each

    def told(self, sheet: CsvTable, rows: TableRows, options: TableOptions, tied: list[str]) -> FlaggedRows:
        """The rows to tell of, in the order of the table."""
        found = [
            [*sheet.rows[place], f"{self.score[place]:.6g}", _unusual(self.reasons[place])]
            for place in np.flatnonzero(rows.alarms(self.flagged, options.quiet)).tolist()
        ]
        return FlaggedRows(
            rows=[[*sheet.header, "score", "unusual"], *found], flagged=int(self.flagged.sum()),
            separator=sheet.separator, tied=tied,
        )  # fmt: skip


def _looked_back(detector: Detector, given: NamedRows) -> tuple[Floats, Mask, list[list[Reason]]]:
    """Fit the detector; the scores, flags and reasons of the rows, of which each is judged knowing all."""
    detector.fit(given)
    if hasattr(detector, "training_"):
        score, flagged = detector.decision_scores_, detector.labels_ == 1
    else:
        score, _, flagged = detector.look_back(given)
    return score, flagged, _why(detector, given, flagged, back=True)


def _why(detector: Detector, given: NamedRows, flagged: Mask, *, back: bool) -> list[list[Reason]]:
    """The reasons of flagged rows; none for a detector of a user's own that does not keep what they need."""
    reasons: list[list[Reason]] = [[] for _ in flagged]
    places = np.flatnonzero(flagged)
    if len(places) and getattr(detector, "training_", None) is not None:
        for place, each in zip(places.tolist(), detector.reasons(given, places, back=back), strict=True):
            reasons[place] = each
    return reasons


def _unusual(reasons: Sequence[Reason]) -> str:
    """The columns that make a row unusual, with their distances from the median in robust standard deviations."""
    return "; ".join(f"{reason.name} {np.clip(reason.distance, -FAR, FAR):+.3g}" for reason in reasons)
