"""The coordinator: collects each purchase's window from the shards, judges it, and logs decisions."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from itertools import count, cycle
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import anyio
import msgspec
import numpy as np
from anyio.to_thread import run_sync
from numpy.typing import NDArray

from peerwatch.actors.judges import LiveJudge, ModelActivated
from peerwatch.actors.mailbox import INLINE_WORK, Mailbox, Receive, Send, run_kernel, waiting, working
from peerwatch.actors.messages import (
    AnsweredQueries,
    AuditDecisions,
    AuditMessage,
    CoordinatorMessage,
    Flagged,
    OutputMessage,
    Results,
    ShardMessage,
    TrainedModel,
    TrainingRequest,
    WindowQueries,
    WindowReply,
    WindowRequest,
)  # fmt: skip
from peerwatch.actors.snapshot import CoordinatorPart, SnapshotPart, SnapshotRequest
from peerwatch.actors.window_table import WindowTable
from peerwatch.connectors.records import MOST_NOTICES, DecisionRow, NoticeRecord
from peerwatch.judging.adaptation import DriftNotice, LabelsNotice, Notice, ReleaseNotice, section
from peerwatch.judging.audit import AuditedDecision
from peerwatch.judging.judge import CHALLENGER, CHAMPION, BatchVerdicts, Case, Mask, Reasons
from peerwatch.judging.sampling import sampled
from peerwatch.kernels import Int64s
from peerwatch.network.events import parse_event
from peerwatch.network.networks import Networks, alone
from peerwatch.network.statistics import decimal
from peerwatch.network.windows import Windows, merged


class Disagreement(NamedTuple):
    """Only one of the two judges has flagged the purchase `seq`: what each says of it."""

    seq: int
    user: str
    amount: str
    champion: dict[str, Any]
    challenger: dict[str, Any]


COLLECT_WORK: Final = 1_000
"""What collecting a decision counts for when it is weighed whether to use a thread. It takes more nanoseconds, but on a
thread it would hold the interpreter's lock all the same."""
LOG_WORK: Final = INLINE_WORK + 1
"""What writing to the log counts for: it may be a file, so it is done on a thread."""
NOTICES: Final = {
    DriftNotice: "drift", LabelsNotice: "labels", ModelActivated: "model", Disagreement: "disagreement",
    ReleaseNotice: "release",
}  # fmt: skip
"""The name of each kind of notice."""


class DecisionLog(Protocol):
    """Selects and writes the decisions that are logged."""

    flagged: bool
    """Whether flagged decisions of all users are logged."""

    def wanted(self, queries: WindowQueries) -> Mask:
        """The purchases to log whatever their verdict, as a mask of shape [q]."""

    def write(self, queries: WindowQueries, decisions: Sequence[Reasons]) -> None:
        """Write one record for each decision."""

    def disagree(self, queries: WindowQueries, pairs: Sequence[tuple[Reasons, Reasons]]) -> None:
        """Write one record for each pair of differing decisions, the champion's and the challenger's."""

    def tell(self, who: str, notices: Sequence[Notice | ModelActivated]) -> None:
        """Write one record for each notice; `who` is "champion" or "challenger"."""


class PendingQueries(NamedTuple):
    """Queries whose window requests have been sent. The fields hold request ids, None if nothing was requested."""

    queries: WindowQueries
    windows: int | None
    own: int | None
    """The request for the buyers' own purchases, if a judge wants them."""


class AuditSample(NamedTuple):
    """The share of decisions to audit, and the mailbox of the audit actor."""

    share: float
    audit: Send[AuditMessage]


class JudgedQueries(NamedTuple):
    """The decisions on one message's purchases: the flagged ones, rows of all if asked for, and those to recompute.

    `releases` are as in `AuditDecisions`.
    """

    flagged: list[Flagged]
    rows: list[DecisionRow]
    audited: list[AuditedDecision]
    notices: list[NoticeRecord]
    releases: Sequence[tuple[int, list[int]]] = ()


