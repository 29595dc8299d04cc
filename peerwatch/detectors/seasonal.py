"""Judges the residual of an amount, without trend and season, by Tukey's fences."""

from numbers import Integral
from typing import ClassVar, Final, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from peerwatch.detectors.base import Floats, Rule, Summary, Verdicts, columns_of, positive, ratio
from peerwatch.detectors.rows import picked
from peerwatch.detectors.rules import IQR_BY_MEAN_AD
from peerwatch.detectors.time_grid import TimeGrid, times_of
from peerwatch.errors import BadInput
from peerwatch.kernels import Int64s

METHODS: Final = ("stl", "classical")
MODELS: Final = ("additive", "multiplicative")
ROUNDING: Final = 1e-6
"""The share of the largest amount that a residual must exceed to be more than rounding."""
LEAST_SMOOTH: Final = 7
"""STL smooths the season over half of the seasons that there are, and this many at least.

Over fewer a single outlier may be taken for a change of season.
"""
JUMP: Final = 10
"""STL computes every n-th point of a smooth curve, where n is this part of the smoothing window, and interpolates."""
LAGS: Final = 8
"""How many distances, of each doubling, are tried to learn how good forecasts so far ahead are."""


class Forecast(NamedTuple):
    """What the next values of a series are expected to be, and the fences around that.

    `level`, `low`, `high` and `spread` are for the first value, then for those 2 and 3 steps ahead, 4 to 7, 8 to 15,
    and so on: what the trend leads to (without its slope), the quartiles of the errors of such forecasts, and the range
    between them (or what takes its place). Shapes [distances]. `noise` is the size below which an error is rounding,
    `strength` how much the `season` of the last period counts after the first step.
    """

    level: Floats
    slope: float
    season: Floats
    low: Floats
    high: Floats
    spread: Floats
    noise: float
    strength: float


