"""Rules on how far an amount lies from the middle of its window, in three measures of middle and spread.

Where half of a window are the same amount, the robust measures of spread may be 0. The mean absolute deviation takes
their place then (Iglewicz and Hoaglin, 1993), so that what is further away still scores higher.
"""

from typing import ClassVar, Final

import numpy as np

from peerwatch.detectors.base import Floats, Rule, Summary, positive, ratio
from peerwatch.detectors.rows import NORMAL_MAD, NORMAL_MEAN_AD

MAD_BY_MEAN_AD: Final = NORMAL_MAD * NORMAL_MEAN_AD
"""A normal distribution's median absolute deviation, in mean absolute deviations."""
IQR_BY_MEAN_AD: Final = 2 * MAD_BY_MEAN_AD
"""A normal distribution's interquartile range, in mean absolute deviations."""


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

    def score_amounts(self, summary: Summary, amount: Floats) -> Floats:
        """Standard deviations from the mean."""
        mean, sd = summary
        return ratio(np.abs(amount - mean), sd)


class Iqr(_Distance):
    """Flags an amount more than k interquartile ranges outside the quartiles: Tukey's fences (1977)."""

    name: ClassVar[str] = "iqr"

    def __init__(self, *, k: float = 1.5) -> None:
        self.k = k

    def summarise(self, window: Floats) -> Summary:
        """The quartiles, interpolated linearly, and the range between them (or what takes its place)."""
        low, high = np.quantile(window, (0.25, 0.75), axis=1)
        return low, high, spread_of(high - low, window, low, IQR_BY_MEAN_AD)

    def score_amounts(self, summary: Summary, amount: Floats) -> Floats:
        """Interquartile ranges outside the quartiles, 0 between them."""
        low, high, spread = summary
        return ratio(np.maximum(np.maximum(low - amount, amount - high), 0.0), spread)


class Mad(_Distance):
    """Flags an amount whose modified z-score is above k (Iglewicz and Hoaglin, 1993).

    The score is 0.6745 times the distance from the median, in median absolute deviations.
    """

    name: ClassVar[str] = "mad"

    def __init__(self, *, k: float = 3.5) -> None:
        self.k = k

    def summarise(self, window: Floats) -> Summary:
        """Median and median absolute deviation (or what takes its place)."""
        median = np.median(window, axis=1)
        mad = np.median(np.abs(window - median[:, None]), axis=1)
        return median, spread_of(mad, window, median, MAD_BY_MEAN_AD)

    def score_amounts(self, summary: Summary, amount: Floats) -> Floats:
        """The modified z-score."""
        median, mad = summary
        return ratio(NORMAL_MAD * np.abs(amount - median), mad)


def spread_of(spread: Floats, window: Floats, middle: Floats, unit: float) -> Floats:
    """The spread of each window, or where it is 0, `unit` times the mean absolute deviation from the middle. Shape [m].

    The window has shape [m, n], the others have shape [m].
    """
    none = np.flatnonzero(spread == 0)
    if len(none):
        spread = spread.copy()
        spread[none] = unit * np.abs(window[none] - middle[none, None]).mean(axis=1)
    return spread
