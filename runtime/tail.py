"""Following a log that grows, through rotations.

A path is followed through its generations: the files that stand at it one after the other. A generation is known by
device, inode and its first bytes, so neither a new file with an old inode nor an old file under a new name is mistaken.
"""

import os
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from glob import escape
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

import anyio
from anyio.to_thread import run_sync

from peerwatch.actors.dispatcher import Block
from peerwatch.network.decoder import line_feeds
from peerwatch.network.errors import SourceError
from peerwatch.runtime.names import shown
from peerwatch.runtime.sources import BYTE_ORDER_MARK, CHUNK, HEAD
from peerwatch.runtime.state import Position

POLL_SECONDS: Final = 1.0
"""What a missed notification costs at most."""
BLIND_SECONDS: Final = 0.1
"""How often to look at the path where there are no notifications, or so many that none of them says enough."""
GATHER_SECONDS: Final = 0.002
"""The pause behind what was read near the end of a log: a batch costs about a millisecond, however little is in it."""
NEAR_END: Final = 1 << 16
"""Unread bytes that are near the end."""


class Piece(NamedTuple):
    """What was read: bytes of the current generation, or that it has ended."""

    data: bytes
    ended: bool


class Beginning(NamedTuple):
    """Where to begin, and the rotated files (device, inode) that had been there before and are none of the log's."""

    position: Position
    known: frozenset[tuple[int, int]] = frozenset()


