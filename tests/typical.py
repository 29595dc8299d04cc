"""A small detector that learns: what is usual is how far amounts usually lie from their window's mean."""

import time
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peerwatch.detectors.base import Context, Detector, Floats, Verdicts, columns_of
from peerwatch.detectors.features import features
from peerwatch.errors import BadInput
from peerwatch.kernels import Int64s


class Typical(Detector):
    """Flags what is more than k standard deviations from the mean of the first column."""

    name = "typical"
    trained: ClassVar[list[int]] = []
    """Rows of each training in this process."""

    def __init__(self, k: float = 2.0) -> None:
        self.k = k

    @property
    def trains(self) -> bool:
        """It does."""
        return True

    @property
    def wants_context(self) -> bool:
        """It does."""
        return True

    def judge(self, offsets: Int64s, window: Floats, amount: Floats, context: Context | None = None) -> Verdicts:
        """By the features; as a check, the context has to be there."""
        if context is None:
            raise BadInput("no context")
        if not hasattr(self, "mean_"):
            nothing = np.full(len(amount), np.nan)
            return Verdicts(nothing, nothing, np.zeros(len(amount), np.bool_))
        score = -self.score_samples(features(offsets, window, amount, context))
        score[np.diff(offsets) < 2] = np.nan
        return Verdicts(score, np.full(len(score), self.k), score > self.k)

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Learn mean and deviation."""
        column = columns_of(X)[:, 0]
        self.trained.append(len(column))
        self.mean_, self.sd_ = float(column.mean()), float(column.std()) or 1.0
        return self

    def score_samples(self, X: ArrayLike) -> Floats:
        """The distance, negated."""
        return -np.abs(columns_of(X)[:, 0] - self.mean_) / self.sd_

    def decision_function(self, X: ArrayLike) -> Floats:
        """Negative beyond k."""
        return self.k + self.score_samples(X)

    def look_back(self, X: ArrayLike) -> Verdicts:
        """Fit and judge."""
        score = -self.fit(X).score_samples(X)
        return Verdicts(score, np.full(len(score), self.k), score > self.k)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Mean and deviation."""
        return {"learned": np.array([self.mean_, self.sd_])}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Mean and deviation."""
        self.mean_, self.sd_ = arrays["learned"].tolist()
        return self


class Unaware(Typical):
    """Sums up all the features, and wants no context: those that need one are 0 then."""

    name = "unaware"

    @property
    def wants_context(self) -> bool:
        """It does not."""
        return False

    def judge(self, offsets: Int64s, window: Floats, amount: Floats, context: Context | None = None) -> Verdicts:
        """By the sum."""
        if not hasattr(self, "mean_"):
            nothing = np.full(len(amount), np.nan)
            return Verdicts(nothing, nothing, np.zeros(len(amount), np.bool_))
        score = -self.score_samples(features(offsets, window, amount, context))
        score[np.diff(offsets) < 2] = np.nan
        return Verdicts(score, np.full(len(score), self.k), score > self.k)

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Learn mean and deviation of the sum."""
        return super().fit(columns_of(X).sum(axis=1, keepdims=True), y)

    def score_samples(self, X: ArrayLike) -> Floats:
        """The sum's distance, negated."""
        return super().score_samples(columns_of(X).sum(axis=1, keepdims=True))


class Hopeless(Typical):
    """Cannot learn."""

    name = "hopeless"

    def fit(self, X: ArrayLike, y: object = None) -> Self:  # noqa: ARG002
        """Fails."""
        raise ValueError("nothing to be learned here")


class Slow(Typical):
    """Takes its time to learn."""

    name = "slow"

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """As long as some hundred purchases take to come."""
        time.sleep(0.3)
        return super().fit(X, y)
