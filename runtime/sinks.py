"""The files that results are written to."""

import fcntl
import os
import stat
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiofiles
from anyio.to_thread import run_sync

from peerwatch.network.errors import SinkError, UsageError


class FileSink:
    """One output file, locked against a second writer; `-` is standard output.

    Nothing that is in the file is touched before `start`.
    """

    def __init__(self, path: str) -> None:
        self.name = "standard output" if path == "-" else path
        self._path = path
        self._file: Any = None
        self._started = False

    async def open(self, stack: AsyncExitStack) -> None:
        """Open and lock the file; it is closed with the stack. If `start` never comes, a file made here goes again.

        Raises:
            UsageError: it cannot be written, or another process is writing it.
        """
        descriptor = 1 if self._path == "-" else await run_sync(self._open, stack)
        self._file = await stack.enter_async_context(
            aiofiles.open(descriptor, "wb", buffering=0, closefd=self._path != "-")
        )

    async def start(self) -> None:
        """Empty the file: the run begins."""
        self._started = True
        if self._path != "-":
            await run_sync(self._empty)

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

    def _open(self, stack: AsyncExitStack) -> int:
        path = Path(self._path)
        existed = path.exists()
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UsageError(f"cannot write {self.name}: {_advice(path, error)}") from None
        if not existed:
            stack.push_async_callback(run_sync, self._remove_unstarted)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                raise UsageError(f"{self.name} is being written by another peerwatch; name another file") from None
        return descriptor

    def _empty(self) -> None:
        if stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            os.ftruncate(self._file.fileno(), 0)

    def _remove_unstarted(self) -> None:
        if not self._started:
            Path(self._path).unlink(missing_ok=True)


def _advice(path: Path, error: OSError) -> str:
    if path.is_dir():
        return "it is a directory; name a file in it"
    if not path.parent.exists():
        return f"the directory {path.parent} does not exist; create it first"
    return error.strerror or str(error)
