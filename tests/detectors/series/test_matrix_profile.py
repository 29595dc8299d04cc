"""The left matrix profile."""

import numpy as np
import pytest

from peerwatch.detectors.base import Floats
from peerwatch.detectors.series.matrix_profile import MatrixProfile
from peerwatch.errors import BadInput


def profile(values: Floats, length: int) -> Floats:
    """The distance of each stretch to the nearest one that ends before it begins, by comparing all."""
    found = np.full(len(values), np.nan)
    for end in range(2 * length - 1, len(values)):
        own = values[end - length + 1 : end + 1]
        found[end] = min(
            np.sqrt(((own - values[other - length + 1 : other + 1]) ** 2).sum())
            for other in range(length - 1, end - length + 1)
        )
    return found


@pytest.mark.parametrize("length", [2, 5])
def test_scores_are_distances_in_medians_of_those_before(length: int) -> None:
    """Along a series, against comparing every stretch with every other."""
    values = np.random.default_rng(1).normal(size=120)
    distances, scores = profile(values, length), MatrixProfile(length=length).along(values)
    begin = 2 * length - 1
    assert np.isnan(scores[: begin + 1]).all()
    for end in range(begin + 1, len(values)):
        usual = np.sort(distances[begin:end])[(end - begin) // 2]
        assert scores[end] == pytest.approx(distances[end] / usual)


def test_windows_are_judged_like_series() -> None:
    """The distance of the last stretch, in medians of the window's own."""
    values, length = np.random.default_rng(2).normal(size=60), 6
    detector = MatrixProfile(length=length)
    score, _, _ = detector.judge(np.array([0, 59]), values[:59], values[59:])
    distances = profile(values, length)
    assert score[0] == pytest.approx(distances[59] / np.median(distances[2 * length - 1 : 59]))


def test_a_shape_that_never_was_is_flagged() -> None:
    """A flat stretch in a sawtooth, though each of its values is usual."""
    values = np.tile(np.arange(10.0), 40) + np.random.default_rng(3).normal(0, 0.05, 400)
    values[300:310] = 5.0
    scores = MatrixProfile().along(values)
    assert 303 <= int(np.nanargmax(scores)) <= 317
    assert (scores[100:300] < 4).all()


def test_a_stretch_has_a_length() -> None:
    """Of two values at least."""
    with pytest.raises(BadInput, match='"length" is 1; expected a whole number from 2'):
        MatrixProfile(length=1).check()
