"""Detectors that learn what is normal from rows: of any table, or of `peerwatch.detectors.features` in the pipeline.

A row's score is the same, bit by bit, whatever others it is scored with, and the same rows teach the same.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from numbers import Integral
from typing import Any, ClassVar, Final, NamedTuple, Self
from zipfile import ZIP_DEFLATED

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peerwatch.detectors.base import Context, Detector, Floats, Verdicts, check_finite, columns_of, positive
from peerwatch.detectors.features import features
from peerwatch.errors import BadInput
from peerwatch.kernels import Int64s

LARGEST: Final = 1e100
"""Larger values are cut to this one, whose square is still a float."""
FARTHEST: Final = 1e30
"""Scaled values are cut to this one: scikit-learn's trees take 32-bit floats."""
MOST: Final = 2**31
"""Whole numbers must be below this one."""
BESIDE: Final = 0.5
"""How far half-space trees reach beyond the rows they were fitted on, as a share of the range."""

RATE: Final = 0.01
"""Learning rate of the autoencoder: 50 epochs with it reach as far as 200 with scikit-learn's 0.001."""

Arrays = dict[str, NDArray[Any]]


class Learned(Detector):
    """A detector that flags what scores above all but a share of the rows it has learned from.

    That share is `contamination`. Needs libraries of the extra `learn`.
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
        positive(self.name, contamination=self.contamination)
        if self.contamination > 0.5:
            raise BadInput(f'{self.name}: "contamination" is {self.contamination!r}; expected at most 0.5')
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
        self._check_columns(rows, "purchases have")
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
        rows = columns_of(X)
        self._check_columns(rows, "got")
        return -self._scores(rows)

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
        return scaling | self._kept(self.model_)

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Become fitted from the `arrays` of a fitted detector. Nothing in them is run.

        Raises:
            BadInput: they are not what such a detector has learned.
        """
        self.check()
        rest = dict(arrays)
        try:
            center, scale = _floats(rest.pop("center"), 1), _floats(rest.pop("scale"), 1)
            threshold = float(_floats(rest.pop("threshold"), 0))
            _expect(len(center) == len(scale) > 0 and bool((scale > 0).all()), "its scaling")
            model = self._revived(rest, len(center))
            self._score(model, np.zeros((1, len(center))))
        except Exception as error:  # whatever libraries say to what they have not written
            what = f"{type(error).__name__}: {error}"
            raise BadInput(f"these are not what a {self.name} has learned ({what})") from error
        self.center_, self.scale_, self.threshold_, self.model_ = center, scale, threshold, model
        self.n_features_in_ = len(center)
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
        """The offset and scale of each column: mean and standard deviation, 1 if it is constant."""
        found = self._module("sklearn.preprocessing").StandardScaler().fit(rows)
        return found.mean_, found.scale_

    def _fitted(self, X: ArrayLike) -> Floats:
        """Fit on X; returns the scores of its rows."""
        self.check()
        rows = _tame(columns_of(X))
        if len(rows) < self.least:
            raise BadInput(f"{self.name} needs at least {self.least} rows, got {len(rows)}")
        with self._module("threadpoolctl").threadpool_limits(1):  # sums in parallel come out differently
            scaling = self._scaling(rows)
            model, score = self._learn(_scaled(rows, *scaling))
        self.center_, self.scale_ = scaling
        self.model_, self.n_features_in_ = model, rows.shape[1]
        self.threshold_ = -float(np.percentile(-score, 100 * self.contamination))  # as scikit-learn rounds it
        return score

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
            raise BadInput(f"{self.name} has not been fitted; call fit first")

    def _check_columns(self, rows: Floats, got: str) -> None:
        if rows.shape[1] != self.n_features_in_:
            raise BadInput(f"{self.name} was fitted on {self.n_features_in_} columns, {got} {rows.shape[1]}")

    def _module(self, name: str) -> Any:
        """Import a module of an extra; it is imported late because it is slow to import."""
        try:
            return import_module(name)
        except ImportError:
            extra = "pip install 'peerwatch[learn]'"
            raise BadInput(f"{self.name} needs {_package(name)}, which is not installed: {extra}") from None


