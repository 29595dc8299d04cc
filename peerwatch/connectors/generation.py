"""One file that stands or stood at a followed path, held open and read line by line."""

import time
from pathlib import Path
from typing import Final, NamedTuple

from peerwatch.connectors.position import EDGE, Position, Prefix
from peerwatch.connectors.stored_file import STEP, StoredFile, open_file, prefix_of
from peerwatch.network.decoder import line_feeds

SUMMED: Final = 1 << 26
"""Of a file that is still under its inode so many bytes are summed up; of a longer one only the edges are compared."""
TICK_SECONDS: Final = 0.1
"""A file's time tells changes only that lie further apart than a tick of the file system's clock."""
NUL: Final = b"\0"


def without_hole(data: bytes) -> tuple[bytes, int]:
    """What is left of bytes at a line's start without the NUL bytes they begin with, and how many those are.

    A hole that a truncation has left may be larger than memory: it is let go as it is read.
    """
    rest = data.lstrip(NUL) if data.startswith(NUL) else data
    return rest, len(data) - len(rest)


def found_again(file: StoredFile, position: Position) -> "Generation | None":
    """A file as that which a position is in, to be read on from there; None, and closed, if it is not that file.

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
    """Whether what stands at the path is the file that a position is in, as far as that had been read."""
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
        """The file from its start, or behind `prefix`, before which `line` - 1 lines stand; `limit` bytes at most."""
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
        """What has been read in whole lines."""
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
        """Behind the lines that have been read."""
        return Position(self.prefix.fingerprint(), self.line, self.number, *self.identity)

    @property
    def known_size(self) -> int:
        """How far the file is known to hold nothing but what has been read, and NULs behind it."""
        return max(self.offset, self._nuls_through)

    def unfinished(self) -> bytes:
        """What has been read of a line whose end has not."""
        return bytes(self._partial)

    def unread(self) -> int:
        """Bytes behind those that have been read, as far as is known."""
        self.largest = max(self.largest, self.file.status().st_size)
        return 0 if self.file.is_complete else max(0, self.file.status().st_size - self.offset)

    def has_changed(self) -> bool:
        """Whether the file has another size than has been read."""
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
        """Let go of the file."""
        self.file.close()

    def _before(self) -> bytes:
        """The last bytes that have been read."""
        return (self.prefix.tail + bytes(self._partial[-EDGE:]))[-EDGE:]

    @property
    def is_through(self) -> bool:
        """Whether all that is to be read of the file has been."""
        return self.limit is not None and self.offset >= self.limit

    def _next(self, size: int) -> bytes:
        """What comes next, without NULs at its end: they may be room set aside for what is still to be written."""
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
        """What stands behind `count` NULs and all that follow them; in the middle of a line they belong to it."""
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
        """What stands behind the NULs with which `data` begins, where a line begins; they count as read."""
        rest, size = without_hole(data)
        self.prefix.add(data[:size])
        self._hole += size
        return rest
