"""How a run is doing, for another process to see: `peerwatch status`."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from peerwatch.actors.mailbox import Depth
from peerwatch.network.errors import UsageError

STATUS_SECONDS: Final = 1.0
SHOWN: Final = {
    "judged", "flagged", "rejected", "decisions", "verdicts", "recomputed", "differences", "users", "friendships",
}  # fmt: skip
"""The totals that a person is told."""


class Status(msgspec.Struct, frozen=True):
    """A run at one moment. Times are seconds since 1970; `checkpoint` is 0 if none has been written yet.

    `mailboxes` gives how many messages each mailbox holds, now and at most so far.
    """

    pid: int
    running: bool
    updated: float
    through: int
    totals: dict[str, Any]
    lag_bytes: int
    caught_up: float
    checkpoint: float
    restarts: int
    mailboxes: dict[str, Depth]


def write_status(directory: Path, status: Status) -> None:
    """Replace the status. It is only looked at, so a disk that is full does not end the run."""
    with suppress(OSError):
        temporary = directory / "status.json.new"
        temporary.write_bytes(msgspec.json.encode(status))
        temporary.replace(directory / "status.json")


def read_status(directory: Path) -> tuple[Status, bool]:
    """The last status of the run on a state directory, and whether the run is going on.

    Raises:
        UsageError: there is no such directory, or no run has ever used it.
    """
    try:
        status = msgspec.json.decode((directory / "status.json").read_bytes(), type=Status)
        lock = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, msgspec.MsgspecError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise UsageError(f"no status in the state directory {directory}: {why}") from None
    if not status.totals.keys() >= SHOWN:
        os.close(lock)
        raise UsageError(f"the status in the state directory {directory} was written by another version of peerwatch")
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return status, True
    finally:
        os.close(lock)
    return status, False


def describe(status: Status, *, running: bool, as_json: bool) -> str:
    """The status for a person, or as one JSON object for a program."""
    now = time.time() if running else status.updated
    lag_seconds = max(0.0, now - status.caught_up) if status.lag_bytes else 0.0
    if as_json:
        found = msgspec.to_builtins(status) | {"running": running, "lag_seconds": round(lag_seconds, 3)}
        return msgspec.json.encode(found).decode()
    totals = status.totals
    state = f"running, process {status.pid}" if running else "not running"
    if not running and status.running:
        state += "; it ended without stopping, the next start goes on from the last checkpoint"
    written = f"{time.time() - status.checkpoint:.1f} s ago" if status.checkpoint else "none by this run"
    boxes = ", ".join(f"{name} {depth.now} ({depth.peak})" for name, depth in status.mailboxes.items())
    differ = f", {totals['differences']:,} of {totals['recomputed']:,} recomputed ones differ" * bool(
        totals["recomputed"]
    )
    return "\n".join((
        f"state        {state}",
        f"sequence     {status.through:,} events are judged and written",
        f"lag          {status.lag_bytes:,} bytes, {lag_seconds:.1f} s",
        f"checkpoint   {written}",
        f"counts       {totals['judged']:,} judged, {totals['flagged']:,} flagged, {totals['rejected']:,} rejected",
        f"verdicts     {totals['decisions']:,} decisions, hash {totals['verdicts']}{differ}",
        f"network      {totals['users']:,} users, {totals['friendships']:,} friendships",
        f"restarts     {status.restarts}",
        f"mailboxes    {boxes}: messages now (and at most)",
    ))  # fmt: skip
