"""The models that sessions are judged by, by name: each makes an estimator and a score that is higher for anomalies."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.neural_network import MLPRegressor
from sklearn.svm import OneClassSVM

from peerwatch.errors import BadInput
from peerwatch.sessions.columns import Floats

SMALLEST: Final = 1e-9
"""Shares are kept as far from 0 and 1, so that their log odds are finite."""


class SessionAutoencoder(BaseEstimator):  # type: ignore[misc] # scikit-learn has no types
    """A narrow neural network that learns to reproduce normal rows; the score is how badly it does."""

    def __init__(
        self, *, hidden: tuple[int, ...] = (16, 8, 16), epochs: int = 200, alpha: float = 1e-3, random_state: int = 1
    ) -> None:
        self.hidden = hidden
        self.epochs = epochs
        self.alpha = alpha
        self.random_state = random_state

    def fit(self, X: Floats, y: Any = None) -> "SessionAutoencoder":  # noqa: ARG002 (scikit-learn's signature)
        """Learn rows."""
        import warnings  # noqa: PLC0415

        from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

        self.network_ = MLPRegressor(
            hidden_layer_sizes=tuple(self.hidden),
            max_iter=self.epochs,
            alpha=self.alpha,
            random_state=self.random_state,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is the user's choice
            self.network_.fit(X, X if X.shape[1] > 1 else X.ravel())
        return self

    def score_samples(self, X: Floats) -> Floats:
        """Higher is more normal, as scikit-learn's outlier detectors have it."""
        layer = X
        weights, biases = self.network_.coefs_, self.network_.intercepts_
        for number, (weight, bias) in enumerate(zip(weights, biases, strict=True), 1):
            layer = np.einsum("ij,jk->ik", layer, weight) + bias  # a matrix product sums in an order of its own
            if number < len(weights):
                layer = np.maximum(layer, 0)
        return np.asarray(-((X - layer) ** 2).mean(axis=1))


class SessionModelKind(NamedTuple):
    """A kind of model: its class with parameters, what a search tries, and how it has to be fed.

    A `supervised` one needs labels; any other learns what is normal, and is given the normal rows where labels say so.
    """

    about: str
    make: type[Any]
    parameters: Mapping[str, Any]
    tried: Mapping[str, list[Any]]
    supervised: bool
    measures_distances: bool = False
    seeded: bool = True

    def estimator(self, seed: int, parameters: Mapping[str, Any]) -> Any:
        """An estimator that has not been fitted.

        Raises:
            BadInput: it has no such parameter.
        """
        known = self.make().get_params()
        for name in parameters:
            if name not in known:
                raise BadInput(f'{self.make.__name__} has no parameter "{name}"; it has {", ".join(sorted(known))}')
        given = {**self.parameters, **parameters}
        return self.make(**given, **({"random_state": seed} if self.seeded and "random_state" not in given else {}))


SESSION_MODELS: Final[Mapping[str, SessionModelKind]] = {
    "hist_gradient_boosting": SessionModelKind(
        "gradient boosting over histograms; needs labels, takes missing values as they are, quick",
        HistGradientBoostingClassifier,
        {"max_iter": 400, "learning_rate": 0.03, "max_depth": 5, "max_features": 0.3, "min_samples_leaf": 10,
         "l2_regularization": 1.0, "early_stopping": False},
        {"max_iter": [200, 300, 400, 600], "learning_rate": [0.02, 0.03, 0.05, 0.08], "max_depth": [3, 5, 7],
         "max_features": [0.2, 0.3, 0.5, 1.0], "min_samples_leaf": [5, 10, 20, 40],
         "l2_regularization": [0.1, 1.0, 5.0]},
        supervised=True,
    ),
    "random_forest": SessionModelKind(
        "many trees on random rows and columns; needs labels",
        RandomForestClassifier,
        {"n_estimators": 300, "min_samples_leaf": 2, "max_features": 0.3},
        {"n_estimators": [200, 400], "min_samples_leaf": [1, 2, 5], "max_features": ["sqrt", 0.3, 0.5]},
        supervised=True,
    ),
    "isolation_forest": SessionModelKind(
        "sessions that random splits isolate early (Liu, Ting and Zhou, 2008)",
        IsolationForest,
        {"n_estimators": 200, "max_samples": 1024, "max_features": 0.5},
        {"n_estimators": [100, 200, 400], "max_samples": [256, 512, 1024], "max_features": [0.3, 0.5, 1.0]},
        supervised=False,
    ),
    "one_class_svm": SessionModelKind(
        "a smooth boundary around what is normal (Schoelkopf et al., 2001)",
        OneClassSVM,
        {"nu": 0.05},
        {"nu": [0.01, 0.05, 0.1, 0.3], "gamma": ["scale", 0.003, 0.01, 0.03]},
        supervised=False,
        measures_distances=True,
        seeded=False,
    ),
    "autoencoder": SessionModelKind(
        "a narrow neural network that learns to reproduce what is normal",
        SessionAutoencoder,
        {"hidden": (16, 8, 16), "epochs": 200, "alpha": 1e-3},
        {"hidden": [(12,), (16, 8, 16), (32, 8, 32)], "epochs": [100, 200, 400], "alpha": [1e-4, 1e-3, 1e-2]},
        supervised=False,
        measures_distances=True,
    ),
}  # fmt: skip


def kind_of(name: str) -> SessionModelKind:
    """The kind of model with this name.

    Raises:
        BadInput: there is none.
    """
    if name not in SESSION_MODELS:
        raise BadInput(f'there is no session model "{name}"; there are {", ".join(SESSION_MODELS)}')
    return SESSION_MODELS[name]


def score(model: Any, rows: Any, *, supervised: bool) -> Floats:
    """How anomalous each row is to a fitted pipeline or estimator: log odds, or a score of its own."""
    if hasattr(model, "decision_function") and supervised:
        return np.asarray(model.decision_function(rows))
    if supervised:
        share = np.clip(model.predict_proba(rows)[:, 1], SMALLEST, 1 - SMALLEST)
        return np.asarray(np.log(share / (1 - share)))
    return np.asarray(-model.score_samples(rows))
