"""The half-space trees are river's."""

from typing import Any

import numpy as np
from learned_tables import tables
from river.anomaly import HalfSpaceTrees as RiverTrees
from sklearn.preprocessing import MinMaxScaler

from peerwatch.detectors.learned.half_space_trees import HalfSpaceTrees


def test_half_space_trees_are_those_of_river() -> None:
    """The same scores of rows scaled to their range."""
    train, test = tables()
    ours = HalfSpaceTrees(trees=6, height=5, seed=3).fit(train)
    limits: Any = dict.fromkeys(range(5), (-0.5, 1.5))
    theirs: Any = RiverTrees(n_trees=6, height=5, window_size=len(train), limits=limits, seed=3)
    scaler = MinMaxScaler().fit(train)
    for row in scaler.transform(train).tolist():
        theirs.learn_one(dict(enumerate(row)))
    expected = [theirs.score_one(dict(enumerate(row))) for row in scaler.transform(test).tolist()]
    np.testing.assert_allclose(-ours.score_samples(test), expected, rtol=0, atol=1e-12)
