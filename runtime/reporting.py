"""How a run is doing: the progress bar, and the status file in the state directory."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import anyio
from anyio.to_thread import run_sync

from peerwatch.connectors.server import Remote, ServerStatus
from peerwatch.files.follow import FollowedLog
from peerwatch.files.seen import Lost
from peerwatch.runtime.assembly import Assembled, RunSetup
from peerwatch.runtime.preflight import AnyLog
from peerwatch.settings.model import Settings
from peerwatch.storage.checkpoints import Identity
from peerwatch.storage.status import STATUS_SECONDS, Status, look_at_log, write_status

PROGRESS_SECONDS: Final = 0.1


class Reporter:
    """Reports on the pipeline that it has been given last."""

    def __init__(self, setup: RunSetup) -> None:
        self._setup = setup
        self._logs: Sequence[AnyLog] = ()
        self._restarts = 0

    def report_on(self, run: Assembled, restarts: int) -> None:
        """Report on this pipeline from now on, which has come after so many restarts."""
        self._run = run
        self._logs = run.logs
        self._restarts = restarts

    @property
    def identity(self) -> Identity:
        """What the state of the run belongs to."""
        return self._setup.identity

    @property
    def settings(self) -> Settings:
        """The complete settings."""
        return self._setup.settings

    @property
    def lost(self) -> Lost:
        """What of the stream log is gone unread."""
        log = self._run.logs[-1]
        return log.seen.lost if isinstance(log, FollowedLog) else Lost()

    async def run(self) -> None:
        """Move the progress bar and keep the status up to date until cancelled."""
        every = PROGRESS_SECONDS if self._setup.console.has_bar else STATUS_SECONDS
        since_status = STATUS_SECONDS
        while True:
            self.show_progress()
            if since_status >= STATUS_SECONDS:
                await self.write_status(running=True)
                await run_sync(self._run.judges.champion.look)
                since_status = 0.0
            await anyio.sleep(every)
            since_status += every

    def show_progress(self) -> None:
        """Move the progress bar."""
        totals = self._run.pipeline.statistics()
        self._setup.console.moved(totals.progress.bytes, totals.shown())

    async def write_status(self, *, running: bool) -> None:
        """Write the status file, if there is a state directory."""
        if self._setup.directory is not None:
            await run_sync(write_status, self._setup.directory.path, await self.status(running=running))

    async def status(self, *, running: bool) -> Status:
        """How the run is doing."""
        pipeline, _, checkpointer, logs = self._run
        totals, follows = pipeline.statistics(), [log for log in logs if isinstance(log, FollowedLog)]
        stream = Path(self._setup.settings.input.stream or "")
        name, size = await run_sync(look_at_log, stream) if follows else (None, None)
        return Status(
            pid=os.getpid(),
            running=running,
            updated=time.time(),
            through=pipeline.through,
            totals=totals._asdict() | totals.progress._asdict(),
            lag_bytes=sum(log.unread() for log in follows),
            caught_up=max((log.caught_up for log in follows), default=0.0),
            checkpoint=checkpointer.written if checkpointer is not None else 0.0,
            restarts=self._restarts,
            mailboxes=pipeline.mailboxes(),
            stream=name,
            size=size,
            unlogged=self._setup.logger.target.lost,
            lost=self.lost,
            servers=self._servers(),
        )

    def silent_servers(self) -> list[str]:
        """The servers that the run waits for at this moment."""
        return [each.server().name for each in self._remotes() if each.is_waiting]

    def _servers(self) -> list[ServerStatus]:
        return [each.server() for each in self._remotes()]

    def _remotes(self) -> list[Remote]:
        sinks = [outlet.sink for outlet in self._setup.sinks.outlets]
        return [each for each in (*self._logs, *sinks) if isinstance(each, Remote)]
