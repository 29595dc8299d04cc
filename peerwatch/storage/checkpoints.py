"""The state directory: checkpoints that are written whole and checked when read, one process at a time.

A checkpoint is a numpy `.npz` archive (arrays, each with a CRC-32, none pickled) named after its sequence number, with
its facts as JSON in the array `facts`.
"""

import fcntl
import os
import time
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from anyio.to_thread import run_sync

from peerwatch.connectors.output_file import Written
from peerwatch.connectors.position import Position
from peerwatch.connectors.seen import Seen
from peerwatch.connectors.source import Bookmark
from peerwatch.durable import replace_file, unlink
from peerwatch.errors import SinkError, UsageError
from peerwatch.judging.state import Arrays, StateFacts
from peerwatch.readable import shown, why_damaged

VERSION: Final = 5
DAMAGE: Final = (
    OSError, ValueError, KeyError, EOFError, RuntimeError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile,
    zlib.error, msgspec.MsgspecError,
)  # fmt: skip
"""The errors that reading a damaged archive raises (found by changing bytes at random)."""
LOCK_ATTEMPTS: Final = 5
LOCK_SECONDS: Final = 0.1


class Facts(StateFacts, frozen=True):
    """The facts of a checkpoint besides arrays: counts, and `position` in the log that is `judged` or in the batch log.

    `seen` are the files beside the stream log that are not to be read (again). `bookmarks` stand along all the logs.
    """

    judged: bool
    position: Position
    flagged_written: Written
    rejects_written: Written
    verdicts_written: Written | None
    bookmarks: list[Bookmark[Position]]
    seen: Seen


class FilePlace(msgspec.Struct, frozen=True):
    """The place of a file: its absolute path, and its path from the state directory.

    It is the same place if one of them is the same, so that a state directory may move along with its files, or alone.
    """

    absolute: str
    relative: str

    @classmethod
    def of(cls, path: str, directory: Path) -> "FilePlace":
        """The place of a path, relative to a state directory; `-` is no file and the same everywhere."""
        if path == "-":
            return cls(path, path)
        absolute = Path(path).absolute()
        return cls(shown(absolute), shown(os.path.relpath(absolute, directory.absolute())))

    def is_same(self, other: "FilePlace") -> bool:
        """Whether both are the same place."""
        return self.absolute == other.absolute or self.relative == other.relative


class Identity(msgspec.Struct, frozen=True):
    """The run that a state directory belongs to: a changed value would change verdicts or lose output.

    `rules` are the settings of all that judge, by dotted key.
    """

    D: int
    T: int
    rules: dict[str, Any]
    stream: FilePlace
    flagged: FilePlace
    rejects: FilePlace
    verdicts: FilePlace | None


class CheckpointEnvelope(msgspec.Struct, frozen=True):
    """The facts of one checkpoint with its format's version, and the names of its arrays."""

    version: int
    identity: Identity
    facts: Facts
    taken: float
    names: list[str]


class Checkpoint(msgspec.Struct, frozen=True):
    """One checkpoint as read."""

    arrays: Any
    envelope: CheckpointEnvelope


