"""Keeps a pipeline running: restores it when an actor fails, stops it on a signal, tells how it is doing."""

import asyncio
import os
import signal
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final

import anyio
from anyio.to_thread import run_sync

from peerwatch.actors.audit import Auditing, AuditTally
from peerwatch.actors.coordinator import Judges
from peerwatch.actors.dispatcher import Recovery
from peerwatch.connectors.follow import FollowedLog
from peerwatch.connectors.log_file import LogFile
from peerwatch.connectors.seen import Lost, Seen
from peerwatch.connectors.tail import Beginning
from peerwatch.errors import PeerwatchError, RunError
from peerwatch.judging.audit import BruteForce, Difference
from peerwatch.judging.state import State
from peerwatch.progress import Progress
from peerwatch.runtime.checkpointer import Checkpointer
from peerwatch.runtime.deadline import Deadline
from peerwatch.runtime.decision_log import DecisionLogger, DifferenceLogger
from peerwatch.runtime.pipeline import Pipeline, Totals, task_group
from peerwatch.runtime.preflight import AnyLog, open_logs, take_header
from peerwatch.runtime.room import shortage
from peerwatch.runtime.sinks import Sinks
from peerwatch.settings.model import Layer, Settings
from peerwatch.storage.checkpoints import VERSION, Checkpoint, Facts, Identity, StateDirectory
from peerwatch.storage.status import STATUS_SECONDS, Status, look_at_log, write_status

PROGRESS_SECONDS: Final = 0.1
LOOK_SECONDS: Final = 1.0
"""How often to look for outputs that have been moved away."""
STOP_SECONDS: Final = 10.0
"""How long a run may take to finish after a signal, or after it has failed."""
ENDED: Final = "Ended at once: the output stops where it was."
OVERDUE: Final = (
    "peerwatch: the stop was not done in {:g} seconds, because an output is not read, a disk does not answer or a"
    " thread is still at work; the output stops where it was"
)
BACKOFF_SECONDS: Final = 0.1
"""The pause before the first restart; it doubles with each that brings nothing."""
RESTARTS: Final = 5
"""Restarts in a row that may bring nothing before the run gives up."""


AuditFrom = Callable[[State, Facts | None, Sequence[Layer], Fraction, Callable[[str], None]], Awaitable[BruteForce]]
"""What makes the audit of a run: from its state, what its checkpoint held, the settings, k, and who is warned."""