class _Saved(Learned):
    """A detector that skops saves as a whole: a scikit-learn estimator without a pickle, made of known types only."""

    unlisted: ClassVar[tuple[str, ...]] = ()
    """Types in the estimator that skops does not trust by default."""

    @abstractmethod
    def _made(self) -> Any:
        """The unfitted estimator."""

    @abstractmethod
    def _expect_whole(self, model: Any, columns: int) -> None:
        """Check what compiled code relies on, before it runs on a restored model."""

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        model = self._made().fit(rows)
        return model, self._score(model, rows)

    def _score(self, model: Any, rows: Floats) -> Floats:
        return -model.score_samples(rows)  # type: ignore[no-any-return]

    def _kept(self, model: Any) -> Arrays:
        saved = self._module("skops.io").dumps(model, compression=ZIP_DEFLATED)
        return {"model": np.frombuffer(saved, np.uint8)}

    def _revived(self, arrays: Arrays, columns: int) -> Any:
        held, skops = arrays["model"], self._module("skops.io")
        _expect(len(arrays) == 1 and held.dtype == np.uint8 and held.ndim == 1, "its model")
        saved = held.tobytes()
        strange = sorted(set(skops.get_untrusted_types(data=saved)) - set(self.unlisted))
        _expect(not strange, f"objects of {', '.join(strange)}")
        model, made = skops.loads(saved, trusted=list(self.unlisted)), self._made()
        _expect(type(model) is type(made) and model.get_params() == made.get_params(), "another model")
        _expect(model.n_features_in_ == columns, "its columns")
        self._expect_whole(model, columns)
        return model


class IsolationForest(_Saved):
    """Flags rows that random splits isolate early (Liu, Ting and Zhou, 2008): scikit-learn's `IsolationForest`."""

    name: ClassVar[str] = "isolation_forest"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.ensemble", "skops.io")
    unlisted: ClassVar[tuple[str, ...]] = ("sklearn.tree._tree.Tree",)

    def __init__(self, *, trees: int = 100, contamination: float = 0.01, seed: int = 1) -> None:
        self.trees = trees
        self.contamination = contamination
        self.seed = seed

    def check(self) -> None:
        """Check the numbers, and that the libraries are installed."""
        super().check()
        _whole(self.name, 1, trees=self.trees)
        _whole(self.name, 0, seed=self.seed)

    def _scaling(self, rows: Floats) -> tuple[Floats, Floats]:
        """No scaling: to trees only the order matters."""
        return np.zeros(rows.shape[1]), np.ones(rows.shape[1])

    def _made(self) -> Any:
        return self._module("sklearn.ensemble").IsolationForest(n_estimators=self.trees, random_state=self.seed)

    def _expect_whole(self, model: Any, columns: int) -> None:
        _expect(len(model.estimators_) == self.trees, "its trees")
        for each in model.estimators_:
            tree = each.tree_
            _expect(tree.node_count == tree.capacity and tree.n_features == columns, "a tree")
            inner = np.flatnonzero(tree.children_left != -1)  # any other number is followed, wherever it leads
            for children in (tree.children_left[inner], tree.children_right[inner]):
                _expect(bool(((inner < children) & (children < tree.node_count)).all()), "a tree's branches")
            _expect(bool(((tree.feature[inner] >= 0) & (tree.feature[inner] < columns)).all()), "a tree's columns")


class OneClassSvm(_Saved):
    """Flags rows outside the smooth boundary of the others (Schoelkopf et al., 2001): scikit-learn's `OneClassSVM`.

    `nu` is the share of rows that may lie outside while the boundary is drawn.
    """

    name: ClassVar[str] = "one_class_svm"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.svm", "skops.io")

    def __init__(self, *, nu: float = 0.05, contamination: float = 0.01) -> None:
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
        _expect(model.support_vectors_.shape == (count, columns), "its support vectors")
        _expect(model._dual_coef_.shape == (1, count) and model._intercept_.shape == (1,), "its weights")
        _expect(model._n_support[0] == count, "its support")  # noqa: SLF001 (what libsvm is given)


class _Rows(Learned):
    """A detector that is saved as the rows it was fitted on, and fitted again when it is restored."""

    def _kept(self, model: Any) -> Arrays:
        return {"rows": model[1]}

    def _revived(self, arrays: Arrays, columns: int) -> Any:
        rows = _floats(arrays["rows"], 2)
        _expect(len(arrays) == 1 and rows.shape[1] == columns and len(rows) >= self.least, "its rows")
        with self._module("threadpoolctl").threadpool_limits(1):
            return self._learn(rows)[0]


