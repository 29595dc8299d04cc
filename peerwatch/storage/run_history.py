"""What a state directory knows of its run: models, labels, and when each came. It is only read, never written."""

from pathlib import Path
from typing import Final, NamedTuple

from peerwatch.detectors.base import Detector
from peerwatch.errors import UsageError
from peerwatch.judging.judge import CHAMPION
from peerwatch.judging.labels import Label
from peerwatch.storage.feedback import judged_in
from peerwatch.storage.journal import Journal
from peerwatch.storage.label_feed import LabelFeed
from peerwatch.storage.model_store import ModelStore

NEVER: Final = 2**62
"""A sequence number that no event has."""


class RunHistory(NamedTuple):
    """A state directory and its journal, which is complete up to event `through`."""

    directory: Path
    journal: Journal
    through: int

    def models(self, *, complete: bool) -> "KnownModels":
        """The champion's models. If the history is not `complete`, missing models are trained again."""
        return KnownModels(ModelStore(self.directory, self.journal, CHAMPION), complete=complete)

    def labels(self) -> "KnownLabels":
        """The labels of analysts."""
        return KnownLabels(self.directory, self.journal)


def read_record(directory: Path) -> RunHistory:
    """Read the history of a run from its state directory; the run may still be running.

    Raises:
        UsageError: it cannot be read, or is damaged.
    """
    through = judged_in(directory)  # before the journal: what happened up to there is written in it by then
    return RunHistory(directory, Journal(directory), through)


class KnownModels:
    """The champion's models, as the journal lists them."""

    def __init__(self, model_store: ModelStore, *, complete: bool) -> None:
        self._model_store = model_store
        self._complete = complete

    def since(self, version: int) -> int | None:
        """The event from which on a model is active; NEVER if a complete history does not name it."""
        since = self._model_store.since(version)
        return NEVER if since is None and self._complete else since

    def load(self, version: int, like: Detector) -> Detector:
        """A model that was active.

        Raises:
            UsageError: it is not there any more, damaged, or of other parameters.
        """
        try:
            return self._model_store.read(version, like)
        except UsageError as error:
            raise UsageError(
                f"this cannot be judged again without model {version}, which was active then: {error}"
            ) from None

    def keep(self, version: int, model: Detector) -> None:
        """Do nothing: nothing is kept."""

    def speaks(self, version: int, seq: int) -> None:
        """Do nothing: nothing is written down."""


class KnownLabels:
    """The labels that were read, according to the journal."""

    def __init__(self, directory: Path, journal: Journal) -> None:
        self._inbox = LabelFeed(directory, journal, lambda _: None)  # the run has warned of what is damaged

    def look(self) -> None:
        """Do nothing: labels that were not read do not matter."""

    def since(self, heard: int) -> int | None:
        """The event before which the labels after `heard` bytes were read."""
        return self._inbox.since(heard)

    def has_more(self, heard: int) -> bool:  # noqa: ARG002
        """Whether the journal has more labels."""
        return False

    def hear(self, seq: int, heard: int) -> tuple[list[Label], int]:
        """The labels after `heard` bytes, and where they end; nothing is written."""
        return self._inbox.hear(seq, heard)
