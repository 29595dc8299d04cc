"""Wires the actors and runs them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, NamedTuple

import anyio
from anyio.abc import TaskGroup

from peerwatch.actors.audit import AuditActor, Auditing, AuditTally
from peerwatch.actors.coordinator import AuditSample, Coordinator, DecisionLog, Judges, TrainerLink
from peerwatch.actors.dispatcher import Dispatcher, Recovery
from peerwatch.actors.graph import GraphActor
from peerwatch.actors.mailbox import BusyTime, Depth, Mailbox, Send, measured
from peerwatch.actors.messages import (
    AuditMessage,
    AuditNotices,
    CoordinatorMessage,
    GraphCopy,
    GraphMessage,
    OutputMessage,
    ShardMessage,
    TrainedModel,
    TrainingRequest,
    WindowReply,
)
from peerwatch.actors.output import Outlet, OutputActor
from peerwatch.actors.purchases import PurchaseShard
from peerwatch.actors.snapshot import SnapshotPart
from peerwatch.actors.trainer import Trainee, Trainer
from peerwatch.connectors.records import DECISION, NOTICE, Record
from peerwatch.connectors.sink import Sink
from peerwatch.connectors.source import Bookmark, Source
from peerwatch.errors import PeerwatchError
from peerwatch.judging.engine import BATCH_CAP, windows_at_once
from peerwatch.judging.state import Counts, State
from peerwatch.network.graph import FriendGraph
from peerwatch.network.rejects import RejectTally
from peerwatch.runtime.checkpointer import Checkpointer
from peerwatch.runtime.cluster import Cluster, Replicas, ReplicaWiring
from peerwatch.storage.status import WorkerStatus

SETTLE_SECONDS: Final = 0.001
"""How often a cautious run looks whether its one event is through."""


class Totals(NamedTuple):
    """What a run has done so far.

    `verdicts` is the hash of the `decisions` that are written; `recomputed` counts those that an audit made again, and
    `differences` those of them that came out differently. `champion_alone` and `challenger_alone` count the purchases
    that only one of the two has flagged.
    """

    progress: Counts
    flagged: int
    friendships: int
    decisions: int
    verdicts: str
    recomputed: int
    differences: int
    champion_alone: int = 0
    challenger_alone: int = 0

    def shown(self) -> str:
        """The counts that matter while a run goes on."""
        return f"{self.progress.events:,} events, {self.flagged:,} flagged"


class Pipeline:
    """All actors of one run around its state."""

    def __init__(
        self,
        state: State,
        judges: Judges,
        *,
        decisions: DecisionLog,
        outlets: Sequence[Outlet[Sink]],
        walkers: int = 1,
        judge_batch: bool = False,
        strict: bool = False,
        batch_cap: int = BATCH_CAP,
        checkpointer: Checkpointer | None = None,
        recovery: Recovery | None = None,
        bookmarks: Sequence[Bookmark[Any]] = (),
        auditing: Auditing | None = None,
        warn: Callable[[str], None] = lambda _: None,
        complain: Callable[[str], None] = lambda _: None,
        rejects: RejectTally | None = None,
        heard: Callable[[Sequence[Record]], None] | None = None,
        cluster: Cluster | None = None,
    ) -> None:
        """`judge_batch`, `warn`, `complain` and `rejects` are the dispatcher's, `heard` is the output's.

        With a `cluster`, which needs a checkpointer, the graph is there and not in `state`, and so are the purchases
        unless there is a quarantine.
        """
        coordinator_of: Callable[..., Coordinator] = Coordinator
        audit_of: Callable[..., AuditActor] = AuditActor
        if state.quarantine is not None:
            from peerwatch.actors import quarantine  # noqa: PLC0415 (for who has set it)

            kept_out, events = state.quarantine, state.progress.events
            coordinator_of = partial(quarantine.QuarantineCoordinator, quarantine=kept_out, through=events)
            audit_of = quarantine.QuarantineAudit
        histories = state.histories
        if cluster is not None:
            histories = [] if state.quarantine is None else histories
            walkers = 1
        graphs = [Mailbox[GraphMessage](f"graph {number}") for number in range(walkers)]
        copies = [Mailbox[GraphCopy](f"graph copy {number}", 1) for number in range(1, walkers)]
        answers = [Mailbox[CoordinatorMessage](f"coordinator {number}") for number in range(walkers)]
        to_output = Mailbox[OutputMessage]("output")
        shards = [Mailbox[ShardMessage](f"shard {number}") for number in range(len(histories))]
        replies = Mailbox[WindowReply]("replies")
        asking = [box.sender.clone() for box in shards]
        replying = [replies.sender, *(replies.sender.clone() for _ in shards[1:])]
        if not shards:
            replies.sender.close()
        audited = Mailbox[AuditMessage]("audit") if auditing is not None else None
        takes_notices = any(NOTICE in outlet.records for outlet in outlets)
        differences = Mailbox[AuditNotices]("differences") if audited is not None and takes_notices else None
        live_judges = [live for _, live in judges.live_judges()]
        trainees = {who: Trainee(live.judge.detector, live.models) for who, live in judges.live_judges() if live.learns}
        training = Mailbox[TrainingRequest]("trainer") if trainees else None
        trained = Mailbox[TrainedModel]("models") if trainees else None
        trainer, link = None, None
        if training is not None and trained is not None:
            trainer = Trainer(trainees, training.receiver, trained.sender)
            link = TrainerLink(training.sender, trained.receiver)
        # a record names the network's size, and it is a part of the context
        every_decision = any(DECISION in outlet.records for outlet in outlets)
        counted = every_decision or decisions.flagged
        sizes = counted or any(live.wants_context for live in live_judges)
        self._state = state
        self._histories = histories
        self._parts = Mailbox[SnapshotPart]("checkpointer") if checkpointer is not None else None
        parts = self._parts.sender if self._parts is not None else None
        optional = [box for box in (audited, differences, training, trained, self._parts) if box is not None]
        self._mailboxes: list[Mailbox[Any]] = [*graphs, *copies, *answers, to_output, *shards, replies, *optional]
        self._clones: list[Send[Any]] = [*asking, *replying]
        self._audit: AuditActor | None = None
        checking = None
        if auditing is not None and audited is not None:
            checking = AuditSample(auditing.share, audited.sender.clone())
            self._clones.append(checking.audit)
            notices = differences.sender if differences is not None else None
            self._audit = audit_of(auditing, audited.receiver, notices=notices, through=state.progress.events)
        self._dispatcher = Dispatcher(
            state.decoder,
            [box.sender for box in graphs],
            [box.sender for box in shards],
            lambda: self._replicas.batch_cap if self._replicas is not None else batch_cap,
            audited.sender if audited is not None else None,
            strict=strict,
            judge_batch=judge_batch,
            done=state.progress,
            due_snapshot=checkpointer.due if checkpointer is not None else lambda *_: None,
            recovery=recovery,
            wait_settled=self._wait_settled,
            bookmarks=bookmarks,
            parts=parts,
            warn=warn,
            complain=complain,
            rejects=rejects,
            quarantine=state.quarantine is not None,
        )
        self._output = OutputActor(
            to_output.receiver,
            outlets,
            verdicts=state.verdicts,
            written=state.flagged,
            rejected=state.progress.rejected,
            through=state.progress.events,
            parts=parts,
            heard=heard,
            audited=differences.receiver if differences is not None else None,
        )
        most = windows_at_once(state.T, max(1, len(shards)))
        self._coordinator = coordinator_of(
            judges,
            state.T,
            decisions,
            [box.receiver for box in answers],
            asking,
            replies.receiver,
            to_output.sender,
            checking,
            state.disagreed,
            parts,
            link,
            every_decision=every_decision,
        )
        self._replicas: Replicas | None = None
        if cluster is not None and parts is not None:
            wanted, box, answer = self._coordinator.reasons_wanted, graphs.pop(), answers[0]
            wiring = ReplicaWiring(state, judges, box.receiver, answer.sender, parts, wanted, sizes, warn)
            self._replicas = cluster.replicas(wiring)
        directed, costs = state.graph.directed, state.graph.costs.tolist()
        in_snapshots: dict[str, GraphActor | Coordinator | OutputActor | PurchaseShard] = {
            box.sender.name: GraphActor(
                state.graph if number == 0 else FriendGraph(state.D, state.T, directed=directed, costs=costs),
                box.receiver,
                answer.sender,
                most,
                number,
                walkers,
                parts,
                sizes=sizes,
                copies=[copy.sender for copy in copies] if number == 0 else (),
                copy=copies[number - 1].receiver if number else None,
            )
            for number, (box, answer) in enumerate(zip(graphs, answers, strict=cluster is None))
        }
        in_snapshots |= {self._coordinator.part: self._coordinator, self._output.part: self._output}
        in_snapshots |= {
            box.sender.name: PurchaseShard(number, history, box.receiver, reply, parts)
            for number, (history, box, reply) in enumerate(zip(histories, shards, replying, strict=cluster is None))
        }
        self._checkpointer = checkpointer
        self._expected = {self._dispatcher.part, *(actor.part for actor in in_snapshots.values())}
        """What the parts of a snapshot are called."""
        if self._replicas is not None:
            self._expected.add(self._replicas.part)
        self._actors: dict[
            str, GraphActor | Coordinator | OutputActor | PurchaseShard | AuditActor | Trainer | Replicas
        ] = {
            **({"replicas": self._replicas} if self._replicas is not None else {}),
            **in_snapshots,
            **({"audit": self._audit} if self._audit is not None else {}),
            **({"trainer": trainer} if trainer is not None else {}),
        }
        others = [self._dispatcher.part, *(["checkpointer"] if checkpointer is not None else [])]
        self._busy = {name: BusyTime() for name in (*others, *self._actors)}

    @property
    def reached(self) -> int:
        """Bytes of all logs that have been taken in hand."""
        return self._dispatcher.reached

    @property
    def through(self) -> int:
        """All events up to this sequence number are in every actor's state, and what they gave is written."""
        audit = [self._audit.through] if self._audit is not None else []
        return min([self._output.through, *(history.applied for history in self._histories), *audit])

    def mailboxes(self) -> dict[str, Depth]:
        """How full each mailbox is, and how full it has been."""
        return {box.sender.name: box.sender.depth() for box in self._mailboxes}

    def busy_seconds(self) -> dict[str, float]:
        """The seconds that each actor has worked."""
        return {name: busy.seconds for name, busy in self._busy.items()}

    def workers(self) -> list[WorkerStatus]:
        """How the workers of a cluster are doing."""
        return self._replicas.status() if self._replicas is not None else []

    async def _wait_settled(self, seq: int) -> None:
        while self.through < seq:  # noqa: ASYNC110 (only after a failure; an event would burden every batch)
            await anyio.sleep(SETTLE_SECONDS)

    def statistics(self) -> Totals:
        """What has been done so far."""
        verdicts = self._output.verdicts
        tally = self._audit.tally if self._audit is not None else AuditTally()
        return Totals(
            self._dispatcher.statistics(),
            self._output.written,
            self._state.graph.friendships if self._replicas is None else self._replicas.friendships,
            verdicts.decisions,
            verdicts.digest(),
            tally.recomputed,
            tally.differences,
            *self._coordinator.disagreed.tolist(),
        )

    def stop(self) -> None:
        """Read no more; what has been read is still judged and written."""
        self._dispatcher.stop()

    async def run(self, logs: Sequence[Source]) -> Totals:
        """Judge the logs, one after the other, to their ends.

        Raises:
            PeerwatchError: a log, a sink or a strict rule ended the run.
        """
        try:
            async with task_group() as collecting:
                if self._checkpointer is not None and self._parts is not None:
                    if self._replicas is not None:
                        self._checkpointer.tell(self._replicas.checkpointed)
                    busy = self._busy["checkpointer"]
                    collecting.start_soon(measured, busy, self._checkpointer.run, self._parts.receiver, self._expected)
                async with task_group() as tasks:
                    for name, actor in self._actors.items():
                        tasks.start_soon(measured, self._busy[name], actor.run)
                    tasks.start_soon(measured, self._busy[self._dispatcher.part], self._dispatcher.run, logs)
                if self._parts is not None:
                    self._parts.sender.close()  # no more parts come; what is there is still written
        finally:
            for box in self._mailboxes:
                box.close()  # an actor that failed or was cancelled may have left its own end open
            for clone in self._clones:
                clone.close()
        if self._audit is not None:
            await self._audit.finish()
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
