"""The detector `gmm`, a mixture of normal distributions."""

import warnings
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.base import Arrays, Learned, check_whole, expect, finite_floats
from peerwatch.detectors.learned.linear import affine

RIDGE: Final = 1e-6
"""Added to each variance; scikit-learn's default."""
TWO_PI: Final = float(np.log(2 * np.pi))


class Mixture(NamedTuple):
    """Normal distributions: logarithms of their weights, their means, and what turns each into a standard one.

    Shapes [k], [k, columns] and [k, columns, columns].
    """

    log_weights: Floats
    means: Floats
    whitening: Floats


class GaussianMixture(Learned):
    """Flags rows where a mixture of normal distributions has little density: scikit-learn's `GaussianMixture`.

    `components` is the number of distributions; with one, the score ranks as the Mahalanobis distance from the mean.
    """

    name: ClassVar[str] = "gmm"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.mixture",)

    def __init__(self, *, components: int = 1, contamination: float = 0.01, seed: int = 1) -> None:
        self.components = components
        self.contamination = contamination
        self.seed = seed

    def check(self) -> None:
        """Check the numbers, and that the library is installed."""
        super().check()
        check_whole(self.name, 1, components=self.components)
        check_whole(self.name, 0, seed=self.seed)

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        kind = self._module("sklearn.mixture").GaussianMixture
        with warnings.catch_warnings():
            # fewer distinct rows than components, or few steps short of the best: the mixture is sound all the same
            warnings.simplefilter("ignore", self._module("sklearn.exceptions").ConvergenceWarning)
            ridge = RIDGE * max(1.0, float(rows.var(axis=0).max()))  # only what could not be scaled has more
            found = kind(min(self.components, len(rows)), reg_covar=ridge, random_state=self.seed).fit(rows)
        model = Mixture(np.log(found.weights_), found.means_, found.precisions_cholesky_)
        return model, self._score(model, rows)

    def _score(self, model: Any, rows: Floats) -> Floats:
        """The negative logarithm of the density."""
        columns, logs = rows.shape[1], []
        with np.errstate(all="ignore"):  # restored numbers may be anything
            for weight, mean, whitening in zip(*model, strict=True):
                distance = np.square(affine(rows - mean, whitening, np.zeros(columns))).sum(axis=1)
                logs.append(weight + np.log(np.diagonal(whitening)).sum() - (columns * TWO_PI + distance) / 2)
            return -np.logaddexp.reduce(logs)  # type: ignore[no-any-return]

    def _kept(self, model: Any) -> Arrays:
        return model._asdict()  # type: ignore[no-any-return]

    def _revived(self, arrays: Arrays, columns: int) -> Any:
        model = Mixture(*(finite_floats(arrays[name], place) for place, name in enumerate(Mixture._fields, 1)))
        count = len(model.log_weights)
        expect(0 < count <= self.components and len(arrays) == len(Mixture._fields), "its components")
        expect(model.means.shape == (count, columns), "its means")
        expect(model.whitening.shape == (count, columns, columns), "its covariances")
        return model
