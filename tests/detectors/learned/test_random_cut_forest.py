"""The random cut forest."""

import numpy as np
import pytest
from learned_tables import tables

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.random_cut_forest import CutTree, RandomCutForest, _depth


def depth_of_insertion(tree: CutTree, row: Floats, rng: np.random.Generator) -> float:
    """Where one random insertion parts the row from the others: Guha and others' way, cut by cut."""
    node, depth, columns = 0, 0.0, len(row)
    while True:
        low, high = tree.low.reshape(-1, columns)[node], tree.high.reshape(-1, columns)[node]
        wide = np.maximum(high, row) - np.minimum(low, row)
        if wide.sum() == 0:
            return depth + 1 + float(np.log2(tree.mass[node]))
        ends = np.cumsum(wide)
        drawn = rng.random() * ends[-1]
        column = int(np.searchsorted(ends, drawn, side="right"))
        cut = np.minimum(low, row)[column] + drawn - (ends[column - 1] if column else 0.0)
        if not low[column] <= cut < high[column]:
            return depth
        node = int(tree.below[node] if row[tree.feature[node]] <= tree.limit[node] else tree.above[node])
        depth += 1


def test_the_depth_is_that_of_random_insertions_in_the_mean() -> None:
    """Computed without drawing anything; within four standard errors of 2,000 insertions."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(60, 3))
    tree = CutTree.grown(rows, rng)
    for row in (np.zeros(3), np.array([3.0, 0.0, 0.0]), np.array([5.0, -5.0, 5.0]), rows[7]):
        drawn = [depth_of_insertion(tree, row, rng) for _ in range(2000)]
        error = np.std(drawn) / np.sqrt(len(drawn))
        assert _depth(tree, row[None, :])[0] == pytest.approx(np.mean(drawn), abs=4 * error + 1e-12)


def test_a_tree_parts_all_rows_that_differ() -> None:
    """Each row ends in a leaf of its own value; the same rows share one."""
    rows = np.repeat(np.random.default_rng(2).normal(size=(20, 2)), 3, axis=0)
    tree = CutTree.grown(rows, np.random.default_rng(3))
    leaves = np.flatnonzero(tree.below == np.arange(len(tree.below)))
    assert len(leaves) == 20
    assert (tree.mass[leaves] == 3).all()
    np.testing.assert_array_equal(tree.low.reshape(-1, 2)[leaves], tree.high.reshape(-1, 2)[leaves])
    assert (_depth(tree, rows) > np.log2(3) + 1).all()


def test_as_many_new_rows_are_flagged_as_were_asked_for() -> None:
    """Rows are scored by trees that have not seen them, so new rows of the same kind score alike."""
    rng = np.random.default_rng(4)
    detector = RandomCutForest(contamination=0.05).fit(rng.normal(size=(2000, 4)))
    assert 0.03 <= (detector.predict(rng.normal(size=(4000, 4))) == -1).mean() <= 0.07


def test_it_finds_what_is_odd() -> None:
    """The odd rows of a table are those with the highest scores."""
    train, _ = tables()
    detector = RandomCutForest(contamination=0.01).fit(train)
    assert set(np.argsort(detector.score_samples(train))[:4].tolist()) <= set(range(6))
