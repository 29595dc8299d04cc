"""What is counted over all pipelines of one process, and how busy its actors have been of late."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from peerwatch.actors.audit import AuditTally
from peerwatch.network.rejects import RejectTally
from peerwatch.runtime.pipeline import Totals
from peerwatch.storage.status import CheckpointTally, Progressed

RECENT_SECONDS: Final = 10.0


class Tallies(msgspec.Struct):
    """What is kept when the pipeline restarts."""

    audit: AuditTally = msgspec.field(default_factory=AuditTally)
    rejects: RejectTally = msgspec.field(default_factory=RejectTally)
    checkpoints: CheckpointTally = msgspec.field(default_factory=CheckpointTally)


class ProgressOfProcess:
    """How far a process has come since it began. It never goes back, though a pipeline that restarts does."""

    def __init__(self, before: Totals) -> None:
        """`before` this process there had been so much."""
        self._before = self._furthest = _progressed(before)

    def look(self, totals: Totals) -> Progressed:
        """What has been done, with these totals now."""
        self._furthest = Progressed(*map(max, self._furthest, _progressed(totals)))
        return Progressed(*(now - before for now, before in zip(self._furthest, self._before, strict=True)))


def _progressed(totals: Totals) -> Progressed:
    return Progressed(totals.progress.events, totals.progress.judged, totals.flagged)


class RecentlyBusy:
    """The share of the last seconds in which each actor has worked."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._looks: deque[tuple[float, Mapping[str, float]]] = deque()

    def look(self, seconds: Mapping[str, float]) -> None:
        """Note how many `seconds` each actor has worked. Call it about once a second."""
        now = self._clock()
        self._looks.append((now, seconds))
        while now - self._looks[0][0] > RECENT_SECONDS:
            self._looks.popleft()

    def ratios(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """The shares, now that the actors have worked so many `seconds`; 0 before the first look."""
        if not self._looks:
            return dict.fromkeys(seconds, 0.0)
        then, before = self._looks[0]
        passed = max(self._clock() - then, 1e-9)
        return {name: min(1.0, max(0.0, worked - before[name]) / passed) for name, worked in seconds.items()}
