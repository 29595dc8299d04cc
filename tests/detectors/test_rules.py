"""The rules agree with numpy and scipy."""

from typing import Any

import numpy as np
from scipy import stats

from peerwatch.detectors.base import Floats, Rule
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


def test_numbers_of_numpy_are_numbers() -> None:
    """As searches give them."""
    rules: list[tuple[Rule, dict[str, Any]]] = [
        (Mad(), {"k": np.float32(3)}), (Mad(), {"k": np.int64(3)}), (Seasonal(), {"period": np.int64(7)}),
    ]  # fmt: skip
    for rule, parameters in rules:
        rule.set_params(**parameters).check()
