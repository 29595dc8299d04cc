"""The detector `knn`, the distance to the k-th nearest neighbour."""

from typing import Any, ClassVar

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.neighbours import Neighbours


class NearestNeighbours(Neighbours):
    """Flags rows far from their k-th nearest neighbour (Ramaswamy et al., 2000): scikit-learn's `NearestNeighbors`.

    `neighbours` is k. The rows it learns from are no neighbours of themselves.
    """

    name: ClassVar[str] = "knn"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.neighbors",)

    def __init__(self, *, neighbours: int = 5, contamination: float = 0.01) -> None:
        self.neighbours = neighbours
        self.contamination = contamination

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        kind = self._module("sklearn.neighbors").NearestNeighbors
        neighbours = min(self.neighbours, len(rows) - 1)
        model = kind(n_neighbors=neighbours, algorithm="kd_tree").fit(rows)  # brute force depends on the batch
        return (model, rows), model.kneighbors()[0][:, -1]

    def _score(self, model: Any, rows: Floats) -> Floats:
        return model[0].kneighbors(rows)[0][:, -1]  # type: ignore[no-any-return]