class Generation:
    """One file that stands or stood at the path, held open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = self.status()
        self.identity = (status.st_dev, status.st_ino)
        self.modified = status.st_mtime_ns
        self.head = os.pread(self.descriptor, HEAD, 0)
        self.offset = 0

    def status(self) -> os.stat_result:
        """Of the open file."""
        return os.fstat(self.descriptor)

    def read(self, size: int) -> bytes:
        """The next bytes; none at the end, nor where the file no longer begins as it did: they would not be its own."""
        data = os.pread(self.descriptor, size, self.offset)
        if data and not self.holds(self.head, self.offset + len(data)):
            return b""
        if data and len(self.head) < HEAD:
            self.head = os.pread(self.descriptor, HEAD, 0)
        self.offset += len(data)
        return data

    def holds(self, head: bytes, size: int) -> bool:
        """Whether the file begins with `head` and has at least `size` bytes."""
        return self.status().st_size >= size and os.pread(self.descriptor, len(head), 0) == head

    def go_on(self, head: bytes, offset: int) -> None:
        """Read on from `offset`."""
        self.head, self.offset = head, offset

    def position(self, offset: int, line: int) -> Position:
        """A position in this generation."""
        return Position(offset, line, *self.identity, self.head, self.status().st_mtime_ns)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.descriptor)


class Tail:
    """The bytes of a path's generations, in order. `read` blocks for as long as a disk does."""

    def __init__(self, path: Path, beginning: Beginning, warn: Callable[[str], None], chunk: int = CHUNK) -> None:
        self._path = path
        self._warn = warn
        self._chunk = chunk
        self._begun = beginning.position
        self._known = beginning.known
        self._lost = False
        self._current: Generation | None = None
        self._queue: list[Generation] = []

    def read(self) -> Piece | None:
        """The next bytes, or None if there is nothing new for now.

        Raises:
            OSError: a file could not be read.
        """
        if self._current is None:
            self._queue = self._begin()
            if not self._queue:
                return None
            self._current = self._queue.pop(0)
        if self._lost:
            self._lost = False
            return Piece(b"", ended=True)
        self._look_behind()
        data = self._current.read(self._chunk)
        if not data and not self._queue:
            self._queue = self._later(self._current)
            data = self._current.read(self._chunk)  # what came between the last read and the look at the path
            if not data and not self._queue:
                return None
        if data:
            return Piece(data, ended=False)
        finished, self._current = self._current, self._queue.pop(0)
        finished.close()
        return Piece(b"", ended=True)

    def read_at_hand(self) -> Piece | None:
        """The next bytes, if they are few: just written, they are still in memory, and no thread is worth waking."""
        current = self._current
        if current is None or not current.head or not 0 < self.unread() <= NEAR_END:
            return None
        data = current.read(NEAR_END)
        return Piece(data, ended=False) if data else None

    def position(self, offset: int, line: int) -> Position:
        """A position in the current generation, or before the first."""
        return self._current.position(offset, line) if self._current is not None else self._begun

    @property
    def file(self) -> str:
        """The current generation's file as it was called when it was opened."""
        return shown(str(self._current.path if self._current is not None else self._path))

    def unread(self) -> int:
        """Bytes that stand behind what has been read, as far as is known."""
        unread = 0
        with suppress(OSError):  # the reading thread may be letting go of one of them
            for file in (self._current, *self._queue):
                unread += max(0, file.status().st_size - file.offset) if file is not None else 0
        return unread

    def has_changed(self) -> bool:
        """Whether the current file has not just the size that has been read, or is not the last one known."""
        current = self._current
        return current is None or bool(self._queue) or current.status().st_size != current.offset

    def is_last(self) -> bool:
        """Whether what is being read is what stands at the path, so that nothing older is left."""
        current = self._current
        return (
            current is not None
            and identity_of(self._path) == current.identity
            and current.holds(current.head, current.offset)
        )

    def close(self) -> None:
        """Let go of all files."""
        for generation in (self._current, *self._queue):
            if generation is not None:
                generation.close()
        self._current, self._queue = None, []

    def _begin(self) -> list[Generation]:
        """The generations to read first: from the beginning's position on."""
        begun, files = self._begun, self._all()
        if not begun.head:  # nothing was there to be read then
            return self._newer(files, begun.modified, (begun.device, begun.inode))
        found = self._find(files, begun.head, begun.offset, (begun.device, begun.inode))
        if found is not None:
            return [found, *self._behind(files, found)]
        if not files or files[-1].path != self._path:  # it may be back in a moment
            return self._let_go(files)
        self._warn(f"{self._path}: the file that was being read is gone; what stood behind byte {begun.offset} is lost")
        self._lost = True
        return self._newer(files, begun.modified)

    def _find(self, files: list[Generation], head: bytes, offset: int, identity: tuple[int, int]) -> Generation | None:
        """The file that was being read, or its copy as copytruncate leaves one, set to go on at `offset`."""
        mine = [file for file in files if file.holds(head, offset)]
        same = [file for file in mine if file.identity == identity]
        copies = [file for file in mine if head and file.path != self._path]
        for file in (*same, *copies[-1:]):
            file.go_on(head, offset)
            return file
        return None

    def _look_behind(self) -> None:
        """Before the first bytes of a file that was empty: it may have been filled, copied and emptied unseen."""
        current = self._current
        if current is None or current.head or current.status().st_mtime_ns == current.modified:
            return
        files = self._newer(self._all(), current.modified, current.identity)
        if files and files[0].identity != current.identity:
            self._current, self._queue = files[0], files[1:]
            current.close()
            return
        current.modified = current.status().st_mtime_ns
        self._let_go(files)

    def _later(self, current: Generation) -> list[Generation]:
        """The unread generations behind the current one. A file at the path that is empty may not have begun yet."""
        if self.is_last() or identity_of(self._path) is None:
            return []  # where nothing is, a rotation is under way or the file is deleted: it is read on meanwhile
        known, files = self._known, self._all()
        emptied = [file for file in files if file.identity == current.identity]
        if files and files[-1].path == self._path and files[-1].status().st_size == 0:
            files.pop().close()
        found = self._find(files, current.head, current.offset, current.identity)
        if found is not None:
            self._current = found
            current.close()
            return self._behind(files, found)
        self._known = known
        if current.holds(current.head, current.offset):  # deleted, and read to its end
            return self._newer(files, current.status().st_mtime_ns)
        if not emptied or emptied[0] not in files:
            return self._let_go(files)  # emptied in place, and nothing in it yet
        self._warn(
            f"{self._path} was emptied in place; lines behind byte {current.offset}, if any were there, are lost"
        )
        return [emptied[0], *self._behind(files, emptied[0])]

    @staticmethod
    def _behind(files: list[Generation], first: Generation) -> list[Generation]:
        """The files behind `first`; those before it are let go."""
        place = files.index(first)
        for file in files[:place]:
            file.close()
        return files[place + 1 :]

    def _newer(self, files: list[Generation], since: int, own: tuple[int, int] | None = None) -> list[Generation]:
        """The path's own file, `own`, and rotated files that are not known and were last written after `since`."""
        newer = [
            file
            for file in files
            if file.path == self._path
            or file.identity == own
            or (file.status().st_mtime_ns > since and file.identity not in self._known)
        ]
        self._let_go([file for file in files if file not in newer])
        return newer

    @staticmethod
    def _let_go(files: list[Generation]) -> list[Generation]:
        for file in files:
            file.close()
        return []

    def _all(self) -> list[Generation]:
        """The rotated files of the path, the oldest first, and the file at it, even if a rotation comes in between."""
        while True:
            names = rotated(self._path)
            files: list[Generation] = []
            for name in names:
                with suppress(FileNotFoundError, *([PermissionError] if name != self._path else [])):
                    files.append(Generation(name))
            if rotated(self._path) == names and all(file.identity == identity_of(file.path) for file in files):
                return files
            self._let_go(files)


