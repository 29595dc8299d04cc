"""Submitted events: appended durably to the log that the run follows, and awaited until they are judged."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import anyio
from anyio.to_thread import run_sync

from peerwatch.connectors.records import DecisionRow
from peerwatch.network.events import Event, Kind
from peerwatch.network.statistics import decimal
from peerwatch.readable import shown
from peerwatch.replay.requeue import append_lines, opened_log

CHUNK: Final = 1 << 20
KNOWN: Final = 64
"""So many bytes before a place in the log show whether it still is what it was."""


class Counted(NamedTuple):
    """A place in a log, the number of line feeds before it, and what identifies the log."""

    place: int
    feeds: int
    inode: int
    before: bytes


class Submission:
    """Some events in the log, and the decisions on those that are purchases, as they come."""

    def __init__(self, first: int, events: Sequence[Event]) -> None:
        """`first` is the number of the line that has the first event."""
        self.first = first
        self.decisions: dict[int, DecisionRow] = {}
        """By the place of the event."""
        self._events = events
        self._left = sum(event.kind is Kind.PURCHASE for event in events)
        self._complete = anyio.Event()
        if not self._left:
            self._complete.set()

    def hear(self, row: DecisionRow) -> None:
        """Take a decision, if it is on one of the events; after a rotation another line may have the same number."""
        place = row.line - self.first
        if not 0 <= place < len(self._events) or place in self.decisions:
            return
        event = self._events[place]
        if event.kind is Kind.PURCHASE and _is_on(row, event):
            self.decisions[place] = row
            self._left -= 1
            if not self._left:
                self._complete.set()

    def end(self) -> None:
        """No more decisions come."""
        self._complete.set()

    async def wait(self) -> bool:
        """Wait until there are decisions on all purchases; False if that is not to be."""
        await self._complete.wait()
        return not self._left


class Submissions:
    """Appends events to a log, and knows who waits for decisions on them."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._turn = anyio.Lock()
        self._waiting: set[Submission] = set()
        self._early: list[DecisionRow] | None = None
        """The decisions since an append began, until the numbers of its lines are known."""
        self._counted = Counted(0, 0, 0, b"")
        self._ended = False

    def hear(self, rows: Iterable[DecisionRow]) -> None:
        """Purchases have been judged, and the decisions on them written."""
        if self._early is not None:
            self._early += rows
        for submission in self._waiting:
            for row in rows:
                submission.hear(row)

    def end(self) -> None:
        """Have nobody wait any longer."""
        self._ended = True
        for submission in self._waiting:
            submission.end()

    async def submit(self, lines: Sequence[bytes], events: Sequence[Event]) -> Submission:
        """Append lines with these events. They are on the disk then; `done` must be called in the end.

        Raises:
            UsageError: the log cannot be opened, or ends within a line; nothing has been appended.
            RunError: it cannot be written.
        """
        async with self._turn:
            self._early = []
            try:
                submission = Submission(await run_sync(self._append, lines), events)
                for row in self._early:
                    submission.hear(row)
            finally:
                self._early = None
        self._waiting.add(submission)
        if self._ended:
            submission.end()
        return submission

    def done(self, submission: Submission) -> None:
        """Nobody waits for this any longer."""
        self._waiting.discard(submission)

    def _append(self, lines: Sequence[bytes]) -> int:
        """Append; returns the number of the first line."""
        with opened_log(self._log) as descriptor:  # the same file is counted, whatever the path names by then
            begin = append_lines(lines, descriptor, shown(self._log))
            inode = os.fstat(descriptor).st_ino
            place, feeds, known, before = self._counted
            if (known, before) != (inode, _before(descriptor, place)) or place > begin:
                place, feeds = 0, 0
            while place < begin:
                chunk = os.pread(descriptor, min(CHUNK, begin - place), place)
                if not chunk:
                    break
                place, feeds = place + len(chunk), feeds + chunk.count(b"\n")
            self._counted = Counted(place, feeds, inode, _before(descriptor, place))
        return feeds + 1


def _is_on(row: DecisionRow, event: Event) -> bool:
    return (event.user.decode(), event.timestamp, decimal(event.amount)) == (row.user, row.timestamp, row.amount)


def _before(descriptor: int, place: int) -> bytes:
    begin = max(0, place - KNOWN)
    return os.pread(descriptor, place - begin, begin)
