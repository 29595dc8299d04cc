"""The detector `lstm_autoencoder`."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Final

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.base import check_whole
from peerwatch.detectors.learned.deep import Deep, floats_of
from peerwatch.detectors.learned.linear import affine

GATES: Final = 4
"""An LSTM has an input gate, a forget gate, a candidate and an output gate, in this order."""


class LstmAutoencoder(Deep):
    """Flags sequences that two LSTM networks cannot repeat (Malhotra et al., 2016).

    The columns of a row are taken as a sequence, as the latest values of a series are one. The first network reads it;
    the second, which gets nothing but the first one's state of `hidden` numbers, says it backwards, each step from the
    number that it has said before. The score is the mean squared error.
    """

    name: ClassVar[str] = "lstm_autoencoder"

    def __init__(self, *, hidden: int = 8, epochs: int = 50, contamination: float = 0.01, seed: int = 1) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.contamination = contamination
        self.seed = seed

    def check(self) -> None:
        """Check the numbers, and that the libraries are installed."""
        super().check()
        check_whole(self.name, 1, hidden=self.hidden)

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        jax, nn = self._module("jax"), self._module("equinox").nn
        first, second, third = jax.random.split(jax.random.key(self.seed), 3)
        made = {
            "encoder": nn.LSTMCell(1, self.hidden, key=first),
            "decoder": nn.LSTMCell(1, self.hidden, key=second),
            "output": nn.Linear(self.hidden, 1, key=third),
        }
        trained = self._trained(made, _loss, rows)
        model = {
            f"{name}.{part}": floats_of(array)
            for name in ("encoder", "decoder")
            for part, array in (
                ("inputs", trained[name].weight_ih.T),
                ("states", trained[name].weight_hh.T),
                ("biases", trained[name].bias),
            )
        }
        output = trained["output"]
        model |= {"output.weights": floats_of(output.weight.T), "output.biases": floats_of(output.bias)}
        return model, self._score(model, rows)

    def _score(self, model: Any, rows: Floats) -> Floats:
        state, memory = np.zeros((len(rows), self.hidden)), np.zeros((len(rows), self.hidden))
        with np.errstate(over="ignore", invalid="ignore"):  # restored weights may be anything
            for column in rows.T:
                state, memory = _cell(model, "encoder", column, state, memory)
            said, error = np.zeros(len(rows)), np.zeros(len(rows))
            for column in rows.T[::-1]:
                state, memory = _cell(model, "decoder", said, state, memory)
                said = affine(state, model["output.weights"], model["output.biases"])[:, 0]
                error += np.square(column - said)
        return error / rows.shape[1]  # type: ignore[no-any-return]

    def _shapes(self, columns: int) -> Mapping[str, tuple[int, ...]]:  # noqa: ARG002 (a sequence may be of any length)
        wide, shapes = GATES * self.hidden, dict[str, tuple[int, ...]]()
        for name in ("encoder", "decoder"):
            shapes |= {f"{name}.inputs": (1, wide), f"{name}.states": (self.hidden, wide), f"{name}.biases": (wide,)}
        return shapes | {"output.weights": (self.hidden, 1), "output.biases": (1,)}


def _cell(model: Any, name: str, value: Floats, state: Floats, memory: Floats) -> tuple[Floats, Floats]:
    """One step of an LSTM for n rows: the next state and memory, of shape [n, hidden]."""
    gates = affine(state, model[f"{name}.states"], model[f"{name}.biases"])
    gates += value[:, None] * model[f"{name}.inputs"]
    entry, forget, candidate, output = np.split(gates, GATES, axis=1)
    memory = _logistic(forget) * memory + _logistic(entry) * np.tanh(candidate)
    return _logistic(output) * np.tanh(memory), memory


def _logistic(values: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(0.5 * values))


def _loss(model: Any, rows: Any, key: Any) -> Any:  # noqa: ARG001 (nothing is drawn)
    """The mean squared error of the sequences that come back."""
    import jax  # noqa: PLC0415 (an extra, and slow to import)

    return jax.vmap(partial(_error, model))(rows).mean()


def _error(model: Any, row: Any) -> Any:
    import jax  # noqa: PLC0415

    def read(carried: Any, value: Any) -> tuple[Any, None]:
        return model["encoder"](value[None], carried), None

    def say(carried: Any, _: Any) -> tuple[Any, Any]:
        state, said = carried
        state = model["decoder"](said, state)
        said = model["output"](state[0])
        return (state, said), said[0]

    nothing = jax.numpy.zeros(model["output"].in_features)
    state, _ = jax.lax.scan(read, (nothing, nothing), row)
    _, back = jax.lax.scan(say, (state, jax.numpy.zeros(1)), None, length=len(row))
    return ((row[::-1] - back) ** 2).mean()
