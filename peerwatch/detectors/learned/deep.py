"""Neural networks that JAX trains and numpy uses: what they share."""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, Final

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.base import Arrays, Learned, check_whole, expect, finite_floats
from peerwatch.errors import BadInput

BATCH: Final = 64
"""Rows in one step of training."""
RATE: Final = 0.005
"""The learning rate of Adam."""

Loss = Callable[[Any, Any, Any], Any]
"""The mean loss of a model on rows of shape [BATCH, columns], given a key for random numbers."""


class Deep(Learned):
    """A neural network, kept as the arrays of its layers. JAX, equinox and optax are needed for training only.

    Needs the extra `deep`.
    """

    modules: ClassVar[tuple[str, ...]] = ("jax", "equinox", "optax")
    epochs: int
    seed: int

    def check(self) -> None:
        """Check the numbers, and that the libraries are installed."""
        super().check()
        check_whole(self.name, 1, epochs=self.epochs)
        check_whole(self.name, 0, seed=self.seed)

    def _trained(self, model: Any, loss: Loss, rows: Floats) -> Any:
        """Train a model on rows, in batches of an order drawn anew for each epoch. The last batch is filled up."""
        jax, optax, equinox = (self._module(name) for name in ("jax", "optax", "equinox"))
        step, rng = _step(loss), np.random.default_rng(self.seed)
        state = optax.adam(RATE).init(equinox.filter(model, equinox.is_array))
        keys = jax.random.key(self.seed)
        some = rows.astype(np.float32)
        count = -(-len(rows) // BATCH)
        for number in range(self.epochs):
            order = np.resize(rng.permutation(len(rows)), (count, BATCH))
            for place, batch in enumerate(order):
                model, state = step(model, state, some[batch], jax.random.fold_in(keys, number * count + place))
        return model

    def _kept(self, model: Any) -> Arrays:
        return dict(model)

    def _revived(self, arrays: Arrays, columns: int) -> Any:
        shapes = self._shapes(columns)
        expect(arrays.keys() == shapes.keys(), "its layers")
        model = {name: finite_floats(arrays[name], len(shape)) for name, shape in shapes.items()}
        expect(all(model[name].shape == shape for name, shape in shapes.items()), "the shape of a layer")
        return model

    def _shapes(self, columns: int) -> Mapping[str, tuple[int, ...]]:
        """The shape of each array of a model for rows of so many columns."""
        raise NotImplementedError

    def _module(self, name: str) -> Any:
        try:
            return import_module(name)
        except ImportError:
            if name not in self.modules:
                return super()._module(name)
            extra = "pip install 'peerwatch[deep]'"
            raise BadInput(f"{self.name} needs {name}, which is not installed: {extra}") from None


@cache
def _step(loss: Loss) -> Any:
    """A step of training, compiled once for each kind of model and shape of rows."""
    equinox, optax = import_module("equinox"), import_module("optax")
    optimizer = optax.adam(RATE)

    def step(model: Any, state: Any, rows: Any, key: Any) -> tuple[Any, Any]:
        gradients = equinox.filter_grad(loss)(model, rows, key)
        updates, state = optimizer.update(gradients, state)
        return equinox.apply_updates(model, updates), state

    return equinox.filter_jit(step)


def floats_of(array: Any) -> Floats:
    """An array of JAX as floats of numpy."""
    return np.array(array, np.float64)
