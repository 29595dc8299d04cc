"""The detector `autoencoder`."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Final

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.base import Arrays, Learned, check_whole, expect, finite_floats
from peerwatch.detectors.learned.linear import affine
from peerwatch.errors import BadInput

RATE: Final = 0.01
"""Learning rate of the autoencoder: 50 epochs with it reach as far as 200 with scikit-learn's 0.001."""


class Autoencoder(Learned):
    """Flags rows that a narrow neural network cannot repeat: scikit-learn's `MLPRegressor`, taught to give its input.

    `hidden` are the sizes of the layers between; the score is the mean squared error over the columns.
    """

    name: ClassVar[str] = "autoencoder"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.neural_network",)

    def __init__(
        self, *, hidden: Sequence[int] = (8, 4, 8), epochs: int = 50, contamination: float = 0.01, seed: int = 1
    ) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.contamination = contamination
        self.seed = seed

    def check(self) -> None:
        """Check the numbers, and that the library is installed."""
        super().check()
        if not isinstance(self.hidden, Sequence) or isinstance(self.hidden, str) or not self.hidden:
            raise BadInput(f'{self.name}: "hidden" is {self.hidden!r}; expected the sizes of layers, as [8, 4, 8]')
        for size in self.hidden:
            check_whole(self.name, 1, hidden=size)
        check_whole(self.name, 1, epochs=self.epochs)
        check_whole(self.name, 0, seed=self.seed)

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        kind = self._module("sklearn.neural_network").MLPRegressor
        network = kind(hidden_layer_sizes=tuple(self.hidden), learning_rate_init=RATE, random_state=self.seed)
        wanted = rows[:, 0] if rows.shape[1] == 1 else rows
        for _ in range(self.epochs):
            network.partial_fit(rows, wanted)
        model = list(zip(network.coefs_, network.intercepts_, strict=True))
        return model, self._score(model, rows)

    def _score(self, model: Any, rows: Floats) -> Floats:
        values = rows
        with np.errstate(over="ignore", invalid="ignore"):  # restored weights may be anything
            for place, (weights, biases) in enumerate(model):
                values = affine(np.maximum(values, 0.0) if place else values, weights, biases)
            return np.square(values - rows).mean(axis=1)  # type: ignore[no-any-return]

    def _kept(self, model: Any) -> Arrays:
        weights = {f"weights{place}": layer[0] for place, layer in enumerate(model)}
        return weights | {f"biases{place}": layer[1] for place, layer in enumerate(model)}

    def _revived(self, arrays: Arrays, columns: int) -> Any:
        sizes = list(pairwise([columns, *self.hidden, columns]))
        names = range(len(sizes))
        model = [
            (finite_floats(arrays[f"weights{place}"], 2), finite_floats(arrays[f"biases{place}"], 1)) for place in names
        ]
        shapes = [(weights.shape, len(biases)) for weights, biases in model]
        expect(len(arrays) == 2 * len(sizes) and shapes == [(size, size[1]) for size in sizes], "its layers")
        return model
