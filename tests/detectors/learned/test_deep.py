"""The networks that JAX trains."""

import subprocess
import sys
from typing import Any

import equinox
import jax
import numpy as np
import pytest
from learned_tables import tables

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned import lstm_autoencoder, variational_autoencoder
from peerwatch.detectors.learned.deep import Deep
from peerwatch.detectors.learned.lstm_autoencoder import LstmAutoencoder
from peerwatch.detectors.learned.variational_autoencoder import LAYERS, VariationalAutoencoder
from peerwatch.detectors.registry import make
from peerwatch.errors import BadInput

SHORT: dict[str, Any] = {"epochs": 3, "seed": 4}


def linear(model: dict[str, Floats], name: str) -> Any:
    """The layer as equinox has it."""
    weights, biases = model[f"{name}.weights"], model[f"{name}.biases"]
    made = equinox.nn.Linear(*weights.shape, key=jax.random.key(0))
    return equinox.tree_at(lambda layer: (layer.weight, layer.bias), made, (weights.T, biases))


def cell(model: dict[str, Floats], name: str) -> Any:
    """The LSTM as equinox has it."""
    parts = [model[f"{name}.{part}"].T for part in ("inputs", "states", "biases")]
    made = equinox.nn.LSTMCell(1, parts[1].shape[1], key=jax.random.key(0))
    return equinox.tree_at(lambda cell: (cell.weight_ih, cell.weight_hh, cell.bias), made, parts)


@pytest.mark.slow
def test_a_variational_autoencoder_scores_as_equinox_does() -> None:
    """At the mean of the distribution, with the same weights: numpy's score is the bound that JAX lowers."""
    train, test = tables()
    detector = VariationalAutoencoder(hidden=6, latent=3, **SHORT).fit(train)
    layers = {name: linear(detector.model_, name) for name in LAYERS}
    scaled = ((test - detector.center_) / detector.scale_)[:5]
    for row, score in zip(scaled, -detector.score_samples(test)[:5], strict=True):
        inside = jax.nn.relu(layers["encoder"](row))
        mean, spread = layers["mean"](inside), np.clip(layers["spread"](inside), -10, 10)
        back = layers["output"](jax.nn.relu(layers["decoder"](mean)))
        bound = 0.5 * (((row - back) ** 2).sum() + (mean**2 + np.exp(spread) - spread - 1).sum())
        assert score == pytest.approx(float(bound), rel=1e-4)


@pytest.mark.slow
def test_an_lstm_autoencoder_scores_as_equinox_does() -> None:
    """With the same weights: numpy's score is the error that JAX lowers."""
    train, test = tables()
    detector = LstmAutoencoder(hidden=5, **SHORT).fit(train)
    model = {name: cell(detector.model_, name) for name in ("encoder", "decoder")}
    model["output"] = linear(detector.model_, "output")
    scaled = ((test - detector.center_) / detector.scale_)[:5]
    expected = [float(lstm_autoencoder._error(model, row)) for row in scaled.astype(np.float32)]  # noqa: SLF001
    assert -detector.score_samples(test)[:5] == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [VariationalAutoencoder, LstmAutoencoder])
def test_training_lowers_the_error(kind: type[Deep]) -> None:
    """Rows whose columns depend on each other are repeated better after more epochs; rows that break it stand out."""
    rng = np.random.default_rng(1)
    phase = rng.uniform(0, 6, 400)
    rows = np.column_stack([np.sin(phase + 0.6 * place) for place in range(6)]) + rng.normal(0, 0.02, (400, 6))
    first, later = kind(epochs=1).fit(rows), kind(epochs=60).fit(rows)  # type: ignore[call-arg]
    assert later.score_samples(rows).mean() > first.score_samples(rows).mean()
    broken = rng.permuted(rows, axis=1)
    assert np.median(later.score_samples(broken)) < np.quantile(later.score_samples(rows), 0.1)


@pytest.mark.parametrize("name", ["variational_autoencoder", "lstm_autoencoder"])
def test_without_jax_the_message_says_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra's name; nothing else of JAX is asked for."""
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(BadInput, match=rf"{name} needs jax, which is not installed: pip install 'peerwatch\[deep\]'"):
        make(name, {})


def test_jax_is_imported_only_where_it_is_named() -> None:
    """Not by the registry, by other detectors, or by the modules of these."""
    modules = [variational_autoencoder.__name__, lstm_autoencoder.__name__, "peerwatch.detectors.learned"]
    code = f"import sys, {', '.join(modules)}; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_weights_of_another_shape_are_refused() -> None:
    """Whatever they come from."""
    arrays = VariationalAutoencoder(**SHORT).fit(tables()[0]).arrays()
    with pytest.raises(BadInput, match="these are not what a variational_autoencoder has learned"):
        VariationalAutoencoder(hidden=3, epochs=3, seed=4).restore(arrays)
