"""The state directory: checkpoints that are written whole and checked when read, one process at a time.

A checkpoint is a numpy `.npz` archive (arrays, each with a CRC-32, none pickled) named after its sequence number, with
its facts as JSON in the array `facts`. Arrays that a worker of a cluster has written are in an archive beside it, which
the facts name. A checkpoint of an earlier version is read as the present one would have written it.
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
from numpy.typing import NDArray

from peerwatch.connectors.source import Bookmark
from peerwatch.durable import replace_file, unlink
from peerwatch.errors import SinkError, UsageError
from peerwatch.files.seen import Seen
from peerwatch.judging.state import Arrays, StateFacts
from peerwatch.readable import shown, why_damaged
from peerwatch.settings.model import Friendships, InputSettings
from peerwatch.urls import is_url, redacted

VERSION: Final = 8
"""Of the format. Whoever changes it adds a step to `peerwatch.storage.migrations`."""
OLDEST: Final = 4
"""The earliest version that can be read."""
PARTS: Final = "part-*.npz"
"""What the archives are called that have some of a checkpoint's arrays."""
INTERLEAVING: Final = "interleaving.jsonl"
"""The name of the journal that says in which order the partitions of a stream were read."""
DAMAGE: Final = (
    OSError, ValueError, KeyError, EOFError, RuntimeError, SyntaxError, tokenize.TokenError, zipfile.BadZipFile,
    zlib.error, msgspec.MsgspecError,
)  # fmt: skip
"""The errors that reading a damaged archive raises (found by changing bytes at random)."""
LOCK_ATTEMPTS: Final = 5
LOCK_SECONDS: Final = 0.1
NO_INPUTS: Final = InputSettings()


class Facts(StateFacts, frozen=True):
    """The facts of a checkpoint besides arrays: counts, and `position` in the log that is `judged` or in the batch log.

    A position is its source's own value, None if nothing of the log has been read; `marks` are the sinks' own values,
    by their names. `seen` are the files beside the stream log that are not to be read (again). `bookmarks` stand along
    all the logs.
    """

    judged: bool
    position: Any
    marks: dict[str, Any]
    bookmarks: list[Bookmark[Any]]
    seen: Seen


class FilePlace(msgspec.Struct, frozen=True):
    """The place of a file: its absolute path, and its path from the state directory.

    It is the same place if one of them is the same, so that a state directory may move along with its files, or alone.
    """

    absolute: str
    relative: str

    @classmethod
    def of(cls, path: str, directory: Path) -> "FilePlace":
        """The place of a path, relative to a state directory; `-` and a URL are the same everywhere."""
        if path == "-" or is_url(path):
            return cls(redacted(path), redacted(path))
        absolute = Path(path).absolute()
        return cls(shown(absolute), shown(os.path.relpath(absolute, directory.absolute())))

    def is_same(self, other: "FilePlace") -> bool:
        """Whether both are the same place."""
        return self.absolute == other.absolute or self.relative == other.relative


class Identity(msgspec.Struct, frozen=True):
    """The run that a state directory belongs to: a changed value would change verdicts or lose output.

    `run` names it, in every sink that several runs may write to. `rules` are the settings of all that judge, by dotted
    key; `outputs` are the places that are written, by the setting's name.
    """

    run: str
    D: int
    T: int
    rules: dict[str, Any]
    stream: FilePlace
    outputs: dict[str, FilePlace]

    @property
    def friendships(self) -> Friendships:
        """The kind of friendships. Checkpoints name it only if they are directed."""
        kind: Friendships = self.rules.get("friendships", "mutual")
        return kind


class FormatVersion(msgspec.Struct, frozen=True):
    """What the envelopes of all versions have in common."""

    version: int


class StoredPart(msgspec.Struct, frozen=True):
    """An archive in the state directory with some of a checkpoint's arrays: its name, its bytes, the arrays' names."""

    name: str
    size: int
    arrays: list[str]


class CheckpointEnvelope(msgspec.Struct, frozen=True):
    """The facts of one checkpoint with its format's version, the names of its arrays, and the archives beside it."""

    version: int
    identity: Identity
    facts: Facts
    taken: float
    names: list[str]
    parts: list[StoredPart]


class Checkpoint(msgspec.Struct, frozen=True):
    """One checkpoint as read; `written_as` is the version of the format in which it lies there."""

    arrays: Any
    envelope: CheckpointEnvelope
    written_as: int = VERSION


