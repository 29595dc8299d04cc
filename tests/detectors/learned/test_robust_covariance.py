"""The robust distance is scikit-learn's, and has an answer where that has none."""

import numpy as np
import pytest
from sklearn.covariance import MinCovDet
from sklearn.preprocessing import StandardScaler

from peerwatch.detectors.learned.robust_covariance import RobustCovariance


@pytest.mark.parametrize(("rows", "columns"), [(200, 1), (200, 3), (900, 4)])
def test_the_distance_is_that_of_scikit_learn(rows: int, columns: int) -> None:
    """Where the ridge is next to nothing, and all rows are looked at."""
    rng = np.random.default_rng(1)
    train, test = rng.normal(10, 3, (rows, columns)), rng.normal(10, 9, (50, columns))
    train[: rows // 10] += 30
    scaler = StandardScaler().fit(train)
    theirs = MinCovDet(random_state=1).fit(scaler.transform(train))
    ours = RobustCovariance(ridge=1e-9, rows=1000).fit(train)
    np.testing.assert_allclose(-ours.score_samples(test), theirs.mahalanobis(scaler.transform(test)), rtol=1e-5)


def test_what_lies_far_outside_does_not_hide_itself() -> None:
    """A third of the rows far away: each of them is farther than any other."""
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(300, 2))
    rows[:100] += 20
    scores = RobustCovariance().fit(rows).decision_scores_
    assert scores[:100].min() > scores[100:].max()


def test_a_column_that_most_rows_have_in_common_counts() -> None:
    """The few that differ in it are farthest, though the spread of the others is 0."""
    rng = np.random.default_rng(3)
    rows = np.column_stack([rng.normal(size=300), np.zeros(300)])
    rows[:3, 1] = 1
    assert set(np.argsort(RobustCovariance().fit(rows).decision_scores_)[-3:]) == {0, 1, 2}


def test_a_half_sought_among_a_few_rows_is_sought_among_all() -> None:
    """Where the densest half is plain it is the same one, whatever rows are drawn."""
    rng = np.random.default_rng(4)
    rows = np.vstack([rng.normal(size=(900, 3)), rng.normal(9, 5, (300, 3))])
    among_all = RobustCovariance(rows=2000).fit(rows).decision_scores_
    for seed in (1, 2):
        np.testing.assert_allclose(RobustCovariance(rows=100, seed=seed).fit(rows).decision_scores_, among_all)
