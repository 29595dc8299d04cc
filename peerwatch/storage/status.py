"""The status of a run, as a file that other processes read: `peerwatch status`."""

import fcntl
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from peerwatch.connectors.server import ServerStatus, SinkStatus
from peerwatch.errors import UsageError
from peerwatch.files.seen import Lost
from peerwatch.readable import shown

STATUS_SECONDS: Final = 1.0
HANGS_SECONDS: Final = 3 * STATUS_SECONDS
"""Age in seconds above which the status shows that the run hangs."""
WorkerState = Literal["starting", "working"]
SHOWN: Final = {
    "judged", "flagged", "rejected", "decisions", "verdicts", "recomputed", "differences", "users", "friendships",
}  # fmt: skip
"""The totals that are shown to a person."""


class Size(msgspec.Struct, frozen=True):
    """How long the file at a path was, and which file it was."""

    device: int
    inode: int
    bytes: int


class ActorStatus(msgspec.Struct, frozen=True):
    """How busy an actor is: the seconds in which it has worked, and the share of the last ten seconds.

    The seconds begin anew when the pipeline restarts.
    """

    busy_seconds: float
    busy_ratio: float


class CheckpointTally(msgspec.Struct):
    """The checkpoints of one process: how many were written, and how many could not be.

    `seconds` and `bytes` are those of the newest: from its request to when it was durable, and its file's.
    """

    written: int = 0
    failures: int = 0
    seconds: float = 0.0
    bytes: int = 0


class WorkerStatus(msgspec.Struct, frozen=True):
    """A worker of a cluster: its node and process, how often it was replaced, how many events it has still to confirm.

    The process is 0 while the worker begins. `why` says why the one before it was lost; it is empty if none was. Bytes
    and processor seconds are those of it and those before it.
    """

    number: int
    node: str
    pid: int
    state: WorkerState
    lag_events: int
    restarts: int
    why: str = ""
    bytes_sent: int = 0
    bytes_received: int = 0
    cpu_seconds: float = 0.0


class Progressed(NamedTuple):
    """What one process has done: what is judged again after a restart counts once."""

    events: int = 0
    judged: int = 0
    flagged: int = 0


class Status(msgspec.Struct, frozen=True):
    """A run at one moment. Times are seconds since 1970; `checkpoint` is 0 if none has been written yet.

    `mailboxes` gives how many messages each mailbox holds, now and at most so far. `stream` is the log that is
    followed, `size` what stood there when `lag_bytes` were not read yet. `unlogged` counts log records that could not
    be written, `lost` what of the log is gone unread.

    The `totals` are of the run, with all processes before this one, which has `begun` at some time. Of this process are
    what it has `progressed`, the `rejects` by class of reason, the `sinks` and the `checkpoints` (None without a state
    directory). `lag_records` are entries of a stream that wait to be read, None if nobody knows. `workers` are those of
    a cluster. `directed` says what kind of friendships there are.
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
    mailboxes: Mapping[str, tuple[int, int]]
    stream: str | None = None
    size: Size | None = None
    unlogged: int = 0
    lost: Lost = Lost()
    servers: list[ServerStatus] = []
    begun: float = 0.0
    progressed: Progressed = Progressed()
    rejects: Mapping[str, int] = {}
    actors: Mapping[str, ActorStatus] = {}
    sinks: list[SinkStatus] = []
    checkpoints: CheckpointTally | None = None
    lag_records: int | None = None
    workers: list[WorkerStatus] = []
    directed: bool = False


def seconds_behind(status: Status, lag_bytes: int) -> float:
    """The seconds for which something has been waiting to be read."""
    return max(0.0, time.time() - status.caught_up) if lag_bytes or status.lag_records else 0.0


def size_of(path: Path) -> Size | None:
    """The size of the file at a path, None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Size(status.st_dev, status.st_ino, status.st_size)


def look_at_log(path: Path) -> tuple[str, Size | None]:
    """The absolute name of a log, and its size."""
    return shown(path.absolute()), size_of(path)


def write_status(directory: Path, status: Status) -> None:
    """Replace the status. A full disk does not end the run, because the status is for people only."""
    with suppress(OSError):
        temporary = directory / "status.json.new"
        temporary.write_bytes(msgspec.json.encode(status))
        temporary.replace(directory / "status.json")


class RunView(NamedTuple):
    """A run as seen from outside: its last status, and what has changed since."""

    status: Status
    running: bool
    """Whether a process holds the state directory."""
    begins: bool
    """Whether that process has not written a status yet."""
    age: float
    """The age of the status in seconds."""
    lag_bytes: int
    rotated: bool
    """The bytes that wait to be read; more may be in another file if the log has been `rotated` since."""

    @property
    def hangs(self) -> bool:
        """Whether the run should have written another status meanwhile."""
        return self.running and not self.begins and self.age > HANGS_SECONDS

    @property
    def lag_seconds(self) -> float:
        """The seconds for which something has been waiting to be read."""
        return seconds_behind(self.status, self.lag_bytes)