class LocalOutlierFactor(_Rows):
    """Flags rows in thinner places than their neighbours (Breunig et al., 2000): scikit-learn's `LocalOutlierFactor`.

    `neighbours` at most are looked at. The rows it learns from are scored without themselves.
    """

    name: ClassVar[str] = "lof"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.neighbors",)

    def __init__(self, *, neighbours: int = 20, contamination: float = 0.01) -> None:
        self.neighbours = neighbours
        self.contamination = contamination

    def check(self) -> None:
        """Check the numbers, and that the libraries are installed."""
        super().check()
        _whole(self.name, 1, neighbours=self.neighbours)

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        kind = self._module("sklearn.neighbors").LocalOutlierFactor
        neighbours = min(self.neighbours, len(rows) - 1)
        model = kind(neighbours, algorithm="kd_tree", novelty=True)  # distances by brute force depend on the batch
        return (model.fit(rows), rows), -model.negative_outlier_factor_

    def _score(self, model: Any, rows: Floats) -> Floats:
        return -model[0].score_samples(rows)  # type: ignore[no-any-return]


class _Halves(NamedTuple):
    """One of river's half-space trees as columns, the root first. A leaf's children are itself."""

    feature: Int64s
    limit: Floats
    below: Int64s
    above: Int64s
    mass: Floats

    @classmethod
    def of(cls, root: Any) -> "_Halves":
        """The tree that begins at `root`, as columns."""
        nodes = [*root.iter_dfs()]
        place = {id(node): number for number, node in enumerate(nodes)}
        children = [
            [place[id(child)] for child in node.children] if hasattr(node, "children") else [number, number]
            for number, node in enumerate(nodes)
        ]
        below, above = np.array(children, np.int64).T
        feature = np.array([getattr(node, "feature", 0) for node in nodes], np.int64)
        limit = np.array([getattr(node, "threshold", 0.0) for node in nodes])
        return cls(feature, limit, below, above, np.array([node.r_mass for node in nodes], np.float64))

    def mass_of(self, rows: Floats, least: float) -> Floats:
        """The mass on each row's path from the root, which ends where less than `least` is left. Shape [n]."""
        at, going, weight = np.zeros(len(rows), np.int64), np.arange(len(rows)), 1.0
        total = np.zeros(len(rows))
        while len(going):
            mass = self.mass[at]
            total[going] += weight * mass
            on = (mass >= least) & (self.below[at] != at)
            going, at, weight = going[on], at[on], 2 * weight
            at = np.where(rows[going, self.feature[at]] < self.limit[at], self.below[at], self.above[at])
        return total


class HalfSpaceTrees(_Rows):
    """Flags rows where few others fell in random halvings of space (Tan, Ting and Liu, 2011): river's `HalfSpaceTrees`.

    The rows it learns from are one window of its; space reaches half their range beyond them in each column.
    """

    name: ClassVar[str] = "half_space_trees"
    modules: ClassVar[tuple[str, ...]] = ("river.anomaly",)

    def __init__(self, *, trees: int = 25, height: int = 8, contamination: float = 0.01, seed: int = 1) -> None:
        self.trees = trees
        self.height = height
        self.contamination = contamination
        self.seed = seed

    def check(self) -> None:
        """Check the numbers, and that the library is installed."""
        super().check()
        _whole(self.name, 1, trees=self.trees, height=self.height)
        _whole(self.name, 0, seed=self.seed)

    def _scaling(self, rows: Floats) -> tuple[Floats, Floats]:
        """Scale columns by their ranges, because trees halve ranges."""
        low = rows.min(axis=0)
        wide = rows.max(axis=0) - low
        return low, np.where(wide > 0, wide, 1.0)

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        forest = self._module("river.anomaly").HalfSpaceTrees(
            n_trees=self.trees,
            height=self.height,
            window_size=len(rows),
            limits=dict.fromkeys(range(rows.shape[1]), (-BESIDE, 1 + BESIDE)),
            seed=self.seed,
        )
        for row in rows.tolist():
            forest.learn_one(dict(enumerate(row)))
        model = [_Halves.of(tree) for tree in forest.trees], rows
        return model, self._score(model, rows)

    def _score(self, model: Any, rows: Floats) -> Floats:
        """River's `score_one` for all rows at once: the mass of each node on the way down, doubled at each level.

        Masses are whole numbers, so their sum is the same in any order.
        """
        trees, learned = model
        mass = np.zeros(len(rows))
        for tree in trees:
            mass += tree.mass_of(rows, 0.1 * len(learned))
        return 1 - mass / (self.trees * len(learned) * (2 ** (self.height + 1) - 1))  # type: ignore[no-any-return]


