"""What every detector is: a judge of windows in the pipeline, an estimator in a notebook.

In the pipeline `judge` gets the windows of many purchases at once. As a library a detector keeps scikit-learn's
conventions for outlier detectors (`fit`, `predict`, `decision_function`, `score_samples`, `get_params`, `set_params`),
so that it works in its pipelines and searches; scikit-learn itself is needed only there.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peerwatch.detectors.rows import (
    LEAST_SPREAD,
    Names,
    Reason,
    Reference,
    Training,
    check_names,
    names_of,
    not_fitted,
    picked,
    reasons_of,
)
from peerwatch.errors import BadInput, NotNumbers, TooFewRows
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
    threshold_: float
    """The score above which a row is flagged."""
    n_features_in_: int
    """The number of columns that it was fitted on."""
    training_: Training | None
    """What is kept of the rows that it was fitted on; None if it was saved by a version that did not keep it."""

    @property
    def trains(self) -> bool:
        """Whether it judges nothing before it has been fitted on rows of `peerwatch.detectors.features`."""
        return False

    @property
    def wants_context(self) -> bool:
        """Whether `judge` makes use of a context."""
        return False

    @property
    def in_order(self) -> bool:
        """Whether the rows that an estimator judges must be in order, because each depends on those before it."""
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

    def predict_proba(self, X: ArrayLike, method: str = "linear") -> Floats:
        """How likely each row is normal, and how likely anomalous, as PyOD estimates it. Shape [n, 2].

        `linear` puts the score between the lowest and the highest of the rows fitted on; `unify` (Kriegel et al., 2011)
        takes it for one of a normal distribution with their mean and standard deviation. NaN where there is no score.

        Raises:
            BadInput: there is no such method, or it has not been fitted.
        """
        known, score = self._training().scores, -self.score_samples(X)
        known = known[np.isfinite(known)]
        with np.errstate(over="ignore", invalid="ignore"):
            if method == "linear":
                low, high = (known.min(), known.max()) if len(known) else (0.0, 0.0)
                anomalous = (score - low) / (high - low or 1.0)
            elif method == "unify":
                mean, sd = (known.mean(), known.std()) if len(known) else (0.0, 0.0)
                anomalous = np.array([math.erf(z) for z in ((score - mean) / ((sd or 1.0) * math.sqrt(2))).tolist()])
            else:
                raise BadInput(f'{self.name}: "method" is {method!r}; expected linear or unify')
        anomalous = np.clip(anomalous, 0.0, 1.0)
        return np.column_stack([1 - anomalous, anomalous])

    @property
    def decision_scores_(self) -> Floats:
        """The scores of the rows that it was fitted on, looking back: higher is more unusual. Shape [n]."""
        return self._training().scores

    @property
    def labels_(self) -> NDArray[np.int64]:
        """1 for each row that it was fitted on and flags, looking back, 0 for every other. Shape [n]."""
        return (self.decision_scores_ > self.threshold_).astype(np.int64)

    @property
    def offset_(self) -> float:
        """What `decision_function` takes away from `score_samples`: the threshold, negated."""
        return -self.threshold_

    @property
    def feature_names_in_(self) -> Names:
        """The names of the columns that it was fitted on, if they had names."""
        names = self._training().names
        if names is None:
            raise AttributeError(f"{self.name} was fitted on columns without names")
        return names

    def contributions(self, X: ArrayLike, places: Int64s | None = None) -> Floats:
        """By how much each column raises the score of each row (or of those at `places`). Shape [rows, columns].

        That is the score, less the score with the column's typical value instead of the row's own.

        Raises:
            BadInput: it has not been fitted, or on other columns.
        """
        rows, typical = picked(columns_of(X), places), self._training().reference.typical
        score = -self.score_samples(rows)
        found = np.empty_like(rows)
        for column, usual in enumerate(typical.tolist()):
            changed = rows.copy()
            changed[:, column] = usual
            found[:, column] = score + self.score_samples(changed)
        return found

    def looking_back(self, X: ArrayLike, places: Int64s | None = None) -> Floats:
        """The contributions to the scores of `look_back`, for the rows that it was fitted on."""
        return self.contributions(X, places)

    def reasons(self, X: ArrayLike, places: Int64s | None = None, *, back: bool = False) -> list[list[Reason]]:
        """Why rows (or those at `places`) are unusual: which columns, and how far from what is usual.

        With `back` the rows are those it was fitted on, as `look_back` judges them.

        Raises:
            BadInput: it has not been fitted, or on other columns.
        """
        training, rows = self._training(), columns_of(X)
        contributions = (self.looking_back if back else self.contributions)(X, places)
        named = training.names if training.names is not None else names_of(X)
        names = [f"x{place}" for place in range(rows.shape[1])] if named is None else named.tolist()
        return reasons_of(picked(rows, places), contributions, training.reference, names)

    def _training(self) -> Training:
        """What is kept of the rows fitted on.

        Raises:
            NotFitted: it has not been fitted.
            BadInput: it was saved by a version that did not keep it.
        """
        if not hasattr(self, "training_"):
            raise not_fitted(self.name)
        if self.training_ is None:
            raise BadInput(f"this {self.name} was saved by an earlier version; fit it again")
        return self.training_

    def _kept_training(self, arrays: dict[str, NDArray[Any]]) -> Training | None:
        """Take out of the arrays of a saved detector what was kept of the rows that it was fitted on.

        Raises:
            BadInput: it is damaged.
        """
        try:
            return Training.taken(arrays)
        except ValueError as error:
            raise BadInput(f"these are not what a {self.name} has learned") from error

    def remember(self, X: ArrayLike, columns: Floats, scores: Floats) -> None:
        """Keep of the rows fitted on what predictions and reasons need. `columns` are those of `X`."""
        self.n_features_in_ = columns.shape[1]
        self.training_ = Training(scores, Reference.of(columns), names_of(X))

    def _known_columns(self, X: ArrayLike) -> Floats:
        """The rows of X, whose columns must be those it was fitted on.

        Raises:
            BadInput: they are not, or hold something else than finite numbers.
        """
        columns = columns_of(X)
        if self.training_ is not None:
            check_names(self.training_.names, names_of(X))
        if columns.shape[1] != self.n_features_in_:
            raise BadInput(
                f"X has {columns.shape[1]} features, but {self.name} is expecting {self.n_features_in_} features as"
                " input: it was fitted on that many columns"
            )
        return columns

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

    As an estimator `fit` takes each column of X as a window; a row's score is that of its most unusual column. Rows
    that are judged afterwards follow on those in order of time, the first one next.
    """

    least: ClassVar[int] = 2
    """Purchases that a window needs."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a rule with a `score` by an earlier name, which nothing would call.

        Raises:
            BadInput: it defines `score` and not, as well, `score_amounts`.
        """
        super().__init_subclass__(**kwargs)
        for kind in cls.__mro__:
            if "score_amounts" in vars(kind):
                break
            if "score" in vars(kind):
                raise BadInput(
                    f"{cls.__name__} defines score(), which is now called score_amounts(): rename the method, its"
                    " arguments are the same"
                )

    @property
    @abstractmethod
    def threshold(self) -> float:
        """The score above which an amount is flagged."""

    @property
    def in_order(self) -> bool:
        """Whether rows that are judged depend on those before them."""
        return type(self).ahead is not Rule.ahead

    @abstractmethod
    def summarise(self, window: Floats) -> Summary:
        """What is kept of m windows of n amounts, shape [m, n]."""

    @abstractmethod
    def score_amounts(self, summary: Summary, amount: Floats) -> Floats:
        """How unusual the next amount is for each window; shapes [m], or a summary of one window for all."""

    def along(self, series: Floats) -> Floats:
        """How unusual each amount of one series is, looking back at the whole. Shape [n]."""
        return self.score_amounts(self.summarise(series[None, :]), series)

    def ahead(self, summary: Summary, series: Floats) -> Floats:
        """How unusual each of the next amounts is, in order of time, for one window. Shape [n].

        Where nothing depends on the order, each is judged as the next one.
        """
        return self.score_amounts(summary, series)

    def judge(self, offsets: Int64s, window: Floats, amount: Floats, context: Context | None = None) -> Verdicts:  # noqa: ARG002
        """Judge q amounts, all whose windows are of the same size at once."""
        check_finite(window)
        check_finite(amount)
        score = np.full(len(amount), np.nan)
        with np.errstate(over="ignore", invalid="ignore"):  # what floats cannot square has no score
            for rows, windows in by_size(offsets, window):
                if windows.shape[1] >= self.least:
                    score[rows] = self.score_amounts(self.summarise(windows), amount[rows])
        return Verdicts(score, np.full(len(amount), self.threshold), score > self.threshold)

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002 (scikit-learn's)
        """Take each column of X, shape [n, columns], in order of time, as a window.

        Raises:
            BadInput: X is of another shape, has too few rows, or values that are not finite.
        """
        self.check()
        columns = self._enough(X)
        with np.errstate(over="ignore", invalid="ignore"):  # what floats cannot square has no score
            self.summary_ = self.summarise(np.ascontiguousarray(columns.T))
            self.remember(X, columns, self._along(columns).max(axis=1))
        return self

    @property
    def threshold_(self) -> float:  # type: ignore[override]
        """The score above which a row is flagged."""
        self._check_fitted()
        return self.threshold

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
        summary = {f"summary{place}": part for place, part in enumerate(self.summary_)}
        return summary | (self.training_.arrays() if self.training_ is not None else {})

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Become fitted from the `arrays` of a fitted rule.

        Raises:
            BadInput: they are of another shape.
        """
        rest = dict(arrays)
        training = self._kept_training(rest)
        parts = tuple(rest[name] for name in sorted(rest))
        expected = [f"summary{place}" for place in range(len(parts))]
        whole = parts and all(part.dtype == np.float64 and part.shape[:1] == parts[0].shape[:1] != () for part in parts)
        try:
            with np.errstate(all="ignore"):
                found = self.score_amounts(tuple(part[:1] for part in parts), np.zeros(1)) if whole else np.empty(0)
        except Exception as error:  # a rule makes of its own summary what it likes
            raise BadInput(f"these are not what a {self.name} has learned") from error
        other = training is not None and len(training.reference.typical) != len(parts[0])
        if sorted(rest) != expected or found.shape != (1,) or other:
            raise BadInput(f"these are not what a {self.name} has learned")
        self.summary_, self.n_features_in_, self.training_ = parts, len(parts[0]), training
        return self

    def look_back(self, X: ArrayLike) -> Verdicts:
        """Judge each row along its column; a row's score is that of its most unusual column."""
        self.check()
        columns = self._enough(X)
        with np.errstate(over="ignore", invalid="ignore"):
            score = self._along(columns).max(axis=1)
        return Verdicts(score, np.full(len(score), self.threshold), score > self.threshold)

    def contributions(self, X: ArrayLike, places: Int64s | None = None) -> Floats:
        """Each column's own score, for the rows of X that follow on those fitted on. Shape [rows, columns]."""
        return picked(self._column_scores(X), places)

    def looking_back(self, X: ArrayLike, places: Int64s | None = None) -> Floats:
        """Each column's own score, looking back at the whole of X. Shape [rows, columns]."""
        with np.errstate(over="ignore", invalid="ignore"):
            return picked(self._along(self._enough(X)), places)

    def _along(self, columns: Floats) -> Floats:
        """The scores along each column, looking back. Shape [n, columns]."""
        return np.column_stack([self.along(column) for column in np.ascontiguousarray(columns.T)])

    def _enough(self, X: ArrayLike) -> Floats:
        columns = columns_of(X)
        if len(columns) < self.least:
            raise TooFewRows(f"{self.name} needs at least {self.least} rows, got {rows_in(columns)}")
        return columns

    def __sklearn_is_fitted__(self) -> bool:
        """What scikit-learn asks."""
        return hasattr(self, "summary_")

    def _check_fitted(self) -> None:
        if not hasattr(self, "summary_"):
            raise not_fitted(self.name)

    def _column_scores(self, X: ArrayLike) -> Floats:
        """Each column's own score for rows that follow on those fitted on. Shape [n, columns]."""
        self._check_fitted()
        columns = self._known_columns(X)
        scores = np.empty_like(columns)
        for place, column in enumerate(np.ascontiguousarray(columns.T)):
            scores[:, place] = self.ahead(tuple(part[place : place + 1] for part in self.summary_), column)
        return scores

    def _scores(self, X: ArrayLike) -> Floats:
        return self._column_scores(X).max(axis=1)  # type: ignore[no-any-return]


def by_size(offsets: Int64s, window: Floats) -> Iterator[tuple[Int64s, Floats]]:
    """Group windows by size: yields their places, shape [m], and their amounts, shape [m, n]."""
    sizes = np.diff(offsets)
    for size in np.unique(sizes).tolist():
        rows = np.flatnonzero(sizes == size)
        yield rows, window[offsets[rows][:, None] + np.arange(size)]


def ratio(distance: Floats, spread: Floats) -> Floats:
    """`distance / spread`; without any spread the distance in units of 1e-150, which keeps the order."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, distance / np.where(spread == 0, LEAST_SPREAD, spread))


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
    if hasattr(X, "toarray") and hasattr(X, "nnz"):
        raise BadInput("Sparse data is not supported; pass X.toarray()")
    if np.ma.is_masked(X):
        raise BadInput("masked values are not judged; fill them in first")
    try:
        given = np.asarray(X)
        columns = given if given.dtype.kind in "cmM" else given.astype(np.float64, copy=False)
    except TypeError as error:
        raise NotNumbers(f"expected numbers: {error}") from None
    except ValueError as error:
        raise BadInput(f"expected numbers: {error}") from None
    if given.dtype.kind == "c":
        raise BadInput("Complex data not supported: pass real and imaginary parts as columns of their own")
    if given.dtype.kind in "mM":
        raise BadInput("expected numbers, got times; pass them as seconds, or as the index of a table")
    if columns.ndim == 2 and columns.shape[1] == 0:
        raise BadInput(f"X has 0 feature(s) (shape={columns.shape}) while a minimum of 1 is required.")
    if columns.ndim != 2:
        raise BadInput(
            f"expected a table of shape [rows, columns], got shape {list(columns.shape)}. Reshape your data:"
            " reshape(-1, 1) makes a table of a series"
        )
    check_finite(columns)
    return columns


def rows_in(columns: Floats) -> str:
    """How many rows there are, for a message that scikit-learn's checks understand as well."""
    return f"{len(columns)} (n_samples={len(columns)})"


def check_finite(values: Floats) -> None:
    """Check that all values are finite.

    Raises:
        BadInput: one is not.
    """
    bad = np.flatnonzero(~np.isfinite(values.ravel()))
    if len(bad):
        raise BadInput(
            f"value {bad[0] + 1} of {values.size} is {values.ravel()[bad[0]]}; only finite numbers are judged, not NaN"
            " or inf"
        )
