"""Keeps a pipeline running: restores it from the last checkpoint when an actor fails, stops it on a signal."""

import traceback
from collections.abc import Sequence
from contextlib import AsyncExitStack
from signal import Signals
from typing import Final

import anyio
from anyio.to_thread import run_sync

from peerwatch.actors.dispatcher import Recovery
from peerwatch.errors import PeerwatchError, RunError
from peerwatch.files.log_file import LogFile
from peerwatch.files.seen import Lost
from peerwatch.judging.audit import Difference
from peerwatch.network.rejects import POISON
from peerwatch.runtime.assembly import Assembled, RunSetup, assemble
from peerwatch.runtime.deadline import Deadline
from peerwatch.runtime.pipeline import Totals, task_group
from peerwatch.runtime.preflight import AnyLog, open_logs, take_header
from peerwatch.runtime.reporting import Reporter
from peerwatch.runtime.room import shortage
from peerwatch.runtime.statistics import Tallies
from peerwatch.runtime.stopping import CLOSING_SECONDS, STOP_SECONDS, StopSignals
from peerwatch.storage.checkpoints import Checkpoint

LOOK_SECONDS: Final = 1.0
"""How often to look for outputs that have been moved away."""
BACKOFF_SECONDS: Final = 0.1
"""The pause before the first restart; it doubles with each that brings nothing."""
RESTARTS: Final = 5
"""Restarts in a row that may bring nothing before the run gives up."""
BLAMED: Final = 10
"""Lines in a row that may be to blame for a restart; after so many it is not the lines that are wrong."""


class Supervisor:
    """Runs one pipeline after the other until the logs have ended or a signal has come."""

    def __init__(self, setup: RunSetup, deadline: Deadline) -> None:
        self._setup = setup
        self._deadline = deadline
        self._tallies = Tallies()
        self._reporter = Reporter(setup, self._tallies)
        self._signals = StopSignals(deadline, hangup=setup.settings.follow, silent=self._reporter.silent_servers)
        self._recovery = Recovery()
        self._blamed, self._blamed_at = 0, -1
        self._restarts = 0

    @property
    def interrupted_by(self) -> Signals | None:
        """The signal that ended the reading, if one did."""
        return self._signals.interrupted_by

    @property
    def first_difference(self) -> Difference | None:
        """The first decision that came out differently when it was recomputed."""
        return self._tallies.audit.first

    @property
    def lost(self) -> Lost:
        """What of the stream log is gone unread."""
        return self._reporter.lost

    async def run(self, checkpoint: Checkpoint | None, logs: Sequence[AnyLog]) -> Totals:
        """Judge to the end, with as many restarts as it takes.

        Raises:
            RunError: it cannot go on, or too many restarts brought nothing.
        """
        with self._signals.handled():
            await self._assemble(checkpoint, logs)
            await self._judge(logs)
        await self._reporter.write_status(running=False)
        return self._run.pipeline.statistics()

    async def _judge(self, logs: Sequence[AnyLog]) -> None:
        sizes = [log.size for log in logs]
        total = None if None in sizes else sum(size or 0 for size in sizes)
        with self._setup.console.progress(total):
            try:
                async with task_group() as watchers:
                    watchers.start_soon(self._stop_when_told)
                    watchers.start_soon(self._reporter.run)
                    watchers.start_soon(self._look_after_files)
                    async with AsyncExitStack() as stack:
                        await self._run_until_done(stack)
                    watchers.cancel_scope.cancel()
            except RunError as error:
                said = f"peerwatch: {error}"
                self._deadline.begin(STOP_SECONDS, lambda: said)  # a write under way may not come to its end
                raise
            self._reporter.show_progress()

    async def _run_until_done(self, stack: AsyncExitStack) -> None:
        setup, in_vain, furthest = self._setup, 0, -1
        while True:
            try:
                await self._run.pipeline.run(self._run.logs)
            except PeerwatchError:
                raise
            except Exception as error:
                through = self._run.pipeline.through
                in_vain = 0 if self._blame(error) or through > furthest else in_vain + 1
                furthest = max(furthest, through)
                self._restarts += 1
                short = shortage(error)
                if short is not None and setup.directory is None:
                    raise RunError(short) from error  # from the beginning it would come to the same end
                await run_sync(self._report_failure, error)
                piped = any(isinstance(log, LogFile) and log.size is None for log in self._run.logs)
                if in_vain >= RESTARTS or piped:
                    why = "a pipe cannot be read again" if piped else f"{self._restarts} restarts did not help"
                    raise RunError(f"{short or f'{type(error).__name__}: {error}'}; {why}") from error
            else:
                return
            await anyio.sleep(BACKOFF_SECONDS * 2**in_vain)
            await stack.aclose()
            checkpoint = await run_sync(setup.directory.newest) if setup.directory is not None else None
            logs = await open_logs(setup.settings, checkpoint, setup.beginning, setup.logger.warning, stack)
            begun = checkpoint is not None and checkpoint.envelope.facts.position is not None
            take_header(logs, setup.settings, begun=begun)
            await self._assemble(checkpoint, logs)

    async def _assemble(self, checkpoint: Checkpoint | None, logs: Sequence[AnyLog]) -> None:
        self._run: Assembled = await assemble(self._setup, checkpoint, logs, self._recovery, self._tallies)
        if checkpoint is not None:
            checkpoint.arrays.clear()  # the state has them, and those who called still have the checkpoint
        self._reporter.report_on(self._run, self._restarts)
        if self._setup.companion is not None:
            self._setup.companion.began(self._reporter)
        if self.interrupted_by is not None:
            self._run.pipeline.stop()

    def _blame(self, error: Exception) -> bool:
        """Note which lines the next attempt has to read one by one; whether a line has been found that is to blame.

        A line is to blame if it fails twice on its own; what is the machine's fault is no line's.
        """
        recovery, place, pipeline = self._recovery, self._recovery.current, self._run.pipeline
        recovery.current = None
        if place is None or isinstance(error, OSError) or shortage(error) is not None:
            recovery.after, recovery.until = pipeline.through, pipeline.reached
            return False
        recovery.failures[place] += 1
        if recovery.failures[place] < 2:
            return False
        self._blamed = self._blamed + 1 if pipeline.through == self._blamed_at else 1
        self._blamed_at = pipeline.through
        if self._blamed > BLAMED:
            return False
        where = "".join(traceback.format_exception(error)).strip()
        recovery.poison[place] = f"{POISON}: {type(error).__name__}: {error}\n{where}"
        return True

    def _report_failure(self, error: Exception) -> None:
        where = {} if shortage(error) else {"traceback": "".join(traceback.format_exception(error))}
        self._setup.logger.error("restart", error=repr(error), **where)

    async def _stop_when_told(self) -> None:
        await self._signals.wait()
        self._run.pipeline.stop()
        self._setup.sinks.stop(STOP_SECONDS - CLOSING_SECONDS)
        await run_sync(self._setup.console.interrupted)  # a terminal that is not read may block

    async def _look_after_files(self) -> None:
        """See whether somebody has rotated the outputs or the log: once a second, and at once on SIGHUP."""
        while True:
            await self._signals.wait_for_hangup(LOOK_SECONDS)
            await self._setup.sinks.look()
            await run_sync(self._setup.logger.target.look)
