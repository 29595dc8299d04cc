"""The detector `isolation_forest`."""

from typing import Any, ClassVar

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.base import check_whole, expect
from peerwatch.detectors.learned.saved_estimator import SavedEstimator


class IsolationForest(SavedEstimator):
    """Flags rows that random splits isolate early (Liu, Ting and Zhou, 2008): scikit-learn's `IsolationForest`."""

    name: ClassVar[str] = "isolation_forest"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.ensemble", "skops.io")
    unlisted: ClassVar[tuple[str, ...]] = ("sklearn.tree._tree.Tree",)

    def __init__(self, *, trees: int = 100, contamination: float = 0.01, seed: int = 1) -> None:
        self.trees = trees
        self.contamination = contamination
        self.seed = seed

    def check(self) -> None:
        """Check the numbers, and that the libraries are installed."""
        super().check()
        check_whole(self.name, 1, trees=self.trees)
        check_whole(self.name, 0, seed=self.seed)

    def _scaling(self, rows: Floats) -> tuple[Floats, Floats]:
        """No scaling, as to trees only the order matters; but centred, as 32-bit floats are blind to small differences.

        A column of times in seconds has one distinct value otherwise.
        """
        return np.median(rows, axis=0), np.ones(rows.shape[1])

    def _made(self) -> Any:
        return self._module("sklearn.ensemble").IsolationForest(n_estimators=self.trees, random_state=self.seed)

    def _expect_whole(self, model: Any, columns: int) -> None:
        expect(len(model.estimators_) == self.trees, "its trees")
        for each in model.estimators_:
            tree = each.tree_
            expect(tree.node_count == tree.capacity and tree.n_features == columns, "a tree")
            inner = np.flatnonzero(tree.children_left != -1)  # any other number is followed, wherever it leads
            for children in (tree.children_left[inner], tree.children_right[inner]):
                expect(bool(((inner < children) & (children < tree.node_count)).all()), "a tree's branches")
            expect(bool(((tree.feature[inner] >= 0) & (tree.feature[inner] < columns)).all()), "a tree's columns")
