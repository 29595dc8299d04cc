"""Control charts (Montgomery, 2009): is the next purchase still what the process of the window makes?

The process is in control around the window's mean; its standard deviation is estimated from the mean moving range, so
that a slow drift within the window does not widen the limits.
"""

from functools import reduce
from itertools import accumulate
from typing import ClassVar, Final

import numpy as np

from peerwatch.detectors.base import Floats, Rule, Summary, positive, ratio
from peerwatch.errors import BadInput

MOVING_RANGE: Final = 1.128
"""The mean range of two normal values, in standard deviations (the constant d2 for samples of two)."""
RUN: Final = 8
"""Points on one side of the mean that break the last of the Western Electric rules."""
CHARTS: Final = ("individuals", "ewma", "cusum", "western electric")


class Spc(Rule):
    """Flags an amount at which a control chart of the window goes out of control.

    `chart` is one of

    - `individuals` (Shewhart): more than `k` sigmas from the mean;
    - `ewma`: the exponentially weighted moving average, the newest with `weight`, is more than `k` of its own sigmas
      from the mean (Roberts, 1959);
    - `cusum`: what exceeds `slack` sigmas adds up to more than `limit` sigmas (Page, 1954);
    - `western electric`: one point beyond 3 sigmas, two of three beyond 2, four of five beyond 1, or eight in a row on
      one side (Western Electric, 1956); the score is how many of the four rules are broken.
    """

    name: ClassVar[str] = "spc"
    least: ClassVar[int] = RUN

    def __init__(
        self, *, chart: str = "individuals", k: float = 3.0, weight: float = 0.2, slack: float = 0.5, limit: float = 5.0
    ) -> None:
        self.chart = chart
        self.k = k
        self.weight = weight
        self.slack = slack
        self.limit = limit

    def check(self) -> None:
        """Check that the chart exists, its numbers are above 0, and the weight is at most 1."""
        if self.chart not in CHARTS:
            raise BadInput(f'{self.name}: "chart" is {self.chart!r}; expected one of {", ".join(CHARTS)}')
        positive(self.name, k=self.k, weight=self.weight, slack=self.slack, limit=self.limit)
        if self.weight > 1:
            raise BadInput(f'{self.name}: "weight" is {self.weight!r}; expected at most 1')

    @property
    def threshold(self) -> float:
        """The chart's control limit, in the chart's own unit."""
        return {"cusum": self.limit, "western electric": 0.0}.get(self.chart, self.k)

    def summarise(self, window: Floats) -> Summary:
        """Mean and sigma of each window, and the chart's state after its points."""
        mean, sigma = _process(window)
        points = _standardised(window, mean[:, None], sigma[:, None])
        return mean, sigma, reduce(self._next, points.T, self._beginning(len(points)))

    def score_amounts(self, summary: Summary, amount: Floats) -> Floats:
        """The chart's statistic with the amount as one more point."""
        mean, sigma, remembered = summary
        return self._statistic(_standardised(amount, mean, sigma), remembered)

    def along(self, series: Floats) -> Floats:
        """The chart's statistic at each point of a series."""
        mean, sigma = _process(series[None, :])
        return self._continued(series, mean, sigma, self._beginning(1))

    def ahead(self, summary: Summary, series: Floats) -> Floats:
        """The chart's statistic at each of the next points: the chart is continued."""
        return self._continued(series, *summary)

    def _continued(self, series: Floats, mean: Floats, sigma: Floats, remembered: Floats) -> Floats:
        """The statistic at each point of a series that follows on a chart's state."""
        points = _standardised(series, mean, sigma)
        if self.chart == "individuals" or not len(series):
            return self._statistic(points, remembered)
        return self._statistic(points, np.concatenate([*accumulate(points[:-1, None], self._next, initial=remembered)]))

    def _beginning(self, count: int) -> Floats:
        """The state of `count` charts before the first point: average and count, sums, or the last points."""
        return np.zeros((count, RUN - 1 if self.chart == "western electric" else 2))

    def _next(self, remembered: Floats, point: Floats) -> Floats:
        """The state of each chart after one more point; shapes [m, ...] and [m]."""
        if self.chart == "ewma":
            return np.column_stack([_blend(remembered[:, 0], point, self.weight), remembered[:, 1] + 1])
        if self.chart == "cusum":
            return self._summed(remembered, point)
        if self.chart == "western electric":
            return np.column_stack([remembered[:, 1:], point])
        return remembered

    def _statistic(self, point: Floats, remembered: Floats) -> Floats:
        if self.chart == "ewma":
            average, count = _blend(remembered[:, 0], point, self.weight), remembered[:, 1] + 1
            own = self.weight / (2 - self.weight) * (1 - (1 - self.weight) ** (2 * count))
            return np.abs(average) / np.sqrt(own)
        if self.chart == "cusum":
            return self._summed(remembered, point).max(axis=1)  # type: ignore[no-any-return]
        if self.chart == "western electric":
            return _broken(np.column_stack([np.broadcast_to(remembered, (len(point), RUN - 1)), point]))
        return np.abs(point)

    def _summed(self, sums: Floats, point: Floats) -> Floats:
        """The CUSUM sums above and below the mean, after one more point."""
        return np.maximum(0.0, sums + np.column_stack([point, -point]) - self.slack)


def _process(window: Floats) -> tuple[Floats, Floats]:
    first = window[:, 0]
    rest = window - first[:, None]  # what is constant has no rounding error then
    return first + rest.mean(axis=1), np.abs(np.diff(rest, axis=1)).mean(axis=1) / MOVING_RANGE


def _standardised(amount: Floats, mean: Floats, sigma: Floats) -> Floats:
    distance = amount - mean
    return np.sign(distance) * ratio(np.abs(distance), np.broadcast_to(sigma, distance.shape))


def _blend(average: Floats, point: Floats, weight: float) -> Floats:
    return weight * point + (1 - weight) * average


def _broken(points: Floats) -> Floats:
    """How many of the Western Electric rules the last of RUN points breaks. Shape [m]."""
    broken = np.abs(points[:, -1]) > 3
    count = broken.astype(np.float64)
    for side in (points, -points):
        count += (side[:, -1] > 2) & ((side[:, -3:] > 2).sum(axis=1) >= 2)
        count += (side[:, -1] > 1) & ((side[:, -5:] > 1).sum(axis=1) >= 4)
        count += (side > 0).all(axis=1)
    return count
