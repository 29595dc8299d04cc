"""The files that stand at a path and beside it, looked at as often as they may have changed and no more often."""

import time
from collections.abc import Callable
from contextlib import suppress
from glob import has_magic
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import NamedTuple

from peerwatch.runtime.generation import TICK_SECONDS
from peerwatch.runtime.names import shown
from peerwatch.runtime.rotated import Rotated, directories_of, look_at_file, rotated_files
from peerwatch.runtime.stored_file import PlainFile, StoredFile, open_file


class AtPath(NamedTuple):
    """What stands at the path: a file, or what is in its way, or nothing."""

    file: Rotated | None = None
    problem: str | None = None


class LogFiles:
    """The files of a log: the one at its path, and the rotated ones.

    Those lie beside it under the usual names, or are found by the glob `rotated`.
    """

    def __init__(self, path: Path, rotated: str | None = None, now: Callable[[], float] = time.time) -> None:
        self.path = path
        self._rotated = rotated
        self._now = now
        self._listed: list[Rotated] = []
        self._stamps: dict[Path, int] | None = None

    def at_path(self) -> AtPath:
        """What stands at the path now."""
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
        """One of the files; what stands at the path itself is never taken for compressed.

        Raises:
            OSError: it cannot be opened.
        """
        return PlainFile(path) if path == self.path else open_file(path)

    def _directory_stamps(self) -> dict[Path, int] | None:
        """When each directory with rotated files was changed; None if that does not tell."""
        if self._rotated is not None and has_magic(str(Path(self._rotated).parent)):
            return None
        with suppress(OSError):
            return {path: path.stat().st_mtime_ns for path in directories_of(self.path, self._rotated)}
        return None
