"""What all learned detectors share: scaling, the threshold, and how they are kept and restored."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from importlib import import_module
from numbers import Integral
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peerwatch.detectors.base import Context, Detector, Floats, Verdicts, check_finite, columns_of, positive, rows_in
from peerwatch.detectors.features import features
from peerwatch.detectors.rows import not_fitted
from peerwatch.errors import BadInput, TiedScores, TooFewRows
from peerwatch.kernels import Int64s

LARGEST: Final = 1e100
"""Larger values are cut to this one, whose square is still a float."""
FARTHEST: Final = 1e30
"""Scaled values are cut to this one: scikit-learn's trees take 32-bit floats."""
MOST: Final = 2**31
"""Whole numbers must be below this one."""

Arrays = dict[str, NDArray[Any]]


class Learned(Detector):
    """A detector that flags what scores above all but a share of the rows it has learned from.

    That share is `contamination`; where many rows have the same score it may be far less, which a `TiedScores` warning
    tells. Needs libraries of the extra `learn`.
    """

    modules: ClassVar[tuple[str, ...]]
    """The modules that it imports."""
    least: ClassVar[int] = 2
    """The least number of rows to be fitted on, and of purchases in a window."""
    contamination: float

    @property
    def trains(self) -> bool:
        """True: it judges nothing before it has been fitted."""
        return True

    @property
    def wants_context(self) -> bool:
        """True: some features come from the context."""
        return True

    @property
    def libraries(self) -> tuple[str, ...]:
        """The packages of its modules."""
        return tuple(sorted({_package(module) for module in self.modules}))

    def check(self) -> None:
        """Check that the contamination is a share and that the libraries are installed.

        Raises:
            BadInput: one of them is not so.
        """
        check_contamination(self.name, self.contamination)
        for module in self.modules:
            self._module(module)

    def judge(self, offsets: Int64s, window: Floats, amount: Floats, context: Context | None = None) -> Verdicts:
        """Judge q purchases by their features. No score before it is fitted, or with fewer than two in a window.

        Raises:
            BadInput: an amount is not a finite number, or it was fitted on something else than features.
        """
        score = np.full(len(amount), np.nan)
        if not self._is_fitted:
            check_finite(window)
            check_finite(amount)
            return Verdicts(score, score.copy(), np.zeros(len(amount), np.bool_))
        rows = features(offsets, window, amount, context)
        if rows.shape[1] != self.n_features_in_:
            raise BadInput(
                f"{self.name} was fitted on {self.n_features_in_} columns, purchases have {rows.shape[1]} features"
            )
        enough = np.diff(offsets) >= self.least
        score[enough] = self._scores(rows[enough])
        return self._verdicts(score)

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002 (scikit-learn's)
        """Learn from X, shape [n, columns].

        Raises:
            BadInput: X is of another shape, has too few rows, or values that are not finite.
        """
        self._fitted(X)
        return self

    def fit_predict(self, X: ArrayLike, y: object = None) -> NDArray[np.int64]:  # noqa: ARG002 (scikit-learn's)
        """Fit, and look back at the whole of X: -1 for each row that is flagged, 1 for every other. Shape [n]."""
        return np.where(self._verdicts(self._fitted(X)).flagged, -1, 1)

    def score_samples(self, X: ArrayLike) -> Floats:
        """How normal each row of X is: the score, negated. Shape [n]."""
        self._check_fitted()
        return -self._scores(self._known_columns(X))

    def decision_function(self, X: ArrayLike) -> Floats:
        """How far below the threshold each row's score is; negative if it is flagged. Shape [n]."""
        return self.score_samples(X) + self.threshold_

    def look_back(self, X: ArrayLike) -> Verdicts:
        """Judge each row of X by a model fitted on all of them; what was learned before stays."""
        fresh = type(self)(**self.get_params())
        return fresh._verdicts(fresh._fitted(X))  # noqa: SLF001 (one of its own kind)

    def arrays(self) -> Arrays:
        """The scaling of rows, the threshold, and the model, as arrays.

        Raises:
            BadInput: it has not been fitted.
        """
        self._check_fitted()
        scaling = {"center": self.center_, "scale": self.scale_, "threshold": np.array(self.threshold_)}
        return scaling | self._kept(self.model_) | (self.training_.arrays() if self.training_ is not None else {})

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Become fitted from the `arrays` of a fitted detector. Nothing in them is run.

        Raises:
            BadInput: they are not what such a detector has learned.
        """
        self.check()
        rest = dict(arrays)
        try:
            center, scale = finite_floats(rest.pop("center"), 1), finite_floats(rest.pop("scale"), 1)
            threshold = float(finite_floats(rest.pop("threshold"), 0))
            expect(len(center) == len(scale) > 0 and bool((scale > 0).all()), "its scaling")
            training = self._kept_training(rest)
            expect(training is None or len(training.reference.typical) == len(center), "the rows that were kept")
            model = self._revived(rest, len(center))
            self._score(model, np.zeros((1, len(center))))
        except Exception as error:  # whatever libraries say to what they have not written
            what = f"{type(error).__name__}: {error}"
            raise BadInput(f"these are not what a {self.name} has learned ({what})") from error
        self.center_, self.scale_, self.threshold_, self.model_ = center, scale, threshold, model
        self.n_features_in_, self.training_ = len(center), training
        return self

    @abstractmethod
    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        """Fit a model on scaled rows; returns it and the rows' own scores."""

    @abstractmethod
    def _score(self, model: Any, rows: Floats) -> Floats:
        """The scores of scaled rows; there is at least one row."""

    @abstractmethod
    def _kept(self, model: Any) -> Arrays:
        """The model as arrays."""

    @abstractmethod
    def _revived(self, arrays: Arrays, columns: int) -> Any:
        """The model from its arrays; raises any error if they are not those of a model."""

    def _scaling(self, rows: Floats) -> tuple[Floats, Floats]:
        """The offset and scale of each column: mean and standard deviation; what rounding alone spreads is not scaled.

        A mean of equal numbers, when they are large, is not always that number: a constant column's offset is.
        """
        found = self._module("sklearn.preprocessing").StandardScaler().fit(rows)
        least, most = rows.min(axis=0), rows.max(axis=0)
        unscaled = found.scale_ != np.sqrt(found.var_)  # StandardScaler puts 1 for them
        center = np.where(unscaled, np.clip(found.mean_, least, most), found.mean_)
        return center, np.where(unscaled, np.maximum(most - least, 1.0), found.scale_)

    def _fitted(self, X: ArrayLike) -> Floats:
        """Fit on X; returns the scores of its rows."""
        self.check()
        columns = columns_of(X)
        rows = _tame(columns)
        if len(rows) < self.least:
            raise TooFewRows(f"{self.name} needs at least {self.least} rows, got {rows_in(rows)}")
        with self._module("threadpoolctl").threadpool_limits(1):  # sums in parallel come out differently
            scaling = self._scaling(rows)
            model, score = self._learn(_scaled(rows, *scaling))
        self.center_, self.scale_ = scaling
        self.model_ = model
        self.remember(X, columns, score)
        self.threshold_ = exceeded_by(self.contamination, score)
        self._tell_ties(score)
        return score

    def _tell_ties(self, score: Floats) -> None:
        """Warn where ties at the threshold make fewer than half of the rows flagged that were asked for."""
        flagged, wanted = int((score > self.threshold_).sum()), int(self.contamination * len(score))
        if 2 * flagged < wanted:
            tied = int((score == self.threshold_).sum())
            message = (
                f"{self.name}: {tied:,} of {len(score):,} rows share one score at the threshold, so {flagged:,} are"
                f" flagged where a contamination of {self.contamination} asks for {wanted:,}"
            )
            warnings.warn(message, TiedScores, stacklevel=4)

    def _scores(self, rows: Floats) -> Floats:
        if not len(rows):
            return np.empty(0)
        return self._score(self.model_, _scaled(_tame(rows), self.center_, self.scale_))

    def _verdicts(self, score: Floats) -> Verdicts:
        return Verdicts(score, np.full(len(score), self.threshold_), score > self.threshold_)

    @property
    def _is_fitted(self) -> bool:
        return hasattr(self, "model_")

    def _check_fitted(self) -> None:
        if not self._is_fitted:
            raise not_fitted(self.name)

    def __sklearn_is_fitted__(self) -> bool:
        """What scikit-learn asks."""
        return self._is_fitted

    def _module(self, name: str) -> Any:
        """Import a module of an extra; it is imported late because it is slow to import."""
        try:
            return import_module(name)
        except ImportError:
            extra = "pip install 'peerwatch[learn]'"
            raise BadInput(f"{self.name} needs {_package(name)}, which is not installed: {extra}") from None


def _package(module: str) -> str:
    return module.partition(".")[0].replace("sklearn", "scikit-learn")


def _tame(rows: Floats) -> Floats:
    """Rows that can be squared, in C order, so that the order of summation does not depend on where they came from."""
    return np.ascontiguousarray(np.clip(rows, -LARGEST, LARGEST))


def _scaled(rows: Floats, center: Floats, scale: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.clip((rows - center) / scale, -FARTHEST, FARTHEST)


def finite_floats(array: NDArray[Any], dimensions: int) -> Floats:
    """The array as finite floats, in C order."""
    expect(array.dtype == np.float64 and array.ndim == dimensions, "an array's type or shape")
    check_finite(array)
    return np.array(array, np.float64, order="C")


def expect(right: bool, what: str) -> None:  # noqa: FBT001
    """Check something about restored arrays.

    Raises:
        ValueError: it is not `right`.
    """
    if not right:
        raise ValueError(f"there is something wrong with {what}")


def exceeded_by(contamination: float, score: Floats) -> float:
    """The threshold that this share of the scores exceeds, rounded as scikit-learn does."""
    return -float(np.percentile(-score, 100 * contamination))


def check_contamination(name: str, contamination: float) -> None:
    """Check that it is a share of at most a half."""
    positive(name, contamination=contamination)
    if contamination > 0.5:
        raise BadInput(f'{name}: "contamination" is {contamination!r}; expected at most 0.5')


def check_whole(name: str, least: int, **parameters: int) -> None:
    """Check that parameters are whole numbers, at least `least`, that the libraries accept."""
    for parameter, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) < MOST:
            raise BadInput(f'{name}: "{parameter}" is {value!r}; expected a whole number from {least} to {MOST - 1}')
