"""The detector `matrix_profile`: how far the latest values are from anything like them before."""

import math
from bisect import insort
from typing import ClassVar

import numpy as np

from peerwatch.detectors.base import Floats, Summary, positive, ratio
from peerwatch.detectors.learned.base import check_whole
from peerwatch.detectors.series.causal import Causal
from peerwatch.kernels import Float64s, kernel


class MatrixProfile(Causal):
    """Flags a value with which the latest `length` values are like nothing before (Yeh et al., 2016).

    The left matrix profile of a series has the distance of each stretch of `length` values to the nearest one before
    it. The score is that distance for the stretch that ends with the value, as a multiple of the usual one: the median
    of the profile so far. Distances are those of the values as they are (Akbarinia and Cloez, 2019): a shape that is
    usual ten times smaller is not usual. Stretches that overlap are not compared.
    """

    name: ClassVar[str] = "matrix_profile"

    def __init__(self, *, length: int = 8, k: float = 4.0) -> None:
        self.length = length
        self.k = k

    def check(self) -> None:
        """Check the length (a whole number above 1) and k (above 0).

        Raises:
            BadInput: one of them is not so.
        """
        check_whole(self.name, 2, length=self.length)
        positive(self.name, k=self.k)

    @property
    def least(self) -> int:  # type: ignore[override]
        """The least number of values in a window: two stretches side by side."""
        return 2 * self.length

    @property
    def threshold(self) -> float:
        """The multiple of the usual distance that is still normal."""
        return self.k

    def summarise(self, window: Floats) -> Summary:
        """What is known of the next stretch before its last value is there.

        For each stretch that it can be compared with: the squared distance without the last value, and that value; and
        the usual distance.
        """
        most = self.length - 1
        stretches = np.lib.stride_tricks.sliding_window_view(window, self.length, axis=1)[:, : -most or None]
        distance = np.zeros(stretches.shape[:2])
        for place in range(most):
            distance += np.square(stretches[:, :, place] - window[:, place - most, None])
        usual = np.median(self._profile(window)[:, self.least - 1 :], axis=1)
        return distance, stretches[:, :, -1].copy(), usual

    def score_amounts(self, summary: Summary, amount: Floats) -> Floats:
        """The distance of the latest stretch to the nearest before it, as a multiple of the usual distance."""
        distance, last, usual = summary
        nearest = np.min(distance + np.square(last - amount[:, None]), axis=1)
        return ratio(np.sqrt(nearest), np.broadcast_to(usual, nearest.shape))

    def along(self, series: Floats) -> Floats:
        """The profile of a series, as multiples of its median up to each value. Shape [n]."""
        profile = self._profile(series[None, :])[0]
        scores, so_far = np.full(len(series), np.nan), list[float]()
        for place in range(self.least - 1, len(series)):
            if so_far:
                usual = so_far[len(so_far) // 2]
                scores[place] = ratio(profile[place : place + 1], np.array([usual]))[0]
            insort(so_far, float(profile[place]))
        return scores

    def _profile(self, window: Floats) -> Floats:
        """The left matrix profile at the end of each stretch, of m series; shapes [m, n]. 0 where there is none yet."""
        found = np.zeros(window.size)
        _left_profile(np.ascontiguousarray(window).reshape(-1), len(window), self.length, found)
        return np.sqrt(found).reshape(window.shape)


@kernel
def _left_profile(values: Float64s, series: int, length: int, found: Float64s) -> None:
    """For each stretch of each series, the squared distance to the nearest one before, at its last value."""
    size = len(values) // max(series, 1)
    for which in range(series):
        first = which * size
        for end in range(first + 2 * length - 1, first + size):
            best = math.inf
            for other in range(end - length, first + length - 2, -1):
                distance, back = 0.0, 0
                while back < length and distance < best:
                    gap = values[end - back] - values[other - back]
                    distance += gap * gap
                    back += 1
                best = min(best, distance)
            found[end] = best