class Supervisor:
    """Keeps a pipeline running: restores it from the last checkpoint when an actor fails, and stops it on a signal."""

    def __init__(
        self,
        layers: Sequence[Layer],
        settings: Settings,
        D: int,
        T: int,
        make_judges: Callable[[Path | None, Checkpoint | None, bool], Judges],
        directory: StateDirectory | None,
        identity: Identity,
        sinks: Sinks,
        logger: Any,
        console: Progress,
        deadline: Deadline,
        beginning: Beginning,
        audit_from: AuditFrom,
        *,
        force: bool,
    ) -> None:
        self._layers = layers
        self._settings = settings
        self._D, self._T = D, T
        self._make_judges = make_judges
        self._directory = directory
        self._identity = identity
        self._sinks = sinks
        self._logger = logger
        self._console = console
        self._deadline = deadline
        self._recovery = Recovery()
        self._beginning = beginning
        self._audit_from = audit_from
        self._force = force
        self._hangup = anyio.Event()
        """Set by SIGHUP."""
        self._restarts = 0
        self._tally = AuditTally()
        self.interrupted_by: signal.Signals | None = None

    @property
    def first_difference(self) -> Difference | None:
        """The first decision that came out differently when it was recomputed."""
        return self._tally.first

    @property
    def lost(self) -> Lost:
        """What of the stream log is gone unread."""
        log = self._logs[-1]
        return log.seen.lost if isinstance(log, FollowedLog) else Lost()

    async def run(self, checkpoint: Checkpoint | None, logs: Sequence[AnyLog]) -> Totals:
        """Judge to the end, with as many restarts as it takes.

        Raises:
            RunError: it cannot go on, or too many restarts brought nothing.
        """
        await self._build(checkpoint, logs)
        sizes = [log.size for log in logs]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        with self._console.progress(total), self._handled_signals() as noticed:
            try:
                async with task_group() as watchers:
                    watchers.start_soon(self._stop_when, noticed)
                    watchers.start_soon(self._show)
                    watchers.start_soon(self._look_after_files)
                    async with AsyncExitStack() as stack:
                        await self._run_until_done(stack)
                    watchers.cancel_scope.cancel()
            except RunError as error:
                self._deadline.begin(STOP_SECONDS, f"peerwatch: {error}")  # what was being written may not answer
                raise
            self._show_progress()
        await self._write_status(running=False)
        return self._pipeline.statistics()

    def _show_progress(self) -> None:
        totals = self._pipeline.statistics()
        self._console.moved(totals.progress.bytes, totals.shown())

    async def _run_until_done(self, stack: AsyncExitStack) -> None:
        in_vain, furthest = 0, -1
        while True:
            try:
                await self._pipeline.run(self._logs)
            except PeerwatchError:
                raise
            except Exception as error:
                through = self._pipeline.through
                in_vain = 0 if self._blame(error) or through > furthest else in_vain + 1
                furthest = max(furthest, through)
                self._restarts += 1
                short = shortage(error)
                if short is not None and self._directory is None:
                    raise RunError(short) from error  # from the beginning it would come to the same end
                await run_sync(self._report_failure, error)
                piped = any(isinstance(log, LogFile) and log.size is None for log in self._logs)
                if in_vain >= RESTARTS or piped:
                    why = "a pipe cannot be read again" if piped else f"{self._restarts} restarts did not help"
                    raise RunError(f"{short or f'{type(error).__name__}: {error}'}; {why}") from error
            else:
                return
            await anyio.sleep(BACKOFF_SECONDS * 2**in_vain)
            await stack.aclose()
            checkpoint = await run_sync(self._directory.newest) if self._directory is not None else None
            logs = await open_logs(self._settings, checkpoint, self._beginning, self._logger.warning, stack)
            take_header(
                logs, self._settings, begun=checkpoint is not None and checkpoint.envelope.facts.position.offset > 0
            )
            await self._build(checkpoint, logs)

    async def _build(self, checkpoint: Checkpoint | None, logs: Sequence[AnyLog]) -> None:
        """A pipeline as of the checkpoint, or as of the beginning; the outputs are cut to that."""
        settings = self._settings
        named = [str(user).encode() for user in settings.logs.users]
        facts = checkpoint.envelope.facts if checkpoint is not None else None
        if checkpoint is None and self._directory is not None:
            await run_sync(self._directory.reset)  # perhaps an earlier one was killed half-way
        read = facts is not None and await self._sinks.flagged.has_more(facts.flagged_written)
        directory = self._directory.path if self._directory is not None else None
        judges = self._judges = await run_sync(self._make_judges, directory, checkpoint, read)
        written = (facts.flagged_written, facts.rejects_written, facts.verdicts_written) if facts else (None,) * 3
        if self._sinks.decisions is not None:
            parts = facts.decisions_written if facts is not None else None
            await run_sync(self._sinks.decisions.start, parts)
        for sink, how_far in zip((self._sinks.flagged, self._sinks.rejects, self._sinks.ledger), written, strict=True):
            if sink is not None:
                await sink.start(how_far, force=self._force)
        if checkpoint is not None and self._directory is not None and checkpoint.written_as != VERSION:
            # from now on files are known by what they hold, whoever rotates them before the next checkpoint
            await run_sync(self._directory.write, checkpoint.arrays, checkpoint.envelope)
        if checkpoint is None or facts is None:
            state = State.fresh(self._D, self._T, settings.shards, named)
        else:
            state = await run_sync(State.restored, self._D, self._T, settings.shards, named, checkpoint.arrays, facts)
        self._logs = logs
        self._checkpointer = None
        if self._directory is not None:
            every = settings.state
            self._checkpointer = Checkpointer(
                self._directory,
                self._identity,
                state,
                every.seconds,
                every.events,
                partial(_seen_of, logs[-1], facts.seen if facts is not None else self._beginning.seen),
            )
            if checkpoint is None:
                await self._checkpointer.write_beginning(judges.arrays(), await self._sinks.written())
        self._pipeline = Pipeline(
            state,
            judges,
            decisions=DecisionLogger(
                self._logger, settings.logs, settings.detector, state.decoder.named, settings.challenger
            ),
            flagged=self._sinks.flagged,
            rejects=self._sinks.rejects,
            ledger=self._sinks.ledger,
            every_decision=self._sinks.decisions,
            walkers=settings.walkers,
            strict=settings.strict,
            checkpointer=self._checkpointer,
            recovery=self._recovery,
            bookmarks=facts.bookmarks if facts is not None else (),
            auditing=await self._auditing(state, facts) if settings.audit else None,
            warn=self._logger.warning,
            complain=self._console.urgent,
        )
        if self.interrupted_by is not None:
            self._pipeline.stop()

    async def _auditing(self, state: State, facts: Facts | None) -> Auditing:
        k, alarm = self._settings.detector.exact_k(), DifferenceLogger(self._logger).write
        audit = await self._audit_from(state, facts, self._layers, k, self._logger.warning)
        return Auditing(audit, self._settings.audit, alarm, self._tally)

    def _blame(self, error: Exception) -> bool:
        """Say what the next attempt has to be careful about; whether a line has been found that is to blame.

        A line is to blame if it fails twice on its own; what is the machine's fault is no line's.
        """
        recovery, place = self._recovery, self._recovery.current
        recovery.current = None
        if place is None or isinstance(error, OSError) or shortage(error) is not None:
            recovery.after, recovery.until = self._pipeline.through, self._pipeline.reached
            return False
        recovery.failures[place] += 1
        if recovery.failures[place] < 2:
            return False
        where = "".join(traceback.format_exception(error)).strip()
        recovery.poison[place] = f"brought the run down twice: {type(error).__name__}: {error}\n{where}"
        return True

    def _report_failure(self, error: Exception) -> None:
        where = {} if shortage(error) else {"traceback": "".join(traceback.format_exception(error))}
        self._logger.error("restart", error=repr(error), **where)

    @contextmanager
    def _handled_signals(self) -> Iterator[anyio.Event]:
        """A first signal sets the event and the deadline, a second ends the process.

        The handler runs in the main thread whatever that is doing, so that an event loop that is stuck is no hindrance.
        """
        loop, noticed = asyncio.get_running_loop(), anyio.Event()

        def handle(number: int, _: FrameType | None) -> None:
            if self.interrupted_by is not None:
                self._deadline.end_now(128 + number, ENDED)
            self.interrupted_by = signal.Signals(number)
            self._deadline.begin(STOP_SECONDS, OVERDUE.format(STOP_SECONDS))
            loop.call_soon_threadsafe(noticed.set)

        def look(*_: object) -> None:
            loop.call_soon_threadsafe(self._look_at_once)

        handlers: dict[int, Any] = {signal.SIGINT: handle, signal.SIGTERM: handle}
        if self._settings.follow:
            handlers[signal.SIGHUP] = look
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield noticed
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def _stop_when(self, noticed: anyio.Event) -> None:
        await noticed.wait()
        self._pipeline.stop()
        await run_sync(self._console.interrupted)  # words may find no taker either

    def _look_at_once(self) -> None:
        self._hangup.set()

    async def _look_after_files(self) -> None:
        """See whether somebody has rotated the outputs or the log: once a second, and at once on SIGHUP."""
        while True:
            with anyio.move_on_after(LOOK_SECONDS):
                await self._hangup.wait()
            self._hangup = anyio.Event()
            await self._sinks.look()
            await run_sync(self._logger.target.look)

    async def _show(self) -> None:
        """Move the progress bar and keep the status up to date."""
        every = PROGRESS_SECONDS if self._console.has_bar else STATUS_SECONDS
        since_status = STATUS_SECONDS
        while True:
            self._show_progress()
            if since_status >= STATUS_SECONDS:
                await self._write_status(running=True)
                await run_sync(self._judges.champion.look)
                since_status = 0.0
            await anyio.sleep(every)
            since_status += every

    async def _write_status(self, *, running: bool) -> None:
        if self._directory is None or self._checkpointer is None:
            return
        totals, follows = self._pipeline.statistics(), [log for log in self._logs if isinstance(log, FollowedLog)]
        stream = Path(self._settings.input.stream or "")
        name, size = await run_sync(look_at_log, stream) if follows else (None, None)
        status = Status(
            pid=os.getpid(),
            running=running,
            updated=time.time(),
            through=self._pipeline.through,
            totals=totals._asdict() | totals.progress._asdict(),
            lag_bytes=sum(log.unread() for log in follows),
            caught_up=max((log.caught_up for log in follows), default=0.0),
            checkpoint=self._checkpointer.written,
            restarts=self._restarts,
            mailboxes=self._pipeline.mailboxes(),
            stream=name,
            size=size,
            unlogged=self._logger.target.lost,
            lost=self.lost,
        )
        await run_sync(write_status, self._directory.path, status)


def _seen_of(log: AnyLog, before: Seen) -> Seen:
    """What a log remembers besides its position; one that is not followed leaves it as it was `before`."""
    return log.seen if isinstance(log, FollowedLog) else before