class Seasonal(Rule):
    """Flags an amount whose residual lies more than k interquartile ranges outside the residuals' quartiles.

    The next purchase is expected where trend and season lead; the season repeats every `period` purchases. `method` is
    `stl` (Cleveland et al., 1990; robust, so that outliers do not bend the season) or `classical` (moving averages).
    With the `model` `additive` the season is added to the trend; with `multiplicative` it grows with it: logarithms are
    judged, so amounts must be above 0. Needs statsmodels; of fifty purchases a robust decomposition takes about five
    milliseconds.

    As an estimator it takes rows at regular times. Where X has an index of times, as pandas has it, missing rows are
    filled in, and rows out of order are refused. Row i of what is judged afterwards is expected i steps ahead: where
    the trend only wandered in X, what is left of its last value so many steps later; and it is judged by the quartiles
    of the errors that forecasts so many steps ahead make in X.
    """

    name: ClassVar[str] = "seasonal"

    def __init__(self, *, method: str = "stl", period: int = 7, k: float = 3.0, model: str = "additive") -> None:
        self.method = method
        self.period = period
        self.k = k
        self.model = model

    def check(self) -> None:
        """Check method, model, period (a whole number above 1) and k (above 0), and that statsmodels is installed.

        Raises:
            BadInput: one of them is not so.
        """
        for name, value, known in (("method", self.method, METHODS), ("model", self.model, MODELS)):
            if value not in known:
                raise BadInput(f'{self.name}: "{name}" is {value!r}; expected one of {", ".join(known)}')
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

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002 (scikit-learn's)
        """Take each column of X, in order of time, as a window; missing rows are filled in where X has times."""
        self.check()
        columns, grid = self._regular(X)
        columns = self._enough(columns)
        with np.errstate(over="ignore", invalid="ignore"):  # what floats cannot square has no score
            summary = self._summary(np.ascontiguousarray(columns.T), (len(columns) // 2).bit_length())
            scores, clock = self._along(columns).max(axis=1), (np.nan, np.nan)
        if grid is not None:
            scores, clock = scores[grid.places], (grid.last, grid.step)
        self.remember(X, columns_of(X), scores)
        self.summary_ = (*summary, np.tile(np.array(clock, np.float64), (columns.shape[1], 1)))
        return self

    def look_back(self, X: ArrayLike) -> Verdicts:
        """Judge each row along its column, decomposed once."""
        self.check()
        columns, grid = self._regular(X)
        verdicts = super().look_back(columns)
        return verdicts if grid is None else verdicts.at(grid.places)

    def looking_back(self, X: ArrayLike, places: Int64s | None = None) -> Floats:
        """Each column's own score, looking back at the whole of X. Shape [rows, columns]."""
        columns, grid = self._regular(X)
        scores = super().looking_back(columns)
        return picked(scores if grid is None else scores[grid.places], places)

    def summarise(self, window: Floats) -> Summary:
        """What the next value is expected to be, and the fences: the parts of a `Forecast`, each of shape [m, ...]."""
        return self._summary(window, 1)

    def score_amounts(self, summary: Summary, amount: Floats) -> Floats:
        """How far the amount's residual is outside the residuals' quartiles, in interquartile ranges."""
        level, _, season, low, high, spread, noise = summary[:7]
        expected = _first(level) + season[:, 0]
        return _outside(self._value(amount) - expected, _first(low), _first(high), _first(spread), noise)

    def ahead(self, summary: Summary, series: Floats) -> Floats:
        """The scores of the next amounts, row i of them expected i steps ahead."""
        return self._stepwise(summary, series, np.arange(len(series)))

    def along(self, series: Floats) -> Floats:
        """The score of each amount of a series, decomposed once; NaN at its ends, where there is no moving average."""
        if np.ptp(series) == 0:
            return np.zeros(len(series))
        values = self._value(series)
        _, _, residual = self._decomposed(values, two_sided=True)
        return _outside(residual, *_fences(values, residual))

    def _column_scores(self, X: ArrayLike) -> Floats:
        times = times_of(X)
        self._check_fitted()
        last, step = self.summary_[8][0].tolist() if len(self.summary_) > 8 else (np.nan, np.nan)
        if times is None or np.isnan(last):
            return super()._column_scores(X)
        columns = self._known_columns(X)
        steps = TimeGrid(np.zeros(0, np.int64), int(step), int(last)).after(times) - 1
        scores = [
            self._stepwise(tuple(part[place : place + 1] for part in self.summary_), column, steps)
            for place, column in enumerate(columns.T)
        ]
        return np.column_stack(scores)

    def _stepwise(self, summary: Summary, series: Floats, steps: Int64s) -> Floats:
        levels, slope, season, lows, highs, spreads, noise, strength = summary[:8]
        doublings = np.frexp(steps + 1.0)[1] - 1
        level, low, high, spread = (
            of.ravel()[np.minimum(doublings, of.size - 1)] for of in (levels, lows, highs, spreads)
        )
        expected = level + slope * steps + np.where(steps > 0, strength, 1.0) * season[0, steps % self.period]
        return _outside(self._value(series) - expected, low, high, spread, noise)

    def _regular(self, X: ArrayLike) -> tuple[Floats, TimeGrid | None]:
        """The columns of X at regular times, and where its rows are among them, if it has times.

        Raises:
            BadInput: they are not in order, or not regular; or an amount has no logarithm.
        """
        columns, times = columns_of(X), times_of(X)
        if self.model == "multiplicative" and (columns <= 0).any():
            raise BadInput(f"{self.name}: a multiplicative season needs values above 0, got {columns.min():g}")
        if times is None:
            return columns, None
        grid = TimeGrid.of(times)
        return grid.filled(columns, self.period), grid

    def _value(self, amount: Floats) -> Floats:
        """What is judged: the amount, or its logarithm (NaN if it has none)."""
        if self.model == "additive":
            return amount
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(amount)

    def _summary(self, window: Floats, distances: int) -> Summary:
        found = [self._forecast(series, distances) for series in window]
        if not found:
            none = np.empty((0, distances))
            return none, np.empty(0), np.empty((0, self.period)), none, none, none, np.empty(0), np.empty(0)
        return tuple(np.array(part, np.float64) for part in zip(*found, strict=True))

    def _forecast(self, series: Floats, distances: int) -> Forecast:
        values, season, none = self._value(series), np.zeros(self.period), np.zeros(distances)
        unknown = Forecast(none + np.nan, np.nan, season, *(none + np.nan,) * 3, np.nan, np.nan)
        if not np.isfinite(values).all():
            return unknown
        if np.ptp(series) == 0:
            return Forecast(none + values[0], 0.0, season, none, none, none, 0.0, 0.0)
        trend, seasons, residual = self._decomposed(values, two_sided=False)
        slope, strength = _slope(trend), _strength(seasons, residual)
        low, high, spread, noise = _fences(values, residual)
        found: list[Step] = [(float(2 * trend[-1] - trend[-2]), low, high, spread)]
        if np.isfinite(slope + strength):
            found += _farther(values, trend, slope, strength * seasons, found[0], distances)
        found += [(np.nan,) * 4] * (distances - len(found))  # of numbers that no float can square
        level, lows, highs, spreads = np.array(found).T
        return Forecast(level, slope, seasons[-self.period :], lows, highs, spreads, noise, strength)

    def _decomposed(self, series: Floats, *, two_sided: bool) -> tuple[Floats, Floats, Floats]:
        from statsmodels.tsa.seasonal import STL, seasonal_decompose  # noqa: PLC0415

        if self.method == "stl":
            smooth = max(LEAST_SMOOTH, len(series) // self.period // 2 | 1)  # an odd number of seasons
            windows = STL(series, period=self.period, seasonal=smooth).config
            jumps = {f"{name}_jump": max(1, windows[name] // JUMP) for name in ("seasonal", "trend", "low_pass")}
            found = STL(series, period=self.period, seasonal=smooth, robust=True, **jumps).fit()
        else:
            found = seasonal_decompose(series, period=self.period, two_sided=two_sided)
        return found.trend, found.seasonal, found.resid


def _slope(trend: Floats) -> float:
    """The slope of the line through a trend, less the share of the trend that the line does not explain.

    The last slope alone would be noise, many steps ahead, and so would be a line through a trend that only wanders.
    """
    known = trend[~np.isnan(trend)]
    away, at = known - known.mean(), np.arange(len(known)) - (len(known) - 1) / 2
    along, total, length = at @ away, away @ away, at @ at
    return float(along / length * (np.square(along) / length / total)) if total > 0 else 0.0


Step = tuple[float, float, float, float]
"""The level, the fences and the spread of a `Forecast`, for one distance."""


def _farther(values: Floats, trend: Floats, slope: float, season: Floats, first: Step, distances: int) -> list[Step]:
    """What a `Forecast` says for all distances but the first, by forecasts that far ahead within the series."""
    known = ~np.isnan(trend)
    trend, found, left = trend[known], [first], 1.0
    line = trend.mean() + slope * (np.arange(len(trend)) - (len(trend) - 1) / 2)
    away, rest = trend - line, values[known] - line - season[known]
    for doubling in range(1, distances):
        lags = np.linspace(2**doubling, 2 ** (doubling + 1) - 1, LAGS).astype(np.int64)
        pairs = [(rest[lag:], away[lag:], away[:-lag]) for lag in np.unique(np.minimum(lags, len(away) // 2))]
        later, wandered, before = (np.concatenate(part) for part in zip(*pairs, strict=True))
        left = min(left, _left(wandered, before))
        low, high, spread, _ = _fences(values, later - left * before)
        _, *last = found[-1]  # what lies farther ahead is not known better
        level = float(line[-1] + slope + left * away[-1])
        found.append((level, min(low, last[0]), max(high, last[1]), max(spread, last[2])))
    return found[1:]


def _left(later: Floats, before: Floats) -> float:
    """The share of how far a trend is from its line that is left some steps later, by least squares."""
    total = float(before @ before)
    return min(max(float(later @ before) / total, 0.0), 1.0) if total > 0 else 0.0


def _first(part: Floats) -> Floats:
    """Of what is kept for each distance, that of the first value. Earlier versions saved no other. Shape [m]."""
    return part.reshape(len(part), -1)[:, 0]


def _strength(season: Floats, residual: Floats) -> float:
    """The share of what varies beside the trend that the season explains (Hyndman and Athanasopoulos, 2021).

    Many steps ahead a season counts that much: rows without one would be held against chance.
    """
    total = float(np.nanvar(season + residual))
    return max(0.0, 1 - float(np.nanvar(residual)) / total) if total > 0 else 0.0


def _fences(values: Floats, residual: Floats) -> tuple[float, float, float, float]:
    """The residuals' quartiles, the range between them (or what takes its place), and the size of rounding.

    Decompositions round, and robust ones stop short; what is not above that is 0.
    """
    noise = ROUNDING * float(np.abs(values).max())
    low, high = np.nanquantile(residual, (0.25, 0.75))
    spread = high - low
    if spread <= noise:
        spread = IQR_BY_MEAN_AD * np.nanmean(np.abs(residual - np.nanmedian(residual)))
    return float(low), float(high), float(spread) if spread > noise else 0.0, noise


def _outside(residual: Floats, low: ArrayLike, high: ArrayLike, spread: ArrayLike, noise: ArrayLike) -> Floats:
    low, high = np.asarray(low), np.asarray(high)
    distance = np.maximum(np.maximum(low - residual, residual - high), 0.0)
    return ratio(np.where(distance <= noise, 0.0, distance), np.asarray(spread, np.float64))
