"""One file that stands or stood at a followed path, held open and read line by line."""

import time
from pathlib import Path
from typing import Final, NamedTuple

from peerwatch.files.position import EDGE, Position, Prefix
from peerwatch.files.stored_file import STEP, StoredFile, open_file, prefix_of
from peerwatch.network.decoder import line_feeds

SUMMED: Final = 1 << 26
"""Bytes up to which a file under its old inode is summed up; of a longer one only the edges are compared."""
TICK_SECONDS: Final = 0.1
"""A tick of the file system's clock: changes within it may leave a file with the same time."""
NUL: Final = b"\0"


def without_hole(data: bytes) -> tuple[bytes, int]:
    """The bytes at a line's start without the leading NUL bytes, and the number of those.

    A hole that a truncation has left may be larger than memory: it is let go as it is read.
    """
    rest = data.lstrip(NUL) if data.startswith(NUL) else data
    return rest, len(data) - len(rest)


def found_again(file: StoredFile, position: Position) -> "Generation | None":
    """The file that a position is in, to be read on from there; None, and closed, if it is another file.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        status = file.status()
        same = (status.st_dev, status.st_ino) == (position.device, position.inode)
        prefix = prefix_of(file, position.content, summed=not same or position.content.size <= SUMMED)
    except BaseException:
        file.close()
        raise
    if prefix is None:
        file.close()
        return None
    return Generation(file, position.generation, prefix, position.line)


def holds(path: Path, position: Position) -> bool:
    """Whether the file at the path is the one that a position is in, as far as it had been read."""
    try:
        found = found_again(open_file(path), position)
    except OSError:
        return False
    if found is not None:
        found.close()
    return found is not None


class Lines(NamedTuple):
    """Whole lines, the first of them number `line` at byte `offset`; the last of a finished file may be cut off.

    `hole` NUL bytes that a truncation left have been skipped before them.
    """

    content: bytes
    offset: int
    line: int
    hole: int = 0


class Generation:
    """A file and how far it has been read.

    `number` counts the files of a log. Bytes that have been read of a line whose end has not are kept.
    """

    def __init__(
        self,
        file: StoredFile,
        number: int,
        prefix: Prefix | None = None,
        line: int = 1,
        *,
        limit: int | None = None,
    ) -> None:
        """The file from its start, or after `prefix`, which holds `line` - 1 lines; at most `limit` bytes are read."""
        self.limit = limit
        self.file = file
        self.number = number
        self.line = line
        status = file.status()
        self.identity = (status.st_dev, status.st_ino)
        self.largest = status.st_size
        """The largest size that the file has been seen with."""
        self._hole = 0
        """NUL bytes that have been skipped since the last lines."""
        self.prefix = prefix or Prefix()
        """The fingerprint of what has been read in whole lines."""
        self._partial = bytearray()
        self._nuls_through = 0
        self._nuls_seen: tuple[int, int] | None = None

    @property
    def path(self) -> Path:
        """Where the file was when it was opened."""
        return self.file.path

    @property
    def offset(self) -> int:
        """How many bytes have been read."""
        return self.prefix.size + len(self._partial)

    def position(self) -> Position:
        """The position after the lines that have been read."""
        return Position(self.prefix.fingerprint(), self.line, self.number, *self.identity)

    @property
    def known_size(self) -> int:
        """The size up to which the file is known to hold only what has been read, and NULs after it."""
        return max(self.offset, self._nuls_through)

    def unfinished(self) -> bytes:
        """What has been read of a line whose end has not been read."""
        return bytes(self._partial)

    def unread(self) -> int:
        """The number of bytes after those that have been read, as far as is known."""
        self.largest = max(self.largest, self.file.status().st_size)
        return 0 if self.file.is_complete else max(0, self.file.status().st_size - self.offset)

    def has_changed(self) -> bool:
        """Whether the size of the file differs from what has been read."""
        return self.file.is_complete or self.file.status().st_size != self.offset

    def is_intact(self) -> bool:
        """Whether the file still holds what has been read of it, as far as its edges tell."""
        before, head = self._before(), self.prefix.head
        return self.file.is_complete or (
            self.file.read_at(self.offset - len(before), len(before)) == before
            and self.file.read_at(0, len(head)) == head
        )

    def read(self, size: int) -> Lines | None:
        """The next lines out of at most `size` bytes, none of them if they only hold a part of a line.

        None if nothing has come, or if the file does not hold any more what has been read of it.

        Raises:
            OSError: the file cannot be read.
        """
        data = self._next(size)
        while data.startswith(NUL) and not self._partial:
            data = self._behind_hole(data) or self._next(size)
        if not data:
            return None
        whole = data.rfind(b"\n") + 1
        if not whole:
            self._partial += data
            return Lines(b"", self.prefix.size, self.line)
        lines = self._lines(bytes(self._partial) + data[:whole])
        self.prefix.add(lines.content)
        self.line += line_feeds(lines.content)
        rest = data[whole:]
        self._partial = bytearray(self._behind_hole(rest) if rest.startswith(NUL) else rest)
        return lines

    def rest(self) -> Lines:
        """The last line, which has no line feed; empty if there is none."""
        lines = self._lines(bytes(self._partial))
        self.prefix.add(lines.content)
        self._partial.clear()
        return lines

    def _lines(self, content: bytes) -> Lines:
        hole, self._hole = self._hole, 0
        return Lines(content, self.prefix.size, self.line, hole)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _before(self) -> bytes:
        """The last bytes that have been read."""
        return (self.prefix.tail + bytes(self._partial[-EDGE:]))[-EDGE:]

    @property
    def is_through(self) -> bool:
        """Whether everything to be read of the file has been read."""
        return self.limit is not None and self.offset >= self.limit

    def _next(self, size: int) -> bytes:
        """The next bytes, without NULs at the end: they may be space reserved for what is still to be written."""
        if self.limit is not None:
            size = min(size, self.limit - self.offset)
        if self.is_through:
            return b""
        if self.file.is_complete:
            return self.file.read_at(self.offset, size)
        before, head = self._before(), self.prefix.head
        data = self.file.read_at(self.offset - len(before), len(before) + size)
        if len(data) <= len(before) or not data.startswith(before) or self.file.read_at(0, len(head)) != head:
            return b""
        data = data[len(before) :]
        return data.rstrip(NUL) or self._behind_nuls(len(data))

    def _behind_nuls(self, count: int) -> bytes:
        """The bytes after `count` NULs and all NULs that follow; in the middle of a line NULs belong to the line."""
        status = self.file.status()
        stored = (status.st_size, status.st_mtime_ns)
        if stored == self._nuls_seen:
            return b""  # nobody has written since it was found that nothing stands there
        end = self.offset + count
        while (more := self.file.read_at(end, STEP)) and not more.strip(NUL):
            end += len(more)
        if not more:
            self._nuls_through = end
            self._nuls_seen = stored if status.st_mtime < time.time() - TICK_SECONDS else None
            return b""
        if self._partial:
            return bytes(end - self.offset) + more.rstrip(NUL)
        while self.offset < end:
            self._behind_hole(bytes(min(STEP, end - self.offset)))
        return more.rstrip(NUL)

    def _behind_hole(self, data: bytes) -> bytes:
        """The bytes after the NULs at the start of `data`, at the start of a line; the NULs count as read."""
        rest, size = without_hole(data)
        self.prefix.add(data[:size])
        self._hole += size
        return rest
