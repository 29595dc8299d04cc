"""The files that results are written to."""

import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiofiles
import anyio
import msgspec
from anyio.to_thread import run_sync

from peerwatch.detectors.verdicts import decode_entry
from peerwatch.network.errors import BadEvent, SinkError, UsageError
from peerwatch.network.events import parse_object
from peerwatch.network.rejects import decode_reject
from peerwatch.runtime.descriptors import descriptor_of, name_of
from peerwatch.runtime.durable import fsync, truncate
from peerwatch.runtime.names import shown, why_unwritable
from peerwatch.runtime.unkept import UnkeptRejects

LONGEST_LINE: Final = 1 << 20
"""Bytes of an old output's first line that are looked at."""


class FileSink:
    """One output file, locked against a second writer; `-` is standard output, and /dev/fd/N what it is.

    Nothing that is in the file is touched before `start`.
    """

    def __init__(self, path: str) -> None:
        self._given = descriptor_of(path, 1)
        """The descriptor that the process was given to write to, None for a file of its own."""
        self.name = name_of(self._given) if self._given is not None else shown(path)
        self._path = path
        self._file: Any = None
        self._started = False
        self._regular = False

    async def open(self, stack: AsyncExitStack) -> None:
        """Open and lock the file; it is closed with the stack. If `start` never comes, a file made here goes again.

        Raises:
            UsageError: it cannot be written, or another process is writing it.
        """
        descriptor = self._given if self._given is not None else await run_sync(self._open, stack)
        self._file = await stack.enter_async_context(
            aiofiles.open(descriptor, "wb", buffering=0, closefd=self._given is None)
        )

    async def check_own(self, is_own: Callable[[bytes], bool]) -> None:
        """See that what is in the file is no loss: white space, or lines like those that are to be written.

        Raises:
            UsageError: the first line is none of peerwatch's.
        """
        if self._regular and not is_own(await run_sync(self._first_line)):
            raise UsageError(
                f"{self.name} holds something that peerwatch has not written; name another file, or add --force"
            )

    def _first_line(self) -> bytes:
        """The first line that is not blank, as far as is looked; nothing if there is none."""
        with Path(self._path).open("rb") as file:
            head = file.read(LONGEST_LINE)
        begun = head.lstrip()
        return begun.partition(b"\n")[0] if begun or len(head) < LONGEST_LINE else head

    async def has_more(self, length: int) -> bool:
        """Whether there is something behind `length` bytes, which somebody may have read."""
        return self._regular and (await anyio.Path(self._path).stat()).st_size > length

    async def start(self, length: int = 0) -> None:
        """Cut the file to `length` bytes and go on behind them: the run begins there.

        Raises:
            UsageError: the file is shorter than that.
        """
        if self._regular:
            await run_sync(self._cut, length)
        self._started = True

    async def write(self, data: bytes) -> None:
        """Append all of `data`.

        Raises:
            SinkError: it could not be written.
        """
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[await self._file.write(rest) :]
        except BrokenPipeError:
            raise SinkError(f"cannot write {self.name}: its reader has gone") from None
        except OSError as error:
            raise SinkError(f"cannot write {self.name}: {error.strerror}; mend that and run again") from None

    async def sync(self) -> int:
        """Make everything written so far survive a power failure; returns the file's length in bytes.

        Raises:
            SinkError: it could not be done.
        """
        if not self._regular:
            return 0
        try:
            return await run_sync(self._sync)
        except OSError as error:
            raise SinkError(f"cannot write {self.name}: {error.strerror}; mend that and run again") from None

    def _sync(self) -> int:
        fsync(self._file.fileno())
        return os.lseek(self._file.fileno(), 0, os.SEEK_CUR)

    def _open(self, stack: AsyncExitStack) -> int:
        path = Path(self._path)
        try:
            existed, made = path.exists(), path.resolve()
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UsageError(f"cannot write {self.name}: {why_unwritable(path, error)}") from None
        if not existed:
            stack.push_async_callback(run_sync, self._remove_unstarted, made)
        self._regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
        if self._regular:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                raise UsageError(f"{self.name} is being written by another peerwatch; name another file") from None
        return descriptor

    def _cut(self, length: int) -> None:
        size = os.fstat(self._file.fileno()).st_size
        if size < length:
            raise UsageError(
                f"{self.name} has {size} bytes, but the checkpoint was taken behind byte {length}; bring the file back,"
                " or begin anew with --reset"
            )
        truncate(self._file.fileno(), length)
        os.lseek(self._file.fileno(), length, os.SEEK_SET)

    def _remove_unstarted(self, made: Path) -> None:
        if not self._started:
            made.unlink(missing_ok=True)


class Sinks(NamedTuple):
    """The files of one run."""

    flagged: FileSink
    rejects: FileSink | UnkeptRejects
    ledger: FileSink | None


def is_flagged_line(line: bytes) -> bool:
    """Whether a line is one that flagged purchases are written as; an empty file is as good."""
    try:
        return not line or {"event_type", "mean", "sd"} <= parse_object(line.rstrip(b"\n")).keys()
    except BadEvent:
        return False


def is_reject_line(line: bytes) -> bool:
    """Whether a line is a rejected line's record; an empty file is as good."""
    try:
        return not line or bool(decode_reject(line))
    except BadEvent:
        return False


def is_ledger_line(line: bytes) -> bool:
    """Whether a line is a ledger's entry; an empty file is as good."""
    try:
        return not line or bool(decode_entry(line))
    except msgspec.MsgspecError:
        return False
