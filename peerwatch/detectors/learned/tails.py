"""Tail probabilities by values that have been seen, as -log: how rare a value that high is."""

import numpy as np

from peerwatch.detectors.base import Floats


def rarities(values: Floats, learned: Floats) -> Floats:
    """-log of the probability of such a value or a higher one, by the `learned` ones, which are sorted. Shape [q].

    Above the largest of them the probability falls with the distance from their median, as 1 / distance.
    """
    as_high = np.maximum(len(learned) - np.searchsorted(learned, values), 1)
    return np.log((len(learned) + 1) / as_high) + beyond(values, learned)  # type: ignore[no-any-return]


def beyond(values: Floats, learned: Floats) -> Floats:
    """How much rarer than the largest of the `learned` values, which are sorted, each value above it is. Shape [q]."""
    median, largest = learned[len(learned) // 2], learned[-1]
    with np.errstate(over="ignore"):
        return np.log1p(np.maximum(values - largest, 0) / ((largest - median) or 1.0))  # type: ignore[no-any-return]
