"""The way from sessions to a score: features, scaling and one-hot columns, a model, as one scikit-learn pipeline."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, RobustScaler

from peerwatch.sessions import own_past
from peerwatch.sessions.columns import Floats, Mask, SessionTable
from peerwatch.sessions.features import FEATURES, GROUPS, computed
from peerwatch.sessions.own_past import PastSessions

UNSEEN: Final = -1.0
"""The code of a category that was not there when the model was trained."""
RARE: Final = 2
"""A category that fewer sessions have is as one that nobody has seen."""
LARGEST: Final = 1e30
OTHER: Final = "column "
"""What the name of a feature begins with that is a column which peerwatch does not know."""
FARTHEST: Final = 5.0
"""Models that measure distances see no value further from the middle than this many interquartile ranges."""


class SessionFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """Turns a table of sessions into numbers: features, columns that are not known, and codes of categories.

    What a column of the result means is in `names_`, and for the categories, which come last, in `categories_`.
    Features that say nothing about the sessions it is fitted on are left out.
    """

    def __init__(self, *, own_past: bool = True, without: Sequence[str] = ()) -> None:
        """`without` are features, or groups of them, that are left out."""
        self.own_past = own_past
        self.without = without

    def fit(self, table: SessionTable, y: Mask | None = None) -> "SessionFeatures":
        """Learn which features there are, the categories, and the past of each user."""
        self.fit_transform(table, y)
        return self

    def fit_transform(self, table: SessionTable, y: Mask | None = None) -> Floats:
        """Fit, and return the features of the same sessions; those labelled anomalous belong to nobody's past."""
        names = [feature.name for feature in FEATURES if not self._is_out(feature.name)]
        others = [name for name in table.numbers if name not in GROUPS]
        columns = [*computed(table, names), *_others(table, others)]
        labels = [*names, *(f"{OTHER}{name}" for name in others)]
        past = PastSessions()
        if self.own_past:
            own, past = own_past.compared(table, past, None if y is None else ~y)
            kept = [name for name in own_past.NAMES if not self._is_out(name)]
            columns += [own[:, own_past.NAMES.index(name)] for name in kept]
            labels += kept
        self.past_users_, self.past_rows_ = past.columns()
        varies = [_varies(column) for column in columns]
        self.names_ = [name for name, says in zip(labels, varies, strict=True) if says]
        kept_columns = [column for column, says in zip(columns, varies, strict=True) if says]
        self.categories_ = {
            name: found for name, texts in table.categories.items() if len(found := _categories(texts.tolist())) > 1
        }
        return self._matrix(table, kept_columns)

    def transform(self, table: SessionTable) -> Floats:
        """The features of sessions, compared with the past that was learned; it does not change."""
        return self.followed(table, self.past())[0]

    def past(self) -> PastSessions:
        """What is remembered of the users of the sessions that it was fitted on."""
        return PastSessions.of(self.past_users_, self.past_rows_)

    def followed(self, table: SessionTable, past: PastSessions) -> tuple[Floats, PastSessions]:
        """The features of sessions, compared with a given past, and the past of their users with them."""
        names = [name for name in self.names_ if name in _PLAIN]
        others = [name.removeprefix(OTHER) for name in self.names_ if name.startswith(OTHER)]
        columns = [*computed(table, names), *_others(table, others)]
        if self.own_past:
            own, later = own_past.compared(table, past)
            columns += [own[:, _OWN[name]] for name in self.names_ if name in _OWN]
            return self._matrix(table, columns), later
        return self._matrix(table, columns), PastSessions()

    def _matrix(self, table: SessionTable, columns: Sequence[Floats]) -> Floats:
        count = len(self.names_)
        matrix = np.empty((len(table), count + len(self.categories_)))
        for place, column in enumerate(columns):
            matrix[:, place] = column
        np.clip(matrix[:, :count], -LARGEST, LARGEST, out=matrix[:, :count])
        for place, (name, known) in enumerate(self.categories_.items(), count):
            code = {text: float(number) for number, text in enumerate(known)}
            matrix[:, place] = [code.get(text, UNSEEN) for text in table.text(name).tolist()]
        return matrix

    def _is_out(self, name: str) -> bool:
        return name in self.without or GROUPS[name] in self.without


class DistanceScaler(TransformerMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """For models that measure distances: missing values are in the middle, and nothing is farther than 5 from it."""

    def fit(self, X: Floats, y: Mask | None = None) -> "DistanceScaler":  # noqa: ARG002 (scikit-learn's signature)
        """There is nothing to learn."""
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: Floats) -> Floats:
        """The values, tamed."""
        return np.nan_to_num(np.clip(X, -FARTHEST, FARTHEST), nan=0.0)


def assembled(features: SessionFeatures, estimator: Any, *, measures_distances: bool) -> Pipeline:
    """The pipeline around fitted features: it scales numbers robustly and gives each known category a column."""
    count = len(features.names_)
    numbers, categories = slice(0, count), slice(count, count + len(features.categories_))
    known = [np.arange(len(found), dtype=np.float64) for found in features.categories_.values()]
    parts: list[tuple[str, Any, slice]] = [("numbers", RobustScaler(), numbers)]
    if known:
        encoder = OneHotEncoder(categories=known, handle_unknown="ignore", sparse_output=False)
        parts.append(("categories", encoder, categories))
    steps: list[tuple[str, Any]] = [("features", features), ("columns", ColumnTransformer(parts, sparse_threshold=0))]
    if measures_distances:
        steps.append(("distances", DistanceScaler()))
    return Pipeline([*steps, ("model", estimator)])


def behind_features(pipeline: Pipeline) -> Pipeline:
    """The pipeline's steps behind the features, which take the matrix."""
    return pipeline[1:]


_PLAIN: Final = frozenset(feature.name for feature in FEATURES)
_OWN: Final = {name: place for place, name in enumerate(own_past.NAMES)}


def _others(table: SessionTable, names: Sequence[str]) -> list[Floats]:
    """Columns that nobody knows, as signed logarithms: they may be of any size."""
    return [np.sign(column) * np.log1p(np.abs(column)) for column in (table.number(name) for name in names)]


def _varies(column: Floats) -> bool:
    some = column[~np.isnan(column)]
    return bool(len(some)) and bool((some != some[0]).any() or len(some) < len(column))


def _categories(texts: list[str]) -> list[str]:
    """Those that are frequent enough, in alphabetical order; missing text is one of them."""
    found: dict[str, int] = {}
    for text in texts:
        found[text] = found.get(text, 0) + 1
    return sorted(text for text, count in found.items() if count >= RARE)
