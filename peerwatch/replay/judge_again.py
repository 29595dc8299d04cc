"""Judges the logs again with the code of a run, using the models and labels of its history."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Any, NamedTuple

import msgspec
import numpy as np
from anyio.to_thread import run_sync

from peerwatch.actors.coordinator import Judges
from peerwatch.actors.judges import LiveJudge, ModelActivated
from peerwatch.actors.messages import WindowQueries
from peerwatch.connectors.source import Block, Source
from peerwatch.detectors.registry import DETECTORS
from peerwatch.errors import UsageError
from peerwatch.judging.adaptation import Notice, section
from peerwatch.judging.judge import CHAMPION, Case, Mask, Reasons, Scoring
from peerwatch.judging.state import State
from peerwatch.replay.quarantined import history_of
from peerwatch.replay.replay import Opened, Past, reopened
from peerwatch.runtime.judges_from_settings import champion_of
from peerwatch.runtime.pipeline import Pipeline
from peerwatch.settings.model import DEFAULT, SIGMA
from peerwatch.storage.checkpoints import Checkpoint
from peerwatch.storage.models import is_known
from peerwatch.storage.run_history import RunHistory


class JudgedAgain(NamedTuple):
    """A decision that was made again, and the judge `live` that made it.

    `since` is the event from which its model is active, None if there is no model.
    """

    decision: Reasons
    scoring: Scoring
    since: int | None
    live: LiveJudge

    @property
    def parameters(self) -> dict[str, Any]:
        """The detector's parameters, as JSON has them."""
        found = msgspec.json.encode(self.live.judge.parameters, enc_hook=repr)
        kept: dict[str, Any] = msgspec.json.decode(found)
        return kept


async def judged_again(opened: Opened, then: Past) -> JudgedAgain:
    """Make the decision on the event after `then` again, with a detector other than sigma.

    Everything between the checkpoint and the event is judged as well.

    Raises:
        UsageError: the model that judged is unknown or missing.
        RunError: a log could not be read any further, or the detector failed.
    """
    record = await run_sync(record_of, opened)
    live = await run_sync(live_judge_of, opened, record, then.seq)
    checkpoint, settings = opened.checkpoint if record is not None else None, opened.settings
    found = OneDecision(then.seq)
    async with AsyncExitStack() as stack:
        logs = await reopened(opened, checkpoint, stack)
        state = await run_sync(_begun, opened, checkpoint, live)
        pipeline = Pipeline(
            state,
            Judges(live),
            decisions=found,
            outlets=(),
            walkers=settings.walkers,
            judge_batch=settings.judge_batch,
        )
        await pipeline.run(first_bytes(logs, then.size - state.progress.bytes))
    if found.decision is None or found.decision.scoring is None:
        raise UsageError(f"event {then.seq:,} is not in the logs any more; they changed while they were being read")
    scoring, since = found.decision.scoring, None
    if scoring.model:
        since = found.spoke.get(scoring.model)
        if since is None and record is not None:
            since = record.journal.since(CHAMPION, scoring.model)
    return JudgedAgain(found.decision, scoring, since, live)


def judged_alone(opened: Opened) -> Callable[[Case], JudgedAgain] | None:
    """Return what makes a decision again from its window alone; None if it also depends on earlier decisions.

    Raises:
        UsageError: the code of the detector is named only by a state directory, which is not trusted.
    """
    _check_known(opened)
    judge = champion_of(opened.settings.detector, opened.origins)
    live = LiveJudge(judge)

    def again(case: Case) -> JudgedAgain:
        (decision,) = judge.decisions(case, judge.verdicts(case), np.ones(1, np.bool_))
        if decision.scoring is None:
            raise UsageError("sigma is explained without judging again")
        return JudgedAgain(decision, decision.scoring, None, live)

    return None if judge.stepwise else again


def record_of(opened: Opened) -> RunHistory | None:
    """Return the history of the run with these settings; None if there is none.

    Raises:
        UsageError: the history is damaged.
    """
    return history_of(opened.settings, opened.D, opened.T, opened.newest)


