"""The detector `pca`, the distance by principal components."""

from numbers import Real
from typing import Any, ClassVar, Final

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.ellipsoid import Ellipsoid, EllipsoidDetector
from peerwatch.errors import BadInput

RIDGE: Final = 1e-6
"""Added to each component's variance, which may be 0."""


class PrincipalComponents(EllipsoidDetector):
    """Flags rows far from the mean, in distances that count for more where the rows vary less: scikit-learn's `PCA`.

    The score is the sum over all components of the squared distance along it, divided by its variance to the power of
    `whitening`: 0 leaves the plain distance, 1 makes it that of Mahalanobis.
    """

    name: ClassVar[str] = "pca"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.decomposition",)

    def __init__(self, *, whitening: float = 0.5, contamination: float = 0.01) -> None:
        self.whitening = whitening
        self.contamination = contamination

    def check(self) -> None:
        """Check the numbers, and that the library is installed."""
        super().check()
        if isinstance(self.whitening, bool) or not isinstance(self.whitening, Real) or not 0 <= self.whitening <= 1:
            raise BadInput(f'{self.name}: "whitening" is {self.whitening!r}; expected a number from 0 to 1')

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        with np.errstate(invalid="ignore"):  # where all rows are the same, it divides by their variance
            found = self._module("sklearn.decomposition").PCA(svd_solver="covariance_eigh").fit(rows)
        directions, variance = found.components_, found.explained_variance_
        if len(directions) < rows.shape[1]:  # there are fewer rows than columns: in all other directions nothing varies
            others = np.linalg.qr(directions.T, mode="complete")[0][:, len(directions) :]
            directions, variance = np.vstack([directions, others.T]), np.append(variance, np.zeros(others.shape[1]))
        weights = (variance + RIDGE) ** (-self.whitening / 2)
        model = Ellipsoid(found.mean_, np.ascontiguousarray((directions * weights[:, None]).T))
        return model, self._score(model, rows)
