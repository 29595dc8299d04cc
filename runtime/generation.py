"""One file that stands or stood at a followed path, held open and read line by line, plain or compressed."""

import os
import stat
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from errno import EBADMSG, EINVAL, EISDIR, ENODATA, ENOPKG
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from zlib import crc32

from peerwatch.network.decoder import line_feeds
from peerwatch.runtime.position import EDGE, Fingerprint, Position, Prefix
from peerwatch.runtime.rotated import COMPRESSED

SUMMED: Final = 1 << 26
"""Of a file that is still under its inode so many bytes are summed up; of a longer one only the edges are compared."""
STEP: Final = 1 << 20
"""Bytes a read asks for where all of a file is looked at."""
TICK_SECONDS: Final = 0.1
"""A file's time tells changes only that lie further apart than a tick of the file system's clock."""
NUL: Final = b"\0"


class StoredFile(Protocol):
    """A file's bytes, decompressed if it is compressed. All methods may raise `OSError`."""

    path: Path
    is_complete: bool
    """Whether it is sure that nobody writes to it any more."""

    def status(self) -> os.stat_result:
        """Of the file as it is stored."""

    def read_at(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on; fewer only at the end."""

    def holds_just(self, fingerprint: Fingerprint) -> bool:
        """Whether the file says of itself that these are all its bytes."""

    def close(self) -> None:
        """Let go of the file."""


class PlainFile:
    """A file as it is stored, which may still grow."""

    is_complete = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = descriptor_of(path)

    def status(self) -> os.stat_result:
        """Of the open file."""
        return os.fstat(self._descriptor)

    def read_at(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on."""
        return os.pread(self._descriptor, size, offset)

    def holds_just(self, _: Fingerprint) -> bool:
        """A plain file says nothing of itself."""
        return False

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)


class CompressedFile:
    """A compressed file, read decompressed, best from its start to its end."""

    is_complete = True

    def __init__(self, path: Path) -> None:
        self.path = path
        decompressor = _decompressor(path)
        self._damage = decompressor.damage
        self._raw = os.fdopen(descriptor_of(path), "rb", buffering=0)
        self._file = decompressor.open(self._raw)

    def status(self) -> os.stat_result:
        """Of the compressed file."""
        return os.fstat(self._raw.fileno())

    def read_at(self, offset: int, size: int) -> bytes:
        """At most `size` decompressed bytes from `offset` on; what lies before is read as well where it has to be.

        Raises:
            OSError: ENODATA if the file ends too early (it may still be being written), EBADMSG if it is damaged.
        """
        try:
            if self._file.tell() != offset and self._file.seek(offset) != offset:
                return b""  # the file ends before
            data: bytes = self._file.read(size)
        except EOFError:
            raise OSError(ENODATA, "it ends too early, as if it were still being written", str(self.path)) from None
        except self._damage as error:
            raise OSError(EBADMSG, f"it is damaged: {error}", str(self.path)) from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise OSError(EBADMSG, f"it is damaged: {error}", str(self.path)) from None
        return data

    def holds_just(self, fingerprint: Fingerprint) -> bool:
        """Whether a gzip file says of itself that these are all its bytes: it ends in their CRC-32 and their number."""
        if self.path.suffix != ".gz" or fingerprint.whole is None:
            return False
        said = os.pread(self._raw.fileno(), 8, max(0, self.status().st_size - 8))
        return said == fingerprint.whole.to_bytes(4, "little") + (fingerprint.size % 2**32).to_bytes(4, "little")

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        self._raw.close()


def open_file(path: Path) -> StoredFile:
    """The file at a path, decompressed if its name ends like that of a compressed one.

    Raises:
        OSError: it cannot be opened or is no regular file, or what decompresses it is not installed.
    """
    return CompressedFile(path) if path.suffix in COMPRESSED else PlainFile(path)


def descriptor_of(path: Path) -> int:
    """The regular file at a path, opened to be read.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # should it be a pipe, nobody waits for it
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        code, what = (EISDIR, "it is a directory") if stat.S_ISDIR(mode) else (EINVAL, "it is no regular file")
        raise OSError(code, what, str(path))
    return descriptor


class Decompressor(NamedTuple):
    """What opens a compressed file around an open one, and what it raises if that is damaged."""

    open: Callable[[Any], Any]
    damage: tuple[type[Exception], ...]


def _decompressor(path: Path) -> Decompressor:
    suffix = path.suffix
    if suffix == ".gz":
        import gzip  # noqa: PLC0415 (few runs meet a compressed file)

        return Decompressor(lambda raw: gzip.GzipFile(fileobj=raw), (gzip.BadGzipFile, zlib.error))
    if suffix == ".bz2":
        import bz2  # noqa: PLC0415

        return Decompressor(bz2.BZ2File, (ValueError,))
    if suffix == ".xz":
        import lzma  # noqa: PLC0415

        return Decompressor(lzma.LZMAFile, (lzma.LZMAError,))
    for name in ("compression.zstd", "backports.zstd"):  # Python has it from 3.14 on
        with suppress(ImportError):
            zstd = import_module(name)
            return Decompressor(zstd.ZstdFile, (zstd.ZstdError,))
    raise OSError(ENOPKG, "zstd is not installed: pip install 'peerwatch[zstd]'", str(path))


def without_hole(data: bytes) -> tuple[bytes, int]:
    """What is left of bytes at a line's start without the NUL bytes they begin with, and how many those are.

    A hole that a truncation has left may be larger than memory: it is let go as it is read.
    """
    rest = data.lstrip(NUL) if data.startswith(NUL) else data
    return rest, len(data) - len(rest)


def prefix_of(file: StoredFile, fingerprint: Fingerprint, *, summed: bool = True) -> Prefix | None:
    """The bytes that a fingerprint is of, if the file begins with them.

    All of them are read and `summed` up, or only the edges are compared.

    Raises:
        OSError: the file cannot be read.
    """
    size = fingerprint.size
    if not file.is_complete and file.status().st_size < size:
        return None
    head = file.read_at(0, min(EDGE, size))
    if len(head) < min(EDGE, size) or crc32(head) != fingerprint.head:
        return None
    if fingerprint.whole is None or not (summed or file.is_complete):
        tail = file.read_at(max(0, size - EDGE), min(EDGE, size))
        found = len(tail) == min(EDGE, size) and crc32(tail) == fingerprint.tail
        return Prefix.known(fingerprint, head, tail) if found else None
    prefix = Prefix()
    prefix.add(head)
    while prefix.size < size and (data := file.read_at(prefix.size, min(STEP, size - prefix.size))):
        prefix.add(data)
    return prefix if prefix.fingerprint() == fingerprint else None


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
