"""The local outlier factor is scikit-learn's."""

import numpy as np
from learned_tables import tables
from sklearn.neighbors import LocalOutlierFactor as Factor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from peerwatch.detectors.learned.local_outlier_factor import LocalOutlierFactor


def test_a_local_outlier_factor_is_that_of_scikit_learn() -> None:
    """The same scores and flags, of new rows and of those it learned from."""
    train, test = tables()
    ours = LocalOutlierFactor(neighbours=15, contamination=0.02).fit(train)
    kind = Factor(15, contamination=0.02, novelty=True, algorithm="kd_tree")
    theirs = make_pipeline(StandardScaler(), kind).fit(train)
    np.testing.assert_array_equal(ours.score_samples(test), theirs.score_samples(test))
    np.testing.assert_array_equal(ours.predict(test), theirs.predict(test))
    looking_back = make_pipeline(StandardScaler(), Factor(15, contamination=0.02, algorithm="kd_tree"))
    np.testing.assert_array_equal(ours.fit_predict(train), looking_back.fit_predict(train))


def test_equal_rows_do_not_count_as_all_neighbours() -> None:
    """A value that is there more often than there are neighbours makes nothing beside it an outlier."""
    rng = np.random.default_rng(3)
    rows = np.concatenate([np.full(30, 0.1), rng.uniform(0, 100, 200), [0.105], 300 + 40 * np.arange(8.0)])[:, None]
    scores = -LocalOutlierFactor().fit(rows).score_samples(rows)
    assert set(np.argsort(-scores)[:8]) == set(range(231, 239))
    assert scores[230] < 2
    assert len(np.unique(LocalOutlierFactor().fit(rows).decision_scores_[:30])) == 1


def test_rows_that_all_are_equal_have_a_score() -> None:
    """There is no neighbour that differs."""
    fitted = LocalOutlierFactor().fit(np.full((9, 2), 3.0))
    assert np.isfinite(fitted.decision_scores_).all()
    assert np.isfinite(fitted.score_samples(np.array([[3.0, 3.0], [4.0, 3.0]]))).all()
