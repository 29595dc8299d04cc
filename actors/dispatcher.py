"""The dispatcher: decodes and numbers events, sends them to the other actors, and rejects bad lines."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, Final, NamedTuple

import anyio
import msgspec
import numpy as np
from anyio.to_thread import run_sync

from peerwatch.actors.mailbox import Send, run_kernel, waiting
from peerwatch.actors.messages import AuditBatch, AuditMessage, Batch, GraphMessage, PurchaseBatch, ShardMessage, Share
from peerwatch.actors.snapshot import DispatcherPart, SnapshotPart, SnapshotRequest
from peerwatch.connectors.source import Block, Bookmark, Source
from peerwatch.errors import StrictError
from peerwatch.judging.state import NOTHING_DONE, Counts
from peerwatch.network.decoder import SMALLEST_HOLE, Decoder, Events, Rejected
from peerwatch.network.events import Kind, begin_of_line
from peerwatch.network.likeness import Impression
from peerwatch.network.rejects import RejectedLine, RejectTally

MARK_EVENTS: Final = 1 << 16
"""The fewest events between two bookmarks..."""
MARK_SHARE: Final = 128
"""...which also have to be this part of all events so far, so that bookmarks grow with the logarithm."""


class LinePlace(NamedTuple):
    """A line: whether it is in the judged log, its number, the offset of its first byte, and its content."""

    judged: bool
    line: int
    offset: int
    content: bytes


class Recovery(msgspec.Struct):
    """What a restarted pipeline needs to know about earlier failures.

    Lines within the first `until` bytes of all logs and after event `after` are processed one by one; the dispatcher
    waits until each has gone through, so that a failure can be attributed to the `current` line. Lines in `poison` are
    rejected with the reason given there. `said` holds the keys of warnings that have been given, so that none is
    repeated.
    """

    after: int = 0
    until: int = 0
    current: LinePlace | None = None
    failures: Counter[LinePlace] = msgspec.field(default_factory=Counter)
    poison: dict[LinePlace, str] = msgspec.field(default_factory=dict)
    said: set[str] = msgspec.field(default_factory=set)

    def go_on_to(self, place: LinePlace | None) -> None:
        """Name the line that is in hand now, None for no line alone."""
        self.current = place


class Dispatcher:
    """Decodes the logs and numbers their events. The sequence numbers define the order of everything that follows."""

    part: Final = "dispatcher"
    """The name of its part of a snapshot."""

    def __init__(
        self,
        decoder: Decoder,
        graphs: Sequence[Send[GraphMessage]],
        shards: Sequence[Send[ShardMessage]],
        batch_cap: Callable[[], int],
        audit: Send[AuditMessage] | None = None,
        *,
        strict: bool,
        judge_batch: bool = False,
        done: Counts = NOTHING_DONE,
        due_snapshot: Callable[[int, Any, bool], SnapshotRequest | None] = lambda *_: None,
        recovery: Recovery | None = None,
        wait_settled: Callable[[int], Awaitable[None]] | None = None,
        bookmarks: Sequence[Bookmark[Any]] = (),
        parts: Send[SnapshotPart] | None = None,
        warn: Callable[[str], None] = lambda _: None,
        complain: Callable[[str], None] = lambda _: None,
        rejects: RejectTally | None = None,
        quarantine: bool = False,
    ) -> None:
        """Connect the dispatcher to the other actors. With `judge_batch` the batch log's purchases are judged, too.

        With `quarantine` the shards get no judged purchases from it.

        After each block `due_snapshot(events, position, last)` may return a request to send to the other actors; `last`
        says whether it was the last block. `warn` is called with a warning about the first hole, `complain` with one
        about a log that holds almost no events.
        """
        self._decoder = decoder
        self._graphs = graphs
        self._shards = shards
        self._batch_cap = batch_cap
        self._audit = audit
        self._strict = strict
        self._judge_batch = judge_batch
        self._done = done
        self._due_snapshot = due_snapshot
        self._recovery = recovery or Recovery()
        self._poison = dict(self._recovery.poison)
        self._wait_settled = wait_settled
        self._bookmarks = list(bookmarks)
        self._parts = parts
        self._warn = warn
        self._complain = complain
        self._rejects = rejects or RejectTally()
        self._quarantine = quarantine
        self._impression: Impression | None = None
        """What the current log looks like; None if it is not read from its beginning, or a warning has been given."""
        self._shared = len(graphs) == 1
        """Whether every graph actor has its own graph yet."""
        self._reading = anyio.CancelScope()
        self.reached = done.bytes
        """The number of bytes of all logs up to the end of the current block."""
        self._caught_up = False
        """Whether the end of the log was reached once: later lines cannot have existed before this run began."""
        self.stopped_by: StrictError | None = None
        """The error about the rejected line that ended a strict run."""

    def statistics(self) -> Counts:
        """The number of bytes, events, judged purchases, rejected lines and users so far."""
        return self._done._replace(users=self._decoder.users)

    def stop(self) -> None:
        """Stop reading. What has been read is still judged."""
        self._reading.cancel()

    async def run(self, logs: Sequence[Source]) -> None:
        """Read the logs one after the other, then close the mailboxes."""
        closing: tuple[Source, Any] | None = None
        for log in logs:
            begun, self._impression = False, None
            async with aclosing(log.blocks()) as blocks:
                while (block := await self._next(blocks)) is not None:
                    if block.hole:
                        self._done = self._done._replace(bytes=self._done.bytes + block.hole)
                        if block.hole >= SMALLEST_HOLE:
                            await self._say_hole(log, block.line, block.hole)
                    if block.content:
                        if not begun and (block.line == 1 or self._done.events + self._done.rejected == 0):
                            self._impression = Impression()
                        begun = True
                        await self._take(block, log)
                        self._mark(log, block.position)
                    elif block.caught_up:
                        self._caught_up = True
                    closing = log, block.position
                    await self._snapshot(*closing, last=False)
            await self._judge_impression(log, ended=True)
            if self._reading.cancel_called:
                break  # a later log must not be judged against an incomplete state
        if closing is not None and self.stopped_by is None:
            await self._snapshot(*closing, last=True)
        for graph in self._graphs:
            graph.close()
        for shard in self._shards:
            shard.close()
        if self._audit is not None:
            self._audit.close()

    def _mark(self, log: Source, position: Any) -> None:
        """Add a bookmark if enough events have passed since the last one, and reading can begin again there."""
        events = self._done.events
        if position is None:
            return
        if not self._bookmarks or events - self._bookmarks[-1].events >= max(MARK_EVENTS, events // MARK_SHARE):
            self._bookmarks.append(Bookmark(events, log.judged, position))

    async def _say_hole(self, log: Source, line: int, size: int) -> None:
        """Warn about skipped NUL bytes, once."""
        nuls = f"{size:,} NUL byte{'s' * (size > 1)}"
        text = f"{log.name}:{line}: a truncation has left {nuls} before the line; such holes are skipped"
        await self._say(self._warn, "hole", text)

    async def _judge_impression(self, log: Source, *, ended: bool) -> None:
        """Warn about a log that holds almost no events, once."""
        if self._impression is None:
            return
        text = self._impression.complaint(log.name, ended=ended, reason=self.stopped_by is None)
        if text is not None:
            self._impression = None
            await self._say(self._complain, log.name, text)

    async def _say(self, say: Callable[[str], None], what: str, text: str) -> None:
        if what not in self._recovery.said:
            self._recovery.said.add(what)
            await run_sync(say, text)

    async def _next(self, blocks: AsyncIterator[Block]) -> Block | None:
        if not self._reading.cancel_called:
            with self._reading, waiting():
                return await anext(blocks, None)
        return None

    async def _snapshot(self, log: Source, position: Any, *, last: bool) -> None:
        request = self._due_snapshot(self._done.events, position, last)
        if request is None:
            return
        if self._parts is not None:
            unseen, bookmarks = sorted(self._decoder.unseen), list(self._bookmarks)
            await self._parts.send(
                DispatcherPart(
                    request.id, self.part, self.statistics(), log.judged, position, bookmarks, unseen,
                    *self._decoder.interner.columns(),
                )
            )  # fmt: skip
        is_judged = log.judged or self._judge_batch
        if not (self._quarantine and is_judged):
            for shard in self._shards:
                await shard.send(request)
        request = msgspec.structs.replace(request, judged=is_judged)
        for graph in self._graphs:
            await graph.send(request)

    async def _take(self, block: Block, log: Source) -> None:
        self.reached = self._done.bytes + len(block.content)
        careful = (
            self._done.bytes < self._recovery.until
            and self._done.events + block.content.count(b"\n") + 1 > self._recovery.after
        )
        poisoned = any(
            log.judged == judged and 0 <= place - block.offset < len(block.content)
            for judged, _, place, _ in self._poison
        )
        if not careful and not poisoned:
            await self._deal_out(block, log)
            return
        offset = 0
        for number, content in enumerate(_lines(block.content)):
            begin = begin_of_line(content)  # where the block begins decides how much of a hole it holds
            single = Block(content[begin:], block.offset + offset + begin, block.line + number, block.position)
            self._recovery.go_on_to(LinePlace(log.judged, single.line, single.offset, single.content))
            await self._deal_out(single, log)
            if self._wait_settled is not None:
                with waiting():
                    await self._wait_settled(self._done.events)
            offset += len(content)
            if self.stopped_by is not None:
                break
        self._recovery.go_on_to(None)

    async def _deal_out(self, block: Block, log: Source) -> None:
        """Decode a block and send its events in batches."""
        why = (
            self._poison.pop(LinePlace(log.judged, block.line, block.offset, block.content), None)
            if self._poison
            else None
        )
        if why is not None:
            events, bad = (
                self._decoder.decode(b"", 1).events,
                [Rejected(block.line, 0, why, block.content.removesuffix(b"\n"))],
            )
        else:
            decoded = await run_kernel(len(block.content), self._decoder.decode, block.content, block.line, log.names)
            events, bad = decoded.events, decoded.rejected
            for hole in decoded.holes[:1]:
                await self._say_hole(log, hole.line, hole.size)
        if self._impression is not None:
            self._impression.add(block.content, len(events), len(bad), bad[0].reason if bad else "")
            await self._judge_impression(log, ended=False)
        if bad and self._strict:
            bad = bad[:1]
            events = events[events.line < bad[0].line]
        rejected = [RejectedLine(log.name, line, block.offset + start, why, raw) for line, start, why, raw in bad]
        is_judged = log.judged or self._judge_batch
        begin = 0
        while begin < max(len(events), 1):
            end = begin + self._batch_cap() if is_judged else len(events) or 1  # the others get no answer
            await self._send(events[begin:end], block.content, log, rejected)
            begin, rejected = end, []
        if bad and self._strict:
            self.stopped_by = StrictError(f"{log.name}:{bad[0].line}: {bad[0].reason}")
            self.stop()
        self._rejects.add(self._done.rejected + 1, [one.reason for one in bad])
        judged = int(np.count_nonzero(events.kind == Kind.PURCHASE)) if is_judged else 0
        self._done = self._done._replace(
            bytes=self._done.bytes + len(block.content),
            judged=self._done.judged + judged,
            rejected=self._done.rejected + len(bad),
        )

    async def _send(self, events: Events, content: bytes, log: Source, rejected: list[RejectedLine]) -> None:
        """Send one batch, to the shards first, so that no query about it waits for its purchases."""
        seq = self._done.events + 1
        through = self._done.events + len(events)
        users = len(self._decoder.interner)
        is_judged = log.judged or self._judge_batch
        bought = np.flatnonzero(events.kind == Kind.PURCHASE)
        buyers = events.user[bought]
        for number, shard in enumerate(() if self._quarantine and is_judged else self._shards):
            mine = bought[buyers % len(self._shards) == number]
            purchases = PurchaseBatch(
                seq + mine, events.user[mine], events.timestamp[mine], events.amount[mine], through, users,
                low=0 if is_judged else through + 1,
            )  # fmt: skip
            await shard.send(purchases)
        batch = Batch(
            events, seq, content, log.name, is_judged, users, rejected, self._caught_up, log.names,
            in_batch_log=not log.judged,
        )  # fmt: skip
        if self._audit is not None:
            await self._audit.send(AuditBatch(batch, *self._decoder.interner.columns()))
        if is_judged and not self._shared:
            self._shared = True
            for graph in self._graphs:
                await graph.send(Share())
        for graph in self._graphs if is_judged else self._graphs[:1]:
            await graph.send(batch)
        self._done = self._done._replace(events=through)


def _lines(content: bytes) -> list[bytes]:
    """Split into lines that keep their line feeds. Unlike bytes.splitlines, split at line feeds only."""
    lines = content.split(b"\n")
    return [line + b"\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])
