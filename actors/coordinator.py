"""Gathers each decision's window from the shards, has it judged, and logs decisions."""

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from itertools import cycle
from typing import NamedTuple, Protocol

import anyio

from peerwatch.actors.mailbox import INLINE_WORK, Receive, Reply, Send, mailbox, run_kernel
from peerwatch.actors.messages import (
    CoordinatorMessage,
    Flagged,
    Outcomes,
    OutputMessage,
    Questions,
    Results,
    ShadowMessage,
    ShardMessage,
    WindowRequest,
)  # fmt: skip
from peerwatch.actors.snapshot import Snapshot
from peerwatch.detectors.judge import Decision, Judging, Mask
from peerwatch.detectors.shadow import Outcome
from peerwatch.network.history import Windows, merged
from peerwatch.network.sampling import sampled


class DecisionLog(Protocol):
    """Which decisions are logged, and where to."""

    flagged: bool
    """Whether flagged decisions are logged whoever bought."""

    def wanted(self, questions: Questions) -> Mask:
        """Which of the purchases are logged whatever their verdict, shape [q]."""

    def write(self, questions: Questions, decisions: Sequence[Decision]) -> None:
        """Write one record a decision."""


class Asked(NamedTuple):
    """Questions whose window requests are on their way, and where the shards' replies will come."""

    questions: Questions
    replies: list[Reply[Windows]]


class Checking(NamedTuple):
    """Which share of the decisions is recomputed, and who does it."""

    share: float
    shadow: Send[ShadowMessage]


class Coordinator:
    """Asks and judges at the same time: while one batch is judged, the shards already work on the next.

    There is one inbox for each graph actor; they answer the batches in turn.
    """

    def __init__(
        self,
        judge: Judging,
        T: int,
        log: DecisionLog,
        inboxes: Sequence[Receive[CoordinatorMessage]],
        shards: Sequence[Send[ShardMessage]],
        output: Send[OutputMessage],
        checking: Checking | None = None,
    ) -> None:
        self._judge = judge
        self._T = T
        self._log = log
        self._inboxes = inboxes
        self._shards = shards
        self._output = output
        self._checking = checking

    async def run(self) -> None:
        """Serve until the mailbox ends and every reply has been judged."""
        ask, asked = mailbox(Asked, "asked")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._ask, ask)
            tasks.start_soon(self._judge_all, asked)

    async def _ask(self, asked: Send[Asked | Snapshot]) -> None:
        with ExitStack() as stack:
            stack.enter_context(asked)
            for inbox in self._inboxes:
                stack.enter_context(inbox)
            with suppress(anyio.EndOfStream):
                for inbox in cycle(self._inboxes):
                    while not await self._ask_one(await inbox.receive(), asked):
                        pass
        for shard in self._shards:
            shard.close()

    async def _ask_one(self, message: CoordinatorMessage, asked: Send[Asked | Snapshot]) -> bool:
        """Ask what one message wants to know; returns whether the next graph actor has the word."""
        if isinstance(message, Snapshot):
            await asked.send(message)
            return False
        replies = await self._request(message) if len(message.seq) else []
        await asked.send(Asked(message, replies))
        return message.next

    async def _request(self, questions: Questions) -> list[Reply[Windows]]:
        replies: list[Reply[Windows]] = []
        for shard in self._shards:
            replies.append(Reply())
            await shard.send(WindowRequest(questions.seq, questions.networks, int(questions.seq[0]), replies[-1]))
        return replies

    async def _judge_all(self, asked: Receive[Asked | Snapshot]) -> None:
        with asked, self._output, self._checking.shadow if self._checking is not None else nullcontext():
            async for message in asked:
                if isinstance(message, Snapshot):
                    await self._output.send(message)
                    continue
                questions, replies = message
                self._judge.large.extend(questions.large)
                windows = [await reply.wait_answered() for reply in replies]
                flagged = await self._flagged(questions, windows) if windows else []
                await self._output.send(Results(questions.seq, flagged, questions.rejected, questions.through))

    async def _flagged(self, questions: Questions, windows: list[Windows]) -> list[Flagged]:
        wanted = self._log.wanted(questions)
        checked = None if self._checking is None else sampled(questions.seq, self._checking.share)
        work = 8 * sum(len(part.seq) for part in windows)
        if self._log.flagged or wanted.any():
            work += INLINE_WORK  # a log may be a file: it is written from a thread
        flagged, outcomes = await run_kernel(work, self._decide, questions, windows, wanted, checked)
        if self._checking is not None and outcomes:
            await self._checking.shadow.send(Outcomes(outcomes))
        return flagged

    def _decide(
        self, questions: Questions, windows: list[Windows], wanted: Mask, checked: Mask | None
    ) -> tuple[list[Flagged], list[Outcome]]:
        """What is flagged, and what was decided on the purchases that are `checked`."""
        either = wanted if checked is None else wanted | checked
        decisions = self._judge.judge(merged(windows, self._T), questions.events.amount, either)
        logged = [one for one in decisions if wanted[one.place] or (one.flagged and self._log.flagged)]
        if logged:
            self._log.write(questions, logged)
        flagged = [_flagged(questions, decision) for decision in decisions if decision.flagged]
        if checked is None:
            return flagged, []
        return flagged, [_outcome(questions, decision) for decision in decisions if checked[decision.place]]


def _flagged(questions: Questions, decision: Decision) -> Flagged:
    events, place = questions.events, decision.place
    text = questions.content[events.start[place] : events.end[place]]
    return Flagged(int(questions.seq[place]), int(events.line[place]), text, decision.statistics, decision.spoken)


def _outcome(questions: Questions, decision: Decision) -> Outcome:
    seq, line = int(questions.seq[decision.place]), int(questions.events.line[decision.place])
    return Outcome(seq, questions.file, line, decision.statistics, decision.flagged)
