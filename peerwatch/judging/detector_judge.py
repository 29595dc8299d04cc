"""Judges windows with any detector other than sigma."""

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
"""The smallest window that is used for training, drift and adaptation."""


class DetectorJudge(Judge):
    """A detector, its training state, and its adapted threshold."""

    def __init__(
        self,
        detector: Detector,
        learner: Learner | None = None,
        adaptation: Adaptation | None = None,
        severity: Severity | None = None,
    ) -> None:
        super().__init__(severity=severity)
        self.detector: Detector = detector
        """The active model; before the first model, or without training, the detector as it was configured."""
        self.learner = learner
        self.adaptation = adaptation
        self._alarmed = False
        """Whether drift was detected and the next training set is still to be brought forward."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The detector's parameters."""
        return self.detector.get_params()

    @property
    def wants_context(self) -> bool:
        """Whether the detector needs the buyers' own purchases besides the windows."""
        return self.detector.wants_context

    @property
    def stepwise(self) -> bool:
        """Whether model or threshold may change from one purchase to the next."""
        return self.learner is not None or (self.adaptation is not None and self.adaptation.moves)

    def until(self, case: Case) -> int:
        """Return how many purchases of the case can be judged before model or threshold may change."""
        rooms = [len(case.seq)]
        if self.learner is not None:
            rooms.append(self.learner.room())
            if self._watched:
                rooms.append(GRID - self.learner.count % GRID)
        if self.adaptation is not None:
            rooms.append(self.adaptation.room() or len(case.seq))
        usable, room = np.flatnonzero(_is_usable(case)), min(rooms)
        return int(usable[room - 1]) + 1 if room < len(usable) else len(case.seq)

    def verdicts(self, case: Case) -> BatchVerdicts:
        """Judge purchases, at most `until` of them. Sorts their windows by time, in place.

        Raises:
            RunError: the detector failed.
        """
        known = case if self.wants_context else case._replace(own=None)  # the challenger may have asked for it
        handed, usable = detector_input(known), np.flatnonzero(_is_usable(case))
        try:
            own = Verdicts.of(self.detector.judge(*handed), len(case.seq))
            rows = self._training_rows(handed, usable)
        except Exception as error:  # a user's own code: a retry would not help
            what = f"{type(error).__name__}: {error}"
            raise RunError(f"the detector {self.detector.name} failed: {what}") from error
        adapted = own
        if self.adaptation is not None:
            adapted = self.adaptation.adapted(own)
            seen, seen_so = own.at(usable), adapted.at(usable)
            self._alarmed |= self.adaptation.see(case.seq[usable], case.line[usable], seen, seen_so)
        model = None
        if self.learner is not None:
            model = np.full(len(own.score), self.learner.version)
            self.learner.see(len(usable), rows)
            if self._alarmed and self.learner.count % GRID == 0:
                self.learner.hurry()
                self._alarmed = False
        return BatchVerdicts(adapted.flagged, adapted.score, adapted.threshold, model)

    def activate(self, model: Detector) -> None:
        """Judge by `model` from now on. It must have been trained on the learner's training set."""
        if self.learner is not None:
            self.learner.activate()
        self.detector = model

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state as arrays, without the model itself. The arrays are copies."""
        arrays: dict[str, NDArray[Any]] = {"alarmed": np.array(self._alarmed)}
        for name, part in self._parts().items():
            arrays |= {f"{name}.{key}": array for key, array in part.arrays().items()}
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]], load_model: Callable[[int, Detector], Detector]) -> None:
        """Restore the state that `arrays` returned, with the model that was active. The object must be new."""
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

    def _training_rows(self, handed: DetectorInput, usable: Int64s) -> Floats:
        """The features of the purchases that the training set needs, shape [n, features]."""
        unwanted = self.learner.unwanted(len(usable)) if self.learner is not None else len(usable)
        if unwanted == len(usable):
            return np.zeros((0, len(FEATURES)))
        first = int(usable[unwanted])
        return features(*handed.part(first, len(handed.amount)))[usable[unwanted:] - first]

    def _scoring(self, judged: BatchVerdicts, place: int) -> Scoring | None:
        if judged.score is None or judged.threshold is None:
            return None
        model = int(judged.model[place]) if judged.model is not None else None
        return Scoring(self.detector.name, float(judged.score[place]), float(judged.threshold[place]), model)


def _is_usable(case: Case) -> NDArray[np.bool_]:
    """Which windows hold at least LEAST purchases, shape [q]."""
    return np.diff(case.windows.offsets) >= LEAST