NOTHING_JUDGED: Final = JudgedQueries([], [], [], [])


class TrainerLink(NamedTuple):
    """The mailboxes to and from the trainer."""

    requests: Send[TrainingRequest]
    trained: Receive[TrainedModel]


class Judges(NamedTuple):
    """The champion, whose verdicts are written, and an optional challenger, which is only compared with it."""

    champion: LiveJudge
    challenger: LiveJudge | None = None

    def live_judges(self) -> list[tuple[str, LiveJudge]]:
        """The judges in use, each with its name."""
        both = ((CHAMPION, self.champion), (CHALLENGER, self.challenger))
        return [(name, live) for name, live in both if live is not None]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state of all judges, with keys such as `champion.NAME`. The arrays are copies."""
        return {
            f"{who}.{name}": array for who, live in self.live_judges() for name, array in live.judge.arrays().items()
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Restore the state that `arrays` returned, and load the models that were active then.

        Raises:
            RunError: a model is missing or damaged.
        """
        for who, live in self.live_judges():
            live.restore(section(arrays, who))


class Coordinator:
    """Requests windows and judges purchases concurrently: the shards work on the next batch while one is judged.

    There is one inbox for each graph actor, because the graph actors take turns to answer batches.
    """

    part: Final = "coordinator"
    """The name of its part of a snapshot."""

    def __init__(
        self,
        judges: Judges,
        T: int,
        log: DecisionLog,
        inboxes: Sequence[Receive[CoordinatorMessage]],
        shards: Sequence[Send[ShardMessage]],
        replies: Receive[WindowReply],
        output: Send[OutputMessage],
        checking: AuditSample | None = None,
        disagreed: Sequence[int] = (0, 0),
        parts: Send[SnapshotPart] | None = None,
        trainer: TrainerLink | None = None,
        *,
        every_decision: bool = False,
    ) -> None:
        """`disagreed` counts from what was judged before. There is a `trainer` if one of the judges learns.

        With `every_decision` the output gets every decision, not only the flagged ones.
        """
        self._judges = judges
        self._T = T
        self._log = log
        self._inboxes = inboxes
        self._shards = shards
        self._replies = replies
        self._requests = count(1)
        self._table = WindowTable(len(shards))
        self._output = output
        self._checking = checking
        self._every_decision = every_decision
        self._parts = parts
        self._trainer = trainer
        self._wants_context = any(live.wants_context for _, live in judges.live_judges())
        self._at_once = judges.challenger is None and not judges.champion.stepwise
        self.disagreed: Int64s = np.array(disagreed, np.int64)
        """The number of purchases flagged by the champion alone and by the challenger alone, shape [2]."""

    async def run(self) -> None:
        """Serve until the inboxes are closed and every reply has been judged."""
        asked = Mailbox[AskedMessage]("asked")
        with waiting():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(working, self._ask, asked.sender)
                tasks.start_soon(working, self._collect)
                tasks.start_soon(working, self._judge_all, asked.receiver)
                if self._trainer is not None:
                    tasks.start_soon(working, self._take_models, self._trainer.trained)

    def reasons_wanted(self, queries: WindowQueries) -> Mask:
        """The purchases whose reasons are needed whatever the verdict, as a mask of shape [q]."""
        wanted = self._log.wanted(queries)
        if self._checking is not None:
            wanted |= sampled(queries.seq, self._checking.share)
        return wanted | self._every_decision

    async def _ask(self, asked: Send["AskedMessage"]) -> None:
        with ExitStack() as stack:
            stack.enter_context(asked)
            for inbox in self._inboxes:
                stack.enter_context(inbox)
            with suppress(anyio.EndOfStream):
                for inbox in cycle(self._inboxes):
                    while not await self._ask_one(await inbox.receive(), asked):
                        pass
        self._all_asked()

    def _all_asked(self) -> None:
        """Nothing more is sent to the shards."""
        for shard in self._shards:
            shard.close()

    async def _ask_one(self, message: CoordinatorMessage, asked: Send["AskedMessage"]) -> bool:
        """Request the windows for one message. Returns whether the next message comes from the next graph actor."""
        if isinstance(message, SnapshotRequest):
            await asked.send(message)
            return False
        if isinstance(message, AnsweredQueries):
            await asked.send(message)
            return message.queries.next
        windows, own = None, None
        if len(message.seq):
            windows = await self._request(message.seq, message.networks)
            if self._wants_context:
                own = await self._request(message.seq, alone(message.events.user))
        message = msgspec.structs.replace(message, networks=message.networks.unfound())  # the first shard has them
        await asked.send(PendingQueries(message, windows, own))
        return message.next

    async def _request(self, seq: Int64s, networks: Networks, users: int = 0) -> int:
        """Send a request to all shards and return its id. `users` as in a request."""
        request = next(self._requests)
        self._table.expect(request)
        for shard in self._shards:
            await shard.send(WindowRequest(request, seq, networks, int(seq[0]), users))
            networks = networks.unfound()
        return request

    async def _collect(self) -> None:
        """Receive replies independently of judging, so that shards never wait for the output."""
        with self._replies:
            async for reply in self._replies:
                self._table.put(reply)

    async def _take_models(self, trained: Receive[TrainedModel]) -> None:
        """Pass each model to the judge it was trained for, until the trainer has finished."""
        live_judges = dict(self._judges.live_judges())
        with trained:
            async for model in trained:
                live_judges[model.who].take(model)

    async def _judge_all(self, asked: Receive["AskedMessage"]) -> None:
        requests = self._trainer.requests if self._trainer is not None else None
        with ExitStack() as stack:
            for end in (asked, self._output, self._checking and self._checking.audit, requests):
                stack.enter_context(end or nullcontext())
            async for message in asked:
                if isinstance(message, SnapshotRequest):
                    await self._send_part(message)
                    await self._output.send(message)
                    continue
                queries, judged = message.queries, await self._decided(message)
                if self._checking is not None:
                    through = max([queries.through, *queries.seq[-1:].tolist()])
                    await self._checking.audit.send(AuditDecisions(judged.audited, through, judged.releases))
                await self._output.send(
                    Results(queries.seq, judged.flagged, queries.rejected, queries.through, judged.rows, judged.notices)
                )

    async def _decided(self, pending: PendingQueries | AnsweredQueries) -> JudgedQueries:
        """Judge the purchases of one message, unless a cluster has."""
        if isinstance(pending, AnsweredQueries):
            if pending.reasons is not None:
                return await self._sent_on(pending.queries, pending.reasons)
            found = pending.windows
            return await self._judged(pending.queries, found, pending.own) if found else NOTHING_JUDGED
        windows = [] if pending.windows is None else await self._table.take(pending.windows)
        own = [] if pending.own is None else await self._table.take(pending.own)
        return await self._judged(pending.queries, windows, own) if windows else NOTHING_JUDGED

    async def _send_part(self, request: SnapshotRequest) -> None:
        if self._parts is not None:
            await self._parts.send(CoordinatorPart(request.id, self.part, self.disagreed.copy(), self._memory()))

    def _memory(self) -> dict[str, NDArray[Any]]:
        """What is remembered from one purchase to the next, as arrays."""
        return self._judges.arrays()

    async def _judged(self, queries: WindowQueries, windows: list[Windows], own: list[Windows]) -> JudgedQueries:
        wanted = self._log.wanted(queries)
        checked = None if self._checking is None else sampled(queries.seq, self._checking.share)
        if self._at_once:
            work = 8 * sum(len(part.seq) for part in (*windows, *own))
            if self._every_decision:
                work += COLLECT_WORK * len(queries.seq)
            if work > INLINE_WORK or not self._judges.champion.judge.is_quick:
                return await run_sync(self._decide, queries, windows, own, wanted, checked)
            case = self._case(queries, windows, own)
            judged = [self._judges.champion.judge.verdicts(case)]
            logs = bool(wanted.any() or (self._log.flagged and judged[0].flagged.any()))
            return await run_kernel(LOG_WORK * logs, self._report, queries, case, judged, wanted, checked)
        case = await run_sync(self._case, queries, windows, own)
        requests = self._trainer.requests if self._trainer is not None else None
        verdicts = [
            await live.verdicts(case, who, requests, new=queries.new) for who, live in self._judges.live_judges()
        ]
        return await run_sync(self._report, queries, case, verdicts, wanted, checked)

    async def _sent_on(self, queries: WindowQueries, reasons: list[Reasons]) -> JudgedQueries:
        """Log and collect what has been judged already."""
        wanted = self._log.wanted(queries)
        checked = None if self._checking is None else sampled(queries.seq, self._checking.share)
        work = COLLECT_WORK * len(reasons)
        if wanted.any() or (self._log.flagged and any(one.flagged for one in reasons)):
            work += LOG_WORK
        return await run_kernel(work, self._collected, queries, reasons, wanted, checked, [])

    def _decide(
        self, queries: WindowQueries, windows: list[Windows], own: list[Windows], wanted: Mask, checked: Mask | None
    ) -> JudgedQueries:
        case = self._case(queries, windows, own)
        return self._report(queries, case, [self._judges.champion.judge.verdicts(case)], wanted, checked)

    def _case(self, queries: WindowQueries, windows: list[Windows], own: list[Windows]) -> Case:
        events = queries.events
        line = events.line if not queries.in_batch_log else np.zeros(len(events), np.int64)
        return Case(
            merged(windows, self._T), queries.seq, line, events.amount, events.timestamp,
            queries.networks.size, merged(own, self._T) if own else None,
        )  # fmt: skip

    def _report(
        self, queries: WindowQueries, case: Case, judged: list[BatchVerdicts], wanted: Mask, checked: Mask | None
    ) -> JudgedQueries:
        """Log the decisions that are `wanted`, and collect what is sent on; `checked` are those to be recomputed."""
        champion = judged[0]
        which = champion.flagged | wanted
        if checked is not None:
            which |= checked
        if self._every_decision:
            which = np.ones(len(case.seq), np.bool_)
        if self._judges.challenger is not None:
            which |= judged[1].flagged
        decisions = self._judges.champion.judge.decisions(case, champion, which)
        told: list[Told] = []
        for who, live in self._judges.live_judges():
            if notices := live.notices():
                self._log.tell(who, notices)
                told += [(who, notice) for notice in notices]
        collected = self._collected(queries, decisions, wanted, checked, told)
        if self._judges.challenger is None:
            return collected
        told += self._compare(queries, case, decisions, self._judges.challenger, judged[1])
        return collected._replace(notices=_notices(queries, told))

    def _collected(
        self,
        queries: WindowQueries,
        decisions: list[Reasons],
        wanted: Mask,
        checked: Mask | None,
        told: Sequence["Told"],
    ) -> JudgedQueries:
        """Log the decisions that are `wanted`, and collect what is sent on."""
        logged = [one for one in decisions if wanted[one.place] or (one.flagged and self._log.flagged)]
        if logged:
            self._log.write(queries, logged)
        return JudgedQueries(
            [_flagged(queries, decision) for decision in decisions if decision.flagged],
            [_row(queries, decision) for decision in decisions] if self._every_decision else [],
            [_outcome(queries, decision) for decision in decisions if checked is not None and checked[decision.place]],
            _notices(queries, told),
        )

    def _compare(
        self,
        queries: WindowQueries,
        case: Case,
        decisions: list[Reasons],
        challenger: LiveJudge,
        judged: BatchVerdicts,
    ) -> list[tuple[str, Disagreement]]:
        """Count and log the purchases on which challenger and champion disagree; each by who alone flagged it."""
        differing = [one for one in decisions if one.flagged != judged.flagged[one.place]]
        alone = sum(one.flagged for one in differing)
        self.disagreed += (alone, len(differing) - alone)
        if not differing:
            return []
        which = np.zeros(len(case.seq), np.bool_)
        which[[one.place for one in differing]] = True
        pairs = list(zip(differing, challenger.judge.decisions(case, judged, which), strict=True))
        self._log.disagree(queries, pairs)
        return [(CHAMPION if one.flagged else CHALLENGER, _disagreement(queries, one, other)) for one, other in pairs]


