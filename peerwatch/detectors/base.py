"""What every detector is: a judge of windows in the pipeline, an estimator in a notebook.

In the pipeline `judge` gets the windows of many purchases at once. As a library a detector keeps scikit-learn's
conventions for outlier detectors (`fit`, `predict`, `decision_function`, `score_samples`, `get_params`, `set_params`),
so that it works in its pipelines and searches; scikit-learn itself is needed only there.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peerwatch.errors import BadInput, TooFewRows
from peerwatch.kernels import Int64s

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Summary = tuple[Floats, ...]
"""What a rule keeps of m windows: arrays of shape [m, ...]."""


class Verdicts(NamedTuple):
    """Verdicts on q purchases: scores, the thresholds above which they are flagged, and the flags. Shapes [q].

    The score is NaN where the window has too few purchases, or numbers beyond what floats can square; such a purchase
    is never flagged.
    """

    score: Floats
    threshold: Floats
    flagged: Mask

    @classmethod
    def of(cls, said: Any, count: int) -> Self:
        """The verdicts that a detector has returned for `count` purchases.

        Raises:
            BadInput: it is no three arrays of that length, or the flags are no booleans.
        """
        try:
            score, threshold, flagged = said
            found = cls(np.asarray(score, np.float64), np.asarray(threshold, np.float64), np.asarray(flagged))
        except (TypeError, ValueError) as error:
            raise BadInput(f"judge returned no scores, thresholds and flags: {error}") from None
        shapes = [list(part.shape) for part in found]
        if shapes != [[count]] * 3:
            raise BadInput(f"judge returned scores, thresholds and flags of shapes {shapes}; expected {[count]} each")
        if found.flagged.dtype != np.bool_:
            raise BadInput(f"judge returned flags of type {found.flagged.dtype}; expected bool")
        return found

    def at(self, places: Int64s) -> "Verdicts":
        """The verdicts on some of the purchases."""
        return Verdicts(self.score[places], self.threshold[places], self.flagged[places])


class Context(NamedTuple):
    """What else is known of q purchases, for detectors that want it.

    `own[own_offsets[i]:own_offsets[i + 1]]` are the latest amounts that the i-th one's buyer paid before, T at most,
    in order of time. Of shape [q]: `since`, seconds since the buyer's latest purchase (NaN if there is none); `hour`,
    hours since midnight UTC; `members`, users in the network.
    """

    own_offsets: Int64s
    own: Floats
    since: Floats
    hour: Floats
    members: Int64s


class Detector(ABC):
    """A rule or model with parameters: the keyword arguments of its constructor, kept under their own names."""

    name: ClassVar[str]

    @property
    def trains(self) -> bool:
        """Whether it judges nothing before it has been fitted on rows of `peerwatch.detectors.features`."""
        return False

    @property
    def wants_context(self) -> bool:
        """Whether `judge` makes use of a context."""
        return False

    @property
    def libraries(self) -> tuple[str, ...]:
        """The packages on whose versions a fitted model depends."""
        return ()

    @abstractmethod
    def judge(self, offsets: Int64s, window: Floats, amount: Floats, context: Context | None = None) -> Verdicts:
        """Judge q amounts, the i-th against `window[offsets[i]:offsets[i + 1]]`, which is in order of time.

        Raises:
            BadInput: an amount is not a finite number.
        """

    def check(self) -> None:  # noqa: B027 (a detector may take any parameters, or none)
        """Check the parameters.

        Raises:
            BadInput: one does not; the sentence names it.
        """

    @abstractmethod
    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn from X, shape [n, columns], in order of time.

        Raises:
            BadInput: X is of another shape, has too few rows, or values that are not finite.
        """

    @abstractmethod
    def score_samples(self, X: ArrayLike) -> Floats:
        """How normal each row of X would be as the next one. Shape [n]."""

    @abstractmethod
    def decision_function(self, X: ArrayLike) -> Floats:
        """How far from being flagged each row is: negative if it is. Shape [n]."""

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """-1 for each row that is flagged, 1 for every other. Shape [n]."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    @abstractmethod
    def look_back(self, X: ArrayLike) -> Verdicts:
        """Judge each row of X, shape [n, columns], in order of time, knowing all of them.

        Raises:
            BadInput: X is of another shape, has too few rows, or values that are not finite.
        """

    def fit_predict(self, X: ArrayLike, y: object = None) -> NDArray[np.int64]:
        """Fit, and look back at the whole of X: -1 for each row that is flagged, 1 for every other. Shape [n]."""
        self.fit(X, y)
        return np.where(self.look_back(X).flagged, -1, 1)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `fit` has learned, as arrays without objects: enough for `restore`.

        Raises:
            BadInput: it has not been fitted, or cannot be saved.
        """
        raise BadInput(f"{self.name} cannot be saved: it has no arrays()")

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Self:  # noqa: ARG002
        """Become fitted from the `arrays` of a fitted detector of the same parameters.

        Raises:
            BadInput: they are not.
        """
        raise BadInput(f"{self.name} cannot be restored: it has no restore()")

    @classmethod
    def parameters(cls) -> list[str]:
        """The names of the parameters."""
        named = inspect.signature(cls).parameters.values()
        return [each.name for each in named if each.kind not in {each.VAR_KEYWORD, each.VAR_POSITIONAL}]

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: ARG002, FBT001, FBT002 (scikit-learn's)
        """The parameters."""
        return {name: getattr(self, name) for name in self.parameters()}

    def set_params(self, **params: Any) -> Self:
        """Change some parameters.

        Raises:
            BadInput: there is no such parameter.
        """
        for name, value in params.items():
            if name not in self.parameters():
                raise BadInput(
                    f'{self.name} has no parameter "{name}"; it has {", ".join(self.parameters()) or "none"}'
                )
            setattr(self, name, value)
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)  # what was fitted was fitted with others
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn wants to know; it is imported only when it asks."""
        from sklearn.utils import InputTags, Tags, TargetTags  # noqa: PLC0415

        return Tags(estimator_type="outlier_detector", target_tags=TargetTags(required=False), input_tags=InputTags())


class Rule(Detector):
    """A detector that needs its window only, of which it keeps a few numbers.

    As an estimator `fit` takes each column of X as a window; a row's score is that of its most unusual column.
    """

    least: ClassVar[int] = 2
    """Purchases that a window needs."""

    @property
    @abstractmethod
    def threshold(self) -> float:
        """The score above which an amount is flagged."""

    @abstractmethod
    def summarise(self, window: Floats) -> Summary:
        """What is kept of m windows of n amounts, shape [m, n]."""

    @abstractmethod
    def score(self, summary: Summary, amount: Floats) -> Floats:
        """How unusual the next amount is for each window; shapes [m], or a summary of one window for all."""

    def along(self, series: Floats) -> Floats:
        """How unusual each amount of one series is, looking back at the whole. Shape [n]."""
        return self.score(self.summarise(series[None, :]), series)

    def judge(self, offsets: Int64s, window: Floats, amount: Floats, context: Context | None = None) -> Verdicts:  # noqa: ARG002
        """Judge q amounts, all whose windows are of the same size at once."""
        check_finite(window)
        check_finite(amount)
        score = np.full(len(amount), np.nan)
        with np.errstate(over="ignore", invalid="ignore"):  # what floats cannot square has no score
            for rows, windows in by_size(offsets, window):
                if windows.shape[1] >= self.least:
                    score[rows] = self.score(self.summarise(windows), amount[rows])
        return Verdicts(score, np.full(len(amount), self.threshold), score > self.threshold)

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002 (scikit-learn's)
        """Take each column of X, shape [n, columns], in order of time, as a window.

        Raises:
            BadInput: X is of another shape, has too few rows, or values that are not finite.
        """
        self.check()
        columns = self._enough(X)
        self.n_features_in_ = columns.shape[1]
        self.summary_ = self.summarise(np.ascontiguousarray(columns.T))
        return self

    def score_samples(self, X: ArrayLike) -> Floats:
        """How normal each row of X would be as the next one: the score, negated. Shape [n]."""
        return -self._scores(X)

    def decision_function(self, X: ArrayLike) -> Floats:
        """How far below the threshold each row's score is; negative if it is flagged. Shape [n]."""
        return self.threshold - self._scores(X)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is kept of each column.

        Raises:
            BadInput: it has not been fitted.
        """
        self._check_fitted()
        return {f"summary{place}": part for place, part in enumerate(self.summary_)}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Become fitted from the `arrays` of a fitted rule.

        Raises:
            BadInput: they are of another shape.
        """
        parts = tuple(arrays[name] for name in sorted(arrays))
        expected = [f"summary{place}" for place in range(len(parts))]
        whole = parts and all(part.dtype == np.float64 and part.shape[:1] == parts[0].shape[:1] != () for part in parts)
        try:
            with np.errstate(all="ignore"):
                found = self.score(tuple(part[:1] for part in parts), np.zeros(1)) if whole else np.empty(0)
        except Exception as error:  # a rule makes of its own summary what it likes
            raise BadInput(f"these are not what a {self.name} has learned") from error
        if sorted(arrays) != expected or found.shape != (1,):
            raise BadInput(f"these are not what a {self.name} has learned")
        self.summary_, self.n_features_in_ = parts, len(parts[0])
        return self

    def look_back(self, X: ArrayLike) -> Verdicts:
        """Judge each row along its column; a row's score is that of its most unusual column."""
        self.check()
        columns = self._enough(X)
        with np.errstate(over="ignore", invalid="ignore"):
            score = np.max([self.along(column) for column in np.ascontiguousarray(columns.T)], axis=0)
        return Verdicts(score, np.full(len(score), self.threshold), score > self.threshold)

    def _enough(self, X: ArrayLike) -> Floats:
        columns = columns_of(X)
        if len(columns) < self.least:
            raise TooFewRows(f"{self.name} needs at least {self.least} rows, got {len(columns)}")
        return columns

    def _check_fitted(self) -> None:
        if not hasattr(self, "summary_"):
            raise BadInput(f"{self.name} has not been fitted; call fit first")

    def _scores(self, X: ArrayLike) -> Floats:
        self._check_fitted()
        columns = columns_of(X)
        if columns.shape[1] != self.n_features_in_:
            raise BadInput(f"{self.name} was fitted on {self.n_features_in_} columns, got {columns.shape[1]}")
        scores = [
            self.score(tuple(part[place : place + 1] for part in self.summary_), column)
            for place, column in enumerate(columns.T)
        ]
        return np.max(scores, axis=0)  # type: ignore[no-any-return]


