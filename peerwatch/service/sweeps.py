"""Sweeps that somebody has asked for: one at a time, in a worker process, with progress."""

import secrets
from collections.abc import Sequence
from typing import Final, Literal

import anyio
import msgspec

from peerwatch.errors import Busy, PeerwatchError
from peerwatch.service.workers import Workers
from peerwatch.studies.sweep_table import SettingGrid, SweepRecord

KEPT: Final = 32
"""Sweeps that are remembered."""
MOST_WAITING: Final = 8


class SweepResult(msgspec.Struct, frozen=True):
    """How many of the judged purchases one setting flags."""

    D: int
    T: int
    k: float
    flagged: int
    judged: int


class SweepJob(msgspec.Struct):
    """A sweep: how far it is, its results when it is done, and why it has failed if it has."""

    job: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"] = "waiting"
    progress: float = 0.0
    results: list[SweepResult] = []
    reason: str | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will become of it."""
        return self.state in {"done", "failed", "cancelled"}


class Sweeps:
    """Carries out sweeps in the order in which they were asked for."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._jobs: dict[str, SweepJob] = {}
        self._grids: dict[str, SettingGrid] = {}
        """Those of jobs that wait, in order."""
        self._asked = anyio.Event()
        self._running: tuple[str, anyio.CancelScope] | None = None

    def ask(self, D: Sequence[int], T: Sequence[int], k: Sequence[float]) -> SweepJob:
        """Ask for a sweep. A parameter without values keeps its configured value.

        Raises:
            Busy: too many wait.
        """
        if len(self._grids) >= MOST_WAITING:
            raise Busy(f"{MOST_WAITING} sweeps wait already; cancel one, or ask again later")
        job = SweepJob(secrets.token_hex(8))
        self._jobs[job.job] = job
        self._grids[job.job] = SettingGrid(sorted({*D}), sorted({*T}), sorted({*k}))
        for old in [name for name, one in self._jobs.items() if one.ended][: len(self._jobs) - KEPT]:
            del self._jobs[old]
        self._asked.set()
        return job

    def get(self, job: str) -> SweepJob | None:
        """Return a sweep; None if there is none, or none any more."""
        return self._jobs.get(job)

    def remove(self, job: SweepJob) -> None:
        """Forget a sweep; it is cancelled, unless it has ended."""
        del self._jobs[job.job]
        if not job.ended:
            job.state = "cancelled"
            self._grids.pop(job.job, None)
            if self._running is not None and self._running[0] == job.job:
                self._running[1].cancel()

    async def work(self) -> None:
        """Carry out sweeps, until cancelled."""
        while True:
            await self._asked.wait()
            self._asked = anyio.Event()
            while self._grids:
                name = next(iter(self._grids))
                with anyio.CancelScope() as scope:
                    self._running = name, scope
                    await self._carry_out(self._jobs[name], self._grids.pop(name))
                self._running = None

    async def _carry_out(self, job: SweepJob, grid: SettingGrid) -> None:
        def progressed(share: float) -> None:
            job.progress = share

        job.state = "running"
        try:
            found = await self._workers.sweep(grid.D, grid.T, grid.k, progressed, waits=True)
        except PeerwatchError as error:
            job.state, job.reason = "failed", str(error)
            return
        record = msgspec.json.decode(found, type=SweepRecord)
        cells = record.settings
        job.results = [SweepResult(cell.D, cell.T, cell.k, cell.flagged, record.judged) for cell in cells]
        job.state, job.progress = "done", 1.0
