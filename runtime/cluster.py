"""What a run needs of a cluster, so that the pipeline knows none."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from peerwatch.actors.coordinator import Judges
from peerwatch.actors.mailbox import Receive, Send
from peerwatch.actors.messages import CoordinatorMessage, GraphMessage, WindowQueries
from peerwatch.actors.snapshot import SnapshotPart
from peerwatch.judging.judge import Mask
from peerwatch.judging.state import State
from peerwatch.storage.status import WorkerStatus


class ReplicaWiring(NamedTuple):
    """What the pipeline gives to the actor that stands for graph actors and, without quarantine, for shards.

    `state` has all but what the workers hold. `wanted` says for which purchases reasons are needed whatever the
    verdict, as a mask of shape [q]. With `sizes` every network is counted. `warn` is called with a warning.
    """

    state: State
    judges: Judges
    inbox: Receive[GraphMessage]
    coordinator: Send[CoordinatorMessage]
    parts: Send[SnapshotPart]
    wanted: Callable[[WindowQueries], Mask]
    sizes: bool
    warn: Callable[[str], None]


class Replicas(Protocol):
    """That actor."""

    @property
    def part(self) -> str:
        """The name of its part of a snapshot."""

    @property
    def batch_cap(self) -> int:
        """The most events in the next batch that is judged."""

    @property
    def friendships(self) -> int:
        """The number of friendships in force, as of the last reply of a worker."""

    async def run(self) -> None:
        """Serve until the mailbox is closed."""

    def status(self) -> list[WorkerStatus]:
        """How the workers are doing."""

    def checkpointed(self, through: int) -> None:
        """A checkpoint as of event `through` is durable."""


class Cluster(Protocol):
    """Workers on other machines, for one run after the other."""

    def replicas(self, wiring: ReplicaWiring) -> Replicas:
        """Make the actor of a pipeline."""
