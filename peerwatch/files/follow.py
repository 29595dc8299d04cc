"""Following a log: its lines as they come, through rotations."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.to_thread import run_sync

from peerwatch.connectors.source import Block
from peerwatch.errors import SourceError
from peerwatch.files.generation import Lines
from peerwatch.files.log_file import BYTE_ORDER_MARK, CHUNK, last_line_waits
from peerwatch.files.tail import NEAR_END, QUIET_SECONDS, Beginning, Tail
from peerwatch.network.events import CANONICAL, FieldNames
from peerwatch.readable import shown

POLL_SECONDS: Final = 1.0
"""Seconds between two polls: the longest delay if a notification is missed."""
BLIND_SECONDS: Final = 0.1
"""Seconds between two polls without notifications, or with too many of them to be of use."""
GATHER_SECONDS: Final = 0.002
"""The pause behind what was read near the end of a log: a batch costs about a millisecond, however little is in it."""


class FollowedLog:
    """A log that grows: its lines as they come, through rotations, until `idle_exit` seconds bring nothing new.

    A last line without its line feed waits for it. At an idle exit it counts, unless it is no whole JSON object yet and
    a later run is to go on there (`resumable`).
    """

    def __init__(
        self,
        path: str,
        *,
        beginning: Beginning,
        rotated: str | None = None,
        idle_exit: float | None = None,
        resumable: bool = False,
        warn: Callable[[str], None],
        chunk: int = CHUNK,
        names: FieldNames = CANONICAL,
    ) -> None:
        self.name = shown(path)
        self.judged = True
        self.names = names
        self.size: int | None = None
        self._tail = Tail(Path(path), beginning, warn, rotated=rotated, chunk=chunk)
        self._idle_exit = idle_exit
        self._resumable = resumable
        self._warn = warn
        self._changes = Changes(Path(path))
        self.seen = beginning.seen
        """The files that a checkpoint must remember with the position of the last block."""
        self.caught_up = time.time()
        """The last time at which nothing was left to read, in seconds since 1970."""

    @property
    def file(self) -> str:
        """The file that is being read, which may have been rotated away before."""
        return self._tail.file

    def unread(self) -> int:
        """The number of bytes that wait to be read."""
        return self._tail.unread()

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The lines, as they come; an empty block now and then while nothing comes.

        Raises:
            SourceError: the log could not be read any further.
        """
        looks, idle_since = True, time.monotonic()
        looked = idle_since
        try:
            while True:
                lines = await self._read(looks=looks)
                looked = time.monotonic() if looks else looked
                if lines is not None:
                    looks, idle_since = not lines.content, time.monotonic()
                    yield self._block(lines)
                    unread = self._tail.unread()
                    if not unread:  # for a log that is written all the time nothing is ever left for long
                        self.caught_up = time.time()
                    if unread < NEAR_END:
                        await anyio.sleep(GATHER_SECONDS)
                    continue
                if not self._tail.holds_back:
                    self.caught_up = time.time()
                left = POLL_SECONDS
                if self._tail.holds_back:
                    left, idle_since = QUIET_SECONDS / 10, time.monotonic()
                elif self._idle_exit is not None:
                    left = idle_since + self._idle_exit - time.monotonic()
                if left <= 0 and looks:
                    break
                looks = left <= 0 or await self._changes.wait(left) or time.monotonic() > looked + BLIND_SECONDS
                if looks:
                    yield self._block(Lines(b"", 0, 1))._replace(caught_up=self._tail.is_last)
            if (last := await run_sync(self._last_line)).content:
                yield self._block(last)
        finally:
            self._changes.close()
            self._tail.close()

    async def _read(self, *, looks: bool) -> Lines | None:
        """What can be read now; without `looks` only if the current file has changed."""
        try:
            lines = self._tail.read_at_hand()
            if lines is None and (looks or self._tail.has_changed()):
                lines = await run_sync(self._tail.read)
        except OSError as error:
            raise SourceError(f"cannot read {self.name} any further: {error.strerror}") from None
        return lines

    def _last_line(self) -> Lines:
        """The last line, which has no line feed, if it counts."""
        line, offset = self._tail.unfinished(), self._tail.position().offset
        if self._resumable and last_line_waits(line, self._tail.file, offset, self._warn):
            return Lines(b"", 0, 1)
        return self._tail.rest()

    def _block(self, lines: Lines) -> Block:
        content, start = lines.content, lines.offset
        if start == 0 and content.startswith(BYTE_ORDER_MARK):
            content = content.removeprefix(BYTE_ORDER_MARK)
            start = len(BYTE_ORDER_MARK)
        self.seen = self._tail.seen()
        return Block(content, start, lines.line, self._tail.position(), hole=lines.hole)


class Changes:
    """Notifications about a path: inotify on its directory, where inotify exists."""

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
        """Close the inotify descriptor."""
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
