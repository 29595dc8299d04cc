"""The graph actor: owns a friend graph and finds the network of each judged purchase's buyer.

Walking is most of the work in large networks, so there can be several graph actors, each with its own graph. All of
them apply every friendship change, and they take turns to answer the judged batches (state machine replication, Lamport
1978).
"""

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from typing import Final

import numpy as np

from peerwatch.actors.mailbox import Receive, Send, run_kernel
from peerwatch.actors.messages import Batch, CoordinatorMessage, GraphCopy, GraphMessage, Share, WindowQueries
from peerwatch.actors.snapshot import GraphPart, SnapshotPart, SnapshotRequest
from peerwatch.judging.engine import walked
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph

EVENT_WORK: Final = 32
"""Estimated nanoseconds to apply an event, without walking a network."""


class GraphActor:
    """Applies each batch in order, and answers every `count`-th judged one, beginning at index `number`.

    Each has a `graph` of its own. On `Share` the first graph actor sends the contents of its graph to each of the
    others, which wait for them before they take another message.
    """

    part: Final = "graph"
    """The name of their part of a snapshot. One graph actor sends it for all."""

    def __init__(
        self,
        graph: FriendGraph,
        inbox: Receive[GraphMessage],
        coordinator: Send[CoordinatorMessage],
        most: int,
        number: int = 0,
        count: int = 1,
        parts: Send[SnapshotPart] | None = None,
        *,
        sizes: bool = False,
        copies: Sequence[Send[GraphCopy]] = (),
        copy: Receive[GraphCopy] | None = None,
    ) -> None:
        """Connect the actor to its mailboxes; with `sizes` it counts every network.

        The first actor gets `copies`, the mailboxes to the others; each of the others gets `copy`, its end of one.
        """
        self._sizes = sizes
        self._number, self._count = number, count
        self._turn = number
        """The number of batches to apply before this actor answers one."""
        self._graph = graph
        self._inbox = inbox
        self._coordinator = coordinator
        self._most = most
        self._parts = parts
        self._copies = copies
        self._copy = copy
        self._mean_work = 0.0

    async def run(self) -> None:
        """Answer batches until the mailbox is closed."""
        with ExitStack() as stack:
            for end in (self._inbox, self._coordinator, *self._copies, self._copy):
                stack.enter_context(end or nullcontext())
            async for message in self._inbox:
                if isinstance(message, SnapshotRequest):
                    if self._turn == 0:  # only the actor that answers next sends the part
                        await self._send_part(message)
                        await self._coordinator.send(message)
                elif isinstance(message, Share):
                    await self._share()
                elif self._turn:
                    await self._follow(message)
                    self._turn -= 1
                else:
                    await self._answer(message)
                    self._turn = self._count - 1 if message.judged else 0

    async def _send_part(self, request: SnapshotRequest) -> None:
        if self._parts is not None:
            degree, friends = await run_kernel(len(self._graph.pool), self._graph.columns)
            await self._parts.send(GraphPart(request.id, self.part, degree, friends))

    async def _share(self) -> None:
        for other in self._copies:
            await other.send(GraphCopy(await run_kernel(len(self._graph.pool), self._graph.contents)))
        if self._copy is not None:
            self._graph.take_over((await self._copy.receive()).contents)

    async def _follow(self, batch: Batch) -> None:
        """Apply a batch that another graph actor answers."""
        self._graph.reserve(batch.users)
        events = batch.events
        answers = walked(self._graph, events, batch.seq, 0, judged=False)
        await run_kernel(EVENT_WORK * len(events), next, answers)

    async def _answer(self, batch: Batch) -> None:
        self._graph.reserve(batch.users)
        events = batch.events
        asked = int(np.count_nonzero(events.kind == Kind.PURCHASE)) if batch.judged else 0
        answers = walked(self._graph, events, batch.seq, self._most, judged=batch.judged, sizes=self._sizes)
        gone, rejected = 0, batch.rejected
        while True:
            spent = self._graph.spent
            work = EVENT_WORK * (len(events) - gone) + int(min(self._most, asked) * self._mean_work)
            places, networks, gone = await run_kernel(work, next, answers)
            asked -= len(places)
            last = gone == len(events)
            through = batch.seq - 1 + (gone if last else 0)
            await self._coordinator.send(
                WindowQueries(
                    batch.seq + places, events[places], networks, batch.content, batch.file, rejected, through,
                    last and batch.judged, batch.new, batch.names, batch.in_batch_log, batch.users,
                )
            )  # fmt: skip
            rejected = []
            if len(places):
                self._mean_work = (self._graph.spent - spent) / len(places)
            if last:
                return
