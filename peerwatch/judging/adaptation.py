"""What can adapt while a detector judges: its threshold, and the detection of drift in scores and flag rate."""

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
"""The most purchases that labels can refer to: the latest ones above the detector's own threshold."""


class DriftNotice(NamedTuple):
    """A change that was detected when the purchase `seq` had been judged."""

    seq: int
    change: Change


class LabelsNotice(NamedTuple):
    """Labels were read before event `seq`; `unknown` of them refer to no recent purchase with a high score.

    `threshold` is the new adapted threshold, None if the detector's own is still in force.
    """

    seq: int
    labels: int
    unknown: int
    threshold: float | None


class ReleaseNotice(NamedTuple):
    """Labels were read before event `seq`; the purchases `released` are in windows from now on."""

    seq: int
    labels: int
    released: list[int]


Notice = DriftNotice | LabelsNotice | ReleaseNotice


class Adaptation:
    """Adapts the threshold by `rate` or by `precision`, one of them at most, and detects drift with `drift`."""

    def __init__(
        self, rate: FlagRate | None = None, precision: Precision | None = None, drift: Drift | None = None
    ) -> None:
        self.rate, self.precision, self.drift = rate, precision, drift
        self.count = 0
        """The number of purchases observed."""
        self.heard = 0
        """The position up to which labels have been read, as the source of the labels counts it."""
        self._notices: list[Notice] = []
        """Notices that have not been fetched yet."""
        self._high = _High(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))

    @property
    def moves(self) -> bool:
        """Whether the threshold adapts."""
        return self.rate is not None or self.precision is not None

    def room(self) -> int | None:
        """The number of purchases before the threshold may change by itself; None if it does not."""
        return self.rate.room() if self.rate is not None else None

    def adapted(self, verdicts: Verdicts) -> Verdicts:
        """Return the verdicts by the current threshold."""
        value = (
            self.rate.value if self.rate is not None else self.precision.value if self.precision is not None else None
        )
        if value is None:
            return verdicts
        return Verdicts(verdicts.score, np.full(len(verdicts.score), value), verdicts.score > value)

    def see(self, seq: Int64s, line: Int64s, own: Verdicts, adapted: Verdicts) -> bool:
        """Observe the next n purchases, at most `room()`; return whether drift was detected.

        All columns have shape [n]. `own` are the verdicts by the detector's own threshold, `adapted` those that were
        given.
        """
        score = own.score
        if self.rate is not None:
            self.rate.observe(score)
        if self.precision is not None:
            self._high = self._high.with_more(seq[own.flagged], line[own.flagged], score[own.flagged])
        # compared with an adapted threshold, scores would not show drift
        changes = self.drift.observe(score, adapted.flagged, own.threshold) if self.drift is not None else []
        self._notices += [DriftNotice(int(seq[change.judged - 1 - self.count]), change) for change in changes]
        self.count += len(seq)
        return bool(changes)

    def hear(self, seq: int, labels: Sequence[Label], through: int) -> None:
        """Apply labels before event `seq`; `through` is the position up to which they have been read."""
        self.heard = through
        if self.precision is not None:
            known = [found for label in labels if (found := self._high.find(label)) is not None]
            self.precision.add(known)
            self._notices.append(LabelsNotice(seq, len(labels), len(labels) - len(known), self.precision.value))

    def take_notices(self) -> list[Notice]:
        """Return the notices since the last call."""
        notices, self._notices = self._notices, []
        return notices

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state as arrays, enough for `restore`. The arrays are copies."""
        arrays: dict[str, NDArray[Any]] = {"seen": np.array([self.count, self.heard], np.int64)}
        arrays |= {f"high.{name}": column for name, column in self._high._asdict().items()}
        for name, part in self._parts().items():
            arrays |= {f"{name}.{key}": array for key, array in part.arrays().items()}
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state that `arrays` returned. The object must be new."""
        self.count, self.heard = arrays["seen"].tolist()
        self._high = _High(*(arrays[f"high.{name}"] for name in _High._fields))
        for name, part in self._parts().items():
            part.restore(section(arrays, name))

    def _parts(self) -> dict[str, FlagRate | Precision | Drift]:
        parts = {"rate": self.rate, "precision": self.precision, "drift": self.drift}
        return {name: part for name, part in parts.items() if part is not None}


def section(arrays: Mapping[str, NDArray[Any]], name: str) -> dict[str, NDArray[Any]]:
    """Return the arrays with names `name.KEY`, by KEY."""
    begin = f"{name}."
    return {key.removeprefix(begin): array for key, array in arrays.items() if key.startswith(begin)}


class _High(NamedTuple):
    """Purchases with high scores, oldest first. Columns of shape [n]."""

    seq: Int64s
    line: Int64s
    score: Floats

    def with_more(self, *columns: NDArray[Any]) -> "_High":
        return _High(*(np.concatenate(pair)[-HIGH:] for pair in zip(self, columns, strict=True)))

    def find(self, label: Label) -> Labelled | None:
        """Return the latest purchase that a label refers to, None if there is none."""
        column, named = (self.seq, label.seq) if label.seq is not None else (self.line, label.line)
        places = np.flatnonzero(column == named)
        if not len(places):
            return None
        return Labelled(int(self.seq[places[-1]]), float(self.score[places[-1]]), label.anomaly)
