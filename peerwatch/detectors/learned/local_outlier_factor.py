"""The detector `lof`, the local outlier factor."""

from typing import Any, ClassVar

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.neighbours import Neighbours


class LocalOutlierFactor(Neighbours):
    """Flags rows in thinner places than their neighbours (Breunig et al., 2000): scikit-learn's `LocalOutlierFactor`.

    `neighbours` at most are looked at. The rows it learns from are scored without themselves. Of equal rows at most
    half as many count as there are neighbours: if all neighbours of a row were equal to it, its density would be
    infinite, and whatever lies beside it would stand out more than any true outlier.
    """

    name: ClassVar[str] = "lof"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.neighbors",)

    def __init__(self, *, neighbours: int = 20, contamination: float = 0.01) -> None:
        self.neighbours = neighbours
        self.contamination = contamination

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        kind = self._module("sklearn.neighbors").LocalOutlierFactor
        distinct, place, count = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
        count = np.minimum(count, max(1, self.neighbours // 2))
        if len(distinct) == 1:
            count += 1  # a row has to have a neighbour
        kept, first = np.repeat(distinct, count, axis=0), np.cumsum(count) - count
        neighbours = min(self.neighbours, len(kept) - 1)
        model = kind(neighbours, algorithm="kd_tree", novelty=True)  # distances by brute force depend on the batch
        return (model.fit(kept), rows), -model.negative_outlier_factor_[first[place.ravel()]]

    def _score(self, model: Any, rows: Floats) -> Floats:
        return -model[0].score_samples(rows)  # type: ignore[no-any-return]
