"""The rules agree with numpy, scipy and their textbooks."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from peerwatch.detectors.base import Floats, Rule
from peerwatch.detectors.charts import Spc
from peerwatch.detectors.rules import Iqr, Mad, ZScore
from peerwatch.detectors.seasonal import Seasonal

ARRAYS = 10_000


def arrays() -> list[Floats]:
    """10,000 random arrays of 3 to 60 values of several distributions, those of one size together: shape [n, size]."""
    rng = np.random.default_rng(1)
    sizes, counts = np.unique(rng.integers(3, 61, ARRAYS // 4), return_counts=True)
    return [
        np.round(values, 2)
        for size, count in zip(sizes.tolist(), counts.tolist(), strict=True)
        for values in (
            rng.normal(1, 2, (count, size)),
            rng.exponential(2, (count, size)),
            rng.lognormal(1, 2, (count, size)),
            rng.standard_cauchy((count, size)),
        )
    ]


def test_zscore_iqr_and_mad_agree_with_scipy_and_numpy() -> None:
    """On 10,000 random arrays, of which each judges its last value by the others; scipy takes all of a size at once."""
    given = arrays()
    assert sum(map(len, given)) == ARRAYS
    for same in given:
        others, x = same[:, :-1], same[:, -1]
        offsets = np.arange(len(same) + 1) * others.shape[1]
        found = {rule.name: rule.judge(offsets, others.ravel(), x).score for rule in (ZScore(), Iqr(), Mad())}
        spread = np.ptp(others, axis=1) > 0  # without any scipy divides by zero; the contract says what comes then
        with np.errstate(divide="ignore", invalid="ignore"):
            z = abs(stats.zmap(x[spread, None], others[spread], axis=1))[:, 0]
            low, high = np.percentile(others[spread], (25, 75), axis=1)
            fences = np.maximum(np.maximum(low - x[spread], x[spread] - high), 0.0) / stats.iqr(others[spread], axis=1)
            middle, off = np.median(others[spread], axis=1), stats.median_abs_deviation(others[spread], axis=1)
            modified = 0.6745 * abs(x[spread] - middle) / off
        for name, expected in (("zscore", z), ("iqr", fences), ("mad", modified)):
            finite = np.isfinite(expected)
            np.testing.assert_allclose(found[name][spread][finite], expected[finite], rtol=1e-6, atol=1e-12)


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
    assert chart.score(summary, np.array(last[-1:])).tolist() == [broken]


@pytest.mark.parametrize("method", ["stl", "classical"])
@pytest.mark.parametrize("base", [[10.0, 20, 30, 40, 50, 60, 70], [12.34, 9.99, 3.1, 100.7, 5.5, 6.6, 7.7]])
def test_what_goes_on_as_it_always_did_is_normal(method: str, base: list[float]) -> None:
    """A season repeated exactly leaves nothing but rounding, which is no spread to measure by."""
    series = np.array(base * 5)
    rule = Seasonal(method=method)
    offsets = np.array([0, 35, 70])
    _, _, flagged = rule.judge(offsets, np.tile(series, 2), np.array([base[0], base[0] + 5]))
    assert flagged.tolist() == [False, True]
    assert not rule.look_back(series[:, None]).flagged.any()
    line = np.array([1.1 * place for place in range(35)])
    assert rule.judge(np.array([0, 35]), line, np.array([35 * 1.1])).flagged.tolist() == [False]


def test_numbers_of_numpy_are_numbers() -> None:
    """As searches give them."""
    rules: list[tuple[Rule, dict[str, Any]]] = [
        (Mad(), {"k": np.float32(3)}), (Mad(), {"k": np.int64(3)}), (Seasonal(), {"period": np.int64(7)}),
    ]  # fmt: skip
    for rule, parameters in rules:
        rule.set_params(**parameters).check()
