"""The one-class SVM is scikit-learn's."""

import numpy as np
from learned_tables import tables
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from peerwatch.detectors.learned.one_class_svm import OneClassSvm


def test_a_one_class_svm_is_that_of_scikit_learn() -> None:
    """The same scores; flagged is what scores above the training rows' quantile."""
    train, test = tables()
    ours = OneClassSvm(nu=0.1, contamination=0.02).fit(train)
    theirs = make_pipeline(StandardScaler(), OneClassSVM(nu=0.1)).fit(train)
    np.testing.assert_array_equal(ours.score_samples(test), theirs.score_samples(test))
    least = np.percentile(theirs.score_samples(train), 2)
    np.testing.assert_array_equal(ours.predict(test) == -1, theirs.score_samples(test) < least)
