"""Training a session model: leaks first, then scores of unseen sessions, the threshold, and the model itself."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import GroupKFold, ParameterSampler, StratifiedKFold
from sklearn.pipeline import Pipeline
from threadpoolctl import ThreadpoolController

from peerwatch.errors import BadInput
from peerwatch.sessions import leaks
from peerwatch.sessions.columns import Floats, Mask, SessionTable
from peerwatch.sessions.models import SessionModelKind, kind_of, score
from peerwatch.sessions.pipeline import SessionFeatures, assembled, behind_features
from peerwatch.sessions.threshold import Calibration, ThresholdRule, calibrated, uncalibrated

FOLDS: Final = 3
LEAST_ROWS: Final = 20
THREADS: Final = ThreadpoolController()
"""Models work on one thread: on a busy machine several wait for each other far longer than they save."""


class TrainingOrder(msgspec.Struct, frozen=True):
    """What to train. Shares are above 0 and below 1.

    `expect` is the share of anomalies in production, by default that of the training rows; `contamination` the share
    that is flagged where there are no labels. `own_past` compares sessions with their user's past: with `auto` if
    unseen sessions are judged better for it. `without` are features or groups of features that are left out.
    """

    model: str = "hist_gradient_boosting"
    expect: float | None = None
    contamination: float = 0.05
    threshold: ThresholdRule = ThresholdRule()
    own_past: bool | None = None
    without: tuple[str, ...] = ()
    parameters: dict[str, Any] = {}
    search: int = 0
    seed: int = 1


class TrainedParts(NamedTuple):
    """What training gives: the pipeline, what a score means, how it did on unseen sessions, and the middle of normal.

    `unseen` are the scores of the training sessions from models that had not seen them; without labels those of the
    model itself.
    """

    pipeline: Pipeline
    calibration: Calibration
    unseen: Floats
    typical: Floats
    facts: dict[str, Any]
    warnings: list[str]


def trained(
    table: SessionTable, labels: Mask | None, order: TrainingOrder, name: str, moved: Callable[[int, str], None]
) -> TrainedParts:
    """Train a model on sessions, with labels if the model needs some or the threshold is to follow them.

    `moved` is told how many searched settings have been tried.

    Raises:
        BadInput: there are too few sessions, or a parameter is wrong.
    """
    kind = kind_of(order.model)
    _check(table, labels, kind, order)
    with THREADS.limit(limits=1):
        if labels is None:
            return _without_labels(table, kind, order)
        return _with_labels(table, labels, kind, order, name, moved)


def _with_labels(
    table: SessionTable, labels: Mask, kind: SessionModelKind, order: TrainingOrder, name: str,
    moved: Callable[[int, str], None],
) -> TrainedParts:  # fmt: skip
    expect = order.expect if order.expect is not None else float(labels.mean())
    folds = list(folds_of(table, labels, order.seed))
    tried = [order.own_past] if order.own_past is not None else [False, True]
    found: list[tuple[float, Floats, SessionFeatures, Floats]] = []
    for own_past in tried:
        features = SessionFeatures(own_past=own_past, without=order.without)
        matrix = features.fit_transform(table, labels)
        if not features.names_ and not features.categories_:
            raise BadInput("all sessions are the same; there is nothing to learn from")
        unseen = out_of_fold(matrix, labels, features, kind, order.seed, order.parameters, folds)
        found.append((float(average_precision_score(labels, unseen)), unseen, features, matrix))
    _, unseen, features, matrix = max(found, key=lambda each: each[0])
    parameters = dict(order.parameters)
    if order.search:
        parameters, unseen = _searched(matrix, labels, features, kind, order, folds, moved, unseen)
    area = float(roc_auc_score(labels, unseen))
    judged = area if kind.supervised else _area_of_any_model(matrix, labels, features, order.seed, folds)
    warned = leaks.unexplained(judged, labels, name).warnings
    pipeline = _fitted(matrix, labels, features, kind, order.seed, parameters)
    facts = {
        "rows": len(table), "anomalous": int(labels.sum()), "expect": expect, "own_past": features.own_past,
        "threshold": str(order.threshold), "seed": order.seed, "parameters": parameters,
        "unseen_roc_auc": round(area, 6), "unseen_pr_auc": round(float(average_precision_score(labels, unseen)), 6),
    }  # fmt: skip
    calibration = calibrated(unseen, labels, expect, order.threshold)
    return TrainedParts(pipeline, calibration, unseen, _typical(matrix[~labels], features), facts, warned)


def _without_labels(table: SessionTable, kind: SessionModelKind, order: TrainingOrder) -> TrainedParts:
    features = SessionFeatures(own_past=order.own_past is not False, without=order.without)
    matrix = features.fit_transform(table)
    if not features.names_ and not features.categories_:
        raise BadInput("all sessions are the same; there is nothing to learn from")
    pipeline = _fitted(matrix, None, features, kind, order.seed, order.parameters)
    found = score(behind_features(pipeline), matrix, supervised=False)
    facts = {
        "rows": len(table), "anomalous": None, "contamination": order.contamination, "own_past": features.own_past,
        "seed": order.seed, "parameters": dict(order.parameters),
    }  # fmt: skip
    return TrainedParts(
        pipeline, uncalibrated(found, order.contamination), found, _typical(matrix, features), facts, []
    )


def folds_of(table: SessionTable, labels: Mask, seed: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Rows to fit on and rows to score, in three parts: no user is in both where enough users have both labels."""
    users = table.user
    by_user = (users != "").all() and all(len(set(users[labels == each].tolist())) >= FOLDS for each in (False, True))
    if by_user:
        _, number = np.unique(users.astype(np.str_), return_inverse=True)
        shuffled = np.random.default_rng(seed).permutation(number.max() + 1)[number]
        parts = list(GroupKFold(FOLDS).split(labels[:, None], labels, shuffled))
        if all(0 < labels[rows].sum() < len(rows) for part in parts for rows in part):
            yield from parts
            return
    yield from StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(labels[:, None], labels)


