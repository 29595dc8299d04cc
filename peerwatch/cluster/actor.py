"""The actor that stands for graph actors and, without quarantine, for purchase shards in a run on a cluster."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import cycle
from typing import Final, NamedTuple

import anyio
import msgspec
import numpy as np
from anyio.to_thread import run_sync

from peerwatch.actors.mailbox import Mailbox, Receive, Send, run_kernel, waiting, working
from peerwatch.actors.messages import AnsweredQueries, Batch, CoordinatorMessage, GraphMessage, WindowQueries
from peerwatch.actors.snapshot import ReplicaPart, SnapshotPart, SnapshotRequest
from peerwatch.cluster.engine import ClusterEngine
from peerwatch.cluster.pace import Pace
from peerwatch.cluster.replica import ReplicaBatch
from peerwatch.cluster.transport import (
    IN_FLIGHT,
    Columns,
    LoggedBatch,
    Patience,
    ReplayLog,
    Request,
    StartingStates,
    WorkerSlot,
)
from peerwatch.cluster.wire import (
    Begin,
    Follow,
    GiveColumns,
    Judged,
    Judgement,
    NetworkParts,
    PackedNetworks,
    PackedPart,
    WindowParts,
    pack,
    pack_places,
    unpack_networks,
    unpack_part,
    unpack_reasons,
)
from peerwatch.judging.judge import Mask
from peerwatch.network.events import Kind
from peerwatch.network.networks import alone
from peerwatch.runtime.pipeline import task_group
from peerwatch.storage.status import WorkerStatus

REPLENISH_SECONDS: Final = 2.0
PACK_WORK: Final = 8
"""Estimated nanoseconds to pack an event."""
BYTES_AN_EVENT: Final = 40
"""By how much an event makes columns larger at most: a purchase with a user's first one, or a friendship."""


class Asked(NamedTuple):
    """A batch and the request about it, None if nothing is asked, or the request for a snapshot."""

    message: WindowQueries | SnapshotRequest
    request: Request | None


class AskedColumns(NamedTuple):
    """A snapshot's request and that of columns, which may take longer than the batches behind it."""

    message: SnapshotRequest
    request: Request


