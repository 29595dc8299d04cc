"""Tables that learned detectors are fitted on, and which of them take long."""

from typing import Any, Final

import numpy as np

from peerwatch.detectors.base import Floats

DEEP: Final = ("variational_autoencoder", "lstm_autoencoder")
"""Detectors that take seconds to compile what trains them."""
QUICK: Final[dict[str, dict[str, Any]]] = {
    "autoencoder": {"hidden": [2], "epochs": 5}, "variational_autoencoder": {"epochs": 2},
    "lstm_autoencoder": {"epochs": 2}, "isolation_forest": {"trees": 10}, "half_space_trees": {"trees": 5},
    "inne": {"samples": 8}, "random_cut_forest": {"trees": 5},
}  # fmt: skip
"""Parameters with which models are trained in less time, for tests that train many."""


def tables(seed: int = 1) -> tuple[Floats, Floats]:
    """Rows of 5 columns, one of them constant, of which the first hundredth is odd; the second holds more that is."""
    rng = np.random.default_rng(seed)
    train, test = rng.normal(10, 3, (600, 5)), rng.normal(10, 5, (300, 5))
    train[:6] *= 4
    train[:, 3] = test[:, 3] = 2.5
    return train, test