def live_judge_of(opened: Opened, record: RunHistory | None, seq: int | None = None) -> LiveJudge:
    """Return a judge that decides as the run's champion did, up to event `seq` or to the end of the run.

    Raises:
        UsageError: it is unknown which model or which labels were used; or the code of the detector is named only by a
            state directory, which is not trusted.
    """
    _check_known(opened)
    settings = opened.settings
    live = LiveJudge(champion_of(settings.detector, opened.origins))
    labelled, clocked = settings.detector.adapt.precision is not None, settings.follow and live.learns
    if record is None:
        if labelled or clocked:
            what = "which labels had been read" if labelled else "when each of its models became active"
            raise UsageError(
                f"only the state directory of this run records {what}; name it, with the settings of the run"
            )
        return live
    complete = seq is None or seq <= record.through
    if seq is not None and not complete and (labelled or clocked or settings.detector.quarantine):
        raise UsageError(
            f"the run on {record.directory} has come to event {record.through:,}; how it will judge event {seq:,} is"
            " not known yet"
        )
    return LiveJudge(live.judge, record.models(complete=complete), record.labels())


def _begun(opened: Opened, checkpoint: Checkpoint | None, live: LiveJudge) -> State:
    """Return the state and restore the judge, as of the checkpoint or of the beginning."""
    D, T, shards, directed = opened.D, opened.T, opened.settings.shards, opened.settings.directed
    if checkpoint is None:
        return State.fresh(D, T, shards, directed=directed, quarantine=opened.settings.detector.quarantine)
    live.restore(section(checkpoint.arrays, CHAMPION))
    return State.restored(D, T, shards, [], checkpoint.arrays, checkpoint.envelope.facts, directed=directed)


def _check_known(opened: Opened) -> None:
    """Check that no code would be imported only because a state directory names it.

    Raises:
        UsageError: it would be.
    """
    name, parameters = opened.settings.detector.name, opened.settings.detector.parameters
    key = "detector.parameters" if name in DETECTORS else "detector.name"
    if name != SIGMA and opened.origins[key] == DEFAULT and not is_known({"name": name, "parameters": parameters}):
        raise UsageError(
            f'the state in {opened.settings.state.directory} was built with code of your own: set "{key}" in the config'
            " as the run did"
        )


class OneDecision:
    """A decision log that stores one decision, and the events from which models were active."""

    flagged = False

    def __init__(self, seq: int) -> None:
        self._seq = seq
        self.decision: Reasons | None = None
        self.spoke: dict[int, int] = {}

    def wanted(self, queries: WindowQueries) -> Mask:
        """The mask that selects the decision, shape [q]."""
        wanted: Mask = queries.seq == self._seq
        return wanted

    def write(self, queries: WindowQueries, decisions: Sequence[Reasons]) -> None:  # noqa: ARG002
        """Store the decision."""
        self.decision = decisions[0]

    def disagree(self, queries: WindowQueries, pairs: Sequence[tuple[Reasons, Reasons]]) -> None:
        """Never called: there is no challenger."""

    def tell(self, who: str, notices: Sequence[Notice | ModelActivated]) -> None:  # noqa: ARG002
        """Store the activation of models."""
        self.spoke |= {one.version: one.seq for one in notices if isinstance(one, ModelActivated)}


def first_bytes(logs: Sequence[Source], size: int) -> list[Source]:
    """Limit the logs to the blocks with the first `size` bytes of all of them."""
    left = [size]
    return [_Beginning(log, left) for log in logs]


class _Beginning:
    def __init__(self, log: Source, left: list[int]) -> None:
        self.name, self.judged, self.names = log.name, log.judged, log.names
        self._log = log
        self._left = left

    async def blocks(self) -> AsyncGenerator[Block, Any]:
        if self._left[0] <= 0:
            return
        async with aclosing(self._log.blocks()) as blocks:
            async for block in blocks:
                yield block
                self._left[0] -= len(block.content)
                if self._left[0] <= 0:
                    return
