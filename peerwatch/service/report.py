"""How the run is doing, as the API and the page show it."""

import time
from typing import Any, Final

import msgspec

from peerwatch.connectors.server import ServerStatus
from peerwatch.runtime.companion import LiveRun
from peerwatch.settings.model import Friendships
from peerwatch.storage.status import Status, WorkerStatus, seconds_behind

COUNTED: Final = (
    "events", "purchases", "judged", "flagged", "friendships", "rejected", "decisions", "differences", "recomputed",
    "champion_alone", "challenger_alone",
)  # fmt: skip
"""The totals that are shown."""
SMOOTHED: Final = 0.3
"""The weight of the last second in what is shown as events a second."""


class MailboxStatus(msgspec.Struct, frozen=True):
    """How many messages a mailbox holds, and has held at most."""

    name: str
    depth: int
    highest: int


class BusyActor(msgspec.Struct, frozen=True):
    """The share of the last ten seconds in which an actor worked."""

    name: str
    busy_ratio: float


class LiveStatus(msgspec.Struct, frozen=True):
    """A run at one moment. Ages and lags are in seconds; an age is null if there has been no checkpoint.

    `workers` are those of a cluster, none in one process.
    """

    run: str
    state: str
    stream: str | None
    D: int
    T: int
    friendships: Friendships
    judge_batch: bool
    detector: str
    quarantine: bool
    challenger: str | None
    labels: bool
    totals: dict[str, Any]
    through: int
    events_per_second: float
    lag_bytes: int
    lag_records: int | None
    lag_seconds: float
    checkpoint_age_seconds: float | None
    restarts: int
    mailboxes: list[MailboxStatus]
    actors: list[BusyActor]
    servers: list[ServerStatus]
    workers: list[WorkerStatus]


def live_status(
    status: Status, run: LiveRun, before: LiveStatus | None, seconds: float, ended: str | None
) -> LiveStatus:
    """A run's status, `seconds` after the one `before`."""
    settings, now = run.settings, time.time()
    rate = 0.0
    if before is not None and seconds > 0:
        rate = max(0, status.totals["events"] - before.totals["events"]) / seconds
        rate = SMOOTHED * rate + (1 - SMOOTHED) * before.events_per_second
    return LiveStatus(
        run=run.identity.run,
        state=ended or "running",
        stream=settings.input.stream,
        D=run.identity.D,
        T=run.identity.T,
        friendships=settings.friendships,
        judge_batch=settings.judge_batch,
        detector=settings.detector.shown(),
        quarantine=settings.detector.quarantine,
        challenger=settings.challenger.name,
        labels=settings.state.directory is not None,
        totals={name: status.totals[name] for name in COUNTED if name in status.totals},
        through=status.through,
        events_per_second=round(rate, 1),
        lag_bytes=status.lag_bytes,
        lag_records=status.lag_records,
        lag_seconds=seconds_behind(status, status.lag_bytes),
        checkpoint_age_seconds=now - status.checkpoint if status.checkpoint else None,
        restarts=status.restarts,
        mailboxes=[MailboxStatus(name, *depth) for name, depth in status.mailboxes.items()],
        actors=[BusyActor(name, actor.busy_ratio) for name, actor in status.actors.items()],
        servers=status.servers,
        workers=status.workers,
    )
