"""Decodes, numbers and deals out the events; rejects the lines that are none."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

import anyio
import numpy as np

from peerwatch.actors.mailbox import Send, run_kernel
from peerwatch.actors.messages import Batch, Purchases, ShardMessage
from peerwatch.network.decoder import Decoder, Events
from peerwatch.network.errors import StrictError
from peerwatch.network.events import Kind
from peerwatch.network.rejects import RejectedLine


class Block(NamedTuple):
    """Whole lines of a log, of which only the last may lack its line feed.

    `offset` is the first byte's place in the file, `line` the first line's number, from 1.
    """

    content: bytes
    offset: int
    line: int


class Log(Protocol):
    """A source of lines: its name, whether its purchases are judged, and its blocks."""

    name: str
    judged: bool

    def blocks(self) -> AsyncIterator[Block]:
        """The lines, as they come."""


class Progress(NamedTuple):
    """How far the dispatcher has come. `bytes` counts what has been read of all logs."""

    bytes: int
    events: int
    judged: int
    rejected: int
    users: int


class Dispatcher:
    """The only actor that sees log text; the order in which it numbers events is the order of everything."""

    def __init__(
        self,
        decoder: Decoder,
        graph: Send[Batch],
        shards: Sequence[Send[ShardMessage]],
        batch_cap: int,
        *,
        strict: bool,
    ) -> None:
        self._decoder = decoder
        self._graph = graph
        self._shards = shards
        self._batch_cap = batch_cap
        self._strict = strict
        self._reading = anyio.CancelScope()
        self._done = Progress(0, 0, 0, 0, 0)
        self.stopped_by: StrictError | None = None
        """The rejected line that ended a strict run."""

    def statistics(self) -> Progress:
        """How far it has come."""
        return self._done._replace(users=self._decoder.users)

    def stop(self) -> None:
        """Read no more; what has been read is still judged."""
        self._reading.cancel()

    async def run(self, logs: Sequence[Log]) -> None:
        """Read the logs one after the other and close the mailboxes behind the last event."""
        for log in logs:
            blocks = log.blocks()
            while (block := await self._next(blocks)) is not None and self.stopped_by is None:
                await self._take(block, log)
        self._graph.close()
        for shard in self._shards:
            shard.close()

    async def _next(self, blocks: AsyncIterator[Block]) -> Block | None:
        with self._reading:
            return await anext(blocks, None)
        return None

    async def _take(self, block: Block, log: Log) -> None:
        known = len(self._decoder.large)
        decoded = await run_kernel(len(block.content), self._decoder.decode, block.content, block.line)
        events, bad = decoded.events, decoded.rejected
        if bad and self._strict:
            bad = bad[:1]
            events = events[events.line < bad[0].line]
        rejected = [RejectedLine(log.name, line, block.offset + start, why, raw) for line, start, why, raw in bad]
        large = self._decoder.large[known:]
        for begin in range(0, max(len(events), 1), self._batch_cap):
            first = begin == 0
            await self._send(
                events[begin : begin + self._batch_cap],
                block.content,
                log,
                large if first else [],
                rejected if first else [],
            )
        if rejected and self._strict:
            first_bad = rejected[0]
            self.stopped_by = StrictError(f"{first_bad.file}:{first_bad.line}: {first_bad.reason}")
        judged = int(np.count_nonzero(events.kind == Kind.PURCHASE)) if log.judged else 0
        self._done = self._done._replace(
            bytes=self._done.bytes + len(block.content),
            judged=self._done.judged + judged,
            rejected=self._done.rejected + len(rejected),
        )

    async def _send(
        self, events: Events, content: bytes, log: Log, large: list[int], rejected: list[RejectedLine]
    ) -> None:
        """One batch: to the shards first, so that no question about it can be waiting for its purchases."""
        seq = self._done.events + 1
        through = self._done.events + len(events)
        users = len(self._decoder.interner)
        bought = np.flatnonzero(events.kind == Kind.PURCHASE)
        buyers = events.user[bought]
        for number, shard in enumerate(self._shards):
            mine = bought[buyers % len(self._shards) == number]
            purchases = Purchases(
                seq + mine,
                events.user[mine],
                events.timestamp[mine],
                events.amount[mine],
                through,
                users,
            )
            await shard.send(purchases)
        await self._graph.send(Batch(events, seq, content, log.name, log.judged, users, large, rejected))
        self._done = self._done._replace(events=through)
