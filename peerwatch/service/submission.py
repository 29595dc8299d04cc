"""Submitted events: appended durably to the log that the run follows, and awaited until they are judged."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import anyio
from anyio.to_thread import run_sync

from peerwatch.connectors.records import DecisionRow
from peerwatch.replay.requeue import append_lines

CHUNK: Final = 1 << 20


class Submissions:
    """Appends lines to a log, and gives back the decisions on them."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._turn = anyio.Lock()
        self._open = 0
        self._heard: dict[int, DecisionRow] = {}
        """Decisions by line, as long as somebody waits for some."""
        self._changed = anyio.Event()
        self._counted: tuple[int, int, int] | None = None
        """The log's inode, a place in it, and the number of line feeds before it."""

    def hear(self, row: DecisionRow) -> None:
        """A purchase has been judged, and its decision written."""
        if self._open:
            self._heard[row.line] = row
            self._changed.set()
            self._changed = anyio.Event()

    async def submit(self, lines: Sequence[bytes]) -> int:
        """Append lines; returns the first one's number in the log. They are on the disk then.

        Raises:
            UsageError: the log cannot be opened, or ends within a line.
            RunError: it cannot be written.
        """
        async with self._turn:
            return await run_sync(self._append, lines)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep the decisions that are heard meanwhile."""
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
            if not self._open:
                self._heard.clear()

    async def decision(self, line: int) -> DecisionRow:
        """The decision on the purchase in a line, once it is there."""
        while line not in self._heard:
            await self._changed.wait()
        return self._heard[line]

    def _append(self, lines: Sequence[bytes]) -> int:
        begin = append_lines(lines, self._log)
        with self._log.open("rb") as file:
            inode = os.fstat(file.fileno()).st_ino
            known, place, feeds = self._counted or (inode, 0, 0)
            if known != inode or place > begin:
                place, feeds = 0, 0
            file.seek(place)
            while place < begin:
                chunk = file.read(min(CHUNK, begin - place))
                if not chunk:
                    break
                place, feeds = place + len(chunk), feeds + chunk.count(b"\n")
        self._counted = (inode, place, feeds)
        return feeds + 1
