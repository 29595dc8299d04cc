"""The detector `random_cut_forest`."""

import math
from typing import Any, ClassVar, NamedTuple

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.base import check_whole
from peerwatch.detectors.learned.saved_rows import SavedRows
from peerwatch.kernels import Float64s, Int64s, kernel


class CutTree(NamedTuple):
    """A tree of random cuts as columns, the root first. A leaf's children are itself.

    `low` and `high` have the bounds of the rows below each node, one node after the other.
    """

    feature: Int64s
    limit: Floats
    below: Int64s
    above: Int64s
    mass: Floats
    low: Floats
    high: Floats

    @classmethod
    def grown(cls, rows: Floats, rng: np.random.Generator) -> "CutTree":
        """Cut rows until all that are left together are the same.

        A cut falls anywhere in the columns' ranges laid end to end, so wide columns are cut more often.
        """
        nodes = 2 * len(rows) - 1
        feature, below, above = (np.zeros(nodes, np.int64) for _ in range(3))
        limit, mass = np.zeros(nodes), np.zeros(nodes)
        low, high = np.zeros((nodes, rows.shape[1])), np.zeros((nodes, rows.shape[1]))
        waiting, used = [(0, np.arange(len(rows)))], 1
        while waiting:
            node, inside = waiting.pop()
            members = rows[inside]
            low[node], high[node], mass[node] = members.min(axis=0), members.max(axis=0), len(inside)
            below[node] = above[node] = node
            ends = np.cumsum(high[node] - low[node])
            if not ends[-1] > 0:
                continue
            drawn = rng.random() * ends[-1]
            column = int(np.searchsorted(ends, drawn, side="right"))
            cut = low[node, column] + drawn - (ends[column - 1] if column else 0.0)
            cut = min(max(cut, low[node, column]), np.nextafter(high[node, column], -np.inf))  # rounding moves it
            feature[node], limit[node] = column, cut
            under = members[:, column] <= cut
            below[node], above[node] = used, used + 1
            waiting += [(used, inside[under]), (used + 1, inside[~under])]
            used += 2
        return cls(
            feature[:used], limit[:used], below[:used], above[:used], mass[:used], low[:used].ravel(),
            high[:used].ravel(),
        )  # fmt: skip


class RandomCutForest(SavedRows):
    """Flags rows that random cuts would soon part from all others, were they added (Guha et al., 2016).

    Each of the trees is grown from `sample` rows, at most half of all. Unlike those of an isolation forest, its cuts
    fall into wide columns more often, and also beyond the rows that a tree has seen. At which depth a cut would part a
    row from the others is not drawn, but expected exactly; its mean over the trees is scaled as an isolation forest's.
    A row that was learned from is scored by the trees that have not seen it.
    """

    name: ClassVar[str] = "random_cut_forest"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.preprocessing",)

    def __init__(self, *, trees: int = 50, sample: int = 256, contamination: float = 0.01, seed: int = 1) -> None:
        self.trees = trees
        self.sample = sample
        self.contamination = contamination
        self.seed = seed

    def check(self) -> None:
        """Check the numbers, and that the library is installed."""
        super().check()
        check_whole(self.name, 1, trees=self.trees, sample=self.sample)
        check_whole(self.name, 0, seed=self.seed)

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        rng, size = np.random.default_rng(self.seed), min(self.sample, len(rows) // 2)
        trees, depth, asked = [], np.zeros(len(rows)), np.zeros(len(rows))
        for _ in range(self.trees):
            drawn = rng.permutation(len(rows))
            trees.append(CutTree.grown(rows[drawn[:size]], rng))
            others = drawn[size:]
            depth[others] += _depth(trees[-1], rows[others])
            asked[others] += 1
        return (trees, rows), _isolation(depth / np.maximum(asked, 1), size)

    def _score(self, model: Any, rows: Floats) -> Floats:
        trees, depth = model[0], np.zeros(len(rows))
        for tree in trees:
            depth += _depth(tree, rows)
        return _isolation(depth / len(trees), int(trees[0].mass[0]))


def _isolation(depth: Floats, size: int) -> Floats:
    """Depths in trees of `size` rows as scores: 1 at the root, a half at the mean depth (Liu, Ting and Zhou, 2008)."""
    usual = max(2 * (np.log(size) + np.euler_gamma) - 2 * (size - 1) / size, 1.0)
    return 2.0 ** (-depth / usual)  # type: ignore[no-any-return]


def _depth(tree: CutTree, rows: Floats) -> Floats:
    """The depth at which each row is expected to be parted from a tree's rows. Shape [n]."""
    found = np.zeros(len(rows))
    _part(np.ascontiguousarray(rows).reshape(-1), rows.shape[1], *tree, found)
    return found


@kernel
def _part(
    rows: Float64s, columns: int, feature: Int64s, limit: Float64s, below: Int64s, above: Int64s, mass: Float64s,
    low: Float64s, high: Float64s, found: Float64s,
) -> None:  # fmt: skip
    """For each row, go down the tree: a cut may part it from all rows below a node, the sooner the further it is."""
    for i in range(len(found)):
        node, left, depth, expected = 0, 1.0, 0.0, 0.0
        while True:
            outside, inside = 0.0, 0.0
            for column in range(columns):
                value, at = rows[i * columns + column], node * columns + column
                inside += high[at] - low[at]
                outside += max(low[at] - value, 0.0) + max(value - high[at], 0.0)
            if outside > 0.0:
                parted = outside / (outside + inside)
                expected += left * parted * depth
                left *= 1.0 - parted
            if below[node] == node:
                break
            node = below[node] if rows[i * columns + feature[node]] <= limit[node] else above[node]
            depth += 1.0
        found[i] = expected + left * (depth + 1.0 + math.log2(mass[node]))  # the same as a leaf's rows