class Autoencoder(Learned):
    """Flags rows that a narrow neural network cannot repeat: scikit-learn's `MLPRegressor`, taught to give its input.

    `hidden` are the sizes of the layers between; the score is the mean squared error over the columns.
    """

    name: ClassVar[str] = "autoencoder"
    modules: ClassVar[tuple[str, ...]] = ("sklearn.neural_network",)

    def __init__(
        self, *, hidden: Sequence[int] = (8, 4, 8), epochs: int = 50, contamination: float = 0.01, seed: int = 1
    ) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.contamination = contamination
        self.seed = seed

    def check(self) -> None:
        """Check the numbers, and that the library is installed."""
        super().check()
        if not isinstance(self.hidden, Sequence) or isinstance(self.hidden, str) or not self.hidden:
            raise BadInput(f'{self.name}: "hidden" is {self.hidden!r}; expected the sizes of layers, as [8, 4, 8]')
        for size in self.hidden:
            _whole(self.name, 1, hidden=size)
        _whole(self.name, 1, epochs=self.epochs)
        _whole(self.name, 0, seed=self.seed)

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        kind = self._module("sklearn.neural_network").MLPRegressor
        network = kind(hidden_layer_sizes=tuple(self.hidden), learning_rate_init=RATE, random_state=self.seed)
        wanted = rows[:, 0] if rows.shape[1] == 1 else rows
        for _ in range(self.epochs):
            network.partial_fit(rows, wanted)
        model = list(zip(network.coefs_, network.intercepts_, strict=True))
        return model, self._score(model, rows)

    def _score(self, model: Any, rows: Floats) -> Floats:
        values = rows
        with np.errstate(over="ignore", invalid="ignore"):  # restored weights may be anything
            for place, (weights, biases) in enumerate(model):
                inputs = np.maximum(values, 0.0) if place else values
                values = np.tile(biases, (len(rows), 1))
                for column, weight in zip(inputs.T, weights, strict=True):  # BLAS would sum as the batch suggests
                    values += column[:, None] * weight
            return np.square(values - rows).mean(axis=1)  # type: ignore[no-any-return]

    def _kept(self, model: Any) -> Arrays:
        weights = {f"weights{place}": layer[0] for place, layer in enumerate(model)}
        return weights | {f"biases{place}": layer[1] for place, layer in enumerate(model)}

    def _revived(self, arrays: Arrays, columns: int) -> Any:
        sizes = list(pairwise([columns, *self.hidden, columns]))
        names = range(len(sizes))
        model = [(_floats(arrays[f"weights{place}"], 2), _floats(arrays[f"biases{place}"], 1)) for place in names]
        shapes = [(weights.shape, len(biases)) for weights, biases in model]
        _expect(len(arrays) == 2 * len(sizes) and shapes == [(size, size[1]) for size in sizes], "its layers")
        return model


def _package(module: str) -> str:
    return module.partition(".")[0].replace("sklearn", "scikit-learn")


def _tame(rows: Floats) -> Floats:
    """Rows that can be squared, in C order, so that the order of summation does not depend on where they came from."""
    return np.ascontiguousarray(np.clip(rows, -LARGEST, LARGEST))


def _scaled(rows: Floats, center: Floats, scale: Floats) -> Floats:
    with np.errstate(over="ignore"):
        return np.clip((rows - center) / scale, -FARTHEST, FARTHEST)


def _floats(array: NDArray[Any], dimensions: int) -> Floats:
    """The array as finite floats, in C order."""
    _expect(array.dtype == np.float64 and array.ndim == dimensions, "an array's type or shape")
    check_finite(array)
    return np.array(array, np.float64, order="C")


def _expect(right: bool, what: str) -> None:  # noqa: FBT001
    if not right:
        raise ValueError(f"there is something wrong with {what}")


def _whole(name: str, least: int, **parameters: int) -> None:
    """Check that parameters are whole numbers, at least `least`, that the libraries accept."""
    for parameter, value in parameters.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) < MOST:
            raise BadInput(f'{name}: "{parameter}" is {value!r}; expected a whole number from {least} to {MOST - 1}')
