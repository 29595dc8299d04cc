"""Tables that learned detectors are fitted on."""

import numpy as np

from peerwatch.detectors.base import Floats


def tables(seed: int = 1) -> tuple[Floats, Floats]:
    """Rows of 5 columns, one of them constant, of which the first hundredth is odd; the second holds more that is."""
    rng = np.random.default_rng(seed)
    train, test = rng.normal(10, 3, (600, 5)), rng.normal(10, 5, (300, 5))
    train[:6] *= 4
    train[:, 3] = test[:, 3] = 2.5
    return train, test
