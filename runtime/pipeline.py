"""Wires the actors and runs them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import anyio
from anyio.abc import TaskGroup

from peerwatch.actors.coordinator import Coordinator, DecisionLog
from peerwatch.actors.dispatcher import Dispatcher, Log, Progress
from peerwatch.actors.graph import GraphActor
from peerwatch.actors.mailbox import CAPACITY
from peerwatch.actors.messages import Batch, Questions, Results, ShardMessage
from peerwatch.actors.output import OutputActor, Sink
from peerwatch.actors.purchases import PurchaseShard
from peerwatch.detectors.judge import Judge
from peerwatch.detectors.sigma import Sigma
from peerwatch.network.decoder import Decoder
from peerwatch.network.errors import PeerwatchError
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseHistory

BATCH_CAP: Final = 4096
"""Events a batch holds at most."""
WINDOW_PURCHASES: Final = 1 << 20
"""Window purchases a message holds at most: the larger T, the fewer decisions share a message."""


class Totals(NamedTuple):
    """What a run has done so far."""

    progress: Progress
    flagged: int
    friendships: int


class Pipeline:
    """All actors of one run around their states. `D` hops, `T` purchases a window, `shards` purchase shards."""

    def __init__(
        self,
        D: int,
        T: int,
        shards: int,
        detector: Sigma,
        *,
        decoder: Decoder,
        decisions: DecisionLog,
        flagged: Sink,
        rejects: Sink,
        strict: bool = False,
        batch_cap: int = BATCH_CAP,
    ) -> None:
        to_graph, graph_inbox = anyio.create_memory_object_stream[Batch](CAPACITY)
        to_coordinator, coordinator_inbox = anyio.create_memory_object_stream[Questions](CAPACITY)
        to_output, output_inbox = anyio.create_memory_object_stream[Results](CAPACITY)
        boxes = [anyio.create_memory_object_stream[ShardMessage](CAPACITY) for _ in range(shards)]
        asking = [send.clone() for send, _ in boxes]
        self._graph = FriendGraph(D)
        self._dispatcher = Dispatcher(decoder, to_graph, [send for send, _ in boxes], batch_cap, strict=strict)
        self._ends = [
            to_graph, graph_inbox, to_coordinator, coordinator_inbox, to_output, output_inbox,
            *(end for box in boxes for end in box), *asking,
        ]  # fmt: skip
        most = max(1, WINDOW_PURCHASES // T)
        self._output = OutputActor(output_inbox, flagged, rejects)
        self._actors: list[GraphActor | Coordinator | OutputActor | PurchaseShard] = [
            GraphActor(self._graph, graph_inbox, to_coordinator, most),
            Coordinator(Judge(detector), T, decisions, coordinator_inbox, asking, to_output),
            self._output,
            *(PurchaseShard(PurchaseHistory(T), inbox) for _, inbox in boxes),
        ]

    def statistics(self) -> Totals:
        """What has been done so far."""
        return Totals(self._dispatcher.statistics(), self._output.written, self._graph.friendships)

    def stop(self) -> None:
        """Read no more; what has been read is still judged and written."""
        self._dispatcher.stop()

    async def run(self, logs: Sequence[Log]) -> Totals:
        """Judge the logs, one after the other, to their ends.

        Raises:
            PeerwatchError: a log, a sink or a strict rule ended the run.
        """
        try:
            async with task_group() as tasks:
                for actor in self._actors:
                    tasks.start_soon(actor.run)
                tasks.start_soon(self._dispatcher.run, logs)
        finally:
            for end in self._ends:
                end.close()  # an actor that failed or was cancelled may have left its own open
        if self._dispatcher.stopped_by is not None:
            raise self._dispatcher.stopped_by
        return self.statistics()


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """A task group that raises the one failure behind its failures instead of a group of them."""
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        raise first_cause(group) from None


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure behind a group's failures: when one actor fails, its neighbours only lose their mailboxes."""
    lost = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)
    causes = group.subgroup(lambda error: not isinstance(error, (*lost, BaseExceptionGroup))) or group
    ours = causes.subgroup(PeerwatchError) or causes
    error: BaseException = ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
