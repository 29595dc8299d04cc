"""Judges one row at a time: each by those before it, with models that are trained again and thresholds that adapt."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from peerwatch.detectors.base import Detector, Floats, Mask, Rule, Verdicts, columns_of
from peerwatch.detectors.rows import Reason, Reference, check_names, names_of, reasons_of
from peerwatch.errors import BadInput, TooFewRows
from peerwatch.judging.adaptation import Adaptation
from peerwatch.judging.adaptive_threshold import FlagRate, Precision
from peerwatch.judging.labels import Label

FIRST: Final = 20
"""The rows after which a detector that learns is trained first."""
MOST: Final = 1 << 20
"""The most values of windows that are laid out at once."""


class OnlineVerdict(NamedTuple):
    """The verdict on one row, the `number`-th.

    The score is NaN, and nothing is flagged, while too little has been seen. `alarm` is whether to tell anybody: not
    about a row that follows on an alarm within the quiet time.
    """

    number: int
    score: float
    threshold: float
    flagged: bool
    alarm: bool


class Online:
    """A detector that gets one row at a time and judges each by the latest `window` rows before it.

    A rule always has the whole window. A detector that learns is trained after 20 rows, then whenever their number has
    doubled or `every` more have come, on the latest `window`. With `flag_rate` the threshold holds the share of flagged
    rows, with `precision` it follows labels, as in a run. An alarm is given once within `quiet` rows.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        window: int | None = 1000,
        every: int = 100,
        flag_rate: float | None = None,
        precision: float | None = None,
        quiet: int = 0,
    ) -> None:
        """With no `window` all rows count.

        Raises:
            BadInput: a parameter is invalid, or there are both a flag rate and a precision.
        """
        for name, value, least in (("window", window, 2), ("every", every, 1), ("quiet", quiet, 0)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise BadInput(f'"{name}" is {value!r}; expected a whole number of at least {least}')
        detector.check()
        if flag_rate is not None and precision is not None:
            raise BadInput("a threshold follows a flag rate or a precision, not both")
        self.detector, self.window, self.every, self.quiet = detector, window, every, quiet
        self.count = 0
        """The rows seen."""
        self.model: Detector | None = None
        """The model in use, of a detector that learns; None before the first."""
        self._names: Any = None
        self._held = np.empty((0, 0))
        self._since = 0
        """The rows that came after those which the model was trained on."""
        self._next = FIRST if window is None else min(FIRST, window)
        self._told = -quiet
        self._adaptation: Adaptation | None = None
        if flag_rate is not None:
            self._adaptation = Adaptation(rate=FlagRate(flag_rate))
        elif precision is not None:
            self._adaptation = Adaptation(precision=Precision(precision, _threshold_of(detector)))

    def update(self, x: Any) -> OnlineVerdict:
        """Judge the next row (a number, a sequence, or a mapping of names to numbers), then learn from it.

        Raises:
            BadInput: it is no row of finite numbers, or has other columns than those before it.
        """
        verdicts, alarms, _ = self._advanced(self._row(x), told=False)
        score, threshold, flagged = (column[0].item() for column in verdicts)
        return OnlineVerdict(self.count, score, threshold, flagged, bool(alarms[0]))

    def update_many(self, X: ArrayLike) -> Verdicts:
        """Judge the next rows, shape [n, columns], as one `update` after the other would."""
        return self._advanced(self._checked(X), told=False)[0]

    def explained(self, X: ArrayLike) -> tuple[Verdicts, Mask, list[list[Reason]]]:
        """The verdicts of `update_many`, which rows are alarms, and the reasons of those flagged (others have none)."""
        return self._advanced(self._checked(X), told=True)

    def score_one(self, x: Any) -> float:
        """How unusual the next row would be, as river asks it; 0 while there is no score. Nothing is learned."""
        verdicts, _ = self._judged(self._row(x), told=False)
        score = float(verdicts.score[0])
        return 0.0 if np.isnan(score) else score

    def learn_one(self, x: Any) -> None:
        """Learn from the next row, as river asks it."""
        self._learn(self._row(x))

    def label(self, number: int, *, anomaly: bool) -> None:
        """Say what the `number`-th row was, for a threshold that follows a precision.

        Raises:
            BadInput: the threshold does not follow labels.
        """
        if self._adaptation is None or self._adaptation.precision is None:
            raise BadInput("labels are for a threshold that follows a precision; give one")
        self._adaptation.hear(self.count, [Label(seq=number, line=None, anomaly=anomaly)], 0)

    def _advanced(self, rows: Floats, *, told: bool) -> tuple[Verdicts, Mask, list[list[Reason]]]:
        found: list[Verdicts] = []
        reasons: list[list[Reason]] = []
        for part in self._parts(rows):
            verdicts, why = self._judged(part, told=told)
            numbers = self.count + 1 + np.arange(len(part))
            if self._adaptation is not None:
                own, verdicts = verdicts, self._adaptation.adapted(verdicts)
                self._adaptation.see(numbers, numbers, own, verdicts)
            found.append(verdicts)
            reasons += (
                [each if flagged else [] for each, flagged in zip(why, verdicts.flagged, strict=True)] if told else []
            )
            self._learn(part)
        if not found:
            return Verdicts(np.empty(0), np.empty(0), np.empty(0, np.bool_)), np.empty(0, np.bool_), []
        together = Verdicts(*(np.concatenate(column) for column in zip(*found, strict=True)))
        first = self.count - len(rows) + 1
        alarms = np.zeros(len(rows), np.bool_)
        for place in np.flatnonzero(together.flagged).tolist():
            if first + place - self._told > self.quiet:
                alarms[place], self._told = True, first + place
        return together, alarms, reasons

    def _parts(self, rows: Floats) -> Iterator[Floats]:
        """The rows, cut where a model may be trained or a threshold may move. What is yielded must be learned."""
        done = 0
        while done < len(rows):
            room = len(rows) - done
            if not isinstance(self.detector, Rule):
                room = min(room, self._next - self.count)
            if self._adaptation is not None:
                room = min(room, self._adaptation.room() or room)
            yield rows[done : done + room]
            done += room

    def _judged(self, rows: Floats, *, told: bool) -> tuple[Verdicts, list[list[Reason]]]:
        """The verdicts on rows that all are judged by the same model, and the reasons of those flagged."""
        if isinstance(self.detector, Rule):
            return self._by_windows(self.detector, rows, told=told)
        if self.model is None:
            nothing = np.full(len(rows), np.nan)
            return Verdicts(nothing, nothing.copy(), np.zeros(len(rows), np.bool_)), [[] for _ in rows]
        skipped = self._since if self.model.in_order else 0
        following = np.concatenate([self._held[len(self._held) - skipped :], rows])
        score = -self.model.score_samples(following)[skipped:]
        if hasattr(self.model, "training_"):
            threshold = np.full(len(score), self.model.threshold_)
        else:  # of a user's own, which need not keep its threshold
            threshold = score + self.model.decision_function(following)[skipped:]
        verdicts = Verdicts(score, threshold, score > threshold)
        why: list[list[Reason]] = [[] for _ in rows]
        places = np.flatnonzero(verdicts.flagged)
        if told and len(places):
            for place, each in zip(
                places.tolist(), self._reasons(self.model, following, skipped + places), strict=True
            ):
                why[place] = each
        return verdicts, why

    def _reasons(self, model: Detector, rows: Floats, places: Any) -> list[list[Reason]]:
        named = model.reasons(rows, places)
        if self._names is None:
            return named
        return [[reason._replace(name=self._names[reason.column]) for reason in each] for each in named]

    def _by_windows(self, rule: Rule, rows: Floats, *, told: bool) -> tuple[Verdicts, list[list[Reason]]]:
        """Each row by the window before it, column by column."""
        held = self._held if len(self._held) else np.empty((0, rows.shape[1]))
        everything, begin = np.concatenate([held, rows]), len(held)
        ends = begin + np.arange(len(rows))
        begins = np.zeros_like(ends) if self.window is None else np.maximum(ends - self.window, 0)
        scores = np.full(rows.shape, np.nan)
        for some in _few_at_once(ends - begins):
            offsets = np.concatenate([[0], np.cumsum(ends[some] - begins[some])])
            places = np.arange(offsets[-1]) + np.repeat(begins[some] - offsets[:-1], np.diff(offsets))
            for column, values in enumerate(everything.T):
                scores[some, column] = rule.judge(offsets, values[places], rows[some, column]).score
        score = scores.max(axis=1)
        verdicts = Verdicts(score, np.full(len(rows), rule.threshold), score > rule.threshold)
        why: list[list[Reason]] = [[] for _ in rows]
        names = [f"x{place}" for place in range(rows.shape[1])] if self._names is None else self._names
        for place in np.flatnonzero(verdicts.flagged).tolist() if told else ():
            reference = Reference.of(everything[begins[place] : ends[place]])
            (why[place],) = reasons_of(rows[place : place + 1], scores[place : place + 1], reference, names)
        return verdicts, why

    def _learn(self, rows: Floats) -> None:
        """Add rows to those seen, and train a model if it is time."""
        held = np.concatenate([self._held, rows]) if len(self._held) else rows.copy()
        self.count += len(rows)
        self._since = 0 if isinstance(self.detector, Rule) else self._since + len(rows)
        self._held = held if self.window is None else held[-max(self.window, self._since) :]
        if not isinstance(self.detector, Rule) and self.count >= self._next:
            self._next = min(2 * self.count, self.count + self.every)
            try:
                self.model = type(self.detector)(**self.detector.get_params()).fit(self._latest)
                self._since = 0
            except TooFewRows:
                pass

    @property
    def _latest(self) -> Floats:
        """The rows of the window."""
        return self._held if self.window is None else self._held[-self.window :]

    def _checked(self, X: ArrayLike) -> Floats:
        """The rows of X, whose columns must be those of the rows before."""
        rows, names = columns_of(X), names_of(X)
        known = None if self._names is None else np.array(self._names, dtype=object)
        check_names(known, names)
        if len(self._held) and rows.shape[1] != self._held.shape[1]:
            raise BadInput(f"the rows before had {self._held.shape[1]} columns, this one has {rows.shape[1]}")
        if names is not None:
            self._names = names.tolist()
        return rows

    def _row(self, x: Any) -> Floats:
        """A row of shape [1, columns]."""
        if isinstance(x, Mapping):
            names = [*x] if self._names is None else self._names
            if {*names} != {*x}:
                raise BadInput(f"a row has the columns {', '.join(map(str, x))}; expected {', '.join(names)}")
            self._names = names
            x = [x[name] for name in names]
        return self._checked(np.atleast_2d(np.asarray(x)))


def _few_at_once(sizes: Any) -> Iterator[slice]:
    """Windows of these sizes in groups that hold about MOST values at most."""
    begin = 0
    total = np.cumsum(sizes)
    while begin < len(sizes):
        before = int(total[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, before + MOST, side="right")))
        yield slice(begin, end)
        begin = end


def _threshold_of(detector: Detector) -> float:
    threshold = getattr(detector, "threshold", None)
    if threshold is None:
        raise BadInput(f"{detector.name} has no threshold of its own that labels could raise; give a flag rate")
    return float(threshold)
