"""Linear maps whose sums, unlike those of BLAS, do not depend on what other rows there are."""

import numpy as np

from peerwatch.detectors.base import Floats


def affine(rows: Floats, weights: Floats, biases: Floats) -> Floats:
    """`rows @ weights + biases`, summed column by column. Shapes [n, columns], [columns, k] and [k]."""
    values = np.tile(biases, (len(rows), 1))
    for column, weight in zip(rows.T, weights, strict=True):
        values += column[:, None] * weight
    return values