def _disagreement(queries: WindowQueries, champion: Reasons, challenger: Reasons) -> Disagreement:
    return Disagreement(
        int(queries.seq[champion.place]),
        _user(queries, champion.place),
        decimal(champion.amount),
        _opinion(champion),
        _opinion(challenger),
    )


def _opinion(decision: Reasons) -> dict[str, Any]:
    """What a judge says of a purchase; sigma has no score."""
    scoring = decision.scoring
    score = {"score": scoring.score, "threshold": scoring.threshold} if scoring is not None else {}
    return {"flagged": decision.flagged, **score}


AskedMessage: TypeAlias = PendingQueries | AnsweredQueries | SnapshotRequest
Told: TypeAlias = tuple[str, Notice | ModelActivated | Disagreement]
"""A notice, and the judge that it is about."""


def _notices(queries: WindowQueries, told: Sequence[Told]) -> list[NoticeRecord]:
    """Records of the notices of one message, in the order of their events, numbered like no others."""
    records: list[NoticeRecord] = []
    same: Counter[int] = Counter()
    for who, notice in sorted(told, key=lambda one: one[1].seq):
        details = notice.change._asdict() if isinstance(notice, DriftNotice) else notice._asdict()
        details.pop("seq", None)
        number = MOST_NOTICES * notice.seq + same[notice.seq]
        timestamp = int(queries.events.timestamp[np.searchsorted(queries.seq, notice.seq)])
        records.append(NoticeRecord(number, notice.seq, who, NOTICES[type(notice)], details, timestamp))
        same[notice.seq] += 1
    return records


