"""Samples events by sequence number, so that every run samples the same ones."""

import numpy as np
from numpy.typing import NDArray

from peerwatch.kernels import Int64s


def sampled(seq: Int64s, share: float) -> NDArray[np.bool_]:
    """Which sequence numbers are in a sample of `share`, as a mask of shape [n].

    A number is sampled if its hash (SplitMix64, Steele et al. 2014) is low.
    """
    z = (seq.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) < share * 2.0**53
