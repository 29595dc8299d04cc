"""Where log records are written: a file or standard error."""

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

from peerwatch.errors import UsageError
from peerwatch.files.descriptors import descriptor_of, name_of
from peerwatch.readable import shown, why_unwritable


class LogTarget:
    """An open log file. Every record is written through it.

    If the log cannot be written, the run goes on: there is one warning, and lost records are counted.
    """

    def __init__(self, file: Any, name: str, warn: Callable[[str], None], path: Path | None = None) -> None:
        """Wrap an unbuffered binary `file` called `name`.

        `path` is set if the file may be rotated. `warn` is called when records cannot be written.
        """
        self._file = file
        self._path = path
        self._name = name
        self._warn = warn
        self._torn = False
        """Whether the file ends with an incomplete record."""
        self._lock = threading.Lock()
        self.is_terminal: bool = file.isatty()
        self.lost = 0
        """The number of records that could not be written."""

    def has_colors(self) -> bool:
        """Whether to colour the output. See https://no-color.org and https://force-color.org."""
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
        """Reopen the log if its file has been moved away."""
        if self._path is None:
            return
        with self._lock, suppress(OSError):  # if no new file can be made, keep writing the old one
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
        """Close the file."""
        self._file.close()

    def tell_lost(self) -> None:
        """Warn about the number of lost records, if there are any."""
        if self.lost:
            records = "1 record was lost" if self.lost == 1 else f"{self.lost:,} records were lost"
            self._warn(f"the log {self._name} could not be written: {records}")


def standard_error(warn: Callable[[str], None] = lambda _: None) -> LogTarget:
    """The log on standard error. `warn` is called when records cannot be written."""
    stream = sys.stderr.buffer
    return LogTarget(getattr(stream, "raw", stream), name_of(2), warn)


def open_log_target(path: str | None, stack: AsyncExitStack, warn: Callable[[str], None]) -> LogTarget:
    """Open the log at `path` for appending, or standard error without a path. The stack closes it.

    Raises:
        UsageError: the file cannot be written.
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
    """Remove the new log file after a usage error, which must leave nothing behind."""
    if isinstance(error, UsageError):
        await anyio.Path(path).unlink(missing_ok=True)
