"""How a run is doing, for another process to see: `peerwatch status`."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from peerwatch.actors.mailbox import Depth
from peerwatch.network.errors import UsageError

STATUS_SECONDS: Final = 1.0


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
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return status, True
    finally:
        os.close(lock)
    return status, False
