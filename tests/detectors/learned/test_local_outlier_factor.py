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
