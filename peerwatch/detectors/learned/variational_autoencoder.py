"""The detector `variational_autoencoder`."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.base import check_whole
from peerwatch.detectors.learned.deep import Deep, floats_of
from peerwatch.detectors.learned.linear import affine

WIDEST: Final = 10.0
"""The logarithm of a latent variance is kept between this and its negative."""
LAYERS: Final = ("encoder", "mean", "spread", "decoder", "output")


class VariationalAutoencoder(Deep):
    """Flags rows that are improbable to a variational autoencoder (Kingma and Welling, 2014).

    One `hidden` layer leads to a normal distribution over `latent` numbers, another back to the row. The score is the
    negative evidence lower bound at the distribution's mean: half the squared error of the row that comes back, and how
    far the distribution is from the standard normal one.
    """

    name: ClassVar[str] = "variational_autoencoder"

    def __init__(
        self, *, hidden: int = 16, latent: int = 2, epochs: int = 50, contamination: float = 0.01, seed: int = 1
    ) -> None:
        self.hidden = hidden
        self.latent = latent
        self.epochs = epochs
        self.contamination = contamination
        self.seed = seed

    def check(self) -> None:
        """Check the numbers, and that the libraries are installed."""
        super().check()
        check_whole(self.name, 1, hidden=self.hidden, latent=self.latent)

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        jax, linear = self._module("jax"), self._module("equinox").nn.Linear
        keys = jax.random.split(jax.random.key(self.seed), len(LAYERS))
        sizes = self._sizes(rows.shape[1])
        made = {name: linear(*sizes[name], key=key) for name, key in zip(LAYERS, keys, strict=True)}
        trained = self._trained(made, _loss, rows)
        model = {f"{name}.weights": floats_of(layer.weight.T) for name, layer in trained.items()}
        model |= {f"{name}.biases": floats_of(layer.bias) for name, layer in trained.items()}
        return model, self._score(model, rows)

    def _score(self, model: Any, rows: Floats) -> Floats:
        def layer(name: str, values: Floats) -> Floats:
            return affine(values, model[f"{name}.weights"], model[f"{name}.biases"])

        with np.errstate(over="ignore", invalid="ignore"):  # restored weights may be anything
            inside = np.maximum(layer("encoder", rows), 0.0)
            mean, spread = layer("mean", inside), np.clip(layer("spread", inside), -WIDEST, WIDEST)
            back = layer("output", np.maximum(layer("decoder", mean), 0.0))
            apart = np.square(mean) + np.exp(spread) - spread - 1
            return 0.5 * (np.square(rows - back).sum(axis=1) + apart.sum(axis=1))  # type: ignore[no-any-return]

    def _sizes(self, columns: int) -> dict[str, tuple[int, int]]:
        """The inputs and outputs of each layer."""
        return {
            "encoder": (columns, self.hidden),
            "mean": (self.hidden, self.latent),
            "spread": (self.hidden, self.latent),
            "decoder": (self.latent, self.hidden),
            "output": (self.hidden, columns),
        }

    def _shapes(self, columns: int) -> Mapping[str, tuple[int, ...]]:
        sizes = self._sizes(columns)
        shapes: dict[str, tuple[int, ...]] = {f"{name}.weights": size for name, size in sizes.items()}
        return shapes | {f"{name}.biases": size[1:] for name, size in sizes.items()}


def _loss(model: Any, rows: Any, key: Any) -> Any:
    """The mean negative evidence lower bound, with one sample of each row's distribution."""
    import jax  # noqa: PLC0415 (an extra, and slow to import)

    return jax.vmap(partial(_bound, model))(rows, jax.random.split(key, len(rows))).mean()


def _bound(model: Any, row: Any, key: Any) -> Any:
    import jax  # noqa: PLC0415

    inside = jax.nn.relu(model["encoder"](row))
    mean, spread = model["mean"](inside), jax.numpy.clip(model["spread"](inside), -WIDEST, WIDEST)
    drawn = mean + jax.numpy.exp(0.5 * spread) * jax.random.normal(key, mean.shape)
    back = model["output"](jax.nn.relu(model["decoder"](drawn)))
    apart = mean**2 + jax.numpy.exp(spread) - spread - 1
    return 0.5 * (((row - back) ** 2).sum() + apart.sum())
