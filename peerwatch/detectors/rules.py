"""Rules on how far an amount lies from the middle of its window, in three measures of middle and spread."""

from typing import ClassVar

import numpy as np

from peerwatch.detectors.base import Floats, Rule, Summary, positive, ratio

NORMAL_MAD: float = 0.6745
"""The third quartile of the standard normal distribution: a MAD is that many standard deviations."""


class _Distance(Rule):
    """A rule with one parameter: the distance, in its own measure, that is still normal."""

    k: float

    def check(self) -> None:
        """Check that k is above 0.

        Raises:
            BadInput: it is not.
        """
        positive(self.name, k=self.k)

    @property
    def threshold(self) -> float:
        """The distance that is still normal."""
        return self.k


class ZScore(_Distance):
    """Flags an amount more than k population standard deviations from the mean, above or below."""

    name: ClassVar[str] = "zscore"

    def __init__(self, *, k: float = 3.0) -> None:
        self.k = k

    def summarise(self, window: Floats) -> Summary:
        """Mean and standard deviation."""
        first = window[:, 0]  # what is constant has no rounding error then
        rest = window - first[:, None]
        return first + rest.mean(axis=1), rest.std(axis=1)

    def score(self, summary: Summary, amount: Floats) -> Floats:
        """Standard deviations from the mean."""
        mean, sd = summary
        return ratio(np.abs(amount - mean), sd)


class Iqr(_Distance):
    """Flags an amount more than k interquartile ranges outside the quartiles: Tukey's fences (1977)."""

    name: ClassVar[str] = "iqr"

    def __init__(self, *, k: float = 1.5) -> None:
        self.k = k

    def summarise(self, window: Floats) -> Summary:
        """The quartiles, interpolated linearly."""
        low, high = np.quantile(window, (0.25, 0.75), axis=1)
        return low, high

    def score(self, summary: Summary, amount: Floats) -> Floats:
        """Interquartile ranges outside the quartiles, 0 between them."""
        low, high = summary
        return ratio(np.maximum(np.maximum(low - amount, amount - high), 0.0), high - low)


class Mad(_Distance):
    """Flags an amount whose modified z-score is above k (Iglewicz and Hoaglin, 1993).

    The score is 0.6745 times the distance from the median, in median absolute deviations.
    """

    name: ClassVar[str] = "mad"

    def __init__(self, *, k: float = 3.5) -> None:
        self.k = k

    def summarise(self, window: Floats) -> Summary:
        """Median and median absolute deviation."""
        median = np.median(window, axis=1)
        return median, np.median(np.abs(window - median[:, None]), axis=1)

    def score(self, summary: Summary, amount: Floats) -> Floats:
        """The modified z-score."""
        median, mad = summary
        return ratio(NORMAL_MAD * np.abs(amount - median), mad)