def _flagged(queries: WindowQueries, decision: Reasons) -> Flagged:
    events, place = queries.events, decision.place
    text = queries.content[events.start[place] : events.end[place]]
    return Flagged(
        int(queries.seq[place]),
        int(events.line[place]),
        text,
        decision.statistics,
        decision.scoring,
        decision.severity,
        queries.names,
        queries.in_batch_log,
    )


def _outcome(queries: WindowQueries, decision: Reasons) -> AuditedDecision:
    seq, line = int(queries.seq[decision.place]), int(queries.events.line[decision.place])
    timestamp = int(queries.events.timestamp[decision.place])
    return AuditedDecision(seq, queries.file, line, decision.statistics, decision.flagged, timestamp)


def _user(queries: WindowQueries, place: int) -> str:
    """The buyer of a purchase."""
    events = queries.events
    line = queries.content[events.start[place] : events.end[place]].removesuffix(b"\r")
    return parse_event(line, queries.names).user.decode()


def _row(queries: WindowQueries, decision: Reasons) -> DecisionRow:
    events, place, statistics, scoring = queries.events, decision.place, decision.statistics, decision.scoring
    size = int(queries.networks.size[place])
    known = statistics.n > 0
    return DecisionRow(
        seq=int(queries.seq[place]),
        file=queries.file,
        line=int(events.line[place]),
        user=_user(queries, place),
        timestamp=int(events.timestamp[place]),
        amount=decimal(decision.amount),
        flagged=decision.flagged,
        window_size=statistics.n,
        mean=statistics.mean() if known else None,
        sd=statistics.sd() if known else None,
        network_size=size if size >= 0 else None,
        score=scoring.score if scoring is not None else None,
        threshold=scoring.threshold if scoring is not None else None,
        model=scoring.model if scoring is not None else None,
        severity=decision.severity,
    )
