"""The files at a path and beside it: which of them is the one that was read, and which have not been read yet."""

import errno
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from glob import has_magic
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple
from zlib import crc32

from peerwatch.files.generation import TICK_SECONDS, Generation, found_again
from peerwatch.files.position import EDGE, Fingerprint, Position
from peerwatch.files.rotated import Rotated, directories_of, look_at_file, rotated_files
from peerwatch.files.seen import Lost, SeenFile, SeenFiles, not_ours
from peerwatch.files.stored_file import PlainFile, StoredFile, open_file
from peerwatch.readable import shown


class AtPath(NamedTuple):
    """What is at the path: a file, something that cannot be read, or nothing."""

    file: Rotated | None = None
    problem: str | None = None


class Losses:
    """Warns of what is lost, and counts it."""

    def __init__(self, warn: Callable[[str], None], before: Lost) -> None:
        self.warn = warn
        self.total = before

    def lose(self, count: int, warning: str) -> None:
        """Warn of a loss and count it; at least so many bytes are lost."""
        self.total = Lost(self.total.pieces + 1, self.total.bytes + count)
        self.warn(warning)


class LogFiles:
    """The files of a log: the one at its path, and the rotated ones, of which those in `seen` are not to be read.

    Rotated files lie beside the path under the usual names, or are found by the glob `rotated`. What comes into a file
    that had been read to its end counts as lost; where the log is read once more (`tells_late` is off) it did before.
    """

    def __init__(
        self,
        path: Path,
        seen: SeenFiles,
        losses: Losses,
        *,
        rotated: str | None,
        now: Callable[[], float],
        tells_late: bool,
    ) -> None:
        self.path = path
        self.seen = seen
        self._losses = losses
        self._rotated = rotated
        self._now = now
        self._tells_late = tells_late
        self._listed: list[Rotated] = []
        self._stamps: dict[Path, int] | None = None
        self._observed: list[Rotated] | None = None

    def at_path(self) -> AtPath:
        """What is at the path now."""
        try:
            mode = self.path.stat().st_mode
        except FileNotFoundError:
            return AtPath()
        except OSError as error:
            return AtPath(problem=f"cannot read {shown(self.path)}: {error.strerror}")
        if not S_ISREG(mode):
            what = "a directory" if S_ISDIR(mode) else "no regular file"
            return AtPath(problem=f"cannot read {shown(self.path)}: it is {what}")
        return AtPath(look_at_file(self.path))

    def rotated(self, *, fresh: bool = False) -> list[Rotated]:
        """The rotated files, the oldest first; looked up only where a directory may have changed, or if asked for.

        Raises:
            OSError: a directory cannot be read.
        """
        stamps = self._directory_stamps()
        if fresh or stamps is None or stamps != self._stamps:
            self._listed = rotated_files(self.path, self._rotated)
            settled = stamps is not None and max(stamps.values(), default=0) < (self._now() - TICK_SECONDS) * 1e9
            self._stamps = stamps if settled else None
        return self._listed

    def open(self, path: Path) -> StoredFile:
        """Open one of the files; the file at the path itself is never taken for compressed.

        Raises:
            OSError: it cannot be opened.
        """
        return PlainFile(path) if path == self.path else open_file(path)

    def find(self, position: Position, at_path: Sequence[Rotated], *, among_rotated: bool = True) -> Generation | None:
        """The file that a position is in: the one at the path or a rotated one, from the newest back.

        Raises:
            OSError: it was not found, and one of them could not be read.
        """
        identity = (position.device, position.inode)
        listed = [*reversed(self.rotated())] if among_rotated else []
        files = [*at_path, *sorted(listed, key=lambda file: file.identity != identity)]
        if not position.content.is_telling:  # a short beginning may be that of the next file, too
            files.sort(key=lambda file: file.identity != identity)
        unreadable: OSError | None = None
        for file in files:
            try:
                found = self._again(file.path, position)
            except OSError as error:
                unreadable = unreadable if self.seen.was_unreadable(file) else error
                continue
            if found is not None:
                return found
        if unreadable is not None:
            raise unreadable
        return None

    def place_of(self, current: Generation) -> int | None:
        """The place of the current file among the rotated files, perhaps compressed; None if it is not there."""
        listed = self.rotated()
        for place, file in enumerate(listed):
            if file.identity == current.identity:
                return place
        if current.file.status().st_nlink:
            return None  # it is still there, under a name of its own
        content = current.position().content
        for place, file in enumerate(listed):
            with suppress(OSError):
                if file.is_compressed and self._holds_just(file, content):
                    return place
        return None

    @staticmethod
    def _holds_just(rotated: Rotated, content: Fingerprint) -> bool:
        with closing(open_file(rotated.path)) as file:
            return file.holds_just(content)

    def unread(self, listed: Sequence[Rotated]) -> list[Rotated]:
        """The rotated files after the last one that has been read to its end, without those that are known.

        Raises:
            OSError: one of them cannot be read.
        """
        unread: list[Rotated] = []
        problems: dict[Rotated, OSError] = {}
        for file in listed:
            try:
                known = self._find_seen(file)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    continue
                if error.errno != errno.EBADMSG:  # what is damaged is read as far as it can be
                    problems[file] = error
                known = None
            if known is None:
                now = file if file.size else look_at_file(file.path)
                unread += [now] if now is not None and now.size else []
            elif known.is_finished and unread:
                self._pass_over(unread, file)
                unread.clear()
        if problem := next((problems[file] for file in unread if file in problems), None):
            raise problem
        return unread

    def observe(self, current: Generation) -> None:
        """Remember the files beside the path while the path holds the newest file: none of them is still to come."""
        listed = self.rotated()
        if listed is self._observed:
            return
        found = []
        for file in listed:
            try:
                known = self._find_seen(file) is not None
            except OSError:
                known = self.seen.has_place(file)
            if not known:
                found.append(file)
        at_path, _ = self.at_path()
        if at_path is not None and at_path.identity == current.identity and current.is_intact():
            for file in found:
                self.seen.add(not_ours(file))
            self._observed = listed

    def begins_like(self, content: Fingerprint) -> bool:
        """Whether the file at the path begins with the same bytes, but goes on differently."""
        with suppress(OSError), closing(PlainFile(self.path)) as file:
            return crc32(file.read_at(0, min(EDGE, content.size))) == content.head
        return False

    def tell_late(self, path: Path, seen: SeenFile, late: int) -> None:
        """Report bytes that were added to a file after it had been read to its end."""
        if not self._tells_late:
            return
        self._losses.lose(
            late,
            f"{shown(path)}: {late:,} bytes were added after byte {seen.content.size:,} when the file had been read to"
            " its end and the next one begun; they are lost",
        )

    def _find_seen(self, file: Rotated) -> SeenFile | None:
        known = self.seen.find(file)
        if known is not None and known.late:
            self.tell_late(file.path, known.file, known.late)
        return known.file if known is not None else None

    def _pass_over(self, files: Sequence[Rotated], read: Rotated) -> None:
        """Leave out files whose names say that they are older than one that has been read."""
        for file in files:
            self._losses.warn(
                f"{shown(file.path)} ({file.size:,} bytes) is not read: by its name it is older than"
                f" {shown(read.path)}, which has been read"
            )
            self.seen.add(not_ours(file))

    def _again(self, path: Path, position: Position) -> Generation | None:
        """The file at a path, read on from the position if that is in it.

        Raises:
            OSError: it cannot be read.
        """
        try:
            return found_again(self.open(path), position)
        except OSError as error:
            if error.errno not in {errno.ENOENT, errno.EBADMSG}:
                raise
        return None

    def _directory_stamps(self) -> dict[Path, int] | None:
        """When each directory with rotated files was changed; None if that cannot be relied on."""
        if self._rotated is not None and has_magic(str(Path(self._rotated).parent)):
            return None
        with suppress(OSError):
            return {path: path.stat().st_mtime_ns for path in directories_of(self.path, self._rotated)}
        return None
