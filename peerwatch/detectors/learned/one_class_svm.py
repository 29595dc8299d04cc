"""The detector `one_class_svm`."""

from typing import Any, ClassVar

from peerwatch.detectors.base import positive
from peerwatch.detectors.learned.base import expect
from peerwatch.detectors.learned.saved_estimator import SavedEstimator
from peerwatch.errors import BadInput


class OneClassSvm(SavedEstimator):
    """Flags rows outside the smooth boundary of the others (Schoelkopf et al., 2001): scikit-learn's `OneClassSVM`.

    `nu` is the share of rows that may lie outside while the boundary is drawn: with more of them it is smoother, and
    ranks better. How many rows are flagged is up to `contamination`.
    """

    name: ClassVar[str] = "one_class_svm"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.svm", "skops.io")

    def __init__(self, *, nu: float = 0.5, contamination: float = 0.01) -> None:
        self.nu = nu
        self.contamination = contamination

    def check(self) -> None:
        """Check that the shares are shares and the libraries are installed."""
        super().check()
        positive(self.name, nu=self.nu)
        if self.nu > 1:
            raise BadInput(f'{self.name}: "nu" is {self.nu!r}; expected at most 1')

    def _made(self) -> Any:
        return self._module("sklearn.svm").OneClassSVM(nu=self.nu)

    def _expect_whole(self, model: Any, columns: int) -> None:
        count = len(model.support_)
        expect(model.support_vectors_.shape == (count, columns), "its support vectors")
        expect(model._dual_coef_.shape == (1, count) and model._intercept_.shape == (1,), "its weights")
        expect(model._n_support[0] == count, "its support")  # noqa: SLF001 (what libsvm is given)
