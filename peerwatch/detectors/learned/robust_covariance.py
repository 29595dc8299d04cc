"""The detector `mcd`, the Mahalanobis distance by the minimum covariance determinant."""

from typing import Any, ClassVar, Final

import numpy as np

from peerwatch.detectors.base import Floats, Mask, positive
from peerwatch.detectors.learned.base import check_whole
from peerwatch.detectors.learned.ellipsoid import Ellipsoid, EllipsoidDetector

OUTSIDE: Final = 0.025
"""The share of normal rows that the last fit leaves out, as scikit-learn's `MinCovDet` does."""
STEPS: Final = 30
"""The most steps by which a half that was found among some rows is sought among all; seldom are so many taken."""


class RobustCovariance(EllipsoidDetector):
    """Flags rows far from the densest half of the rows (Rousseeuw and Van Driessen, 1999): scikit-learn's `fast_mcd`.

    The distance takes the correlation of columns into account; what lies outside does not blow up the spread. The half
    is sought among `rows` drawn ones at most, and from there among all. `ridge` is added to the variance of each scaled
    column, so that what is the same in half of the rows, or nearly, does not outweigh everything else.
    """

    name: ClassVar[str] = "mcd"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.covariance", "scipy.stats")

    def __init__(self, *, rows: int = 500, ridge: float = 0.01, contamination: float = 0.01, seed: int = 1) -> None:
        self.rows = rows
        self.ridge = ridge
        self.contamination = contamination
        self.seed = seed

    def check(self) -> None:
        """Check the numbers, and that the libraries are installed."""
        super().check()
        check_whole(self.name, 2, rows=self.rows)
        positive(self.name, ridge=self.ridge)
        check_whole(self.name, 0, seed=self.seed)

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        """Reweighted as in `MinCovDet`: the last fit is on all rows that are near by the raw one."""
        limit = self._module("scipy.stats").chi2.isf(OUTSIDE, rows.shape[1])
        support = self._support(rows)
        near = rows[self._distance(rows[support], rows) < limit * self._consistency(support.mean(), rows.shape[1])]
        spread = self._covariance(near) * self._consistency(1 - OUTSIDE, rows.shape[1])
        inverse = np.linalg.inv(np.linalg.cholesky(spread))
        model = Ellipsoid(near.mean(axis=0), np.ascontiguousarray(inverse.T))
        return model, self._score(model, rows)

    def _support(self, rows: Floats) -> Mask:
        """Which rows are the densest half."""
        count, columns = rows.shape
        drawn = rows
        if count > self.rows:
            drawn = rows[np.random.default_rng(self.seed).permutation(count)[: self.rows]]
        fast_mcd = self._module("sklearn.covariance").fast_mcd
        support: Mask = fast_mcd(drawn, cov_computation_method=self._covariance, random_state=self.seed)[2]
        if len(drawn) == count:
            return support
        half, dense = (count + columns + 1) // 2, drawn[support]
        support = np.zeros(count, np.bool_)
        for _ in range(STEPS):
            before, support = support, np.zeros(count, np.bool_)
            support[np.argpartition(self._distance(dense, rows), half - 1)[:half]] = True
            if (support == before).all():
                break
            dense = rows[support]
        return support

    def _consistency(self, share: float, columns: int) -> float:
        """By how much the covariance of the innermost `share` of a normal distribution is too small."""
        chi2 = self._module("scipy.stats").chi2
        return float(share / chi2.cdf(chi2.ppf(share, columns), columns + 2))  # Croux and Haesbroeck, 1999

    def _covariance(self, rows: Floats) -> Floats:
        """The covariance of columns, with the ridge. Shape [columns, columns]."""
        centered = rows - rows.mean(axis=0)
        found: Floats = centered.T @ centered / len(rows)
        return found + self.ridge * np.eye(rows.shape[1])  # a constant, so that no step makes the determinant larger

    def _distance(self, of: Floats, rows: Floats) -> Floats:
        """The squared Mahalanobis distance of each row by the covariance `of` some. Shape [n]."""
        centered = rows - of.mean(axis=0)
        return ((centered @ np.linalg.inv(self._covariance(of))) * centered).sum(axis=1)  # type: ignore[no-any-return]
