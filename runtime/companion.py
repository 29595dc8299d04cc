"""What may run beside a pipeline in the same process, such as a service that shows it."""

from collections.abc import Sequence
from typing import Protocol

from peerwatch.actors.output import Outlet
from peerwatch.connectors.records import Record
from peerwatch.connectors.sink import ResumableSink
from peerwatch.settings.model import Settings
from peerwatch.storage.checkpoints import Identity
from peerwatch.storage.status import Status


class LiveRun(Protocol):
    """What a companion sees of the run."""

    @property
    def identity(self) -> Identity:
        """What the state of the run belongs to."""

    @property
    def settings(self) -> Settings:
        """The complete settings."""

    @property
    def through(self) -> int:
        """The last event up to which everything is judged, and its results are written."""

    async def status(self, *, running: bool) -> Status:
        """How the run is doing."""


class Companion(Protocol):
    """Gets a run's records, and a view of it. Its outlets may come and go between runs on one state directory."""

    def outlets(self, run: str) -> Sequence[Outlet[ResumableSink]]:
        """The sinks that it adds to those of the run with this name. Called in a thread."""

    def began(self, run: LiveRun) -> None:
        """The pipeline is about to start, or to start again."""

    def heard(self, records: Sequence[Record]) -> None:
        """Take records of one kind that every sink has taken, in order; some come again after a restart."""
