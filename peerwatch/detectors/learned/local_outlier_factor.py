"""The detector `lof`, the local outlier factor."""

from typing import Any, ClassVar

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.base import check_whole
from peerwatch.detectors.learned.saved_rows import SavedRows


class LocalOutlierFactor(SavedRows):
    """Flags rows in thinner places than their neighbours (Breunig et al., 2000): scikit-learn's `LocalOutlierFactor`.

    `neighbours` at most are looked at. The rows it learns from are scored without themselves. Equal rows count as one:
    where a row is there more often than `neighbours`, its density would be infinite, and whatever lies beside it would
    stand out more than any true outlier.
    """

    name: ClassVar[str] = "lof"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.neighbors",)

    def __init__(self, *, neighbours: int = 20, contamination: float = 0.01) -> None:
        self.neighbours = neighbours
        self.contamination = contamination

    def check(self) -> None:
        """Check the numbers, and that the libraries are installed."""
        super().check()
        check_whole(self.name, 1, neighbours=self.neighbours)

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        kind = self._module("sklearn.neighbors").LocalOutlierFactor
        distinct, place = np.unique(rows, axis=0, return_inverse=True)
        if len(distinct) == 1:
            distinct = np.repeat(distinct, 2, axis=0)  # a row has to have a neighbour
        neighbours = min(self.neighbours, len(distinct) - 1)
        model = kind(neighbours, algorithm="kd_tree", novelty=True)  # distances by brute force depend on the batch
        return (model.fit(distinct), rows), -model.negative_outlier_factor_[place.ravel()]

    def _score(self, model: Any, rows: Floats) -> Floats:
        return -model[0].score_samples(rows)  # type: ignore[no-any-return]