class StateDirectory:
    """Holds the lock and the checkpoints of one run."""

    def __init__(
        self, path: Path, warn: Callable[[str], None], keep: int = 2, inputs: InputSettings = NO_INPUTS
    ) -> None:
        """The state directory at `path`, in which the `keep` newest checkpoints of a run on `inputs` are kept."""
        self.path = path
        self._warn = warn
        self._keep = keep
        self._inputs = inputs
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
            with suppress(FileNotFoundError):  # a worker of a run that was killed has just finished it
                unlink(unfinished)
        self._remove_parts()

    def _leave(self) -> None:
        """Release the lock; remove what is of no use: parts, and the directory if it was created for nothing."""
        self._remove_parts()
        os.close(self._lock)
        with suppress(FileNotFoundError):  # somebody has removed it meanwhile
            if self._made and not any(path.name != "lock" for path in self.path.iterdir()):
                unlink(self.path / "lock")
                self.path.rmdir()

    def reset(self) -> None:
        """Remove all checkpoints, and what is useful only with them."""
        for path in (
            *self._files(),
            *self.path.glob(PARTS),
            *self.path.glob("journal.jsonl"),
            *self.path.glob(INTERLEAVING),
            *self.path.glob("models/*.npz*"),
        ):
            unlink(path)
        self._damaged.clear()

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is not damaged; a damaged one is skipped with a warning.

        Raises:
            UsageError: there are checkpoints, but none that can be used, or the newest is of an unknown version.
        """
        files = self._files()
        for path in reversed(files):
            try:
                return read_checkpoint(path, self._inputs)
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

    def write(self, arrays: Arrays, envelope: CheckpointEnvelope) -> int:
        """Write a checkpoint, whose parts are there, and remove the oldest; returns its size in bytes.

        Raises:
            SinkError: it could not be written, or a part is missing; those before are still there.
        """
        path = self.path / f"checkpoint-{envelope.facts.progress.events:020d}.npz"
        facts = np.frombuffer(msgspec.json.encode(envelope), np.uint8)
        try:
            for part in envelope.parts:
                _check_part(self.path / part.name, part.size)
            replace_file(path, lambda file: np.savez(file, facts=facts, **arrays))  # type: ignore[arg-type]
            size = path.stat().st_size + sum(part.size for part in envelope.parts)
            damaged = [file for file in self._damaged if file != path]  # that one is whole now
            whole = [file for file in self._files() if file not in damaged]
            for old in (*damaged, *whole[: -self._keep]):
                unlink(old)
            self._damaged.clear()
            self._remove_parts(part_name(envelope.facts.progress.events, ""))  # the next one may be there already
        except OSError as error:
            if not self.path.exists():
                raise SinkError(
                    f"cannot write the checkpoint: the state directory {shown(self.path)} has been removed; bring it"
                    " back, or run again to begin anew"
                ) from None
            raise SinkError(f"cannot write the checkpoint {path}: {error.strerror}; fix that and run again") from None
        return size

    def _remove_parts(self, before: str | None = None) -> None:
        """Remove the parts that no checkpoint needs, or those of them whose names are `before` this one.

        None is removed unless every checkpoint can be read.
        """
        found = [*self.path.glob(PARTS), *self.path.glob(f"{PARTS}.new")]
        if old := [path for path in found if before is None or path.name < before]:
            with suppress(*DAMAGE, UsageError):
                envelopes = [_raw_envelope(path) for path in self._files()]
                current = [_decoded(raw) for raw in envelopes if _version_of(raw, self.path) == VERSION]
                needed = {part.name for envelope in current for part in envelope.parts}
                for path in old:
                    if path.name not in needed:
                        unlink(path)

    def _files(self) -> list[Path]:
        """The checkpoints, the oldest first."""
        return files_in(self.path)


def part_name(through: int, writer: str) -> str:
    """The name of a part of a checkpoint behind event `through`. Each process that writes parts is another `writer`."""
    return f"part-{through:020d}-{writer}.npz"


def remove_unfinished(directory: Path, writer: str) -> None:
    """Remove the part that a process has not written to its end, which is gone now."""
    for path in directory.glob(f"part-*-{writer}.npz.new"):
        with suppress(OSError):  # it may still be there after all, and rename the file; a later checkpoint removes that
            unlink(path)


def write_part(path: Path, arrays: Arrays) -> StoredPart:
    """Write some of a checkpoint's arrays.

    Raises:
        OSError: they could not be written.
    """
    replace_file(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]
    return StoredPart(path.name, path.stat().st_size, sorted(arrays))


def _check_part(path: Path, size: int) -> None:
    """Check that a part is there, and can be read.

    Raises:
        SinkError: it is not, or it is not whole.
    """
    why = None
    try:
        with path.open("rb") as file:
            if (found := os.fstat(file.fileno()).st_size) != size:
                why = f"it has {found:,} bytes of {size:,}"
    except OSError as error:
        why = error.strerror
    if why is not None:
        raise SinkError(
            f"cannot use {shown(path)}, a part of the checkpoint that a worker has written: {why}; let workers and the"
            " driver run as the same user on the same storage, and run again"
        )


def files_in(directory: Path) -> list[Path]:
    """The checkpoints in a state directory, the oldest first."""
    return sorted(directory.glob("checkpoint-*.npz"))


def envelopes(directory: Path, inputs: InputSettings) -> Iterator[tuple[Path, CheckpointEnvelope]]:
    """The checkpoints that are in a state directory now, the newest first; what is damaged or just gone is left out.

    Raises:
        UsageError: the newest is of an unknown version, or of an earlier one that the run's logs no longer fit.
    """
    found = False
    for path in reversed(files_in(directory)):
        try:
            raw = _raw_envelope(path)
            is_current = _version_of(raw, path) == VERSION
            envelope = _decoded(raw) if is_current else read_checkpoint(path, inputs).envelope
        except DAMAGE:  # a file that is gone is an OSError too
            continue
        except UsageError:
            if not found:
                raise
            continue
        found = True
        yield path, envelope


def events_in(directory: Path) -> int | None:
    """How many events stand before the newest checkpoint that can be read, of whatever version; None if there is none.

    Raises:
        UsageError: it is of an unknown version.
    """
    for path in reversed(files_in(directory)):
        try:
            raw = _raw_envelope(path)
            _version_of(raw, path)
            _, events, *_ = msgspec.json.decode(raw)["facts"]["progress"]
        except DAMAGE:
            continue
        return int(events)
    return None


def read_checkpoint(path: Path, inputs: InputSettings = NO_INPUTS) -> Checkpoint:
    """Read and check a checkpoint of a run on `inputs`, which matter if an earlier version has written it.

    Raises:
        DAMAGE: it is damaged; which of them it is depends on where.
        UsageError: it is of an unknown version, or of an earlier one that the run's logs no longer fit.
    """
    arrays = _arrays_in(path)
    raw = arrays.pop("facts").tobytes()
    version = _version_of(raw, path)
    if version != VERSION:
        from peerwatch.storage.migrations import StoredCheckpoint, Surroundings, migrated  # noqa: PLC0415 (few runs do)

        stored = migrated(StoredCheckpoint(msgspec.json.decode(raw), arrays), Surroundings(path.parent, inputs))
        raw, arrays = msgspec.json.encode(stored.envelope), dict(stored.arrays)
    envelope = _decoded(raw)
    for part in envelope.parts:
        arrays |= _arrays_in(path.with_name(part.name))
    if sorted(arrays) != envelope.names:  # a damaged directory of an archive may pass over a member
        raise ValueError("an array is missing")
    return Checkpoint(arrays, envelope, version)


def _arrays_in(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return dict(archive)


def _raw_envelope(path: Path) -> bytes:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        found: bytes = archive["facts"].tobytes()
    return found


def _version_of(raw: bytes, path: Path) -> int:
    """The version of an envelope.

    Raises:
        UsageError: it cannot be read by this peerwatch. It may be whole, so it is not passed over as damaged.
    """
    version = msgspec.json.decode(raw, type=FormatVersion).version
    if not OLDEST <= version <= VERSION:
        who = "a newer peerwatch" if version > VERSION else "an early peerwatch"
        raise UsageError(
            f"the checkpoint {shown(path)} is of format version {version}, written by {who}; this one reads versions"
            f" {OLDEST} to {VERSION}: go on with the one that wrote it, or begin anew with --reset"
        )
    return version


def _decoded(raw: bytes) -> CheckpointEnvelope:
    return msgspec.json.decode(raw, type=CheckpointEnvelope)
