"""One run from settings to report."""

import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from anyio.to_thread import run_sync

from peerwatch.errors import UsageError
from peerwatch.files.seen import Lost
from peerwatch.files.tail import Beginning, look_at
from peerwatch.judging.audit import Difference
from peerwatch.progress import Progress
from peerwatch.runtime.assembly import AuditFrom, RunSetup
from peerwatch.runtime.cluster import Cluster
from peerwatch.runtime.companion import Companion
from peerwatch.runtime.deadline import Deadline
from peerwatch.runtime.decision_log import Logger
from peerwatch.runtime.judges_from_settings import judges_of
from peerwatch.runtime.log_target import open_log_target
from peerwatch.runtime.pipeline import Totals
from peerwatch.runtime.preflight import (
    NOT_SET,
    check_distinct,
    check_replayable,
    check_stream,
    check_unchanged,
    identity_of,
    known_header,
    new_run,
    open_logs,
    open_state,
    output_paths,
    required,
    take_header,
)  # fmt: skip
from peerwatch.runtime.sinks import SinkMaker
from peerwatch.runtime.supervisor import Supervisor
from peerwatch.settings.model import Layer, Settings, resolve
from peerwatch.urls import is_url


class Report(NamedTuple):
    """What a run did, where it wrote, and the signal that ended its reading early, if one did.

    `resumable` says that the next run goes on where this one was; `first_difference` is the first decision that came
    out differently when it was recomputed; `lost` is what of the stream log is gone unread. `before` this run there had
    been so many events.
    """

    totals: Totals
    settings: Settings
    rejects: str | None
    interrupted_by: signal.Signals | None
    resumable: bool
    first_difference: Difference | None
    lost: Lost
    before: int


async def run(
    layers: Sequence[Layer],
    console: Progress,
    deadline: Deadline,
    audit_from: AuditFrom,
    *,
    config: Path | None = None,
    reset: bool = False,
    force: bool = False,
    companion: Companion | None = None,
    cluster: Cluster | None = None,
) -> Report:
    """Judge the logs that the settings name; `config` is the file they come from.

    An output that somebody else wrote is overwritten only with `force`; `reset` forgets the checkpoints. A `companion`
    gets all records. With a `cluster` its workers hold the friend graph and the purchases.

    Raises:
        UsageError: something is missing or cannot be used; nothing has been written.
        RunError: the run could not go on.
    """
    async with AsyncExitStack() as stack:
        settings, _ = resolve(*layers)
        if settings.input.stream is None:
            raise UsageError(NOT_SET.format(key="input.stream", what="the stream log", option="STREAM"))
        paths = await run_sync(output_paths, settings)
        await run_sync(check_distinct, settings, config, paths)
        await run_sync(check_replayable, settings, paths)
        target = await run_sync(open_log_target, settings.logs.file, stack, console.urgent)
        logger = Logger(settings.logs, target)
        directory, checkpoint = await open_state(settings, logger.warning, stack, reset=reset)
        beginning = Beginning()
        if settings.follow and checkpoint is None and not is_url(settings.input.stream):
            beginning = await run_sync(look_at, Path(settings.input.stream), settings.input.rotated)
        logs = await open_logs(settings, checkpoint, beginning, logger.warning, stack)
        if checkpoint is None:
            settings, origins = resolve(*layers, take_header(logs, settings))
        else:
            known = checkpoint.envelope.identity
            take_header(logs, settings, begun=checkpoint.envelope.facts.position is not None)
            header = await known_header(settings)
            built = Layer({"D": known.D, "T": known.T, "friendships": known.friendships}, {})
            settings, origins = resolve(*layers, header, built)
        D, T = required(settings)
        make_judges = partial(judges_of, settings, origins, logger.warning)
        await run_sync(make_judges)  # a mistake shows before anything is written
        run = checkpoint.envelope.identity.run if checkpoint is not None else new_run()
        identity = await run_sync(identity_of, run, settings, D, T, paths)
        if checkpoint is not None:
            check_unchanged(checkpoint.envelope.identity, identity, origins, settings)
            facts = checkpoint.envelope.facts
            await run_sync(check_stream, checkpoint.envelope.identity, identity, facts, origins, settings)
        sinks = await run_sync(SinkMaker(settings, run, logger.warning, console).sinks, paths)
        if companion is not None:
            sinks.outlets.extend(await run_sync(companion.outlets, run))
        await sinks.open(stack, check_new=checkpoint is None and not force)
        setup = RunSetup(
            layers,
            settings,
            D,
            T,
            make_judges,
            directory,
            identity,
            sinks,
            logger,
            console,
            beginning,
            audit_from,
            force,
            companion,
            cluster,
        )  # fmt: skip
        supervisor = Supervisor(setup, deadline)
        detector = settings.detector.described()
        await run_sync(partial(logger.info, "run started", D=D, T=T, shards=settings.shards, **detector))
        totals = await supervisor.run(checkpoint, logs)
        done = totals.progress._asdict() | totals._asdict()
        del done["progress"]
        await run_sync(partial(logger.info, "run finished", **done))
        resumable = directory is not None or settings.follow
        return Report(
            totals,
            settings,
            paths.rejects,
            supervisor.interrupted_by,
            resumable,
            supervisor.first_difference,
            supervisor.lost,
            checkpoint.envelope.facts.progress.events if checkpoint is not None else 0,
        )
