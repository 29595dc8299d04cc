"""Judges the residual of an amount, without trend and season, by Tukey's fences."""

from numbers import Integral
from typing import ClassVar, Final

import numpy as np
from numpy.typing import ArrayLike

from peerwatch.detectors.base import Floats, Rule, Summary, positive, ratio
from peerwatch.errors import BadInput

METHODS: Final = ("stl", "classical")
ROUNDING: Final = 1e-6
"""The share of the largest amount that a residual must exceed to be more than rounding."""


class Seasonal(Rule):
    """Flags an amount whose residual lies more than k interquartile ranges outside the residuals' quartiles.

    The next purchase is expected where trend and season lead; the season repeats every `period` purchases. `method` is
    `stl` (Cleveland et al., 1990; robust, so that outliers do not bend the season) or `classical` (moving averages).
    Needs statsmodels; of fifty purchases a robust decomposition takes about five milliseconds.
    """

    name: ClassVar[str] = "seasonal"

    def __init__(self, *, method: str = "stl", period: int = 7, k: float = 3.0) -> None:
        self.method = method
        self.period = period
        self.k = k

    def check(self) -> None:
        """Check the method, the period (a whole number above 1) and k (above 0), and that statsmodels is installed.

        Raises:
            BadInput: one of them is not so.
        """
        if self.method not in METHODS:
            raise BadInput(f'{self.name}: "method" is {self.method!r}; expected one of {", ".join(METHODS)}')
        if isinstance(self.period, bool) or not isinstance(self.period, Integral) or self.period < 2:
            raise BadInput(f'{self.name}: "period" is {self.period!r}; expected a whole number above 1')
        positive(self.name, k=self.k)
        try:
            import statsmodels.tsa.seasonal  # noqa: F401, PLC0415 (an extra, and slow to import)
        except ImportError:
            raise BadInput(f"{self.name} needs statsmodels, which is not installed: pip install statsmodels") from None

    @property
    def least(self) -> int:  # type: ignore[override]
        """The least number of purchases in a window: two periods."""
        return 2 * self.period

    @property
    def threshold(self) -> float:
        """The threshold: k interquartile ranges."""
        return self.k

    def summarise(self, window: Floats) -> Summary:
        """The next expected value, the residuals' quartiles, and the size below which a residual is rounding.

        Expected is the last trend, one step further, plus the season of a period ago.
        """
        found = [self._expected(series) for series in window]
        expected, low, high, noise = np.array(found, np.float64).reshape(-1, 4).T
        return expected, low, high, noise

    def score(self, summary: Summary, amount: Floats) -> Floats:
        """How far the amount's residual is outside the residuals' quartiles, in interquartile ranges."""
        expected, low, high, noise = summary
        return _outside(amount - expected, low, high, noise)

    def along(self, series: Floats) -> Floats:
        """The score of each amount of a series, decomposed once; NaN at its ends, where there is no moving average."""
        if np.ptp(series) == 0:
            return np.zeros(len(series))
        _, _, residual = self._decomposed(series, two_sided=True)
        low, high = np.nanquantile(residual, (0.25, 0.75))
        return _outside(residual, low, high, _noise(series))

    def _expected(self, series: Floats) -> tuple[float, float, float, float]:
        if np.ptp(series) == 0:
            return float(series[0]), 0.0, 0.0, 0.0
        trend, season, residual = self._decomposed(series, two_sided=False)
        low, high = np.nanquantile(residual, (0.25, 0.75))
        return float(2 * trend[-1] - trend[-2] + season[-self.period]), float(low), float(high), _noise(series)

    def _decomposed(self, series: Floats, *, two_sided: bool) -> tuple[Floats, Floats, Floats]:
        from statsmodels.tsa.seasonal import STL, seasonal_decompose  # noqa: PLC0415

        if self.method == "stl":
            found = STL(series, period=self.period, robust=True).fit()
        else:
            found = seasonal_decompose(series, period=self.period, two_sided=two_sided)
        return found.trend, found.seasonal, found.resid


def _noise(series: Floats) -> float:
    """The size below which a residual is rounding: decompositions round, and robust ones stop short."""
    return ROUNDING * float(np.abs(series).max())


def _outside(residual: Floats, low: ArrayLike, high: ArrayLike, noise: ArrayLike) -> Floats:
    low, high = np.asarray(low), np.asarray(high)
    distance = np.maximum(np.maximum(low - residual, residual - high), 0.0)
    return ratio(np.where(distance <= noise, 0.0, distance), np.where(high - low <= noise, 0.0, high - low))
