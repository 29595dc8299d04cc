"""The data that detectors are evaluated on: rows of a table by its plain columns, or purchases with their windows.

Both are in order of time. Detectors are unsupervised: labels are never given to `fit`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from peerwatch.detectors.base import Detector, Floats, Mask, Verdicts, by_size, ratio
from peerwatch.detectors.features import features
from peerwatch.detectors.registry import DETECTORS, make
from peerwatch.detectors.rules import ZScore
from peerwatch.errors import BadInput, UsageError
from peerwatch.judging.detector_input import DetectorInput
from peerwatch.judging.detector_judge import LEAST
from peerwatch.judging.judge import Case
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.settings.model import SIGMA
from peerwatch.settings.model import DetectorSettings as SigmaSettings
from peerwatch.studies.csv_table import CsvTable, number
from peerwatch.studies.evaluation.metrics import Margins


class RowJudge(Protocol):
    """Judges the rows `begin` to `end`, knowing those before."""

    def __call__(self, begin: int, end: int) -> Margins:
        """The verdicts on these rows, shape [end - begin].

        Raises:
            BadInput: there are too few rows before, or there is what cannot be judged.
        """


class Data(Protocol):
    """Rows in order of time."""

    @property
    def name(self) -> str:
        """The name of the data."""

    @property
    def labels(self) -> Mask | None:
        """Which rows are anomalous, if that is known. Shape [rows]."""

    @property
    def kinds(self) -> Sequence[str]:
        """What kind of anomaly each row is, "" if that is not known."""

    def __len__(self) -> int:
        """How many rows there are."""

    def columns(self, begin: int, end: int) -> Floats:
        """The values of the rows `begin` to `end`, for the distances between flagged and normal rows."""

    def methods(self) -> list[str]:
        """The detectors that can judge these rows."""

    def judging(self, method: str, parameters: Mapping[str, Any]) -> RowJudge:
        """The judge of a detector for these rows.

        Raises:
            BadInput: there is no such detector here, or it does not take these parameters.
        """


@dataclass(frozen=True)
class Measures:
    """A table: `values` has shape [rows, columns].

    A detector is fitted on the plain columns of all rows before, whoever's they are; nothing is set off for an id.
    """

    name: str
    values: Floats
    labels: Mask | None
    kinds: Sequence[str]

    def __len__(self) -> int:
        return len(self.values)

    def columns(self, begin: int, end: int) -> Floats:
        """The table's columns."""
        return self.values[begin:end]

    def methods(self) -> list[str]:
        """All detectors except sigma, which needs windows."""
        return [*DETECTORS]

    def judging(self, method: str, parameters: Mapping[str, Any]) -> RowJudge:
        """Judges rows with the detector as an estimator."""

        def judge(begin: int, end: int) -> Margins:
            detector, rows = make(method, parameters).fit(self.values[:begin]), self.values[begin:end]
            with np.errstate(over="ignore", invalid="ignore"):  # what floats cannot square has no score
                excess = -detector.decision_function(rows)
                return Margins(excess / _threshold(detector, rows, excess), excess > 0)

        make(method, parameters)  # a mistake is told before the work
        return judge


def measures(
    name: str, sheet: CsvTable, *, columns: Sequence[str], label: str | None, kind: str | None = None
) -> Measures:
    """Some columns of a CSV table, with its labels.

    Raises:
        UsageError: a column is missing, holds what it should not, or all labels are the same.
    """
    if not sheet.rows:
        raise UsageError(f"{sheet.name} has no rows")
    values = np.column_stack([sheet.numbers(column) for column in columns])
    labels = _labels(sheet, label) if label is not None else None
    return Measures(name, values, labels, sheet.texts(kind) if kind is not None else [""] * len(values))


def numeric(sheet: CsvTable, but: Sequence[str | None]) -> list[str]:
    """The columns whose first value is a number, without timestamp, id, label and kind.

    Raises:
        UsageError: there is none.
    """
    if not sheet.rows:
        raise UsageError(f"{sheet.name} has no rows")
    first = zip(sheet.header, sheet.rows[0], strict=True)
    found = [column for column, text in first if column not in but and number(text) is not None]
    if not found:
        raise UsageError(f"{sheet.name}: no column begins with a number; name those to judge with --column")
    return found