def rotated(path: Path) -> list[Path]:
    """The rotated files of a path by the time they were last written, then by their numbers or dates; itself last.

    Rotated files end in a number or date (`log.1`, `log-20260131`) or in `.old`.
    """
    found = []
    for name in path.parent.glob(f"{escape(path.name)}[.-]*"):
        ending = re.fullmatch(r"[.-](?:(\d{1,6})|\d[\dTZ:._-]*|old)", name.name[len(path.name) :])
        with suppress(FileNotFoundError):
            if ending and name.is_file():
                found.append((name.stat().st_mtime_ns, -int(ending[1] or 0), name.name, name))
    return [name for *_, name in sorted(found)] + [path] * path.exists()


def look_at(path: Path) -> Beginning:
    """Where following a path begins: before the first byte of what stands there now, or of what comes.

    A pipe is not touched: opening it would wait for its writer, and closing it would take the writer's reader away.
    """
    if path.exists() and not path.is_file():
        return Beginning(Position())
    known = frozenset(filter(None, map(identity_of, rotated(path))))
    try:
        file = Generation(path)
    except OSError:
        return Beginning(Position(modified=time.time_ns()), known)
    try:
        return Beginning(file.position(0, 1), known - {file.identity})
    finally:
        file.close()


def holds(path: Path, position: Position) -> bool:
    """Whether what stands at the path is the file that a position is in, as far as that had been read."""
    try:
        file = Generation(path)
    except OSError:
        return False
    try:
        return file.identity == (position.device, position.inode) and file.holds(position.head, position.offset)
    finally:
        file.close()


