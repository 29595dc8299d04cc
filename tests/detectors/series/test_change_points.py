"""Bayesian online change points."""

import numpy as np
import pytest
from scipy.stats import t as student

from peerwatch.detectors.base import Floats
from peerwatch.detectors.series.change_points import CENTER, LONGEST, SHAPE, ChangePoints
from peerwatch.errors import BadInput


def reference(values: Floats, run: float) -> Floats:
    """Adams and MacKay's recursion as it is written, over all run lengths."""
    found, weights = [np.nan], {1: 1.0}
    for place in range(1, len(values)):
        before, value = values[:place], values[place]
        joint = {0: density(value, before[:0], before) / run}
        for length, weight in weights.items():
            joint[length] = weight * (1 - 1 / run) * density(value, before[place - length :], before)
        total = sum(joint.values())
        weights = {length + 1: each / total for length, each in joint.items()}
        found.append(weights[1])
    return np.array(found)


def density(value: float, run: Floats, before: Floats) -> float:
    """The predictive density after a run, by the normal-inverse-gamma prior around all values before."""
    center, variance, count = before.mean(), max(before.var(), 1e-18 * before.mean() ** 2), len(run)
    worth, shape = CENTER + count, SHAPE + count / 2
    mean = run.mean() if count else center
    scale = SHAPE * variance + ((run - mean) ** 2).sum() / 2 + CENTER * count * (mean - center) ** 2 / (2 * worth)
    located = (CENTER * center + count * mean) / worth
    return float(student.pdf(value, 2 * shape, located, np.sqrt(scale * (worth + 1) / (shape * worth))))


def series(seed: int) -> Floats:
    """Runs of other means and spreads."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(50, 3, 60), rng.normal(90, 3, 30), rng.normal(90, 15, 40)])


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_is_the_recursion_that_was_published(seed: int) -> None:
    """Value by value, as long as no run is longer than those told apart."""
    values = series(seed)
    scores = ChangePoints(run=100).along(values)
    assert np.isnan(scores[:2]).all()
    assert scores[2:] == pytest.approx(reference(values, 100)[2:], rel=1e-6, abs=1e-9)


def test_a_window_and_the_series_give_the_same() -> None:
    """The score of an amount after a window is that of the same value in the series."""
    values = series(4)
    detector = ChangePoints()
    along = detector.along(values)
    for place in (2, 10, 60, 61, 100):
        score, _, _ = detector.judge(np.array([0, place]), values[:place], values[place : place + 1])
        assert score[0] == along[place]


def test_a_change_is_flagged_and_what_follows_is_not() -> None:
    """A new level: its first value is, the level itself is soon normal, however long the runs are."""
    rng = np.random.default_rng(5)
    values = np.concatenate([rng.normal(50, 2, 3 * LONGEST), rng.normal(200, 2, 3 * LONGEST)])
    flagged = np.flatnonzero(ChangePoints().along(values) > 0.5).tolist()
    assert flagged == [3 * LONGEST]


def test_a_run_holds_more_than_one_value() -> None:
    """Otherwise nothing could be learned."""
    with pytest.raises(BadInput, match='change_points: "run" is 1; expected more than 1'):
        ChangePoints(run=1).check()