class ReplicaActor:
    """Sends each batch to the workers, has them answer in turn, and hands the answers on in the order of the events."""

    part: Final = "replicas"
    """The name of its part of a snapshot: the friend graph, and the purchases if the workers have them."""

    def __init__(
        self,
        engine: ClusterEngine,
        begin: Begin,
        *,
        workers: int,
        patience: Patience,
        pace: Pace,
        starting_states: StartingStates,
        warn: Callable[[str], Awaitable[None]],
        through: int,
        inbox: Receive[GraphMessage],
        coordinator: Send[CoordinatorMessage],
        parts: Send[SnapshotPart],
        wanted: Callable[[WindowQueries], Mask],
    ) -> None:
        """`through` is the last event of the state that the run begins with.

        `wanted` says for which purchases a worker that judges gives reasons whatever its verdict.
        """
        self._engine = engine
        self._log = ReplayLog(through)
        self._slots = [
            WorkerSlot(number, engine, self._log, begin, starting_states, patience, pace, warn)
            for number in range(workers)
        ]
        self._pace = pace
        self._turns = cycle(self._slots)
        self._judges_there = begin.detector is not None
        self._inbox = inbox
        self._coordinator = coordinator
        self._parts = parts
        self._wanted = wanted
        self._asked = Mailbox[Asked]("asked", IN_FLIGHT * workers)
        self._asked_columns = Mailbox[AskedColumns]("columns", 1)
        self._columns_given: anyio.Event | None = None
        """Whether the last columns that were asked for are there."""
        self._size = 0
        """About how many bytes the next columns have."""

    @property
    def batch_cap(self) -> int:
        """The most events in the next batch that is judged."""
        return self._pace.events

    @property
    def friendships(self) -> int:
        """The number of friendships in force, as of the last reply of the worker that is farthest."""
        return max(self._slots, key=lambda slot: slot.confirmed).figures.friendships

    def status(self) -> list[WorkerStatus]:
        """How the workers are doing."""
        return [slot.status() for slot in self._slots]

    def checkpointed(self, through: int) -> None:
        """A checkpoint as of event `through` can be read from now on: batches before it are not needed for long."""
        behind = self._log.number_behind(through)
        self._log.forget(min(behind, *(slot.position for slot in self._slots)))

    async def run(self) -> None:
        """Serve until the mailbox is closed and all is answered.

        Raises:
            RunError: there are no workers any more, or a detector failed.
        """
        with self._coordinator, waiting():
            async with task_group() as beside:
                beside.start_soon(self._replenish)
                async with task_group() as tasks:
                    for slot in self._slots:
                        tasks.start_soon(slot.run)
                    tasks.start_soon(working, self._hand_on)
                    tasks.start_soon(working, self._hand_on_columns)
                    tasks.start_soon(working, self._ask)
                beside.cancel_scope.cancel()

    async def _replenish(self) -> None:
        while True:
            await anyio.sleep(REPLENISH_SECONDS)
            await self._engine.replenish()

    async def _ask(self) -> None:
        with self._inbox, self._asked.sender as asked, self._asked_columns.sender as columns:
            async for message in self._inbox:
                if isinstance(message, SnapshotRequest):
                    await columns.send(AskedColumns(message, await self._ask_columns()))
                    await asked.send(Asked(message, None))
                elif isinstance(message, Batch):
                    await asked.send(await self._ask_batch(message))
            for slot in self._slots:  # so that all have followed to the end, and say how many friendships there are
                await self._ask_one(slot, Request(Follow, self._log.end))
                slot.close()

    async def _ask_one(self, slot: WorkerSlot, request: Request) -> Request:
        with waiting():
            await slot.ask(request)
        return request

    async def _ask_columns(self) -> Request:
        """Ask one worker for its columns; the others follow up to there, so that the log can be cut soon.

        Columns are asked for one after the other: a worker that is built anew from later ones could not give earlier
        ones.
        """
        if self._columns_given is not None:
            with waiting():
                await self._columns_given.wait()
        end, chosen = self._log.end, next(self._turns)
        for slot in self._slots:
            if slot is not chosen:
                await self._ask_one(slot, Request(Follow, end))
        request = await self._ask_one(chosen, Request(GiveColumns, end, size=self._size))
        self._columns_given = request.answered
        return request

    async def _ask_batch(self, batch: Batch) -> Asked:
        events = batch.events
        places = np.flatnonzero(events.kind == Kind.PURCHASE) if batch.judged else np.zeros(0, np.int64)
        queries = WindowQueries(
            batch.seq + places, events[places], alone(events.user[:0]), batch.content, batch.file, batch.rejected,
            batch.seq + len(events) - 1, batch.judged, batch.new, batch.names,
            batch.in_batch_log, batch.users,
        )  # fmt: skip
        request = None
        if len(events):
            await self._add(batch)
            if not batch.judged:
                for slot in self._slots:
                    await self._ask_one(slot, Request(Follow, self._log.end))
            elif len(places):
                wanted = pack_places(self._wanted(queries)) if self._judges_there else b""
                request = await self._ask_one(next(self._turns), Request(Judgement, self._log.end, wanted, len(places)))
        return Asked(queries, request)

    async def _add(self, batch: Batch) -> None:
        packed = await run_kernel(
            PACK_WORK * len(batch.events), pack, ReplicaBatch(batch.seq, batch.users, batch.events)
        )
        through = batch.seq + len(batch.events) - 1
        self._log.add(LoggedBatch(through, len(batch.events), msgspec.Raw(packed)))
        self._size += BYTES_AN_EVENT * len(batch.events)

    async def _hand_on(self) -> None:
        with self._asked.receiver as asked:
            async for message, request in asked:
                if request is None or isinstance(message, SnapshotRequest):
                    await self._coordinator.send(message)
                    continue
                with waiting():
                    answer = await request.answer()
                if isinstance(answer, Judged):
                    await self._coordinator.send(_judged(message, answer))
                elif isinstance(answer, WindowParts | NetworkParts):
                    messages = _messages(message, answer)
                    for _ in answer.parts:  # one after the other, because they take more memory than the reply
                        await self._coordinator.send(await run_sync(next, messages))
                else:
                    raise TypeError(answer)

    async def _hand_on_columns(self) -> None:
        with self._asked_columns.receiver as asked:
            async for message, request in asked:
                await self._hand_on_one(message, request)

    async def _hand_on_one(self, message: SnapshotRequest, request: Request) -> None:
        with waiting():
            answer = await request.answer()
        if not isinstance(answer, Columns):
            raise TypeError(answer)
        self._size = answer.size
        await self._parts.send(ReplicaPart(message.id, self.part, answer.arrays, answer.part))


def _judged(queries: WindowQueries, reply: Judged) -> AnsweredQueries:
    reasons, networks = unpack_reasons(reply.reasons, len(queries.seq))
    return AnsweredQueries(msgspec.structs.replace(queries, networks=networks), reasons=reasons)


def _messages(queries: WindowQueries, reply: WindowParts | NetworkParts) -> Iterator[AnsweredQueries | WindowQueries]:
    """One message for each part of an answer; the rejected lines go with the first, the last says that all is there."""
    begin = 0
    parts: Sequence[PackedPart | PackedNetworks] = reply.parts
    for number, part in enumerate(parts):
        windows, own = None, None
        if isinstance(part, PackedPart):
            windows, own, networks = unpack_part(part)
        else:
            networks = unpack_networks(part)
        end = begin + len(networks.plan)
        is_last = number == len(parts) - 1
        some = msgspec.structs.replace(
            queries,
            seq=queries.seq[begin:end],
            events=queries.events[begin:end],
            networks=networks,
            rejected=queries.rejected if number == 0 else [],
            through=queries.through if is_last else int(queries.seq[0]) - 1,
            next=is_last,
        )
        yield AnsweredQueries(some, [windows], [own] if own is not None else []) if windows is not None else some
        begin = end
