"""Reports rejected lines on standard error, for a run without a rejects file."""

from contextlib import AsyncExitStack
from typing import Final

from anyio.to_thread import run_sync

from peerwatch.connectors.output_file import Written
from peerwatch.network.rejects import decode_reject
from peerwatch.progress import Progress

TOLD: Final = 3
"""Rejected lines that are reported one by one."""


class UnkeptRejects:
    """A sink that reports the first rejected lines with their place and reason, then their number. It stores none."""

    def __init__(self, console: Progress, *, strict: bool) -> None:
        """Report to `console`. A `strict` run ends with the first rejected line and reports it itself."""
        self._console = console
        self._strict = strict
        self._count = 0
        self._told = 0

    async def open(self, stack: AsyncExitStack) -> None:
        """Report the number of rejected lines when the stack closes."""
        stack.push_async_callback(run_sync, self._tell_number)

    async def start(self, written: Written | None = None, *, force: bool = False) -> None:  # noqa: ARG002
        """Restart the count. Lines that have been reported are not reported again."""
        self._count = 0

    async def look(self) -> None:
        """Do nothing: there is no file."""

    async def write(self, data: bytes) -> None:
        """Count records, and report the first ones."""
        await run_sync(self._take, data)

    async def sync(self) -> Written:
        """Do nothing."""
        return Written()

    async def written(self) -> Written:
        """Return an empty position."""
        return Written()

    def _take(self, data: bytes) -> None:
        for record in data.splitlines():
            self._count += 1
            if self._told < min(self._count, TOLD) and not self._strict:
                rejected = decode_reject(record)
                self._told += 1
                self._console.urgent(f"{rejected.file}:{rejected.line}: rejected: {rejected.reason.splitlines()[0]}")

    def _tell_number(self) -> None:
        if self._count and not self._strict:
            lines = "1 line was rejected and is" if self._count == 1 else f"{self._count:,} lines were rejected and are"
            self._console.urgent(f"{lines} not kept in a file; --rejects FILE keeps them")
