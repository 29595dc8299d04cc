"""The detector `hbos`, a histogram a column."""

from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.base import Arrays, Learned, check_whole, expect, finite_floats

LEAST_DENSITY: Final = 0.1
"""Added to each density, so that an empty bin has a logarithm; PyOD's `alpha`."""

NARROW: Final = 1e-9
"""A range below this share of the values is none: it could not be cut into bins."""


class Histograms(NamedTuple):
    """The edges and the scores of each column's bins. Shapes [columns, bins + 1] and [columns, bins]."""

    edges: Floats
    scores: Floats


class Hbos(Learned):
    """Flags rows that are rare column by column (Goldstein and Dengel, 2012): sums of -log2 of a histogram's density.

    In each column the range of the training rows is cut into `bins` of equal width. A value outside counts as in an
    empty bin, and more with its distance. As PyOD's `HBOS` for the rows it learns from.
    """

    name: ClassVar[str] = "hbos"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.preprocessing",)

    def __init__(self, *, bins: int = 10, contamination: float = 0.01) -> None:
        self.bins = bins
        self.contamination = contamination

    def check(self) -> None:
        """Check the numbers, and that the library is installed."""
        super().check()
        check_whole(self.name, 1, bins=self.bins)

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        edges = np.array([_edges(column, self.bins) for column in rows.T])
        pairs = zip(rows.T, edges, strict=True)
        density = np.array([np.histogram(column, of, density=True)[0] for column, of in pairs])
        model = Histograms(edges, -np.log2(density + LEAST_DENSITY))
        return model, self._score(model, rows)

    def _score(self, model: Any, rows: Floats) -> Floats:
        total = np.zeros(len(rows))
        with np.errstate(all="ignore"):  # restored numbers may be anything
            for column, edges, scores in zip(rows.T, *model, strict=True):
                place = np.searchsorted(edges, column) - 1  # an edge belongs to the bin below it
                beyond = np.maximum(edges[0] - column, column - edges[-1]) / (edges[1] - edges[0])
                far = np.log2(1 + np.maximum(beyond, 0)) - np.log2(LEAST_DENSITY)
                total += np.where(beyond > 0, far, scores[np.clip(place, 0, self.bins - 1)])
        return total

    def _kept(self, model: Any) -> Arrays:
        return model._asdict()  # type: ignore[no-any-return]

    def _revived(self, arrays: Arrays, columns: int) -> Any:
        model = Histograms(*(finite_floats(arrays[name], 2) for name in Histograms._fields))
        expect(len(arrays) == len(Histograms._fields), "its histograms")
        expect(model.edges.shape == (columns, self.bins + 1) and bool((np.diff(model.edges) > 0).all()), "its edges")
        expect(model.scores.shape == (columns, self.bins), "its scores")
        return model


def _edges(column: Floats, bins: int) -> Floats:
    """Edges of bins of equal width from the least to the largest value, around it if there is but one."""
    low, high = float(column.min()), float(column.max())
    size = max(1.0, abs(low), abs(high))
    around = size / 2 if high - low < NARROW * size else 0.0
    return np.linspace(low - around, high + around, bins + 1)
