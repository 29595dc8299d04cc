"""Owns the friend graph; answers each judged purchase with its buyer's network as of that moment."""

from typing import Final

import numpy as np

from peerwatch.actors.mailbox import Receive, Send, run_kernel
from peerwatch.actors.messages import Batch, CoordinatorMessage, GraphMessage, Questions
from peerwatch.actors.snapshot import Snapshot
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph

MOST_MEMBERS: Final = 1 << 20
"""Members after which an answer is sent on before the next network is walked: 4 MiB a message."""
EVENT_WORK: Final = 32
"""Nanoseconds an event costs besides its network."""


class GraphActor:
    """Walks each batch in order."""

    def __init__(
        self, graph: FriendGraph, inbox: Receive[GraphMessage], coordinator: Send[CoordinatorMessage], most: int
    ) -> None:
        self._graph = graph
        self._inbox = inbox
        self._coordinator = coordinator
        self._most = most
        self._mean_work = 0.0

    async def run(self) -> None:
        """Answer batches until the mailbox ends."""
        with self._inbox, self._coordinator:
            async for message in self._inbox:
                if isinstance(message, Snapshot):
                    degree, friends = await run_kernel(len(self._graph.pool), self._graph.columns)
                    message.put({"degree": degree, "friends": friends})
                    await self._coordinator.send(message)
                else:
                    await self._answer(message)

    async def _answer(self, batch: Batch) -> None:
        self._graph.reserve(batch.users)
        events = batch.events
        asked = np.flatnonzero(events.kind == Kind.PURCHASE) if batch.judged else np.zeros(0, np.int64)
        gone, answered, large, rejected = 0, 0, batch.large, batch.rejected
        while True:
            most = min(self._most, len(asked) - answered)
            rest, spent = slice(gone, None), self._graph.spent
            done, networks = await run_kernel(
                EVENT_WORK * (len(events) - gone) + int(most * self._mean_work), self._graph.walk, events.kind[rest],
                events.user[rest], events.friend[rest], events.timestamp[rest], batch.seq + gone, most, MOST_MEMBERS,
            )  # fmt: skip
            new = slice(answered, answered + len(networks.plan))
            gone, answered = gone + done, new.stop
            through = batch.seq - 1 + gone if gone == len(events) else batch.seq - 1
            await self._coordinator.send(
                Questions(
                    batch.seq + asked[new], events[asked[new]], networks, batch.content, batch.file, large, rejected,
                    through,
                )
            )  # fmt: skip
            large, rejected = [], []
            if len(networks.plan):
                self._mean_work = (self._graph.spent - spent) / len(networks.plan)
            if gone == len(events):
                return
