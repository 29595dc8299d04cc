"""The models that a run keeps in its state directory, and the event from which on each is active."""

from pathlib import Path
from typing import Final

import numpy as np

from peerwatch import durable
from peerwatch.detectors.base import Detector
from peerwatch.errors import BadInput, RunError, SinkError, UsageError
from peerwatch.judging.detector_judge import LEARNER
from peerwatch.judging.training import TALLY
from peerwatch.readable import shown
from peerwatch.storage import models
from peerwatch.storage.checkpoints import DAMAGE, files_in
from peerwatch.storage.journal import Journal, JournalEntry

MODELS: Final = "models"
KEPT: Final = 1000
"""The number of models that are kept; models that kept checkpoints need are always kept."""


class ModelStore:
    """The models of one judge, "champion" or "challenger"."""

    def __init__(self, directory: Path, journal: Journal, who: str) -> None:
        self._directory = directory
        self._models = directory / MODELS
        self._journal = journal
        self._who = who

    def since(self, version: int) -> int | None:
        """The event from which on a model is active; None if that is not written down."""
        return self._journal.since(self._who, version)

    def load(self, version: int, like: Detector) -> Detector:
        """A model that has been kept, of the same parameters as `like`.

        Raises:
            RunError: it is not there, damaged, or of other parameters.
        """
        try:
            return self.read(version, like)
        except UsageError as error:
            raise RunError(
                f"model {version}, which this state needs, cannot be used: {error}; bring it back, or begin anew with"
                " --reset"
            ) from None

    def read(self, version: int, like: Detector) -> Detector:
        """Like `load`, for a reader that is not the run itself.

        Raises:
            UsageError: it is not there, damaged, another one, or of other parameters.
        """
        path = self.path(version)
        held = models.facts(path).get("version")
        if held != version:
            raise UsageError(f"{shown(path)} holds model {held}")
        return models.load(path, like)

    def keep(self, version: int, model: Detector) -> None:
        """Keep a model that is not active yet, and remove those that are no longer needed.

        Raises:
            RunError: the detector cannot be saved.
            SinkError: it could not be written.
        """
        try:
            durable.make_directory(self._models)
            models.save(model, self.path(version), version=version)
            oldest = min(version - KEPT, self._needed())
            for path in self._models.glob(f"{self._who}-*.npz"):
                if path < self.path(oldest):
                    durable.unlink(path)
        except BadInput as error:
            raise RunError(f"a run with a state directory keeps its models, but {error}") from None
        except OSError as error:
            raise SinkError(f"cannot keep model {version} in {self._models}: {error.strerror}") from None

    def speaks(self, version: int, seq: int) -> None:
        """Write down that a model is active from event `seq` on.

        Raises:
            SinkError: it could not be written.
        """
        self._journal.add(JournalEntry(seq, self._who, version))

    def path(self, version: int) -> Path:
        """The path of a model."""
        return self._models / f"{self._who}-{max(version, 0):08d}.npz"

    def _needed(self) -> int:
        """The version of the model that the oldest checkpoint needs."""
        try:
            with np.load(files_in(self._directory)[0], allow_pickle=False) as archive:
                return int(archive[f"{self._who}.{LEARNER}.{TALLY}"][1])
        except (IndexError, *DAMAGE):
            return 0
