"""The lines of a log that grows and is rotated: which files belong to it, and in which order they are read.

A file is known by what it holds: its first and last bytes up to where it has been read, and the sum of all of them.
Device and inode are a hint that saves reading; names and times only give an order. `Tail` is a plain object over files;
`peerwatch.files.follow` waits for them to grow.
"""

import errno
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from peerwatch.files.generation import Generation, Lines
from peerwatch.files.log_file import CHUNK
from peerwatch.files.log_files import LogFiles, Losses
from peerwatch.files.position import Position
from peerwatch.files.rotated import Rotated, rotated_files
from peerwatch.files.seen import Seen, SeenFile, SeenFiles, not_ours
from peerwatch.files.stored_file import StoredFile, prefix_of
from peerwatch.readable import shown

QUIET_SECONDS: Final = 1.0
"""Seconds without a write after which a renamed file is finished: some writers reopen late."""
NEAR_END: Final = 1 << 16
"""With fewer unread bytes than this, reading is near the end."""
PASSING: Final = {
    errno.EACCES, errno.EAGAIN, errno.EBUSY, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.EMFILE, errno.ENFILE,
    errno.ENODATA, errno.ENOPKG, errno.ENOTCONN, errno.ENOTDIR, errno.EPERM, errno.ESTALE, errno.ETIMEDOUT,
}  # fmt: skip
"""Errors that keep a file from being read for now; the tail waits until they are gone."""


class Beginning(NamedTuple):
    """Where following begins: a position, and the files beside the path that must not be read.

    To go through a log `again` is to read once more what has been read to its end behind the position.
    """

    position: Position = Position()
    seen: Seen = Seen()
    again: bool = False