def out_of_fold(
    matrix: Floats,
    labels: Mask,
    features: SessionFeatures,
    kind: SessionModelKind,
    seed: int,
    parameters: Mapping[str, Any],
    folds: list[tuple[NDArray[Any], NDArray[Any]]],
) -> Floats:
    """Each row's score by a model that was fitted without it (and, where that is possible, without its user)."""
    found = np.empty(len(labels))
    for fitted, scored in folds:
        pipeline = _fitted(matrix[fitted], labels[fitted], features, kind, seed, parameters)
        found[scored] = score(behind_features(pipeline), matrix[scored], supervised=kind.supervised)
    return found


def _fitted(
    matrix: Floats,
    labels: Mask | None,
    features: SessionFeatures,
    kind: SessionModelKind,
    seed: int,
    parameters: Mapping[str, Any],
) -> Pipeline:
    estimator = kind.estimator(seed, parameters)
    fitted = matrix if kind.supervised or labels is None else matrix[~labels]
    if isinstance(drawn := estimator.get_params().get("max_samples"), int):
        estimator.set_params(max_samples=min(drawn, len(fitted)))
    pipeline = assembled(features, estimator, measures_distances=kind.measures_distances)
    rest = behind_features(pipeline)
    try:
        if kind.supervised:
            rest.fit(fitted, labels)
        else:
            rest.fit(fitted)
    except (ValueError, TypeError) as error:  # a parameter's value
        raise BadInput(f"the model cannot be fitted: {str(error).partition(chr(10))[0]}") from error
    return pipeline


def _searched(
    matrix: Floats, labels: Mask, features: SessionFeatures, kind: SessionModelKind, order: TrainingOrder,
    folds: list[tuple[NDArray[Any], NDArray[Any]]], moved: Callable[[int, str], None], unseen: Floats,
) -> tuple[dict[str, Any], Floats]:  # fmt: skip
    """The best of some random parameters by average precision on unseen rows, the given ones among them."""
    best, chosen = float(average_precision_score(labels, unseen)), dict(order.parameters)
    drawn = ParameterSampler(kind.tried, order.search, random_state=order.seed)
    for number, parameters in enumerate(drawn, 1):
        given = {**parameters, **order.parameters}
        found = out_of_fold(matrix, labels, features, kind, order.seed, given, folds)
        if (area := float(average_precision_score(labels, found))) > best:
            best, chosen, unseen = area, given, found
        moved(number, f"best PR-AUC {best:.3f}")
    return chosen, unseen


def _area_of_any_model(
    matrix: Floats, labels: Mask, features: SessionFeatures, seed: int, folds: list[tuple[NDArray[Any], NDArray[Any]]]
) -> float:
    """Whether the features explain the labels at all: asked of a model that is given both."""
    kind = kind_of("hist_gradient_boosting")
    return float(roc_auc_score(labels, out_of_fold(matrix, labels, features, kind, seed, {"max_iter": 100}, folds)))


def _typical(matrix: Floats, features: SessionFeatures) -> Floats:
    """The middle of each feature, and the most frequent of each category."""
    count = len(features.names_)
    with np.errstate(all="ignore"):
        known = ~np.isnan(matrix[:, :count])
        ordered = np.sort(matrix[:, :count], axis=0)
        middle = np.where(known.any(axis=0), ordered[np.maximum(known.sum(axis=0) - 1, 0) // 2, np.arange(count)], 0.0)
    frequent = []
    for codes in matrix[:, count:].T:
        values, counts = np.unique(codes, return_counts=True)
        frequent.append(float(values[counts.argmax()]))
    return np.concatenate((middle, frequent))


def _check(table: SessionTable, labels: Mask | None, kind: SessionModelKind, order: TrainingOrder) -> None:
    if len(table) < LEAST_ROWS:
        raise BadInput(f"there are {len(table)} sessions that can be read; a model needs {LEAST_ROWS}")
    if labels is None and (kind.supervised or order.search or order.expect is not None):
        what = order.model if kind.supervised else "a search" if order.search else "an expected share"
        raise BadInput(f"{what} needs labels; name their column")
    if labels is not None:
        for label in (True, False):
            if (count := int((labels == label).sum())) < 2 * FOLDS:
                raise BadInput(f"{count} sessions are labelled {int(label)}; a model needs {2 * FOLDS} of each")
    for what, share in (("expected share", order.expect), ("contamination", order.contamination)):
        if share is not None and not 0 < share < 1:
            raise BadInput(f"the {what} is {share}; expected a number between 0 and 1")
