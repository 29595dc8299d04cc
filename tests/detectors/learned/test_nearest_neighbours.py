"""The distance to the k-th nearest neighbour is scikit-learn's."""

import numpy as np
from learned_tables import tables
from sklearn.neighbors import NearestNeighbors as Neighbours
from sklearn.preprocessing import StandardScaler

from peerwatch.detectors.learned.nearest_neighbours import NearestNeighbours


def test_the_distance_is_that_of_scikit_learn() -> None:
    """Of new rows to those it learned from, and of those to each other, without themselves."""
    train, test = tables()
    ours = NearestNeighbours(neighbours=4).fit(train)
    scaler = StandardScaler().fit(train)
    theirs = Neighbours(n_neighbors=4, algorithm="kd_tree").fit(scaler.transform(train))
    np.testing.assert_array_equal(-ours.score_samples(test), theirs.kneighbors(scaler.transform(test))[0][:, 3])
    np.testing.assert_array_equal(ours.decision_scores_, theirs.kneighbors()[0][:, 3])


def test_fewer_rows_than_neighbours_are_all_looked_at() -> None:
    """The last is the farthest of them."""
    detector = NearestNeighbours(neighbours=50).fit(np.array([[0.0], [1], [3]]))
    np.testing.assert_allclose(detector.decision_scores_ * detector.scale_, [3, 2, 3])