def identity_of(path: Path) -> tuple[int, int] | None:
    """Device and inode of the file at the path, None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


class FollowedLog:
    """A log that grows: its lines as they come, through rotations, until `idle_exit` seconds bring nothing new.

    A last line without its line feed waits for it; at an idle exit it counts, unless a later run is to go on there.
    """

    def __init__(
        self,
        path: str,
        *,
        beginning: Beginning,
        idle_exit: float | None = None,
        resumable: bool = False,
        warn: Callable[[str], None],
        chunk: int = CHUNK,
    ) -> None:
        self.name = shown(path)
        self.judged = True
        self.size: int | None = None
        self._path = Path(path)
        self._tail = Tail(self._path, beginning, warn, chunk)
        self._offset = beginning.position.offset
        self._line = beginning.position.line
        self._idle_exit = idle_exit
        self._resumable = resumable
        self._changes = Changes(self._path)
        self.caught_up = time.time()
        """When there was last nothing left to read."""

    @property
    def file(self) -> str:
        """The file that is being read, which may have been rotated away before."""
        return self._tail.file

    def unread(self) -> int:
        """Bytes that wait to be read."""
        return self._tail.unread()

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The lines, as they come; an empty block now and then while nothing comes.

        Raises:
            SourceError: the log could not be read any further.
        """
        held = bytearray()
        looks, idle_since = True, time.monotonic()
        looked, caught_up = idle_since, False
        try:
            while True:
                piece = await self._read(looks=looks)
                looked = time.monotonic() if looks else looked
                if piece is None:
                    self.caught_up = time.time()
                    left = POLL_SECONDS
                    if self._idle_exit is not None:
                        left = idle_since + self._idle_exit - time.monotonic()
                    if left <= 0 and looks:
                        break
                    looks = left <= 0 or await self._changes.wait(left) or time.monotonic() > looked + BLIND_SECONDS
                    if looks:
                        caught_up = caught_up or await run_sync(self._tail.is_last)
                        yield self._block(b"")._replace(caught_up=caught_up)
                    continue
                looks, idle_since = piece.ended, time.monotonic()
                if piece.ended:  # the last line of a file that is finished needs no line feed
                    start, line, self._offset, self._line = self._offset, self._line, 0, 1
                    yield Block(bytes(held), start, line, self._tail.position(0, 1))
                    held = bytearray()
                    continue
                whole = piece.data.rfind(b"\n") + 1
                held += piece.data[:whole]
                if whole:
                    yield self._block(bytes(held))
                    held = bytearray()
                held += piece.data[whole:]
                if self._tail.unread() < NEAR_END:
                    await anyio.sleep(GATHER_SECONDS)
            if held and not self._resumable:
                yield self._block(bytes(held))
        finally:
            self._changes.close()
            self._tail.close()

    async def _read(self, *, looks: bool) -> Piece | None:
        """What there is; without `looks` only if the current file says so."""
        try:
            piece = self._tail.read_at_hand()
            if piece is None and (looks or self._tail.has_changed()):
                piece = await run_sync(self._tail.read)
        except OSError as error:
            raise SourceError(f"cannot read {self.name} any further: {error.strerror}") from None
        return piece

    def _block(self, content: bytes) -> Block:
        start, line = self._offset, self._line
        if start == 0 and content.startswith(BYTE_ORDER_MARK):
            content = content.removeprefix(BYTE_ORDER_MARK)
            start = len(BYTE_ORDER_MARK)
        self._offset = start + len(content)
        self._line += line_feeds(content)
        return Block(content, start, line, self._tail.position(self._offset, self._line))


class Changes:
    """What the kernel says about a path: inotify on its directory, where there is such a thing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._inotify: Any = None

    async def wait(self, seconds: float) -> bool:
        """Wait until something may have happened to the path since the last wait, but not much longer than `seconds`.

        Returns whether that may be more than a write: a rotation, or something unnoticed.
        """
        if self._inotify is None:
            await run_sync(self._open)
            if self._inotify is None:
                await anyio.sleep(min(seconds, BLIND_SECONDS))
            return True  # in any case something may have happened before the kernel was asked
        with anyio.move_on_after(min(seconds, POLL_SECONDS)):
            while True:
                event = await self._inotify.get()
                if event.mask & (self._masks.IGNORED | self._masks.MOVE_SELF | self._masks.DELETE_SELF):
                    self.close()  # the directory is gone
                    return True
                if event.mask & self._masks.Q_OVERFLOW:
                    return True
                if event.name is not None and event.name.name == self._path.name:
                    return not event.mask & self._masks.MODIFY
        return True

    def _open(self) -> None:
        if self._path.is_symlink():
            return  # what it points to changes in another directory
        try:
            inotify = import_module("asyncinotify")  # not every run follows
        except ImportError:
            return
        with suppress(OSError):  # there are no watches left, or there is no such directory yet
            changes = inotify.Inotify()
            try:
                mask = inotify.Mask.MODIFY | inotify.Mask.CREATE | inotify.Mask.MOVE | inotify.Mask.DELETE
                changes.add_watch(self._path.parent, mask | inotify.Mask.MOVE_SELF | inotify.Mask.DELETE_SELF)
            except OSError:
                changes.close()
                raise
            self._inotify, self._masks = changes, inotify.Mask

    def close(self) -> None:
        """Ask no more."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