def _labels(sheet: CsvTable, column: str) -> Mask:
    texts = sheet.texts(column)
    for line, text in zip(sheet.lines, texts, strict=True):
        if text not in {"0", "1"}:
            raise UsageError(f'{sheet.name}:{line}: "{column}" is "{text}"; a label is 0 or 1')
    return np.array([text == "1" for text in texts])


@dataclass(frozen=True)
class StreamPurchases:
    """Judged purchases with their windows, in order of time.

    `given` is what detectors are handed of all of them.
    """

    name: str
    labels: Mask | None
    kinds: Sequence[str]
    case: Case
    given: DetectorInput

    def __len__(self) -> int:
        return len(self.case.seq)

    def columns(self, begin: int, end: int) -> Floats:
        """The amount, as the only column."""
        return self.given.amount[begin:end, None]

    def methods(self) -> list[str]:
        """All detectors."""
        return [SIGMA, *DETECTORS]

    def judging(self, method: str, parameters: Mapping[str, Any]) -> RowJudge:
        """Judges purchases against their windows, as in a run."""
        if method == SIGMA:
            judge = SigmaJudge(sigma(parameters))
            return lambda begin, end: self._sigma(judge, begin, end)
        make(method, parameters)
        return lambda begin, end: self._judged(make(method, parameters), begin, end)

    def _judged(self, detector: Detector, begin: int, end: int) -> Margins:
        if detector.trains:
            detector.fit(self._training_rows(begin))
        score, threshold, flagged = Verdicts.of(detector.judge(*self.given.part(begin, end)), end - begin)
        return Margins((score - threshold) / _size(threshold), flagged)

    def _training_rows(self, end: int) -> Floats:
        """The training set of a run before `end`: the features of purchases with two or more in their windows."""
        ripe = np.diff(self.given.offsets[: end + 1]) >= LEAST
        return features(*self.given.part(0, end))[ripe]

    def _sigma(self, judge: SigmaJudge, begin: int, end: int) -> Margins:
        """The exact verdicts; the score is in floats: standard deviations above the mean."""
        offsets, window, paid, _ = self.given.part(begin, end)
        score = np.full(len(paid), np.nan)
        with np.errstate(over="ignore", invalid="ignore"):  # what floats cannot square has no score
            for rows, windows in by_size(offsets, window):
                if windows.shape[1] >= 2:
                    mean, sd = ZScore().summarise(windows)
                    distance = paid[rows] - mean
                    score[rows] = np.sign(distance) * ratio(np.abs(distance), sd)
        k = np.array(float(judge.detector.k))
        return Margins((score - k) / _size(k), judge.verdicts(self.case.part(begin, end)).flagged)


def _threshold(detector: Detector, rows: Floats, excess: Floats) -> Floats:
    """The size of the threshold `excess` below the scores of n rows, from the row nearest to it."""
    known = np.flatnonzero(np.isfinite(excess))
    nearest = known[np.argsort(np.abs(excess[known]))[:1]]
    return _size(-detector.score_samples(rows[nearest]) - excess[nearest]) if len(nearest) else np.ones(1)


def _size(threshold: Floats) -> Floats:
    """The unit of scores that makes several models comparable: the threshold, or 1 where that is 0."""
    return np.where(threshold == 0, 1.0, np.abs(threshold))


def sigma(parameters: Mapping[str, Any]) -> Sigma:
    """The rule sigma with its one parameter.

    Raises:
        BadInput: there is another parameter, or k is no number from 0 on.
    """
    unknown = [name for name in parameters if name != "k"]
    if unknown:
        raise BadInput(f'{SIGMA} has no parameter "{unknown[0]}"; it has k')
    k = parameters.get("k", SigmaSettings().k)
    if isinstance(k, bool) or not isinstance(k, int | float) or not k >= 0:
        raise BadInput(f'{SIGMA}: "k" is {k!r}; expected a number of at least 0')
    return Sigma(Fraction(repr(k)))