def look_at_run(directory: Path) -> RunView:
    """The view of the run on a state directory.

    Raises:
        UsageError: there is no such directory, or no status in it that can be read.
    """
    try:
        status = msgspec.json.decode((directory / "status.json").read_bytes(), type=Status)
    except FileNotFoundError:
        why = "no run has written its status yet" if directory.is_dir() else "there is no such directory"
        raise UsageError(f"{shown(directory)}: {why}") from None
    except NotADirectoryError:
        raise UsageError(f"{shown(directory)} is a file, no state directory") from None
    except OSError as error:
        raise UsageError(f"cannot read the status in {shown(directory)}: {error.strerror}") from None
    except msgspec.ValidationError as error:
        raise UsageError(
            f"the status in {shown(directory)} was written by another version of peerwatch, or is damaged ({error})"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the status in {shown(directory)} is damaged ({error}); a run writes it anew") from None
    if not status.totals.keys() >= SHOWN:
        raise UsageError(f"the status in {shown(directory)} was written by another version of peerwatch")
    running = _is_held(directory / "lock")
    begins = running and not (status.running and _is_alive(status.pid))
    return RunView(status, running, begins, max(0.0, time.time() - status.updated), *_lag(status))


def _is_held(lock: Path) -> bool:
    """Whether a process has locked the file."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _lag(status: Status) -> tuple[int, bool]:
    """The bytes that are not read yet, including those that have come since, and whether the log is another file."""
    now = size_of(Path(status.stream)) if status.stream is not None else None
    if now is None:
        return status.lag_bytes, False
    then = status.size
    if then is None or (now.device, now.inode) != (then.device, then.inode):
        return status.lag_bytes + now.bytes, then is not None
    return max(0, status.lag_bytes + now.bytes - then.bytes), False


def as_json(seen: RunView) -> str:
    """The view as one JSON object."""
    found = msgspec.to_builtins(seen.status) | {
        "running": seen.running,
        "hangs": seen.hangs,
        "age_seconds": round(seen.age, 3),
        "lag_bytes": seen.lag_bytes,
        "lag_seconds": round(seen.lag_seconds, 3),
    }
    return msgspec.json.encode(found).decode()


def as_text(seen: RunView) -> str:
    """The view as text for a person."""
    status, totals = seen.status, seen.status.totals
    state = f"running, process {status.pid}" if seen.running else "not running"
    if seen.begins:
        state = "a run begins; these are the figures of the one before"
    elif seen.hangs:
        state += f"; it hangs: its figures are {seen.age:.1f} s old and should be {STATUS_SECONDS:.0f} s at most"
    elif not seen.running and status.running:
        state += "; it ended without stopping, the next start goes on from the last checkpoint"
    written = f"{time.time() - status.checkpoint:.1f} s ago" if status.checkpoint else "none by this run"
    if status.checkpoints is not None and status.checkpoints.written:
        written += f"; {status.checkpoints.bytes:,} bytes in {status.checkpoints.seconds:.2f} s"
    boxes = ", ".join(f"{name} {now} ({peak})" for name, (now, peak) in status.mailboxes.items())
    reasons = ", ".join(f"{count:,} {name}" for name, count in sorted(status.rejects.items()))
    rejected = f"{totals['rejected']:,} rejected" + f" ({reasons} by this process)" * bool(reasons)
    busy = ", ".join(f"{name} {actor.busy_ratio:.0%}" for name, actor in status.actors.items())
    differ = f", {totals['differences']:,} of {totals['recomputed']:,} recomputed ones differ" * bool(
        totals["recomputed"]
    )
    kind = "directed friendships" if status.directed else "friendships"
    return "\n".join((
        f"state        {state}",
        f"figures      {seen.age:.1f} s old",
        f"sequence     {status.through:,} events are judged and written",
        f"lag          {'at least ' * seen.rotated}{seen.lag_bytes:,} bytes, {seen.lag_seconds:.1f} s",
        f"checkpoint   {written}",
        f"counts       {totals['judged']:,} judged, {totals['flagged']:,} flagged, {rejected}",
        f"verdicts     {totals['decisions']:,} decisions, hash {totals['verdicts']}{differ}",
        f"network      {totals['users']:,} users, {totals['friendships']:,} {kind}",
        f"restarts     {status.restarts}",
        f"mailboxes    {boxes}: messages now (and at most)",
        *([f"busy         {busy} of the last ten seconds"] if busy else []),
        *(f"server       {_server(server)}" for server in status.servers),
        *(f"worker       {_worker(worker)}" for worker in status.workers),
        *(f"sink         {_sink(sink)}" for sink in status.sinks if sink.sent or sink.errors),
        *([f"log          {status.unlogged:,} records could not be written"] if status.unlogged else []),
        *([f"lost         {status.lost}"] if status.lost.pieces else []),
    ))  # fmt: skip


def _worker(worker: WorkerStatus) -> str:
    times = "once" if worker.restarts == 1 else f"{worker.restarts:,} times"
    lost = [f"replaced {times}, the last time because of: {worker.why}"] * bool(worker.restarts)
    where = f"{worker.number}" + f" on {worker.node}" * bool(worker.node)
    where += f", process {worker.pid}," * bool(worker.pid)
    return "; ".join([f"{where} is {worker.state}", f"{worker.lag_events:,} events behind", *lost])


def _server(server: ServerStatus) -> str:
    state = f"does not answer ({server.away}); the run waits" if server.away is not None else "answers"
    facts = [f"{server.records:,} records written"] * bool(server.records)
    if server.waiting is not None:
        facts.append(f"{server.waiting:,} messages wait to be read")
    facts += [f"{server.retries:,} retries"] * bool(server.retries)
    return "; ".join([f"{server.name} {state}", *facts])


def _sink(sink: SinkStatus) -> str:
    writes = sum(sink.writes.counts)
    facts = [f"{sink.name}: {sink.sent:,} record{'s' * (sink.sent != 1)} in {writes:,} write{'s' * (writes != 1)}"]
    facts += [f"{1000 * sink.writes.seconds / writes:.1f} ms each"] * bool(writes)
    facts += [f"{sink.errors:,} errors"] * bool(sink.errors)
    return ", ".join(facts)
