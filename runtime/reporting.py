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
from peerwatch.runtime.statistics import ProgressOfProcess, RecentlyBusy, Tallies
from peerwatch.settings.model import Settings
from peerwatch.storage.checkpoints import Identity
from peerwatch.storage.status import STATUS_SECONDS, ActorStatus, Progressed, Status, look_at_log, write_status

PROGRESS_SECONDS: Final = 0.1


class Reporter:
    """Reports on the pipeline that it has been given last."""

    def __init__(self, setup: RunSetup, tallies: Tallies) -> None:
        """Report on what is the same for the whole run, and what its `tallies` count."""
        self._setup = setup
        self._tallies = tallies
        self._logs: Sequence[AnyLog] = ()
        self._restarts = 0
        self._begun = time.time()
        self._run: Assembled
        self._progress: ProgressOfProcess | None = None
        self._busy = RecentlyBusy()

    def report_on(self, run: Assembled, restarts: int) -> None:
        """Report on this pipeline from now on, which has come after so many restarts."""
        if self._progress is None:
            self._progress = ProgressOfProcess(run.pipeline.statistics())
        else:
            self._progress.look(self._run.pipeline.statistics())  # the last of the one before
        self._run = run
        self._busy = RecentlyBusy()
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
    def through(self) -> int:
        """The last event up to which everything is judged, and its results are written."""
        return self._run.pipeline.through

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
                self._busy.look(self._run.pipeline.busy_seconds())
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
        streams = [log.server() for log in logs if isinstance(log, Remote)]
        caught_up = [*(log.caught_up for log in follows), *(stream.caught_up for stream in streams)]
        waiting = [stream.waiting for stream in streams if stream.waiting is not None]
        stream = Path(self._setup.settings.input.stream or "")
        name, size = await run_sync(look_at_log, stream) if follows else (None, None)
        return Status(
            pid=os.getpid(),
            running=running,
            updated=time.time(),
            through=pipeline.through,
            totals=totals._asdict() | totals.progress._asdict(),
            lag_bytes=sum(log.unread() for log in follows),
            caught_up=max(caught_up, default=0.0),
            checkpoint=checkpointer.written if checkpointer is not None else 0.0,
            restarts=self._restarts,
            mailboxes=pipeline.mailboxes(),
            stream=name,
            size=size,
            unlogged=self._setup.logger.target.lost,
            lost=self.lost,
            servers=self._servers(),
            begun=self._begun,
            progressed=self._progress.look(totals) if self._progress is not None else Progressed(),
            rejects=dict(self._tallies.rejects.by_class),
            actors=self._actors(),
            sinks=[outlet.status() for outlet in self._setup.sinks.outlets],
            checkpoints=self._tallies.checkpoints if checkpointer is not None else None,
            lag_records=sum(waiting) if waiting else None,
            workers=pipeline.workers(),
            directed=self._setup.settings.directed,
        )

    def silent_servers(self) -> list[str]:
        """The servers that the run waits for at this moment, and the cluster if it has to replace a worker."""
        silent = [each.server().name for each in self._remotes() if each.is_waiting]
        begun = self._progress is not None
        without = begun and any(worker.state == "starting" for worker in self._run.pipeline.workers())
        return [*silent, "the cluster"] if without else silent

    def _actors(self) -> dict[str, ActorStatus]:
        seconds = self._run.pipeline.busy_seconds()
        ratios = self._busy.ratios(seconds)
        return {name: ActorStatus(round(seconds[name], 6), round(ratio, 4)) for name, ratio in ratios.items()}

    def _servers(self) -> list[ServerStatus]:
        return [each.server() for each in self._remotes()]

    def _remotes(self) -> list[Remote]:
        sinks = [outlet.sink for outlet in self._setup.sinks.outlets]
        return [each for each in (*self._logs, *sinks) if isinstance(each, Remote)]