class StateDirectory:
    """Holds the lock and the checkpoints of one run."""

    def __init__(self, path: Path, warn: Callable[[str], None], keep: int = 2) -> None:
        """The state directory at `path`, in which the `keep` newest checkpoints are kept."""
        self.path = path
        self._warn = warn
        self._keep = keep
        self._lock = -1
        self._made = False
        self._damaged: list[Path] = []

    def open(self, stack: AsyncExitStack) -> None:
        """Make the directory if need be and lock it until the stack closes.

        Raises:
            UsageError: it cannot be made, or another process works with it.
        """
        try:
            made = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UsageError(f"cannot use the state directory {self.path}: {error.strerror}") from None
        stack.push_async_callback(run_sync, self._leave)
        for attempt in range(LOCK_ATTEMPTS):
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:  # perhaps `peerwatch status` is just looking
                if attempt == LOCK_ATTEMPTS - 1:
                    raise UsageError(
                        f"another peerwatch is running on the state directory {self.path}; stop it or name another"
                        " directory"
                    ) from None
                time.sleep(LOCK_SECONDS)
        self._made = made
        for unfinished in self.path.glob("*.new"):
            unlink(unfinished)

    def _leave(self) -> None:
        """Release the lock; remove the directory if it was created for nothing."""
        os.close(self._lock)
        with suppress(FileNotFoundError):  # somebody has removed it meanwhile
            if self._made and not any(path.name != "lock" for path in self.path.iterdir()):
                unlink(self.path / "lock")
                self.path.rmdir()

    def reset(self) -> None:
        """Remove all checkpoints, and what is useful only with them."""
        for path in (*self._files(), *self.path.glob("journal.jsonl"), *self.path.glob("models/*.npz*")):
            unlink(path)
        self._damaged.clear()

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is not damaged; a damaged one is skipped with a warning.

        Raises:
            UsageError: there are checkpoints, but none that can be used.
        """
        files = self._files()
        for path in reversed(files):
            try:
                return read_checkpoint(path)
            except PermissionError as error:
                raise UsageError(f"cannot read the checkpoint {path}: {error.strerror}") from None
            except DAMAGE as error:
                self._warn(f"the checkpoint {path} is damaged ({why_damaged(error)}); trying the one before it")
                self._damaged.append(path)
        if files:
            raise UsageError(
                f"none of the checkpoints in {self.path} can be read; bring one back, or begin anew with --reset"
            )
        return None

    def write(self, arrays: Arrays, envelope: CheckpointEnvelope) -> None:
        """Write a checkpoint and remove the oldest.

        Raises:
            SinkError: it could not be written; those before are still there.
        """
        path = self.path / f"checkpoint-{envelope.facts.progress.events:020d}.npz"
        facts = np.frombuffer(msgspec.json.encode(envelope), np.uint8)
        try:
            replace_file(path, lambda file: np.savez(file, facts=facts, **arrays))  # type: ignore[arg-type]
            whole = [file for file in self._files() if file not in self._damaged]
            for old in (*self._damaged, *whole[: -self._keep]):
                unlink(old)
            self._damaged.clear()
        except OSError as error:
            if not self.path.exists():
                raise SinkError(
                    f"cannot write the checkpoint: the state directory {shown(self.path)} has been removed; bring it"
                    " back, or run again to begin anew"
                ) from None
            raise SinkError(f"cannot write the checkpoint {path}: {error.strerror}; fix that and run again") from None

    def _files(self) -> list[Path]:
        """The checkpoints, the oldest first."""
        return files_in(self.path)


def files_in(directory: Path) -> list[Path]:
    """The checkpoints in a state directory, the oldest first."""
    return sorted(directory.glob("checkpoint-*.npz"))


def envelopes(directory: Path) -> Iterator[tuple[Path, CheckpointEnvelope]]:
    """The checkpoints in a state directory, the newest first, without those that are damaged or just removed."""
    for path in reversed(files_in(directory)):
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                envelope = _envelope(archive["facts"].tobytes())
        except DAMAGE:  # a file that is gone is an OSError too
            continue
        yield path, envelope


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and check a checkpoint.

    Raises:
        DAMAGE: it is damaged; which of them it is depends on where.
    """
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = dict(archive)
    envelope = _envelope(arrays.pop("facts").tobytes())
    if sorted(arrays) != envelope.names:  # a damaged directory of an archive may pass over a member
        raise ValueError("an array is missing")
    return Checkpoint(arrays, envelope)


def _envelope(raw: bytes) -> CheckpointEnvelope:
    version = msgspec.json.decode(raw)["version"]
    if version != VERSION:
        raise ValueError(f"its format is version {version}, this peerwatch reads {VERSION}")
    return msgspec.json.decode(raw, type=CheckpointEnvelope)
