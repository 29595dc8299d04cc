"""When a detector that learns is trained, on what, and from when on its new model speaks."""

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
    """What model number `version` learns from: rows of features, shape [n, features]."""

    version: int
    rows: Floats


class Learner:
    """Gathers what the next model learns from, and counts.

    The first lesson is what has been learned from the first `rows` purchases. Then there is one whenever as many
    purchases have been judged again as had been before, and from `every` on one every `every` purchases; each is the
    last `rows` of them. A lesson's model is expected half-way to the next lesson: that is how long training may take
    before anybody has to wait for it.
    """

    def __init__(self, rows: int, every: int) -> None:
        self.rows, self.every = rows, every
        self.count = 0
        """Purchases seen: those whose windows say something."""
        self.version = 0
        """The model that speaks; 0 before the first."""
        self.training_set: TrainingSet | None = None
        """What the next model learns from, until that model speaks."""
        self.next = rows
        """The count at which the next lesson is complete."""
        self.expected = 0
        """The count at which the lesson's model is expected to speak."""
        self._gathered: list[Floats] = []

    @property
    def due(self) -> bool:
        """Whether a model is expected to speak now."""
        return self.training_set is not None and self.count >= self.expected

    def room(self) -> int:
        """How many purchases may be seen before something happens."""
        until = self.next
        if self.training_set is not None and self.expected > self.count:
            until = min(until, self.expected)
        return until - self.count

    def unwanted(self, count: int) -> int:
        """How many of the next `count` purchases no lesson needs."""
        return min(count, max(0, self.next - self.rows - self.count))

    def see(self, count: int, rows: Floats) -> None:
        """Count so many purchases, `room` at most; `rows` are the features of those that are wanted."""
        self.count += count
        if len(rows):
            self._gathered.append(rows)
        if self.count == self.next:
            self._complete()

    def activate(self) -> None:
        """The training set's model judges from now on."""
        if self.training_set is None:
            raise ValueError("there is no training set whose model could be activated")
        self.version, self.training_set = self.training_set.version, None

    def hurry(self) -> None:
        """What was learned may no longer hold: learn from the next `rows` purchases."""
        self.next = min(self.next, self.count + self.rows)  # nothing has been gathered for a later one yet

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All it remembers. Copies."""
        nothing = np.zeros((0, len(FEATURES)))
        learning = self.training_set.version if self.training_set is not None else 0
        return {
            TALLY: np.array([self.count, self.version, self.next, self.expected, learning], np.int64),
            GATHERED: np.concatenate([nothing, *self._gathered]),
            LESSON: self.training_set.rows if self.training_set is not None else nothing,
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Remember what `arrays` held."""
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
            self.next += self.rows  # the last one is still being learned
        self._gathered.clear()


def fitted(detector: Detector, training_set: TrainingSet) -> Detector:
    """A new detector with the parameters of `detector`, which is left as it is, that has learned the training set.

    Raises:
        RunError: it could not be trained.
    """
    try:
        return type(detector)(**detector.get_params()).fit(training_set.rows)
    except Exception as error:  # a user's own code, or rows that nothing can be learned from
        what = f"{type(error).__name__}: {error}"
        name, version = detector.name, training_set.version
        raise RunError(f"the detector {name} could not be trained (model {version}): {what}") from error