class Tail:
    """The lines of the files that are or were at a path, in order. Reading blocks for as long as the disk does."""

    def __init__(
        self,
        path: Path,
        beginning: Beginning,
        warn: Callable[[str], None],
        *,
        rotated: str | None = None,
        chunk: int = CHUNK,
        quiet: float = QUIET_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`rotated` is a glob for rotated files in unusual places or with unusual names.

        A renamed file is finished when nobody has written to it for `quiet` seconds.
        """
        self._path = path
        self._warn = warn
        self._losses = Losses(warn, beginning.seen.lost)
        seen = SeenFiles(beginning.seen.files)
        self._files = LogFiles(path, seen, self._losses, rotated=rotated, now=now, tells_late=not beginning.again)
        self._chunk = chunk
        self._quiet = quiet
        self._now = now
        self._position = beginning.position
        files = beginning.seen.files
        self._finished_before = {file.generation: file for file in files if file.is_finished} if beginning.again else {}
        self._current: Generation | None = None
        self._finished: tuple[StoredFile, SeenFile] | None = None
        self._unread_behind = 0
        self._waits_for: str | None = None
        self.is_last = False
        """Whether the current file was at the path when last looked at, so that nothing older was left."""
        self.holds_back = False
        """Whether there is more that must not be read yet, because somebody may still write before it."""

    def read(self) -> Lines | None:
        """The next lines, None if there is nothing new now. There may be zero lines where a file has ended.

        Raises:
            OSError: a file cannot be read, nor does it help to wait.
        """
        try:
            lines = self._read()
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None  # a rotation came in between
            if error.errno not in PASSING:
                raise
            self._wait_for(f"cannot read {shown(error.filename or self._path)}: {error.strerror}")
            if error.errno == errno.ESTALE and self._current is not None:
                self._position = self._current.position()
                self._let_go()
            return None
        if lines is not None or self.is_last:
            self._waits_for = None
        return lines

    def read_at_hand(self) -> Lines | None:
        """The next lines, if they are few: they are still in memory, so no thread is needed."""
        current = self._current
        if current is None or current.file.is_complete or not current.offset:
            return None
        try:
            if not 0 < current.unread() <= NEAR_END:
                return None
            lines = current.read(NEAR_END)
        except OSError:
            return None  # `read` finds out
        return lines if lines is not None and lines.content else None

    def rest(self) -> Lines:
        """The line that has no line feed yet, as the last of the log; empty if there is none."""
        return self._current.rest() if self._current is not None else Lines(b"", 0, 1)

    def unfinished(self) -> bytes:
        """The part of the last line that has been written; it has no line feed yet."""
        return self._current.unfinished() if self._current is not None else b""

    def position(self) -> Position:
        """The position after the lines that have been read."""
        return self._current.position() if self._current is not None else self._position

    def seen(self) -> Seen:
        """The files that a checkpoint must remember besides the position."""
        return Seen(self._files.seen.all(), self._losses.total)

    @property
    def file(self) -> str:
        """The file that is being read, as it was called when it was opened."""
        return shown(self._current.path if self._current is not None else self._path)

    def unread(self) -> int:
        """The number of bytes after what has been read, as far as is known."""
        with suppress(OSError):  # the reading thread may just be letting go of the file
            return self._unread_behind + (self._current.unread() if self._current is not None else 0)
        return 0

    def has_changed(self) -> bool:
        """Whether the size of the current file differs from what has been read, or a newer file may exist."""
        return self._current is None or not self.is_last or self._current.has_changed()

    def close(self) -> None:
        """Close all files."""
        self._let_go()
        if self._finished is not None:
            self._finished[0].close()
            self._finished = None

    def _read(self) -> Lines | None:
        while True:
            current = self._current or self._begin()
            if current is None:
                return None
            if (lines := self._next(current)) is not None or (lines := self._look(current)) is not None:
                return lines
            if self._current is current:
                return None

    def _next(self, current: Generation) -> Lines | None:
        try:
            while (lines := current.read(self._chunk)) is not None and not lines.content:
                pass  # a line longer than a chunk
        except OSError as error:
            if error.errno != errno.EBADMSG:
                raise
            self._losses.lose(
                0, f"{shown(current.path)}: {error.strerror}; what stands after byte {current.offset} is lost"
            )
            return self._finish(current)
        return lines

    def _look(self, current: Generation) -> Lines | None:
        """Look at the path again, when the current file has been read to its end.

        Lines if the current file has ended; it may also have been exchanged for the one in which reading goes on.
        """
        if current.is_through:
            return self._finish(current)
        self._check_finished()
        at_path, problem = self._files.at_path()
        self.is_last = at_path is not None and at_path.identity == current.identity and current.is_intact()
        self.holds_back = False
        if self.is_last:
            self._unread_behind = 0
            self._files.observe(current)
            return None
        at_path = at_path if at_path is not None and at_path.size else None  # an empty file has not begun
        intact = current.is_intact()
        place = self._files.place_of(current) if intact else None
        behind = self._files.unread(self._files.rotated()[place + 1 if place is not None else 0 :])
        self._unread_behind = sum(file.size for file in (*behind, *([at_path] if at_path is not None else [])))
        if at_path is None and not behind:  # a rotation is under way; the old file is read on meanwhile
            if problem is not None:
                self._wait_for(problem)
            return None
        if self._goes_on_elsewhere(current, at_path, there=place is not None):
            return None
        if not intact:
            return self._leave_emptied(current)
        if not behind and self._is_written(current):
            self.holds_back = True
            return None
        lines = self._next(current)  # what came between the last read and the look at the path
        if lines is not None or self._current is not current:
            return lines
        if place is None and not current.file.status().st_nlink:
            self._warn(
                f"{shown(current.path)}: the file that was being read has been deleted or replaced; what stands at the"
                " path now is another log, judged from its start"
            )
        return self._finish(current)

    def _goes_on_elsewhere(self, current: Generation, at_path: Rotated | None, *, there: bool) -> bool:
        """Whether another file holds all that has been read, and perhaps more; then go on in that one.

        It may be the copy that copytruncate leaves, or one put into the place of a file that is still `there` or not.
        """
        position = current.position()
        if not position.content.size or (there and not position.content.is_telling):
            return False
        candidates = [at_path] if at_path is not None and at_path.identity != current.identity else []
        found = self._files.find(position, candidates, among_rotated=not there)
        if found is None:
            return False
        self._let_go()
        self._current = found
        return True

    def _leave_emptied(self, current: Generation) -> Lines:
        """Leave the current file, because no file holds what has been read any more."""
        missed = max(0, current.largest - current.offset)
        much = f"{missed:,} bytes" if missed else "lines, if there were any,"
        self._losses.lose(
            missed,
            f"{shown(current.path)} was emptied, or what had been read of it was changed: it is another log now, judged"
            f" from its start; {much} after byte {current.offset:,} are lost",
        )
        return self._finish(current, emptied=True)

    def _finish(self, current: Generation, *, emptied: bool = False) -> Lines:
        """Finish the current file, which has been read to its end; its last line needs no line feed."""
        lines, end, status = current.rest(), current.position(), current.file.status()
        size = status.st_size if current.file.is_complete else current.known_size
        identity = (0, 0) if emptied else current.identity  # what is there now is no longer this file
        finished = SeenFile(end.content, *identity, size, status.st_mtime_ns, end.line, end.generation)
        if not end.content.size:  # nothing of it could be read
            finished = not_ours(Rotated(current.path, *current.identity, status.st_size, status.st_mtime_ns))
        self._files.seen.add(finished)
        self._position = Position(generation=current.number + 1)
        if self._finished is not None:
            self._finished[0].close()
        self._finished, self._current = (current.file, finished), None
        if emptied:
            self._finished[0].close()
            self._finished = None
        self.is_last = False
        return lines

    def _check_finished(self) -> None:
        """See whether somebody still writes to the file that was read to its end last."""
        if self._finished is None or self._finished[0].is_complete:
            return
        file, seen = self._finished
        size = file.status().st_size
        if size > seen.size:
            names = [rotated.path for rotated in self._files.rotated() if rotated.identity == seen.place]
            self._files.tell_late((*names, file.path)[0], seen, size - seen.size)
            seen = msgspec.structs.replace(seen, size=size, modified=file.status().st_mtime_ns)
            self._files.seen.add(seen)
            self._finished = file, seen

    def _begin(self) -> Generation | None:
        """The file to read: the one the position is in, or the next one."""
        position = self._position
        if not position.content.size:
            return self._open_next()
        at_path, problem = self._files.at_path()
        self._current = self._files.find(position, [at_path] if at_path is not None else [])
        if self._current is not None:
            if (again := self._finished_before.get(position.generation)) is not None:
                self._current.limit = again.content.size
            return self._current
        if at_path is None:  # it may be back in a moment
            self._wait_for(problem or f"{shown(self._path)}, which was being read, is not there")
            return None
        end = position.content.size
        what = (
            f"what had been read of it, up to byte {end:,}, has changed: it is another log now, judged from its start"
            if self._files.begins_like(position.content)
            else f"the file that was being read is gone; what stood after byte {end:,} is lost"
        )
        self._losses.lose(0, f"{shown(self._path)}: {what}")
        self._files.seen.add(SeenFile(position.content, 0, 0, end, 0, position.line, position.generation))
        self._position = Position(generation=position.generation + 1)
        return self._open_next()

    def _open_next(self) -> Generation | None:
        """The first file that has not been read: a rotated one behind those that have, or the one at the path."""
        while True:
            at_path, problem = self._files.at_path()
            if (again := self._finished_before.get(self._position.generation)) is not None:
                return self._open_again(again, at_path)
            unread = self._files.unread(self._files.rotated())
            self._unread_behind = sum(file.size for file in unread) + (at_path.size if at_path is not None else 0)
            chosen = unread[0] if unread else at_path
            if chosen is None or not chosen.size:
                if problem is not None:
                    self._wait_for(problem)
                return None
            file = self._files.open(chosen.path)
            status = file.status()
            rotated_meanwhile = chosen is at_path and self._files.unread(self._files.rotated(fresh=True))
            if (status.st_dev, status.st_ino) == chosen.identity and not rotated_meanwhile:
                break
            file.close()
        self._unread_behind -= chosen.size
        self._current = Generation(file, self._position.generation)
        if chosen is at_path and (known := self._files.seen.find(chosen)) is not None and known.file.is_finished:
            prefix = prefix_of(file, known.file.content)  # it is back at the path
            self._current = Generation(file, self._position.generation, prefix, known.file.line)
        return self._current

    def _open_again(self, again: SeenFile, at_path: Rotated | None) -> Generation | None:
        """Open a file again that was read before, at the place up to which it was read."""
        position = Position(again.content, again.line, again.generation, again.device, again.inode)
        found = self._files.find(position, [at_path] if at_path is not None else [])
        if found is None:
            self._losses.lose(
                0, f"{shown(self._path)}: file number {again.generation + 1} of the log is gone, or has changed"
            )
            self._position = Position(generation=again.generation + 1)
            return self._open_next()
        self._current = Generation(found.file, again.generation, limit=again.content.size)
        return self._current

    def _is_written(self, current: Generation) -> bool:
        """Whether the file was written to a moment ago."""
        return not current.file.is_complete and 0 <= self._now() - current.file.status().st_mtime < self._quiet

    def _wait_for(self, problem: str) -> None:
        if problem != self._waits_for:
            self._waits_for = problem
            self._warn(f"{problem}; waiting until it can be read")

    def _let_go(self) -> None:
        if self._current is not None:
            self._current.close()
            self._current = None


def look_at(path: Path, rotated: str | None = None) -> Beginning:
    """Where following a path begins: before the first byte of the file that is there now, or that comes.

    What had been rotated before is none of it. A pipe is not touched: opening it would wait for its writer, and closing
    it would take the writer's reader away.
    """
    if path.exists() and not path.is_file():
        return Beginning()
    return Beginning(seen=Seen(tuple(map(not_ours, rotated_files(path, rotated)))))
