"""The detector `half_space_trees`."""

from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.base import check_whole
from peerwatch.detectors.learned.saved_rows import SavedRows
from peerwatch.kernels import Int64s

BESIDE: Final = 0.5
"""How far half-space trees reach beyond the rows they were fitted on, as a share of the range."""


class HalvingTree(NamedTuple):
    """One of river's half-space trees as columns, the root first. A leaf's children are itself."""

    feature: Int64s
    limit: Floats
    below: Int64s
    above: Int64s
    mass: Floats

    @classmethod
    def of(cls, root: Any) -> "HalvingTree":
        """The tree that begins at `root`, as columns."""
        nodes = [*root.iter_dfs()]
        place = {id(node): number for number, node in enumerate(nodes)}
        children = [
            [place[id(child)] for child in node.children] if hasattr(node, "children") else [number, number]
            for number, node in enumerate(nodes)
        ]
        below, above = np.array(children, np.int64).T
        feature = np.array([getattr(node, "feature", 0) for node in nodes], np.int64)
        limit = np.array([getattr(node, "threshold", 0.0) for node in nodes])
        return cls(feature, limit, below, above, np.array([node.r_mass for node in nodes], np.float64))

    def mass_of(self, rows: Floats, least: float) -> Floats:
        """The mass on each row's path from the root, which ends where less than `least` is left. Shape [n]."""
        at, going, weight = np.zeros(len(rows), np.int64), np.arange(len(rows)), 1.0
        total = np.zeros(len(rows))
        while len(going):
            mass = self.mass[at]
            total[going] += weight * mass
            on = (mass >= least) & (self.below[at] != at)
            going, at, weight = going[on], at[on], 2 * weight
            at = np.where(rows[going, self.feature[at]] < self.limit[at], self.below[at], self.above[at])
        return total


class HalfSpaceTrees(SavedRows):
    """Flags rows where few others fell in random halvings of space (Tan, Ting and Liu, 2011): river's `HalfSpaceTrees`.

    The rows it learns from are one window of its; space reaches half their range beyond them in each column.
    """

    name: ClassVar[str] = "half_space_trees"
    modules: ClassVar[tuple[str, ...]] = ("river.anomaly",)

    def __init__(self, *, trees: int = 25, height: int = 8, contamination: float = 0.01, seed: int = 1) -> None:
        self.trees = trees
        self.height = height
        self.contamination = contamination
        self.seed = seed

    def check(self) -> None:
        """Check the numbers, and that the library is installed."""
        super().check()
        check_whole(self.name, 1, trees=self.trees, height=self.height)
        check_whole(self.name, 0, seed=self.seed)

    def _scaling(self, rows: Floats) -> tuple[Floats, Floats]:
        """Scale columns by their ranges, because trees halve ranges."""
        low = rows.min(axis=0)
        wide = rows.max(axis=0) - low
        return low, np.where(wide > 0, wide, 1.0)

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        forest = self._module("river.anomaly").HalfSpaceTrees(
            n_trees=self.trees,
            height=self.height,
            window_size=len(rows),
            limits=dict.fromkeys(range(rows.shape[1]), (-BESIDE, 1 + BESIDE)),
            seed=self.seed,
        )
        for row in rows.tolist():
            forest.learn_one(dict(enumerate(row)))
        model = [HalvingTree.of(tree) for tree in forest.trees], rows
        return model, self._score(model, rows)

    def _score(self, model: Any, rows: Floats) -> Floats:
        """River's `score_one` for all rows at once: the mass of each node on the way down, doubled at each level.

        Masses are whole numbers, so their sum is the same in any order.
        """
        trees, learned = model
        mass = np.zeros(len(rows))
        for tree in trees:
            mass += tree.mass_of(rows, 0.1 * len(learned))
        return 1 - mass / (self.trees * len(learned) * (2 ** (self.height + 1) - 1))  # type: ignore[no-any-return]
