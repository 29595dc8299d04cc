"""The output file as a sink; standard output and devices as well."""

import os
import stat
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import aiofiles
import msgspec
from anyio.to_thread import run_sync

from peerwatch.connectors.records import Record, encoded
from peerwatch.errors import SinkError, UsageError
from peerwatch.files.descriptors import descriptor_of, name_of
from peerwatch.files.output_file import LONGEST_LINE, OutputFile, Written, open_output
from peerwatch.readable import shown, why_unwritable


class FileSink:
    """One output file, locked against a second writer; `-` is standard output, and /dev/fd/N what it is.

    Nothing that is in the file is touched before `start`.
    """

    def __init__(
        self,
        path: str,
        warn: Callable[[str], None] = lambda _: None,
        *,
        is_own: Callable[[bytes], bool] = lambda _: True,
        is_provisional: Callable[[bytes], bool] = lambda _: False,
    ) -> None:
        """`is_own` says whether the first line of a file that is there is one of peerwatch's."""
        self._given = descriptor_of(path, 1)
        """The descriptor that the process was given to write to, None for a file of its own."""
        self.name = name_of(self._given) if self._given is not None else shown(path)
        self._path = path
        self._warn = warn
        self._is_own = is_own
        self._is_provisional = is_provisional
        self._stream: Any = None
        self._file: OutputFile | None = None
        self._started = False

    async def open(self, stack: AsyncExitStack) -> None:
        """Open and lock the file; it is closed with the stack. If `start` never comes, a file made here goes again.

        Raises:
            UsageError: it cannot be written, or another process is writing it.
        """
        descriptor = self._given if self._given is not None else await run_sync(self._open, stack)
        if self._given is None and stat.S_ISREG(os.fstat(descriptor).st_mode):
            self._file = OutputFile(Path(self._path), descriptor, self._warn, self._is_provisional)
            stack.callback(self._file.close)
        else:
            self._stream = await stack.enter_async_context(
                aiofiles.open(descriptor, "wb", buffering=0, closefd=self._given is None)
            )

    async def check_new(self) -> None:
        """See that what is in the file is no loss: white space, or lines like those that are to be written.

        Raises:
            UsageError: the first line is none of peerwatch's.
        """
        if self._file is not None and not self._is_own(await run_sync(self._first_line)):
            raise UsageError(
                f"{self.name} holds something that peerwatch has not written; name another file, or add --force"
            )

    def _first_line(self) -> bytes:
        """The first line that is not blank, as far as is looked; nothing if there is none."""
        with Path(self._path).open("rb") as file:
            head = file.read(LONGEST_LINE)
        begun = head.lstrip()
        return begun.partition(b"\n")[0] if begun or len(head) < LONGEST_LINE else head

    async def has_more(self, mark: Any) -> bool:
        """Whether there is something behind what had been written, which somebody may have read."""
        return self._file is not None and await run_sync(self._file.has_more, msgspec.convert(mark, Written))

    async def start(self, mark: Any = None, *, force: bool = False) -> None:
        """Go on behind what had been written at a checkpoint, or begin anew.

        Raises:
            UsageError: what had been written is not there. With `force` a new file is begun then.
        """
        if self._file is not None:
            written = msgspec.convert(mark, Written | None)
            await run_sync(partial(self._file.begin, written, force=force))
        self._started = True

    async def write(self, records: Sequence[Record]) -> None:
        """Append records, each a line.

        Raises:
            SinkError: they could not be written.
        """
        data = encoded(records)
        try:
            if self._file is not None:
                await run_sync(self._file.write, data)
                return
            rest = memoryview(data)
            while rest:
                rest = rest[await self._stream.write(rest) :]
        except BrokenPipeError:
            raise SinkError(f"cannot write {self.name}: its reader has gone") from None
        except OSError as error:
            raise self._failed(error) from None

    async def look(self) -> None:
        """See whether somebody has moved the file away, deleted or emptied it.

        Raises:
            SinkError: it is gone, and no new one can be made.
        """
        if self._file is not None and self._started:
            try:
                await run_sync(self._file.look)
            except OSError as error:
                raise self._failed(error) from None

    async def sync(self) -> Written:
        """Make everything written so far survive a power failure; returns how far that is.

        Raises:
            SinkError: it could not be done.
        """
        if self._file is None:
            return Written()
        try:
            return await run_sync(self._file.sync)
        except OSError as error:
            raise self._failed(error) from None

    async def finish(self) -> None:
        """A file is complete at any time."""

    def _failed(self, error: OSError) -> SinkError:
        return SinkError(f"cannot write {self.name}: {error.strerror}; fix that and run again")

    def _open(self, stack: AsyncExitStack) -> int:
        path = Path(self._path)
        try:
            existed, made = path.exists(), path.resolve()
            descriptor = open_output(path)
        except BlockingIOError:
            raise UsageError(f"{self.name} is being written by another peerwatch; name another file") from None
        except OSError as error:
            raise UsageError(f"cannot write {self.name}: {why_unwritable(path, error)}") from None
        if not existed:
            stack.push_async_callback(run_sync, self._remove_unstarted, made)
        return descriptor

    def _remove_unstarted(self, made: Path) -> None:
        if not self._started:
            made.unlink(missing_ok=True)
