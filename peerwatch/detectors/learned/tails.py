"""Tail probabilities by values that have been seen, as -log: how rare a value that high is."""

import numpy as np

from peerwatch.detectors.base import Floats


def rarities(values: Floats, learned: Floats) -> Floats:
    """-log of the probability of such a value or a higher one, by the `learned` ones, which are sorted. Shape [q].

    Above the largest of them the probability falls with the distance from their median, as 1 / distance.
    """
    count, median, largest = len(learned), learned[len(learned) // 2], learned[-1]
    as_high = np.maximum(count - np.searchsorted(learned, values), 1)
    with np.errstate(over="ignore"):
        beyond = np.maximum(values - largest, 0) / ((largest - median) or 1.0)
    return np.log(count / as_high) + np.log1p(beyond)  # type: ignore[no-any-return]
