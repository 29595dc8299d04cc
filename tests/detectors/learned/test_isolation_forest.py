"""The isolation forest is scikit-learn's, and a saved one runs nothing."""

import sys

import numpy as np
import pytest
from learned_tables import tables
from sklearn.ensemble import IsolationForest as Forest
from sklearn.svm import OneClassSVM

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.isolation_forest import IsolationForest
from peerwatch.errors import BadInput


def test_an_isolation_forest_is_that_of_scikit_learn() -> None:
    """The same scores and flags, of new rows and of those it learned from, when its columns are centred as well."""
    train, test = tables()
    ours = IsolationForest(contamination=0.02, seed=7).fit(train)
    middle = np.median(train, axis=0)
    theirs = Forest(contamination=0.02, random_state=7).fit(train - middle)
    np.testing.assert_array_equal(ours.score_samples(test), theirs.score_samples(test - middle))
    np.testing.assert_array_equal(ours.predict(test), theirs.predict(test - middle))
    np.testing.assert_array_equal(ours.fit_predict(train), theirs.predict(train - middle))


def bent(train: Floats, **fields: int) -> Forest:
    """A forest of three whose first tree's root is not what it was: compiled code would follow it anywhere."""
    forest = Forest(n_estimators=3, random_state=1).fit(train)
    state = forest.estimators_[0].tree_.__getstate__()
    for field, value in fields.items():
        state["nodes"][field][0] = value
    forest.estimators_[0].tree_.__setstate__(state)
    return forest


def test_a_saved_estimator_is_made_of_known_types_alone() -> None:
    """Another estimator, another's parameters, a function, a broken tree: refused, and none is called."""
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    train, _ = tables()
    kept = IsolationForest(trees=3).fit(train).arrays()
    for strange, sentence in (
        (Forest(n_estimators=4, random_state=1).fit(train), "another model"),
        (Forest(n_estimators=3, random_state=1).fit(train[:, :2]), "its columns"),
        (OneClassSVM().fit(train), "another model"),
        (FunctionTransformer(sys.exit), "objects of sys.exit"),
        (bent(train, left_child=0), "a tree's branches"),
        (bent(train, left_child=-5), "a tree's branches"),
        (bent(train, right_child=10**6), "a tree's branches"),
        (bent(train, feature=5), "a tree's columns"),
    ):
        model = np.frombuffer(skops.io.dumps(strange), np.uint8)
        with pytest.raises(BadInput, match=sentence):
            IsolationForest(trees=3).restore(kept | {"model": model})


@pytest.mark.parametrize("offset", [0.0, 1e9, -1.7e12])
def test_a_large_offset_does_not_blind_it(offset: float) -> None:
    """Where 32-bit floats cannot tell the rows from each other, the odd one still scores highest."""
    rows = np.random.default_rng(6).normal(0, 2, (500, 1))
    rows[123] = 25.0
    scores = -IsolationForest(trees=50).fit(rows + offset).score_samples(rows + offset)
    assert np.argmax(scores) == 123
    assert len(np.unique(scores)) > 100


def test_times_in_seconds_have_scores_of_their_own() -> None:
    """Unix seconds beside an amount: neither is one value."""
    times = 1_767_225_600 + np.arange(400.0)
    scores = -IsolationForest(trees=50).fit(times[:, None]).score_samples(times[:, None])
    assert len(np.unique(scores)) > 100
