"""The coordinator of a run with quarantine: a purchase reaches the shards once it has been judged, or released."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from anyio.to_thread import run_sync
from numpy.typing import NDArray

from peerwatch.actors.audit import AuditActor, Auditing
from peerwatch.actors.coordinator import (
    NOTHING_JUDGED,
    AskedMessage,
    Coordinator,
    JudgedQueries,
    Judges,
    PendingQueries,
)
from peerwatch.actors.mailbox import Receive, Send
from peerwatch.actors.messages import (
    AnsweredQueries,
    AuditBatch,
    AuditDecisions,
    CoordinatorMessage,
    PurchaseBatch,
    PurchaseRelease,
    WindowQueries,
)
from peerwatch.actors.snapshot import SnapshotRequest
from peerwatch.judging.judge import CHAMPION, BatchVerdicts, Case, joined
from peerwatch.judging.quarantine import NO_PURCHASES, Purchases, Quarantine, until_hearing
from peerwatch.judging.sampling import sampled
from peerwatch.judging.turn_judge import TurnJudge, in_a_row, split
from peerwatch.kernels import Int32s
from peerwatch.network.networks import Networks, alone
from peerwatch.network.windows import Windows, merged


class QuarantineCoordinator(Coordinator):
    """Judges one message after the other: what a window holds depends on the verdicts before it.

    The dispatcher sends only purchases that are not judged to the shards. Those that are judged come from here, without
    the flagged ones. So do the ones that labels release, and the requests for snapshots.
    """

    def __init__(
        self, judges: Judges, T: int, *others: Any, quarantine: Quarantine, through: int, **named: Any
    ) -> None:
        """`through` is the last event that the shards have applied; all the others are those of a coordinator."""
        super().__init__(judges, T, *others, **named)
        self._quarantine = quarantine
        self._through = through
        self._turns = TurnJudge(T)

    async def _ask_one(self, message: CoordinatorMessage, asked: Send[AskedMessage]) -> bool:
        """Pass the message on: its windows can be requested when all before it has been judged."""
        if not isinstance(message, WindowQueries):
            await asked.send(message)
            return False
        await asked.send(PendingQueries(message, None, None))
        return message.next

    def _all_asked(self) -> None:
        """Keep the shards' mailboxes open: what has been passed on is still to be judged."""

    async def _judge_all(self, asked: Receive[AskedMessage]) -> None:
        await super()._judge_all(asked)
        super()._all_asked()

    async def _send_part(self, request: SnapshotRequest) -> None:
        await super()._send_part(request)
        if request.judged:
            for shard in self._shards:
                await shard.send(request)

    def _memory(self) -> dict[str, NDArray[Any]]:
        return super()._memory() | self._quarantine.arrays()

    async def _decided(self, pending: PendingQueries | AnsweredQueries) -> JudgedQueries:
        queries = pending.queries
        is_judged = queries.next or len(queries.seq) > 0
        if not is_judged:
            self._through = max(self._through, queries.through)  # the dispatcher has sent its purchases
            return NOTHING_JUDGED
        cases: list[Case] = []
        verdicts: list[BatchVerdicts] = []
        releases: list[tuple[int, list[int]]] = []
        begin = 0
        while begin < len(queries.seq):
            releases += await self._release(queries, begin)
            next_hearing = self._judges.champion.hears_next(self._quarantine)
            end = begin + until_hearing(queries.seq[begin:], next_hearing)
            case, judged = await self._judged_part(queries, begin, end)
            buyers = queries.events.user[begin:end]
            counted, flagged = split(case, buyers, judged.flagged, in_batch_log=queries.in_batch_log)
            self._quarantine.put(flagged)
            await self._count(counted, int(queries.seq[end - 1]), queries.users)
            cases.append(case)
            verdicts.append(judged)
            begin = end
        if queries.next and queries.through > self._through:
            await self._count(NO_PURCHASES, queries.through, queries.users)
        if not cases:
            return NOTHING_JUDGED
        return (await self._reported(queries, cases, joined(verdicts)))._replace(releases=releases)

    async def _release(self, queries: WindowQueries, place: int) -> list[tuple[int, list[int]]]:
        """Read the labels that are due before a purchase, send what they release to the shards, and return it."""
        champion, seq = self._judges.champion, int(queries.seq[place])
        releases = []
        async for released in champion.hear(self._quarantine, seq, new=queries.new):
            for shard, own in zip(self._shards, self._by_shard(released), strict=True):
                if len(own.seq):
                    await shard.send(PurchaseRelease(own.seq, own.user, own.timestamp, own.amount))
            releases.append((seq, released.seq.tolist()))
        return releases

    async def _judged_part(self, queries: WindowQueries, begin: int, end: int) -> tuple[Case, BatchVerdicts]:
        events, networks = queries.events[begin:end], queries.networks.part(begin, end)
        windows = await self._windows(networks, queries.users)
        own = await self._windows(alone(events.user), queries.users) if self._wants_context else None
        case = Case(windows, queries.seq[begin:end], events.line, events.amount, events.timestamp, networks.size, own)
        return await self._judged_in_turn(case, events.user, networks, queries)

    async def _judged_in_turn(
        self, case: Case, buyers: Int32s, networks: Networks, queries: WindowQueries
    ) -> tuple[Case, BatchVerdicts]:
        champion = self._judges.champion
        if not champion.stepwise:
            judge = champion.judge.verdicts
            return await run_sync(self._turns.judged, case, buyers, networks, queries.users, judge)
        requests = self._trainer.requests if self._trainer is not None else None
        turns = self._turns.begin(case, buyers, networks, queries.users)
        while (run := await run_sync(turns.next_run)) is not None:
            turns.put(await champion.verdicts(run, CHAMPION, requests, new=queries.new))
        return turns.result()

    async def _windows(self, networks: Networks, users: int) -> Windows:
        """The windows as of the first purchase that the shards do not have yet."""
        before = np.full(len(networks.plan), self._through + 1)
        return merged(await self._table.take(await self._request(before, networks, users)), self._T)

    async def _count(self, purchases: Purchases, through: int, users: int) -> None:
        """Send purchases that are in windows from now on to the shards."""
        self._through = through
        for shard, own in zip(self._shards, self._by_shard(purchases), strict=True):
            user = own.user.astype(np.int32)
            await shard.send(PurchaseBatch(own.seq, user, own.timestamp, own.amount, through, users, through + 1))

    def _by_shard(self, purchases: Purchases) -> Sequence[Purchases]:
        shards = len(self._shards)
        return [purchases.those(purchases.user % shards == number) for number in range(shards)]

    async def _reported(self, queries: WindowQueries, parts: Sequence[Case], judged: BatchVerdicts) -> JudgedQueries:
        wanted, events = self._log.wanted(queries), queries.events
        checked = None if self._checking is None else sampled(queries.seq, self._checking.share)
        own = [part.own for part in parts if part.own is not None]
        case = Case(
            in_a_row([part.windows for part in parts]), queries.seq, events.line, events.amount, events.timestamp,
            queries.networks.size, in_a_row(own) if own else None,
        )  # fmt: skip
        requests = self._trainer.requests if self._trainer is not None else None
        verdicts = [judged]
        for who, live in self._judges.live_judges()[1:]:
            verdicts.append(await live.verdicts(case, who, requests, new=queries.new))
        return await run_sync(self._report, queries, case, verdicts, wanted, checked)


class QuarantineAudit(AuditActor):
    """Follows the run instead of going ahead of it: only the run knows before which events labels were read."""

    def __init__(self, auditing: Auditing, *others: Any, **named: Any) -> None:
        super().__init__(auditing, *others, **named)
        self._batches: deque[AuditBatch] = deque()
        """Those that have not been followed to their ends."""

    async def _follow(self, message: AuditBatch) -> None:
        self._batches.append(message)

    async def _compare(self, message: AuditDecisions) -> None:
        for seq, released in message.releases:
            await self._go_to(seq - 1)
            await run_sync(self._audit.release, released)
        await self._go_to(message.through)
        await super()._compare(message)

    async def _go_to(self, through: int) -> None:
        """Apply all events up to this one."""
        while self._batches and self.through < through:
            message = self._batches[0]
            batch = message.batch
            begin, end = self.through + 1 - batch.seq, min(len(batch.events), through + 1 - batch.seq)
            part = msgspec.structs.replace(batch, events=batch.events[begin:end], seq=batch.seq + begin)
            await super()._follow(msgspec.structs.replace(message, batch=part))
            if end == len(batch.events):
                self._batches.popleft()
