"""The data to evaluate detectors on: columns of a table, or purchases with their windows.

Both are in time order. Detectors are unsupervised: `fit` never gets labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Protocol

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

LABELS: Final = {
    **dict.fromkeys(("0", "false", "f", "no", "n", "normal", "inlier"), False),
    **dict.fromkeys(
        ("1", "true", "t", "yes", "y", "anomaly", "anomalous", "abnormal", "outlier", "attack", "fraud"), True
    ),
}
"""What labels say: whether a row is anomalous."""
PAIRED: Final = {"1": False, "-1": True}
"""What they say in a column that holds -1, as scikit-learn's predictions do."""


class RowJudge(Protocol):
    """Judges rows, using earlier rows only."""

    def __call__(self, begin: int, end: int) -> Margins:
        """Return the verdicts on the rows from `begin` up to, not including, `end`; shape [end - begin].

        Raises:
            BadInput: there are too few earlier rows, or a value cannot be judged.
        """


class Data(Protocol):
    """Rows in time order."""

    @property
    def name(self) -> str:
        """The name of the data."""

    @property
    def labels(self) -> Mask | None:
        """Which rows are anomalous, shape [rows]; None if that is unknown."""

    @property
    def kinds(self) -> Sequence[str]:
        """The kind of anomaly of each row, "" if it is unknown."""

    def __len__(self) -> int:
        """The number of rows."""

    def columns(self, begin: int, end: int) -> Floats:
        """The columns in which distances between flagged and normal rows are measured, shape [end - begin, columns]."""

    def methods(self) -> list[str]:
        """The names of the detectors that can judge these rows."""

    def judging(self, method: str, parameters: Mapping[str, Any]) -> RowJudge:
        """Return a judge that uses a detector.

        Raises:
            BadInput: the detector does not exist or cannot be used here, or it does not take these parameters.
        """


@dataclass(frozen=True)
class Measures:
    """Rows of a table; `values` has shape [rows, columns].

    A detector is fitted on all earlier rows, whatever their id.
    """

    name: str
    values: Floats
    labels: Mask | None
    kinds: Sequence[str]

    def __len__(self) -> int:
        return len(self.values)

    def columns(self, begin: int, end: int) -> Floats:
        """The table's columns, shape [end - begin, columns]."""
        return self.values[begin:end]

    def methods(self) -> list[str]:
        """All detectors except sigma, which needs windows."""
        return [*DETECTORS]

    def judging(self, method: str, parameters: Mapping[str, Any]) -> RowJudge:
        """Return a judge that uses the detector as an estimator."""

        def judge(begin: int, end: int) -> Margins:
            detector, rows = make(method, parameters).fit(self.values[:begin]), self.values[begin:end]
            with np.errstate(over="ignore", invalid="ignore"):  # what floats cannot square has no score
                excess = -detector.decision_function(rows)
                return Margins(excess / _threshold(detector, rows, excess), excess > 0)

        make(method, parameters)  # reject mistakes before the work begins
        return judge


def measures(
    name: str, sheet: CsvTable, *, columns: Sequence[str], label: str | None, kind: str | None = None
) -> Measures:
    """Select columns and labels of a CSV table.

    Raises:
        UsageError: a column is missing or has invalid values, or all labels are the same.
    """
    if not sheet.rows:
        raise UsageError(f"{sheet.name} has no rows")
    values = np.column_stack([sheet.numbers(column) for column in columns])
    labels = _labels(sheet, label) if label is not None else None
    return Measures(name, values, labels, sheet.texts(kind) if kind is not None else [""] * len(values))


def numeric(sheet: CsvTable, but: Sequence[str | None]) -> list[str]:
    """Return the columns whose first value is a number, other than timestamp, id, label and kind.

    Raises:
        UsageError: there is none.
    """
    if not sheet.rows:
        raise UsageError(f"{sheet.name} has no rows")
    found = sheet.numeric(but)
    if not found:
        raise UsageError(f"{sheet.name}: no column begins with a number; name those to judge with --column")
    return found


def _labels(sheet: CsvTable, column: str) -> Mask:
    texts = sheet.texts(column)
    words = [_word(text) for text in texts]
    anomalous = PAIRED if "-1" in words else LABELS
    for line, text, word in zip(sheet.lines, texts, words, strict=True):
        if word not in anomalous:
            raise UsageError(
                f'{sheet.name}:{line}: "{column}" is "{text}"; a label is 0 or 1, false or true, normal or anomaly'
            )
    return np.array([anomalous[word] for word in words])


def _word(text: str) -> str:
    """A label in lower case; a whole number without decimals."""
    value = number(text)
    return text.strip().lower() if value is None else f"{value:g}"


@dataclass(frozen=True)
class StreamPurchases:
    """Judged purchases with their windows, in time order.

    `given` is the detectors' input for all of them.
    """

    name: str
    labels: Mask | None
    kinds: Sequence[str]
    case: Case
    given: DetectorInput

    def __len__(self) -> int:
        return len(self.case.seq)

    def columns(self, begin: int, end: int) -> Floats:
        """The amount as the only column, shape [end - begin, 1]."""
        return self.given.amount[begin:end, None]

    def methods(self) -> list[str]:
        """All detectors."""
        return [SIGMA, *DETECTORS]

    def judging(self, method: str, parameters: Mapping[str, Any]) -> RowJudge:
        """Return a judge that uses the detector on windows, as a run does."""
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
        """The training set of a run before row `end`: the features of purchases with at least two in their windows."""
        ripe = np.diff(self.given.offsets[: end + 1]) >= LEAST
        return features(*self.given.part(0, end))[ripe]

    def _sigma(self, judge: SigmaJudge, begin: int, end: int) -> Margins:
        """Return exact verdicts, with scores as floats: standard deviations above the mean."""
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
    """Return the size of a model's threshold, shape [1], computed from the row whose score is nearest to it.

    `excess` is how much the scores of n rows exceed the threshold, shape [n]. All rows are scored, as the score of one
    may depend on those before it.
    """
    known = np.flatnonzero(np.isfinite(excess))
    nearest = known[np.argsort(np.abs(excess[known]))[:1]]
    return _size(-detector.score_samples(rows)[nearest] - excess[nearest]) if len(nearest) else np.ones(1)


def _size(threshold: Floats) -> Floats:
    """Return the unit that makes scores of several models comparable: the threshold, or 1 if that is 0."""
    return np.where(threshold == 0, 1.0, np.abs(threshold))


def sigma(parameters: Mapping[str, Any]) -> Sigma:
    """Make sigma from its one parameter.

    Raises:
        BadInput: there is another parameter, or k is not a number of at least 0.
    """
    unknown = [name for name in parameters if name != "k"]
    if unknown:
        raise BadInput(f'{SIGMA} has no parameter "{unknown[0]}"; it has k')
    k = parameters.get("k", SigmaSettings().k)
    if isinstance(k, bool) or not isinstance(k, int | float) or not k >= 0:
        raise BadInput(f'{SIGMA}: "k" is {k!r}; expected a number of at least 0')
    return Sigma(Fraction(repr(k)))
