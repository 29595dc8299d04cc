"""Where log records go: a file, or standard error."""

import errno
import io
import os
import stat
import sys
import threading
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from anyio.to_thread import run_sync

from peerwatch.connectors.descriptors import descriptor_of, name_of
from peerwatch.errors import UsageError
from peerwatch.readable import shown, why_unwritable


class LogTarget:
    """Owns the open file and every write to it.

    A log that cannot be written stops nothing: that is told once, and the records that are lost are counted.
    """

    def __init__(self, file: Any, name: str, warn: Callable[[str], None], path: Path | None = None) -> None:
        """An unbuffered binary `file` called `name`, at `path` if it can be rotated; `warn` is told of what fails."""
        self._file = file
        self._path = path
        self._name = name
        self._warn = warn
        self._torn = False
        """Whether a part of a record stands at the end."""
        self._lock = threading.Lock()
        self.is_terminal: bool = file.isatty()
        self.lost = 0
        """Records that could not be written."""

    def has_colors(self) -> bool:
        """Whether colours are wanted there: https://no-color.org, https://force-color.org."""
        if os.environ.get("NO_COLOR"):
            return False
        return self.is_terminal or (self._name == name_of(2) and bool(os.environ.get("FORCE_COLOR")))

    def msg(self, line: str | bytes) -> None:
        """Write one record."""
        with self._lock:
            rest = memoryview(
                b"\n" * self._torn + (line.encode(errors="backslashreplace") if isinstance(line, str) else line) + b"\n"
            )
            whole = len(rest)
            try:
                while rest:
                    written = self._file.write(rest)
                    if written is None:
                        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
                    rest = rest[written:]
                self._torn = False
            except OSError as error:
                self._torn = self._torn or len(rest) < whole
                self.lost += 1
                if self.lost == 1:
                    why = error.strerror or str(error)
                    self._warn(f"cannot write the log {self._name}: {why}; the run goes on, and records are lost")

    debug = info = warning = error = msg

    def look(self) -> None:
        """See whether somebody has moved the log file away; then begin a new one."""
        if self._path is None:
            return
        with self._lock, suppress(OSError):  # where no new one can be made the old one goes on
            try:
                at_path, status = self._path.stat(), os.fstat(self._file.fileno())
                if (at_path.st_dev, at_path.st_ino) == (status.st_dev, status.st_ino):
                    return
            except FileNotFoundError:
                pass
            moved, self._file = self._file, io.FileIO(self._path, "ab")
            moved.close()
            self._torn = False

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def tell_lost(self) -> None:
        """Tell how many records were lost, if any were."""
        if self.lost:
            records = "1 record was lost" if self.lost == 1 else f"{self.lost:,} records were lost"
            self._warn(f"the log {self._name} could not be written: {records}")


def standard_error(warn: Callable[[str], None] = lambda _: None) -> LogTarget:
    """The log on standard error; what fails there can usually be told nowhere."""
    stream = sys.stderr.buffer
    return LogTarget(getattr(stream, "raw", stream), name_of(2), warn)


def open_log_target(path: str | None, stack: AsyncExitStack, warn: Callable[[str], None]) -> LogTarget:
    """The log at `path`, standard error without one; it is appended to and closed with the stack.

    Raises:
        UsageError: it cannot be written.
    """
    if path is None:
        return standard_error(warn)
    given = descriptor_of(path, 1)
    name = name_of(given) if given is not None else shown(path)
    if given is None and not Path(path).exists():
        stack.push_async_exit(partial(_forget, Path(path)))
    try:
        file = io.FileIO(path if given is None else given, "ab", closefd=given is None)
    except OSError as error:
        raise UsageError(f"cannot write the log file {name}: {why_unwritable(Path(path), error)}") from None
    is_regular = given is None and stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    log = LogTarget(file, name, warn, Path(path) if is_regular else None)
    stack.callback(log.close)
    stack.push_async_callback(run_sync, log.tell_lost)
    return log


async def _forget(path: Path, _: object, error: BaseException | None, __: object) -> None:
    """A usage error leaves nothing behind, no empty log file either."""
    if isinstance(error, UsageError):
        await anyio.Path(path).unlink(missing_ok=True)