def by_size(offsets: Int64s, window: Floats) -> Iterator[tuple[Int64s, Floats]]:
    """Group windows by size: yields their places, shape [m], and their amounts, shape [m, n]."""
    sizes = np.diff(offsets)
    for size in np.unique(sizes).tolist():
        rows = np.flatnonzero(sizes == size)
        yield rows, window[offsets[rows][:, None] + np.arange(size)]


def ratio(distance: Floats, spread: Floats) -> Floats:
    """`distance / spread`; without any spread 0 where there is no distance, infinite where there is."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, distance / spread)


def positive(name: str, **parameters: float) -> None:
    """Check that parameters are finite numbers above 0.

    Raises:
        BadInput: one is not.
    """
    for parameter, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < float("inf"):
            raise BadInput(f'{name}: "{parameter}" is {value!r}; expected a number above 0')


def columns_of(X: ArrayLike) -> Floats:
    """A table of finite numbers, shape [rows, columns].

    Raises:
        BadInput: it is none.
    """
    try:
        columns = np.asarray(X, np.float64)
    except (TypeError, ValueError) as error:
        raise BadInput(f"expected numbers: {error}") from None
    if columns.ndim != 2 or columns.shape[1] == 0:
        raise BadInput(
            f"expected a table of shape [rows, columns], got shape {list(columns.shape)}; reshape(-1, 1) makes one of a"
            " series"
        )
    check_finite(columns)
    return columns


def check_finite(values: Floats) -> None:
    """Check that all values are finite.

    Raises:
        BadInput: one is not.
    """
    bad = np.flatnonzero(~np.isfinite(values.ravel()))
    if len(bad):
        raise BadInput(
            f"value {bad[0] + 1} of {values.size} is {values.ravel()[bad[0]]}; only finite numbers are judged"
        )
