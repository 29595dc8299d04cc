"""The audit actor: recomputes a share of the decisions by brute force during the run, and compares."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Final

import msgspec
import numpy as np
from anyio.to_thread import run_sync

from peerwatch.actors.mailbox import Receive, Send, run_kernel
from peerwatch.actors.messages import AuditBatch, AuditDecisions, AuditMessage, AuditNotices
from peerwatch.connectors.records import MOST_NOTICES, NoticeRecord
from peerwatch.judging.audit import AuditedDecision, BruteForce, Difference
from peerwatch.judging.judge import CHAMPION, Mask
from peerwatch.judging.sampling import sampled
from peerwatch.network.events import Kind
from peerwatch.network.interner import ids_of

EVENT_WORK: Final = 2_000
DECISION_WORK: Final = 50_000
ID_WORK: Final = 200
"""Estimated nanoseconds to apply an event, to recompute a decision, and to look up a user's id."""


class AuditTally(msgspec.Struct):
    """The number of recomputed decisions, how many of them differ, and the first difference."""

    recomputed: int = 0
    differences: int = 0
    first: Difference | None = None

    def add(self, *, recomputed: int = 0, differences: Sequence[Difference] = ()) -> None:
        """Count more of them."""
        self.recomputed += recomputed
        self.differences += len(differences)
        if self.first is None and differences:
            self.first = differences[0]


class Auditing(msgspec.Struct, frozen=True):
    """Settings and state of an audit.

    `audit` holds the state before the run's first event; `share` is the share of decisions to recompute; `alarm` is
    called with the differences found. `tally` is kept when the pipeline restarts.
    """

    audit: BruteForce
    share: float
    alarm: Callable[[Sequence[Difference]], None]
    tally: AuditTally = msgspec.field(default_factory=AuditTally)


class AuditActor:
    """Recomputes sampled decisions and compares them with those of the coordinator.

    The dispatcher sends each batch here before it sends it to the graph actors. The coordinator sends its decisions
    later.
    """

    def __init__(
        self,
        auditing: Auditing,
        inbox: Receive[AuditMessage],
        *,
        notices: Send[AuditNotices] | None = None,
        through: int = 0,
    ) -> None:
        """`notices` gets the differences as records, if a sink takes them."""
        self._audit = auditing.audit
        self._share = auditing.share
        self._alarm = auditing.alarm
        self.tally = auditing.tally
        self._inbox = inbox
        self._notices = notices
        self._names: list[bytes] = []
        self._awaited: dict[int, AuditedDecision] = {}
        self.through = through
        """The highest sequence number that has been applied to the audit's state."""

    async def run(self) -> None:
        """Recompute and compare until the mailbox is closed."""
        with self._inbox, self._notices or nullcontext():
            async for message in self._inbox:
                if isinstance(message, AuditBatch):
                    await self._follow(message)
                else:
                    await self._compare(message)

    async def finish(self) -> None:
        """Report recomputed decisions that the coordinator never sent. Call it when all actors have finished."""
        await self._report([Difference(None, outcome) for outcome in self._awaited.values()])
        self._awaited.clear()

    async def _follow(self, message: AuditBatch) -> None:
        batch = message.batch
        chosen = np.zeros(len(batch.events), np.bool_)
        if batch.judged:
            seq = batch.seq + np.arange(len(batch.events))
            chosen = sampled(seq, self._share) & (batch.events.kind == Kind.PURCHASE)
        count = int(np.count_nonzero(chosen))
        work = EVENT_WORK * len(batch.events) + DECISION_WORK * count + ID_WORK * (batch.users - len(self._names))
        outcomes = await run_kernel(work, self._recompute, message, chosen)
        self._awaited |= {outcome.seq: outcome for outcome in outcomes}
        self.tally.add(recomputed=count)
        self.through = batch.seq + len(batch.events) - 1

    def _recompute(self, message: AuditBatch, chosen: Mask) -> list[AuditedDecision]:
        batch = message.batch
        self._names += ids_of(message.arena, message.ends, len(self._names))
        return self._audit.follow(batch.events, batch.seq, batch.file, self._names, chosen, judged=batch.judged)

    async def _compare(self, message: AuditDecisions) -> None:
        pairs = [Difference(judged, self._awaited.pop(judged.seq, None)) for judged in message.outcomes]
        missing = [seq for seq in self._awaited if seq <= message.through]
        pairs += [Difference(None, self._awaited.pop(seq)) for seq in missing]
        differences = sorted(
            (pair for pair in pairs if pair.judged != pair.recomputed), key=lambda pair: pair.known.seq
        )
        await self._report(differences)
        if self._notices is not None:
            await self._notices.send(AuditNotices([_notice(difference) for difference in differences]))

    async def _report(self, differences: list[Difference]) -> None:
        if differences:
            self.tally.add(differences=differences)
            await run_sync(self._alarm, differences)


def _notice(difference: Difference) -> NoticeRecord:
    """A difference as a record, whose number follows those of all other notices about the event."""
    known = difference.known
    number = MOST_NOTICES * known.seq + MOST_NOTICES - 1
    return NoticeRecord(number, known.seq, CHAMPION, "difference", difference.fields(), known.timestamp)
