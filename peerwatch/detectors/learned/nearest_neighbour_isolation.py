"""The detector `inne`, isolation by nearest neighbours."""

from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.base import Arrays, Learned, check_whole, expect, finite_floats

TOGETHER: Final = 64
"""How many rows are scored together: their distances fit into a processor's cache."""


class Balls(NamedTuple):
    """Balls around drawn rows, in samples: in each the smaller ones first, with the score of a row inside.

    Shapes [samples, size, columns], and [samples, size] of squared radii and of scores.
    """

    centers: Floats
    radii: Floats
    scores: Floats


class Inne(Learned):
    """Flags rows outside the balls around drawn rows, or in a ball much larger than its neighbour's.

    Isolation by nearest-neighbour ensembles (Bandaragoda et al., 2018): a ball reaches to the nearest other drawn row.
    `samples` times `size` rows are drawn.
    """

    name: ClassVar[str] = "inne"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.preprocessing",)

    def __init__(self, *, samples: int = 200, size: int = 8, contamination: float = 0.01, seed: int = 1) -> None:
        self.samples = samples
        self.size = size
        self.contamination = contamination
        self.seed = seed

    def check(self) -> None:
        """Check the numbers, and that the library is installed."""
        super().check()
        check_whole(self.name, 1, samples=self.samples)
        check_whole(self.name, 2, size=self.size)
        check_whole(self.name, 0, seed=self.seed)

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        rng, size = np.random.default_rng(self.seed), min(self.size, len(rows))
        model = Balls(
            *map(
                np.array,
                zip(*(_balls(rows[rng.permutation(len(rows))[:size]]) for _ in range(self.samples)), strict=True),
            )
        )
        return model, self._score(model, rows)

    def _score(self, model: Any, rows: Floats) -> Floats:
        centers, radii, scores = model
        samples, size, columns = centers.shape
        flat, found = centers.reshape(-1, columns).T, []
        for begin in range(0, len(rows), TOGETHER):
            some = rows[begin : begin + TOGETHER]
            distance = np.zeros((len(some), samples * size))
            for column, center in zip(some.T, flat, strict=True):
                distance += np.square(column[:, None] - center)
            inside = distance.reshape(-1, samples, size) <= radii
            first = inside.argmax(axis=2)  # of the smallest ball around a row
            held = np.where(inside.any(axis=2), scores[np.arange(samples), first], 1.0)
            found.append(held.mean(axis=1))
        return np.concatenate(found)

    def _kept(self, model: Any) -> Arrays:
        return model._asdict()  # type: ignore[no-any-return]

    def _revived(self, arrays: Arrays, columns: int) -> Any:
        model = Balls(
            finite_floats(arrays["centers"], 3), *(finite_floats(arrays[name], 2) for name in Balls._fields[1:])
        )
        shape = model.radii.shape
        expect(
            len(arrays) == len(Balls._fields) and shape[0] == self.samples and 2 <= shape[1] <= self.size, "its balls"
        )
        expect(model.centers.shape == (*shape, columns) and model.scores.shape == shape, "its centers or scores")
        return model


def _balls(drawn: Floats) -> Balls:
    """The balls around drawn rows."""
    distance = np.square(drawn[:, None] - drawn).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    radii, nearest = distance.min(axis=1), distance.argmin(axis=1)
    tiny = np.finfo(np.float64).eps  # where rows are alike
    scores = 1 - (radii[nearest] + tiny) / (radii + tiny)
    order = np.argsort(radii, kind="stable")
    return Balls(drawn[order], radii[order], scores[order])
