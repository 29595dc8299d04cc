"""Learned detectors whose score is a squared Mahalanobis distance."""

from typing import Any, NamedTuple

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.base import Arrays, Learned, expect, finite_floats
from peerwatch.detectors.learned.linear import affine


class Ellipsoid(NamedTuple):
    """A middle, and what turns distances from it into Mahalanobis distances. Shapes [columns], [columns, columns]."""

    middle: Floats
    whitening: Floats


class EllipsoidDetector(Learned):
    """A detector that flags rows far from a middle, in units of a spread that depends on the direction."""

    def _score(self, model: Any, rows: Floats) -> Floats:
        with np.errstate(all="ignore"):  # restored numbers may be anything
            values = affine(rows - model.middle, model.whitening, np.zeros(rows.shape[1]))
            return np.square(values).sum(axis=1)  # type: ignore[no-any-return]

    def _kept(self, model: Any) -> Arrays:
        return model._asdict()  # type: ignore[no-any-return]

    def _revived(self, arrays: Arrays, columns: int) -> Any:
        model = Ellipsoid(finite_floats(arrays["middle"], 1), finite_floats(arrays["whitening"], 2))
        expect(len(arrays) == len(Ellipsoid._fields) and model.middle.shape == (columns,), "its middle")
        expect(model.whitening.shape == (columns, columns), "its covariance")
        return model
