"""Has any detector but sigma judge windows: in floats, and in order of time."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from peerwatch.detectors.base import Detector, Floats, Verdicts
from peerwatch.detectors.features import FEATURES, features
from peerwatch.errors import RunError
from peerwatch.judging.adaptation import Adaptation, section
from peerwatch.judging.adaptive_threshold import GRID
from peerwatch.judging.detector_input import DetectorInput, detector_input
from peerwatch.judging.judge import BatchVerdicts, Case, Judge, Scoring
from peerwatch.judging.severity import Severity
from peerwatch.judging.training import Learner
from peerwatch.kernels import Int64s

LEARNER: Final = "learner"
LEAST: Final = 2
"""Purchases in a window that says something."""


class DetectorJudge(Judge):
    """A detector, what it has learned so far, and what its threshold has adapted to."""

    def __init__(
        self,
        detector: Detector,
        learner: Learner | None = None,
        adaptation: Adaptation | None = None,
        severity: Severity | None = None,
    ) -> None:
        super().__init__(severity=severity)
        self.detector: Detector = detector
        """As it was asked for if it does not learn, or nothing has been learned yet; then the model that speaks."""
        self.learner = learner
        self.adaptation = adaptation
        self._alarmed = False
        """Whether a change waits for the next place at which a lesson may be brought forward."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The detector's parameters."""
        return self.detector.get_params()

    @property
    def wants_context(self) -> bool:
        """Whether the detector wants to know more of a purchase than its window."""
        return self.detector.wants_context

    @property
    def stepwise(self) -> bool:
        """Whether how purchases are judged may change from one to the next."""
        return self.learner is not None or (self.adaptation is not None and self.adaptation.moves)

    def until(self, case: Case) -> int:
        """How many of the purchases may be judged before something may change how the others are."""
        rooms = [len(case.seq)]
        if self.learner is not None:
            rooms.append(self.learner.room())
            if self._watched:
                rooms.append(GRID - self.learner.count % GRID)
        if self.adaptation is not None:
            rooms.append(self.adaptation.room() or len(case.seq))
        ripe, room = np.flatnonzero(_ripe(case)), min(rooms)
        return int(ripe[room - 1]) + 1 if room < len(ripe) else len(case.seq)

    def verdicts(self, case: Case) -> BatchVerdicts:
        """Judge purchases, no more than `until` says; their windows are put in order of time.

        Raises:
            RunError: the detector failed.
        """
        known = case if self.wants_context else case._replace(own=None)  # another may want it
        handed, ripe = detector_input(known), np.flatnonzero(_ripe(case))
        try:
            own = Verdicts.of(self.detector.judge(*handed), len(case.seq))
            rows = self._training_rows(handed, ripe)
        except Exception as error:  # a user's own code: trying again would not help
            what = f"{type(error).__name__}: {error}"
            raise RunError(f"the detector {self.detector.name} failed: {what}") from error
        adapted = own
        if self.adaptation is not None:
            adapted = self.adaptation.adapted(own)
            seen, seen_so = own.at(ripe), adapted.at(ripe)
            self._alarmed |= self.adaptation.see(case.seq[ripe], case.line[ripe], seen, seen_so)
        model = None
        if self.learner is not None:
            model = np.full(len(own.score), self.learner.version)
            self.learner.see(len(ripe), rows)
            if self._alarmed and self.learner.count % GRID == 0:
                self.learner.hurry()
                self._alarmed = False
        return BatchVerdicts(adapted.flagged, adapted.score, adapted.threshold, model)

    def activate(self, model: Detector) -> None:
        """Judge by a model, that of the learner's training set, from now on."""
        if self.learner is not None:
            self.learner.activate()
        self.detector = model

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All it remembers but the model itself. Copies."""
        arrays: dict[str, NDArray[Any]] = {"alarmed": np.array(self._alarmed)}
        for name, part in self._parts().items():
            arrays |= {f"{name}.{key}": array for key, array in part.arrays().items()}
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]], load_model: Callable[[int, Detector], Detector]) -> None:
        """As new: go on as the one whose `arrays` these are would, with the model that was active then."""
        self._alarmed = bool(arrays["alarmed"])
        for name, part in self._parts().items():
            part.restore(section(arrays, name))
        if self.learner is not None and self.learner.version:
            self.detector = load_model(self.learner.version, self.detector)

    @property
    def _watched(self) -> bool:
        return self.adaptation is not None and self.adaptation.drift is not None

    def _parts(self) -> dict[str, Learner | Adaptation]:
        parts = {LEARNER: self.learner, "adaptation": self.adaptation}
        return {name: part for name, part in parts.items() if part is not None}

    def _training_rows(self, handed: DetectorInput, ripe: Int64s) -> Floats:
        """The features of those purchases that a lesson needs."""
        unwanted = self.learner.unwanted(len(ripe)) if self.learner is not None else len(ripe)
        if unwanted == len(ripe):
            return np.zeros((0, len(FEATURES)))
        first = int(ripe[unwanted])
        return features(*handed.part(first, len(handed.amount)))[ripe[unwanted:] - first]

    def _scoring(self, judged: BatchVerdicts, place: int) -> Scoring | None:
        if judged.score is None or judged.threshold is None:
            return None
        model = int(judged.model[place]) if judged.model is not None else None
        return Scoring(self.detector.name, float(judged.score[place]), float(judged.threshold[place]), model)


def _ripe(case: Case) -> NDArray[np.bool_]:
    """Which windows say something. Shape [q]."""
    return np.diff(case.windows.offsets) >= LEAST
