"""Tails by the empirical distribution, by the definitions of ECOD and COPOD."""

import numpy as np
import pytest
from learned_tables import tables

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.empirical_tails import Copod, Ecod, EmpiricalTails


def defined(rows: Floats, kind: type[EmpiricalTails]) -> Floats:
    """The scores of all rows among each other, counted pair by pair."""
    total = np.zeros(len(rows))
    for column in rows.T:
        left = -np.log((column[None, :] <= column[:, None]).mean(axis=1))
        right = -np.log((column[None, :] >= column[:, None]).mean(axis=1))
        skew = np.sign(np.power(column - column.mean(), 3).mean())
        longer = {-1: left, 0: left + right, 1: right}[int(skew)]
        total += np.maximum(left, right) if kind is Ecod else np.maximum(longer, (left + right) / 2)
    return total


@pytest.mark.parametrize("kind", [Ecod, Copod])
def test_scores_are_those_of_the_definition(kind: type[EmpiricalTails]) -> None:
    """Of the rows it learns from, which score the same when they come again."""
    train, _ = tables()
    detector = kind().fit(train)
    np.testing.assert_allclose(detector.decision_scores_, defined(train, kind))
    np.testing.assert_array_equal(-detector.score_samples(train), detector.decision_scores_)


@pytest.mark.parametrize("kind", [Ecod, Copod])
def test_outside_the_range_the_score_grows_with_the_distance(kind: type[EmpiricalTails]) -> None:
    """On both sides, from the farthest rows that it has learned from on."""
    detector = kind().fit(np.random.default_rng(1).exponential(size=(90, 1)))
    for sign in (1, -1):
        scores = -detector.score_samples(sign * np.array([[20.0], [21], [1e3], [1e30]]))
        assert (np.diff(scores) > 0).all()
        assert np.isfinite(scores).all()
