"""Control charts agree with their textbooks."""

import numpy as np
import pytest

from peerwatch.detectors.base import Floats
from peerwatch.detectors.control_charts import Spc


def test_the_individuals_chart_of_a_textbook() -> None:
    """Montgomery's viscosities (2009, table 6.6): mean 33.52, mean moving range 0.48, limits 34.80 and 32.24."""
    viscosity = [
        33.75,
        33.05,
        34.00,
        33.81,
        33.46,
        34.02,
        33.68,
        33.27,
        33.49,
        33.20,
        33.62,
        33.00,
        33.54,
        33.12,
        33.84,
    ]
    rule = Spc().fit(np.array(viscosity)[:, None])
    decisions = rule.decision_function(np.array([[34.79], [34.81], [32.25], [32.23]]))
    assert (decisions > 0).tolist() == [True, False, True, False]


def plain_ewma(points: Floats, weight: float) -> list[float]:
    """The chart's statistics, step by step."""
    average, found = 0.0, []
    for count, point in enumerate(points, 1):
        average = weight * point + (1 - weight) * average
        found.append(abs(average) / np.sqrt(weight / (2 - weight) * (1 - (1 - weight) ** (2 * count))))
    return found


def plain_cusum(points: Floats, slack: float) -> list[float]:
    """The chart's statistics, step by step."""
    above = below = 0.0
    found = []
    for point in points:
        above, below = max(0.0, above + point - slack), max(0.0, below - point - slack)
        found.append(max(above, below))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_ewma_and_cusum_are_their_recursions(seed: int) -> None:
    """Along a series as in a loop, and judging a window's next point as the loop's last step."""
    series = np.random.default_rng(seed).normal(10, 2, 40)
    sigma = np.abs(np.diff(series)).mean() / 1.128
    points = (series - series.mean()) / sigma
    ewma, cusum = Spc(chart="ewma"), Spc(chart="cusum")
    np.testing.assert_allclose(ewma.along(series), plain_ewma(points, 0.2), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(cusum.along(series), plain_cusum(points, 0.5), rtol=1e-9, atol=1e-9)
    nexts = np.append(points, (25.0 - series.mean()) / sigma)
    one = (np.array([0, 40]), series, np.array([25.0]))
    np.testing.assert_allclose(ewma.judge(*one).score, plain_ewma(nexts, 0.2)[-1], rtol=1e-9)
    np.testing.assert_allclose(cusum.judge(*one).score, plain_cusum(nexts, 0.5)[-1], rtol=1e-9)


@pytest.mark.parametrize(
    ("last", "broken"),
    [
        ([0.0, 0, 0, 0, 0, 0, 0, 3.5], 1),
        ([0.0, 0, 0, 0, 0, 2.5, 0, 2.5], 1),
        ([0.0, 0, 0, -1.5, -1.5, 0, -1.5, -1.5], 1),
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], 1),
        ([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, -0.5, 0.5], 0),
        ([2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5, 3.5], 4),
        ([0.0, 0, 0, 0, 0, 2.5, 2.5, 0], 0),
    ],
)
def test_each_western_electric_rule(last: list[float], broken: int) -> None:
    """Each is broken by its own pattern, and only by a point that is part of it."""
    base = np.tile([1.0, -1.0], 300) * 1.128 / 2  # mean 0, and moving ranges of one sigma
    chart = Spc(chart="western electric").fit(base[:, None])
    mean, sigma, _ = chart.summary_
    np.testing.assert_allclose([mean[0], sigma[0]], [0, 1], atol=1e-9)
    summary = (mean, sigma, np.array([last[:-1]]))
    assert chart.score_amounts(summary, np.array(last[-1:])).tolist() == [broken]
