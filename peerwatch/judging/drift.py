"""Detects drift in the scores and the flag rate of judged purchases, with ADWIN and Page-Hinkley.

Both are river's. ADWIN (Bifet and Gavalda, 2007) compares the older and the newer part of its window at every cut;
Page-Hinkley (Page, 1954) sums the deviations from the mean beyond a tolerance. Both detect changes in either direction.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from math import isnan
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peerwatch.detectors.base import Floats, Mask, ratio
from peerwatch.errors import BadInput

BLOCK: Final = 64
"""Purchases averaged into one value, which makes values nearly normal and costs a 64th."""
CAP: Final = 10.0
"""The largest multiple of its threshold that a score counts as, so that one purchase cannot move a mean by much."""
MOST: Final = 16_384
"""The most values before a detector restarts. They make 2^20 purchases, and a checkpoint holds them."""
SCORE: Final = "score"
FLAG_RATE: Final = "flag rate"
PAGE_HINKLEY: Final = {SCORE: (0.05, 5.0), FLAG_RATE: (0.01, 1.0)}
"""For each series: the tolerated deviation d from the mean, and the sum s of larger deviations that counts as a change.

A change of twice the tolerated deviation is meant to be found: a tenth of the threshold, 2 points of the flag rate.
With values of variance v a false alarm takes about v / (2 d^2) * exp(2 d s / v) values (Wald's approximation for a
random walk with drift d). With these sums that is a million or more values, as long as scores have a standard deviation
of at most 0.2 and flag rates are at most 0.1.
"""


class Change(NamedTuple):
    """The detector `by` found, after `judged` purchases, that the mean of a series changed from `before` to `after`.

    The series is "score", in multiples of the threshold, or "flag rate".
    """

    judged: int
    series: str
    by: str
    before: float
    after: float


class Drift:
    """Detects drift in the purchases of a run. The result does not depend on how they are split into calls."""

    def __init__(self) -> None:
        """Start before the first purchase.

        Raises:
            BadInput: river is not installed.
        """
        try:
            import river.drift  # noqa: F401, PLC0415 (an extra, and slow to import)
        except ImportError:
            raise BadInput('drift needs river, which is not installed: pip install "peerwatch[learn]"') from None
        self._judged = 0
        self._waiting = [_Series(np.zeros(0), np.zeros(0, np.bool_), np.zeros(0))]
        self._watches = [kind(series) for series in (SCORE, FLAG_RATE) for kind in (_Adwin, _PageHinkley)]

    def observe(self, score: Floats, flagged: Mask, threshold: Floats) -> list[Change]:
        """Observe the next n purchases and return the changes detected. All arrays have shape [n].

        Scores count as multiples of their thresholds, clipped to 0 and CAP. A score that is NaN, or whose threshold is
        not above 0, is ignored.
        """
        if not len(score):
            return []
        self._waiting.append(_Series(score, flagged, threshold))
        whole = (self._judged % BLOCK + len(score)) // BLOCK * BLOCK
        done, self._judged = self._judged // BLOCK * BLOCK, self._judged + len(score)
        if not whole:
            return []
        judged = self._joined()
        self._waiting = [judged.part(whole, len(judged.score))]
        return list(self._changes(judged.part(0, whole), done))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state as arrays of plain types, enough for `restore`."""
        values = {watch.key: np.array(watch.values, np.float64) for watch in self._watches}
        return {"judged": np.array(self._judged)} | self._joined()._asdict() | values

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state that `arrays` returned. The object must be new."""
        self._judged = int(arrays["judged"])
        self._waiting = [_Series(arrays["score"], arrays["flagged"], arrays["threshold"])]
        for watch in self._watches:
            for value in arrays[watch.key].tolist():
                watch.update(value)

    def _joined(self) -> "_Series":
        return _Series(*map(np.concatenate, zip(*self._waiting, strict=True)))

    def _changes(self, judged: "_Series", done: int) -> Iterator[Change]:
        """Yield the changes in whole blocks, which come after `done` purchases."""
        score, threshold = judged.score.reshape(-1, BLOCK), judged.threshold.reshape(-1, BLOCK)
        multiple = np.where(np.isposinf(score), CAP, np.clip(ratio(score, threshold), 0.0, CAP))
        known = ~np.isnan(multiple) & (threshold > 0)
        with np.errstate(invalid="ignore"):  # a block without any score has no mean
            scores = np.where(known, multiple, 0.0).sum(axis=1) / known.sum(axis=1)
        flags = judged.flagged.reshape(-1, BLOCK).mean(axis=1)
        for place, means in enumerate(zip(scores.tolist(), flags.tolist(), strict=True), 1):
            for watch in self._watches:
                mean = means[watch.series == FLAG_RATE]
                found = None if isnan(mean) else watch.update(mean)
                if found is not None:
                    yield Change(done + place * BLOCK, watch.series, watch.by, *found)


class _Series(NamedTuple):
    """Scores, verdicts and thresholds of purchases in order, shape [n]."""

    score: Floats
    flagged: Mask
    threshold: Floats

    def part(self, begin: int, end: int) -> "_Series":
        """Return the purchases from `begin` up to, not including, `end`."""
        return _Series(self.score[begin:end], self.flagged[begin:end], self.threshold[begin:end])


class _Watch(ABC):
    """One river detector on one series. It keeps the values since its last restart, from which it can be rebuilt."""

    by: ClassVar[str]

    def __init__(self, series: str) -> None:
        self.series = series
        self._start()

    @property
    def key(self) -> str:
        """Its name in `Drift.arrays`."""
        return f"{self.series} {self.by}".replace(" ", "_")

    def update(self, value: float) -> tuple[float, float] | None:
        """Add a value. If it reveals a change, restart and return the means before and after the change."""
        if len(self.values) == MOST:
            self._start()
        self.values.append(value)
        self._detector.update(value)
        if not self._detector.drift_detected:
            return None
        values = np.array(self.values)
        turn = _turn(values)
        self._start()
        return float(values[:turn].mean()), float(values[turn:].mean())

    def _start(self) -> None:
        self.values: list[float] = []
        self._detector = self._made()

    @abstractmethod
    def _made(self) -> Any:
        """Create the river detector."""


class _Adwin(_Watch):
    by: ClassVar[str] = "adwin"

    def _made(self) -> Any:
        from river.drift import ADWIN  # noqa: PLC0415

        return ADWIN(clock=4)  # type: ignore[no-untyped-call]  # tests at every fourth value


class _PageHinkley(_Watch):
    by: ClassVar[str] = "page_hinkley"

    def _made(self) -> Any:
        from river.drift import PageHinkley  # noqa: PLC0415

        normal, most = PAGE_HINKLEY[self.series]
        # alpha 1 discounts nothing: with river's 0.9999 sums of 10,000 or more values exceed any threshold by chance
        return PageHinkley(delta=normal, threshold=most, alpha=1.0, mode="both")


def _turn(values: Floats) -> int:
    """Return the number of values before the change of mean that fits best by least squares (Hinkley, 1970)."""
    count, before = len(values), np.arange(1, len(values))
    beyond = np.cumsum(values - values.mean())[:-1]
    return int(np.argmax(beyond**2 / (before * (count - before)))) + 1
