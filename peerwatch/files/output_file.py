"""An output file that others may rotate: every byte of the output is in the rotated files once."""

import fcntl
import os
import stat
import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from peerwatch import durable
from peerwatch.errors import SinkError, UsageError
from peerwatch.files.position import EDGE, Fingerprint, Prefix
from peerwatch.files.rotated import Rotated, rotated_files
from peerwatch.files.stored_file import PlainFile, StoredFile, open_file, prefix_of
from peerwatch.readable import shown

LONGEST_LINE: Final = 1 << 20
"""Bytes that a line is looked for in."""


class Written(msgspec.Struct, frozen=True):
    """How far an output had been written: what the file held, and where it was.

    An empty file is known by its place alone, so the places of the files `beside` it belong to it.
    """

    content: Fingerprint = Fingerprint()
    device: int = 0
    inode: int = 0
    beside: tuple[tuple[int, int], ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        """Device and inode of the file."""
        return self.device, self.inode


class Replayed(NamedTuple):
    """A file that holds what is going to be written once more, and how far that has been compared."""

    file: StoredFile
    prefix: Prefix


class OutputFile:
    """Appends to the regular file at a path; begins a new one where the file has been moved away or deleted.

    A run that goes on behind a checkpoint writes again what had been written since. Where that is still in the file at
    the path, it is cut off; where the file has been rotated since, it is compared with what is there, and skipped.
    A last line that `is_provisional` may stay in a rotated file although it is written differently then.
    """

    def __init__(
        self,
        path: Path,
        descriptor: int,
        warn: Callable[[str], None],
        is_provisional: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        """The file at the path is open for appending, and locked, as `descriptor`."""
        self._path = path
        self._name = shown(path)
        self._descriptor = descriptor
        self._warn = warn
        self._is_provisional = is_provisional
        self._prefix = Prefix()
        self._replayed: deque[Replayed] = deque()
        self._first: Written | None = None
        self._problem = ""
        self._lock = threading.Lock()
        """Held while writing or looking, which happens on several threads."""

    def begin(self, written: Written | None, *, force: bool = False) -> None:
        """Go on after what had been written at a checkpoint, or begin anew.

        Raises:
            UsageError: what had been written is nowhere to be found. With `force` a new file is begun then.
            OSError: a file could not be read or cut.
        """
        with self._lock:
            self._begin(written, force=force)

    def _begin(self, written: Written | None, *, force: bool) -> None:
        while self._replayed:
            self._replayed.popleft().file.close()
        if written is None and self._first is None:
            self._cut(Written())
            self._first = self._written()
            return
        written = written or self._first or Written()
        rotated = rotated_files(self._path)
        here = self._holds(self._path, written.content)
        files = self._written_since(written, rotated, here=here)
        if files is None and not here:
            if not force:
                raise UsageError(
                    f"{self._name} does not hold the {written.content.size:,} bytes that had been written when the"
                    " checkpoint was taken, nor does a rotated file beside it; bring it back, add --force to begin a"
                    " new file, or begin anew with --reset"
                )
            written, files = Written(), None
        if files is None:
            self._cut(written)
            return
        for path in (*files, self._path):
            file = self._open(path)
            begun = prefix_of(file, written.content) if path == files[0] and written.content.size else None
            self._replayed.append(Replayed(file, begun or Prefix()))

    def has_more(self, written: Written) -> bool:
        """Whether there is more in the file than had been written at a checkpoint."""
        return os.fstat(self._descriptor).st_size != written.content.size or not self._holds(
            self._path, written.content
        )

    def write(self, data: bytes) -> None:
        """Append `data`, except what is there already.

        Raises:
            SinkError: something else is there.
            OSError: it could not be written.
        """
        with self._lock:
            while data and self._replayed:
                data = self._compare(data)
            if data:
                self._look()
                rest = memoryview(data)
                while rest:
                    rest = rest[durable.write(self._descriptor, rest) :]
                self._prefix.add(data)

    def look(self) -> None:
        """See whether somebody has moved the file away, deleted or emptied it.

        Raises:
            SinkError: it is gone, and no new one can be made.
        """
        with self._lock:
            if not self._replayed:
                self._look()

    def _look(self) -> None:
        status = os.fstat(self._descriptor)
        try:
            at_path = self._path.stat()
            gone = (at_path.st_dev, at_path.st_ino) != (status.st_dev, status.st_ino)
        except OSError:
            gone = True
        if gone:
            self._begin_new_file(status)
        elif status.st_size != self._prefix.size:
            added = status.st_size - self._prefix.size
            what = f"had {added:,} bytes added" if added > 0 else f"was cut to {status.st_size:,} bytes"
            self._warn(f"{self._name} {what} by somebody else; writing goes on at its end")
            self._prefix = self._present()

    def sync(self) -> Written:
        """Make everything written so far survive a power failure; returns how far that is."""
        with self._lock:
            durable.fsync(self._descriptor)
            return self._written()

    def _written(self) -> Written:
        prefix = self._replayed[0].prefix if self._replayed else self._prefix
        status = self._replayed[0].file.status() if self._replayed else os.fstat(self._descriptor)
        beside = tuple(file.identity for file in rotated_files(self._path)) if not prefix.size else ()
        content = msgspec.structs.replace(prefix.fingerprint(), whole=None)  # it was not read, and need not be
        return Written(content, status.st_dev, status.st_ino, beside)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
        while self._replayed:
            self._replayed.popleft().file.close()

    def _written_since(self, written: Written, rotated: list[Rotated], *, here: bool) -> list[Path] | None:
        """The rotated files with what has been written since a checkpoint, the oldest first; None if there are none."""
        if not written.content.size:  # then all files that have come since hold it, and no others
            new = [file.path for file in rotated if file.size and file.identity not in written.beside]
            return new or None
        status = os.fstat(self._descriptor)
        if here and (written.content.is_telling or (status.st_dev, status.st_ino) == written.place):
            return None
        holding = [place for place, file in enumerate(rotated) if self._holds(file.path, written.content)]
        same = [place for place in holding if rotated[place].identity == written.place]
        if not same and here:
            return None
        holding = same or holding
        return [file.path for file in rotated[holding[-1] :]] if holding else None

    def _holds(self, path: Path, content: Fingerprint) -> bool:
        with suppress(OSError), closing(self._open(path)) as file:
            return prefix_of(file, content) is not None
        return False

    def _open(self, path: Path) -> StoredFile:
        return PlainFile(path) if path == self._path else open_file(path)

    def _cut(self, written: Written) -> None:
        durable.truncate(self._descriptor, written.content.size)
        self._prefix = self._present()

    def _present(self) -> Prefix:
        """The fingerprint of what the file holds now, from its edges."""
        with closing(PlainFile(self._path)) as file:
            size = file.status().st_size
            head, tail = file.read_at(0, EDGE), file.read_at(max(0, size - EDGE), EDGE)
        return Prefix.known(Fingerprint(size, crc32(head), crc32(tail), None), head, tail)

    def _compare(self, data: bytes) -> bytes:
        """Compare with what the next of the files holds already; returns the rest of `data`."""
        file, prefix = self._replayed[0]
        there = file.read_at(prefix.size, len(data))
        if there != data[: len(there)]:
            differs = next(place for place, pair in enumerate(zip(there, data, strict=False)) if pair[0] != pair[1])
            same = there.rfind(b"\n", 0, differs) + 1
            if not self._ends_provisionally(file, prefix.size + same):
                raise SinkError(
                    f"{shown(file.path)} holds something else after byte {prefix.size:,} than has been judged again;"
                    " bring back what was there, or begin anew with --reset"
                )
            there = there[:same]
            if len(self._replayed) == 1:
                durable.truncate(self._descriptor, prefix.size + same)
        prefix.add(there)
        if not there:
            self._replayed.popleft()
            file.close()
            if not self._replayed:
                self._prefix = prefix
        return data[len(there) :]

    def _ends_provisionally(self, file: StoredFile, begin: int) -> bool:
        line = file.read_at(begin, LONGEST_LINE)
        return line.find(b"\n") == len(line) - 1 and self._is_provisional(line)

    def _begin_new_file(self, status: os.stat_result) -> None:
        try:
            descriptor = open_output(self._path, stat.S_IMODE(status.st_mode))
        except OSError as error:
            problem = f"{self._name} was moved away, and a new one cannot be made: {error.strerror}"
            if not status.st_nlink:
                raise SinkError(f"{problem}; fix that and run again") from None
            if problem != self._problem:
                self._warn(f"{problem}; writing goes on where it is now")
            self._problem = problem
            return
        durable.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._prefix = self._present()
        self._problem = ""
        what = "moved away" if status.st_nlink else "deleted"
        self._warn(f"{self._name} has been {what}; what is written from now on goes into a new file there")


def open_output(path: Path, mode: int = 0o666) -> int:
    """The file at a path opened for appending, made if need be; a regular file is locked against a second writer.

    Raises:
        OSError: it cannot be opened; EWOULDBLOCK if another process has locked it.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
    return descriptor
