"""What goes with a detector through a run: a threshold that adapts, and a watch over scores and flag rate."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peerwatch.detectors.base import Floats, Verdicts
from peerwatch.judging.adaptive_threshold import FlagRate, Labelled, Precision
from peerwatch.judging.drift import Change, Drift
from peerwatch.judging.labels import Label
from peerwatch.kernels import Int64s

HIGH: Final = 10_000
"""Purchases that labels may name: the latest that the detector itself would have flagged."""


class DriftNotice(NamedTuple):
    """A change that the purchases up to event `seq` bring to light."""

    seq: int
    change: Change


class LabelsNotice(NamedTuple):
    """Labels were heard before event `seq`; `unknown` of them name no purchase that scored high lately.

    `threshold` is what a score has to exceed now, None if that is still the detector's own business.
    """

    seq: int
    labels: int
    unknown: int
    threshold: float | None


Notice = DriftNotice | LabelsNotice


class Adaptation:
    """At most one of `rate` and `precision` moves the threshold; `drift` watches."""

    def __init__(
        self, rate: FlagRate | None = None, precision: Precision | None = None, drift: Drift | None = None
    ) -> None:
        self.rate, self.precision, self.drift = rate, precision, drift
        self.count = 0
        """Purchases seen."""
        self.heard = 0
        """How far the labels have been heard, in the words of whoever brings them."""
        self._notices: list[Notice] = []
        """What is worth telling, until somebody has told it."""
        self._high = _High(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))

    @property
    def moves(self) -> bool:
        """Whether the threshold may change from one purchase to the next."""
        return self.rate is not None or self.precision is not None

    def room(self) -> int | None:
        """How many purchases may be seen before the threshold changes by itself; None: any number."""
        return self.rate.room() if self.rate is not None else None

    def adapted(self, verdicts: Verdicts) -> Verdicts:
        """The verdicts by the threshold that holds now."""
        value = (
            self.rate.value if self.rate is not None else self.precision.value if self.precision is not None else None
        )
        if value is None:
            return verdicts
        return Verdicts(verdicts.score, np.full(len(verdicts.score), value), verdicts.score > value)

    def see(self, seq: Int64s, line: Int64s, own: Verdicts, adapted: Verdicts) -> bool:
        """Take note of the next n purchases, `room` at most; whether a change comes to light. Columns of shape [n]."""
        score = own.score
        if self.rate is not None:
            self.rate.observe(score)
        if self.precision is not None:
            self._high = self._high.with_more(seq[own.flagged], line[own.flagged], score[own.flagged])
        # an adapted threshold would hide that the scores have moved
        changes = self.drift.observe(score, adapted.flagged, own.threshold) if self.drift is not None else []
        self._notices += [DriftNotice(int(seq[change.judged - 1 - self.count]), change) for change in changes]
        self.count += len(seq)
        return bool(changes)

    def hear(self, seq: int, labels: Sequence[Label], through: int) -> None:
        """Take an analyst's labels before event `seq`; `through` says how far they have been heard now."""
        self.heard = through
        if self.precision is not None:
            known = [found for label in labels if (found := self._high.find(label)) is not None]
            self.precision.add(known)
            self._notices.append(LabelsNotice(seq, len(labels), len(labels) - len(known), self.precision.value))

    def take_notices(self) -> list[Notice]:
        """What has happened since this was last called."""
        notices, self._notices = self._notices, []
        return notices

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All it remembers. Copies."""
        arrays: dict[str, NDArray[Any]] = {"seen": np.array([self.count, self.heard], np.int64)}
        arrays |= {f"high.{name}": column for name, column in self._high._asdict().items()}
        for name, part in self._parts().items():
            arrays |= {f"{name}.{key}": array for key, array in part.arrays().items()}
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """As new: go on as the one whose `arrays` these are would."""
        self.count, self.heard = arrays["seen"].tolist()
        self._high = _High(*(arrays[f"high.{name}"] for name in _High._fields))
        for name, part in self._parts().items():
            part.restore(section(arrays, name))

    def _parts(self) -> dict[str, FlagRate | Precision | Drift]:
        parts = {"rate": self.rate, "precision": self.precision, "drift": self.drift}
        return {name: part for name, part in parts.items() if part is not None}


def section(arrays: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    """Those arrays that are called `name.key`, by key."""
    begin = f"{name}."
    return {key.removeprefix(begin): array for key, array in arrays.items() if key.startswith(begin)}


class _High(NamedTuple):
    """Purchases with high scores, the latest last. Shapes [n]."""

    seq: Int64s
    line: Int64s
    score: Floats

    def with_more(self, *columns: NDArray[Any]) -> "_High":
        return _High(*(np.concatenate(pair)[-HIGH:] for pair in zip(self, columns, strict=True)))

    def find(self, label: Label) -> Labelled | None:
        """The latest purchase that a label names."""
        column, named = (self.seq, label.seq) if label.seq is not None else (self.line, label.line)
        places = np.flatnonzero(column == named)
        if not len(places):
            return None
        return Labelled(int(self.seq[places[-1]]), float(self.score[places[-1]]), label.anomaly)
