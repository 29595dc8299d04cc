"""Training of learned detectors: when a training set is complete, and when its model is due."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peerwatch.detectors.base import Detector, Floats
from peerwatch.detectors.features import FEATURES
from peerwatch.errors import RunError

TALLY: Final = "tally"
GATHERED: Final = "gathered"
LESSON: Final = "lesson"


class TrainingSet(NamedTuple):
    """The training set of model number `version`: rows of features, shape [n, features]."""

    version: int
    rows: Floats


class Learner:
    """Collects training sets and decides when their models are due.

    The first training set holds the first `rows` purchases. Further ones are completed whenever the number of purchases
    has doubled, and, once that would take more than `every` purchases, every `every` purchases. Each holds the latest
    `rows` purchases. A model is due half-way to the next training set: until then training may take its time before
    judging waits for it.
    """

    def __init__(self, rows: int, every: int) -> None:
        self.rows, self.every = rows, every
        self.count = 0
        """The number of purchases seen whose windows are large enough to learn from."""
        self.version = 0
        """The version of the active model; 0 before the first."""
        self.training_set: TrainingSet | None = None
        """The training set of the next model, until that model is activated."""
        self.next = rows
        """The count at which the next training set is complete."""
        self.expected = 0
        """The count at which the training set's model is due."""
        self._gathered: list[Floats] = []

    @property
    def due(self) -> bool:
        """Whether a model is due now."""
        return self.training_set is not None and self.count >= self.expected

    def room(self) -> int:
        """The number of purchases until a training set is complete or a model is due."""
        until = self.next
        if self.training_set is not None and self.expected > self.count:
            until = min(until, self.expected)
        return until - self.count

    def unwanted(self, count: int) -> int:
        """How many of the next `count` purchases come before the next training set begins."""
        return min(count, max(0, self.next - self.rows - self.count))

    def see(self, count: int, rows: Floats) -> None:
        """Count purchases, at most `room()`; `rows` are the features of the needed ones, shape [n, features]."""
        self.count += count
        if len(rows):
            self._gathered.append(rows)
        if self.count == self.next:
            self._complete()

    def activate(self) -> None:
        """Mark the training set's model as active.

        Raises:
            ValueError: there is no training set.
        """
        if self.training_set is None:
            raise ValueError("there is no training set whose model could be activated")
        self.version, self.training_set = self.training_set.version, None

    def hurry(self) -> None:
        """Bring the next training set forward after drift: learn from the next `rows` purchases."""
        self.next = min(self.next, self.count + self.rows)  # for a later training set nothing has been gathered yet

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state as arrays, enough for `restore`. The arrays are copies."""
        nothing = np.zeros((0, len(FEATURES)))
        learning = self.training_set.version if self.training_set is not None else 0
        return {
            TALLY: np.array([self.count, self.version, self.next, self.expected, learning], np.int64),
            GATHERED: np.concatenate([nothing, *self._gathered]),
            LESSON: self.training_set.rows if self.training_set is not None else nothing,
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state that `arrays` returned."""
        self.count, self.version, self.next, self.expected, learning = arrays[TALLY].tolist()
        self._gathered = [arrays[GATHERED]]
        self.training_set = TrainingSet(learning, arrays[LESSON]) if learning else None

    def _complete(self) -> None:
        step = min(self.every, self.next)
        if self.training_set is None:
            self.training_set = TrainingSet(self.version + 1, np.concatenate(self._gathered))
            self.expected = self.next + step // 2
            self.next += max(step, self.rows)
        else:
            self.next += self.rows  # the last training set is still in use
        self._gathered.clear()


def fitted(detector: Detector, training_set: TrainingSet) -> Detector:
    """Train a new detector with the parameters of `detector` on the training set. `detector` is not changed.

    Raises:
        RunError: the training failed.
    """
    try:
        return type(detector)(**detector.get_params()).fit(training_set.rows)
    except Exception as error:  # a user's own code, or rows that it cannot be fitted to
        what = f"{type(error).__name__}: {error}"
        name, version = detector.name, training_set.version
        raise RunError(f"the detector {name} could not be trained (model {version}): {what}") from error
