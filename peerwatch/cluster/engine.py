"""The contract of an engine: something that runs workers on the nodes of a cluster."""

from typing import Protocol


class WorkerLost(Exception):  # noqa: N818 (it is what has happened, and another worker takes over)
    """A worker does not answer any more. The text says why."""


class WorkerSilent(WorkerLost):
    """It does not answer in time, and perhaps nothing else on its node does."""


class Call(Protocol):
    """A command that is on its way to a worker, or has been carried out."""

    async def reply(self) -> bytes:
        """Wait for the reply. May be cancelled, and called again.

        Raises:
            WorkerLost: the worker has ended.
        """


class EngineWorker(Protocol):
    """A process with a `peerwatch.cluster.worker.ReplicaWorker`."""

    @property
    def node(self) -> str:
        """The name of the node that it runs on."""

    def call(self, command: bytes) -> Call:
        """Send a command, without waiting. Commands are carried out in the order of the calls, each once at most."""

    def end(self) -> None:
        """End it, without waiting. A worker that does not hear of it does no harm."""


class ClusterEngine(Protocol):
    """Starts workers, and knows the nodes."""

    async def start(self) -> EngineWorker:
        """Start a worker on the node with the fewest; it may not be ready yet.

        Raises:
            RunError: no node is left.
        """

    async def replenish(self) -> None:
        """Have some workers ready that can take the place of lost ones. Called every few seconds.

        Raises:
            RunError: no node is left.
        """

    def suspect(self, worker: EngineWorker, *, silent: bool) -> None:
        """Note that a worker was lost, perhaps because it was `silent`: others are started elsewhere if possible."""
