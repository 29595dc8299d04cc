"""Adaptive thresholds: by a target flag rate, or by the precision that analysts' labels show."""

from collections import deque
from collections.abc import Iterable, Mapping
from fractions import Fraction
from itertools import accumulate
from math import isnan
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peerwatch.detectors.base import Floats
from peerwatch.errors import BadInput

GRID: Final = 1024
"""A flag rate's threshold changes only after a multiple of this many judged purchases."""
RECENT: Final = 4096
"""The number of latest scores from which a flag rate's threshold is taken."""
FEWEST: Final = 20
"""The fewest labels from which precision is estimated."""
LABELS: Final = 1000
"""The most labelled purchases that are kept."""


class FlagRate:
    """Holds the share of flagged purchases at a target: the threshold is a quantile of the latest scores.

    If scores are tied at the quantile, fewer purchases are flagged, never more. If more scores than the target share
    are infinite, none is flagged.
    """

    def __init__(self, target: float) -> None:
        """Flag the share `target` of the purchases that have a score.

        Raises:
            BadInput: the target is not between 0 and 1.
        """
        self._target = _share("flag_rate", target)
        self._judged = 0
        self._scores: deque[float] = deque(maxlen=RECENT)
        self.value: float | None = None
        """The threshold that a flagged score exceeds; None before the first scores: the detector's own holds."""

    def room(self) -> int:
        """The number of purchases before the threshold may change."""
        return GRID - self._judged % GRID

    def observe(self, score: Floats) -> None:
        """Add the scores of the next n purchases, at most `room()`, shape [n]. NaN counts as judged, not as a score."""
        self._scores.extend(score[~np.isnan(score)].tolist())
        self._judged += len(score)
        if self._judged % GRID == 0 and self._scores:
            flagged = int(self._target * len(self._scores))
            self.value = sorted(self._scores, reverse=True)[flagged]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state as arrays of plain types, enough for `restore`."""
        value = [] if self.value is None else [self.value]
        scores = np.array(self._scores, np.float64)
        return {"judged": np.array(self._judged), "scores": scores, "value": np.array(value, np.float64)}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state that `arrays` returned. The object must be new and have the same target."""
        self._judged = int(arrays["judged"])
        self._scores.extend(arrays["scores"].tolist())
        self.value = next(iter(arrays["value"].tolist()), None)


class Labelled(NamedTuple):
    """A labelled purchase: its sequence number, its score, and whether it is an anomaly."""

    seq: int
    score: float
    anomaly: bool


class Precision:
    """Holds the share of anomalies among flagged purchases at a target or above, by the latest labels.

    The threshold is the lowest candidate (the detector's own threshold, or a labelled score) above which enough of the
    labelled purchases are anomalies. If there is none, it is the highest score that was labelled normal.
    """

    def __init__(self, target: float, own: float) -> None:
        """Aim for the share `target`. The threshold is never below `own`, the detector's.

        Raises:
            BadInput: the target is not between 0 and 1.
        """
        self._target = _share("precision", target)
        self._own = own
        self._labels: dict[int, Labelled] = {}
        self.value: float | None = None
        """The threshold that a flagged score exceeds; None while there are few labels: the detector's own holds."""

    def add(self, labels: Iterable[Labelled]) -> None:
        """Add labels, dropping purchases without a score. A newer label of the same purchase replaces an older one."""
        for label in labels:
            if not isnan(label.score):
                self._labels.pop(label.seq, None)
                self._labels[label.seq] = label
        for seq in list(self._labels)[:-LABELS]:
            del self._labels[seq]
        self.value = self._threshold()

    def _threshold(self) -> float | None:
        above = sorted((label for label in self._labels.values() if label.score > self._own), key=_score, reverse=True)
        if len(above) < FEWEST:
            return None
        thresholds = [*(label.score for label in above[1:]), self._own]
        anomalies = accumulate(label.anomaly for label in above)
        precise = [
            threshold
            for count, (found, label, threshold) in enumerate(zip(anomalies, above, thresholds, strict=True), 1)
            if threshold < label.score and found >= self._target * count
        ]
        return precise[-1] if precise else max(label.score for label in above if not label.anomaly)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state as arrays of plain types, enough for `restore`."""
        labels = self._labels.values()
        return {
            "seq": np.array([label.seq for label in labels], np.int64),
            "score": np.array([label.score for label in labels], np.float64),
            "anomaly": np.array([label.anomaly for label in labels], np.bool_),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state that `arrays` returned. The object must be new and have the same target and detector."""
        columns = (arrays[name].tolist() for name in Labelled._fields)
        self.add(map(Labelled, *columns))


def _score(label: Labelled) -> float:
    return label.score


def _share(name: str, share: float) -> Fraction:
    """Return a share as an exact decimal fraction, not the nearest binary one."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise BadInput(f'adapt: "{name}" is {share!r}; expected a number between 0 and 1')
    return Fraction(repr(float(share)))
