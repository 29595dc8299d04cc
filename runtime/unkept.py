"""Reports rejected lines on standard error, for a run without a rejects file."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from anyio.to_thread import run_sync

from peerwatch.connectors.records import Record, Rejection
from peerwatch.progress import Progress

TOLD: Final = 3
"""Rejected lines that are reported one by one."""


class UnkeptRejects:
    """A sink that reports the first rejected lines with their place and reason, then their number. It stores none."""

    name = "the rejected lines"

    def __init__(self, console: Progress, *, strict: bool) -> None:
        """Report to `console`. A `strict` run ends with the first rejected line and reports it itself."""
        self._console = console
        self._strict = strict
        self._count = 0
        self._told = 0

    async def open(self, stack: AsyncExitStack) -> None:
        """Report the number of rejected lines when the stack closes."""
        stack.push_async_callback(run_sync, self._tell_number)

    async def check_new(self) -> None:
        """Nothing is kept that could be lost."""

    async def has_more(self, mark: Any) -> bool:  # noqa: ARG002
        """Nothing is kept."""
        return False

    async def start(self, mark: Any = None, *, force: bool = False) -> None:  # noqa: ARG002
        """Count anew; what has been told is not told again."""
        self._count = 0

    async def look(self) -> None:
        """Do nothing: there is no file."""

    async def write(self, records: Sequence[Record]) -> None:
        """Take some records."""
        await run_sync(self._take, records)

    async def sync(self) -> None:
        """There is nothing to do."""

    async def finish(self) -> None:
        """The number is told when the stack closes."""

    def _take(self, records: Sequence[Record]) -> None:
        for record in records:
            self._count += 1
            if isinstance(record, Rejection) and self._told < min(self._count, TOLD) and not self._strict:
                rejected = record.rejected
                self._told += 1
                self._console.urgent(f"{rejected.file}:{rejected.line}: rejected: {rejected.reason.splitlines()[0]}")

    def _tell_number(self) -> None:
        if self._count and not self._strict:
            lines = "1 line was rejected and is" if self._count == 1 else f"{self._count:,} lines were rejected and are"
            self._console.urgent(f"{lines} not kept in a file; --rejects FILE keeps them")
