"""Thresholds that adapt: to a share of purchases that shall be flagged, or to what an analyst says of flagged ones."""

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
"""A threshold from a flag rate changes only where the count of judged purchases is a multiple of this."""
RECENT: Final = 4096
"""Scores that a flag rate is taken of."""
FEWEST: Final = 20
"""Labels that say something about precision."""
LABELS: Final = 1000
"""Purchases whose labels are kept."""


class FlagRate:
    """Holds the share of flagged purchases at a target: the threshold is that quantile of the latest scores.

    Where equal scores stand at the quantile fewer are flagged, never more; should more scores than the target's share
    be infinite, none is.
    """

    def __init__(self, target: float) -> None:
        """Flag the share `target` of the purchases that have a score.

        Raises:
            BadInput: it is not between 0 and 1.
        """
        self._target = _share("flag_rate", target)
        self._judged = 0
        self._scores: deque[float] = deque(maxlen=RECENT)
        self.value: float | None = None
        """What a score has to exceed to be flagged; None, the detector's own threshold, before the first scores."""

    def room(self) -> int:
        """How many more purchases are judged by this threshold."""
        return GRID - self._judged % GRID

    def observe(self, score: Floats) -> None:
        """Take the scores of the next purchases, at most `room()` of them. NaN counts as judged, but is no score."""
        self._scores.extend(score[~np.isnan(score)].tolist())
        self._judged += len(score)
        if self._judged % GRID == 0 and self._scores:
            flagged = int(self._target * len(self._scores))
            self.value = sorted(self._scores, reverse=True)[flagged]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All that it knows, as arrays without objects: enough for `restore`."""
        value = [] if self.value is None else [self.value]
        scores = np.array(self._scores, np.float64)
        return {"judged": np.array(self._judged), "scores": scores, "value": np.array(value, np.float64)}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """As new: go on as the one of the same target whose `arrays` these are would."""
        self._judged = int(arrays["judged"])
        self._scores.extend(arrays["scores"].tolist())
        self.value = next(iter(arrays["value"].tolist()), None)


class Labelled(NamedTuple):
    """What an analyst says of the purchase `seq`, and the score it had."""

    seq: int
    score: float
    anomaly: bool


class Precision:
    """Holds the share of anomalies among the flagged at a target or above, going by the latest labels.

    The threshold is the lowest one, the detector's own or a labelled score, above which enough of the labelled are
    anomalies. If there is none, it is the highest score that was labelled normal: nothing up to it is flagged.
    """

    def __init__(self, target: float, own: float) -> None:
        """At least the share `target`, never a threshold below `own`, the detector's.

        Raises:
            BadInput: the target is not between 0 and 1.
        """
        self._target = _share("precision", target)
        self._own = own
        self._labels: dict[int, Labelled] = {}
        self.value: float | None = None
        """What a score has to exceed to be flagged; None, the detector's own threshold, as long as labels are few."""

    def add(self, labels: Iterable[Labelled]) -> None:
        """Take more labels. A newer one of the same purchase replaces the older; one without a score says nothing."""
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
        """All that it knows, as arrays without objects: enough for `restore`."""
        labels = self._labels.values()
        return {
            "seq": np.array([label.seq for label in labels], np.int64),
            "score": np.array([label.score for label in labels], np.float64),
            "anomaly": np.array([label.anomaly for label in labels], np.bool_),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """As new: go on as the one of the same target and the same detector whose `arrays` these are would."""
        columns = (arrays[name].tolist() for name in Labelled._fields)
        self.add(map(Labelled, *columns))


def _score(label: Labelled) -> float:
    return label.score


def _share(name: str, share: float) -> Fraction:
    """A share as it is written in decimals, not as the nearest binary fraction."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise BadInput(f'adapt: "{name}" is {share!r}; expected a number between 0 and 1')
    return Fraction(repr(float(share)))
