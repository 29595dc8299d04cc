"""A pipeline as of a checkpoint, or as of the beginning, from what is the same for the whole run."""

from collections.abc import Awaitable, Callable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from anyio.to_thread import run_sync

from peerwatch.actors.audit import Auditing, AuditTally
from peerwatch.actors.coordinator import Judges
from peerwatch.actors.dispatcher import Recovery
from peerwatch.files.follow import FollowedLog
from peerwatch.files.seen import Seen
from peerwatch.files.tail import Beginning
from peerwatch.judging.audit import BruteForce
from peerwatch.judging.state import State
from peerwatch.progress import Progress
from peerwatch.runtime.checkpointer import Checkpointer
from peerwatch.runtime.cluster import Cluster
from peerwatch.runtime.companion import Companion
from peerwatch.runtime.decision_log import DecisionLogger, DifferenceLogger
from peerwatch.runtime.pipeline import Pipeline
from peerwatch.runtime.preflight import AnyLog
from peerwatch.runtime.sinks import Sinks
from peerwatch.runtime.statistics import Tallies
from peerwatch.settings.model import Layer, Settings
from peerwatch.storage.checkpoints import VERSION, Checkpoint, Facts, Identity, StateDirectory

AuditFrom = Callable[[State, Facts | None, Sequence[Layer], Fraction, Callable[[str], None]], Awaitable[BruteForce]]
"""Makes the audit of a run: from its state, its checkpoint's facts, the settings, k, and the function that warns."""


class RunSetup(NamedTuple):
    """What is the same for the whole run, however often its pipeline is assembled."""

    layers: Sequence[Layer]
    settings: Settings
    D: int
    T: int
    make_judges: Callable[[Path | None, Checkpoint | None, bool], Judges]
    directory: StateDirectory | None
    identity: Identity
    sinks: Sinks
    logger: Any
    console: Progress
    beginning: Beginning
    audit_from: AuditFrom
    force: bool
    companion: Companion | None = None
    cluster: Cluster | None = None


class Assembled(NamedTuple):
    """A pipeline that can be run once, with what it was made of."""

    pipeline: Pipeline
    judges: Judges
    checkpointer: Checkpointer | None
    logs: Sequence[AnyLog]


async def assemble(
    setup: RunSetup, checkpoint: Checkpoint | None, logs: Sequence[AnyLog], recovery: Recovery, tallies: Tallies
) -> Assembled:
    """A pipeline as of a checkpoint, or as of the beginning; the sinks are set back to that.

    Raises:
        UsageError: a sink does not hold what it held at the checkpoint.
        RunError: a model is missing or damaged.
    """
    settings, directory = setup.settings, setup.directory
    facts = checkpoint.envelope.facts if checkpoint is not None else None
    if checkpoint is None and directory is not None:
        await run_sync(directory.reset)  # perhaps an earlier run was killed half-way
    marks = facts.marks if facts is not None else None
    was_read = marks is not None and await setup.sinks.has_more(marks)
    path = directory.path if directory is not None else None
    judges = await run_sync(setup.make_judges, path, checkpoint, was_read)
    await setup.sinks.start(marks, force=setup.force)
    if checkpoint is not None and directory is not None and checkpoint.written_as != VERSION:
        # from now on files are recognised by their content, whoever rotates them before the next checkpoint
        await run_sync(directory.write, checkpoint.arrays, checkpoint.envelope)
    state = await run_sync(_state_of, setup, checkpoint)
    checkpointer = None
    if directory is not None:
        every, seen = settings.state, facts.seen if facts is not None else setup.beginning.seen
        checkpointer = Checkpointer(
            directory,
            setup.identity,
            state,
            every.seconds,
            every.events,
            partial(_seen_of, logs[-1], seen),
            tallies.checkpoints,
        )
        if checkpoint is None:
            await checkpointer.write_beginning(judges.arrays(), await setup.sinks.marks())
    pipeline = Pipeline(
        state,
        judges,
        decisions=DecisionLogger(
            setup.logger, settings.logs, settings.detector, state.decoder.named, settings.challenger
        ),
        outlets=setup.sinks.outlets,
        walkers=settings.walkers,
        judge_batch=settings.judge_batch,
        strict=settings.strict,
        checkpointer=checkpointer,
        recovery=recovery,
        bookmarks=facts.bookmarks if facts is not None else (),
        auditing=await _auditing(setup, state, checkpoint, tallies.audit) if settings.audit else None,
        warn=setup.logger.warning,
        complain=setup.console.urgent,
        rejects=tallies.rejects,
        heard=setup.companion.heard if setup.companion is not None else None,
        cluster=setup.cluster,
    )
    return Assembled(pipeline, judges, checkpointer, logs)


def _state_of(setup: RunSetup, checkpoint: Checkpoint | None) -> State:
    settings = setup.settings
    directed, quarantine = settings.directed, settings.detector.quarantine
    named = [str(user).encode() for user in settings.logs.users]
    if checkpoint is None:
        shards = 1 if setup.cluster is not None and not quarantine else settings.shards
        return State.fresh(setup.D, setup.T, shards, named, directed=directed, quarantine=quarantine)
    restore = State.without_network if setup.cluster is not None else State.restored
    arrays, facts = checkpoint.arrays, checkpoint.envelope.facts
    return restore(setup.D, setup.T, settings.shards, named, arrays, facts, directed=directed)


async def _auditing(setup: RunSetup, state: State, checkpoint: Checkpoint | None, tally: AuditTally) -> Auditing:
    facts = checkpoint.envelope.facts if checkpoint is not None else None
    if checkpoint is not None and setup.cluster is not None:  # the audit may have to begin with graph and purchases
        directed = setup.settings.directed
        state = await run_sync(
            partial(
                State.restored, setup.D, setup.T, 1, [], checkpoint.arrays, checkpoint.envelope.facts, directed=directed
            )
        )
    k, alarm = setup.settings.detector.exact_k(), DifferenceLogger(setup.logger).write
    audit = await setup.audit_from(state, facts, setup.layers, k, setup.logger.warning)
    return Auditing(audit, setup.settings.audit, alarm, tally)


def _seen_of(log: AnyLog, before: Seen) -> Seen:
    """What a log remembers besides its position; one that is not followed leaves it as it was `before`."""
    return log.seen if isinstance(log, FollowedLog) else before
