"""Log text to columns, at machine speed for ordinary lines, by `parse_event` for every other.

Whatever the kernel `network.scanner.scan` does not recognise, be it unusual or wrong, it leaves to
`network.events.parse_event`, which alone decides what is rejected and why.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from peerwatch.amounts import LARGEST_AMOUNT, Amounts
from peerwatch.errors import BadEvent
from peerwatch.kernels import Int8s, Int32s, Int64s
from peerwatch.network.events import CANONICAL, FieldNames, Kind, begin_of_line, parse_event
from peerwatch.network.interner import Interner
from peerwatch.network.scanner import ROW, SCRATCH, UNREAD, scan

LINE_FEED: Final = 10
SMALLEST_HOLE: Final = 4
"""NUL bytes that are surely a hole: fewer stand before every line of UTF-16 and UTF-32, and those are rejected."""


class Events(msgspec.Struct, frozen=True):
    """Columns of n events in log order; all arrays have shape [n].

    `kind` a `Kind`; `user`, `friend` dense integers (`friend` means nothing for a purchase); `amount` millionths;
    `timestamp` microseconds; `start`, `end` the line's bytes in the decoded text, without its line feed; `line` its
    number in the file, from 1.
    """

    kind: Int8s
    user: Int32s
    friend: Int32s
    amount: Amounts
    timestamp: Int64s
    start: Int64s
    end: Int64s
    line: Int64s

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, which: slice | Int64s | np.ndarray[tuple[int], np.dtype[np.bool_]]) -> "Events":
        return Events(*(getattr(self, name)[which] for name in self.__struct_fields__))


class Rejected(NamedTuple):
    """A line that is not an event: its number from 1, its first byte's place in the decoded text, why, and itself."""

    line: int
    start: int
    reason: str
    raw: bytes


class Hole(NamedTuple):
    """NUL bytes that a truncation left at the start of a line: the line's number from 1, and how many there are."""

    line: int
    size: int


class Decoded(NamedTuple):
    """What a text holds: its events, its rejected lines and its holes, all in order."""

    events: Events
    rejected: list[Rejected]
    holes: Sequence[Hole] = ()


def line_feeds(content: bytes) -> int:
    """The number of line feeds in `content`; several times quicker than bytes.count."""
    return int(np.count_nonzero(np.frombuffer(content, np.uint8) == LINE_FEED))


class Decoder:
    """Reads log text; owns the ids' dense integers."""

    def __init__(
        self,
        named: Sequence[bytes] = (),
        interner: Interner | None = None,
        large: int = 0,
        unseen: Sequence[int] = (),
    ) -> None:
        """Go on with the ids known and behind `large` names of large amounts.

        `named` users are recognised, `unseen` ones do not exist yet.
        """
        self.interner = interner or Interner()
        self._large = large
        known = len(self.interner)
        self.named: Int32s = np.array([self.interner.intern(user) for user in named], np.int32)
        """The dense integers of users that the caller wants to recognise."""
        self.unseen = {*unseen, *(user for user in self.named.tolist() if user >= known)}
        """Named users that no event has named yet."""

    @property
    def users(self) -> int:
        """The number of users that exist; a user exists from the first event that names it."""
        return len(self.interner) - len(self.unseen)

    def decode(self, content: bytes, first_line: int, names: FieldNames = CANONICAL) -> Decoded:
        """Read `content`: whole lines, of which only the last may lack its line feed, the first of them `first_line`.

        Fields with other `names` are read by `parse_event` alone, which is much slower than the kernel.

        A rejected line leaves no trace in the state. A hole or a byte-order mark before a line is no part of it.
        """
        room = line_feeds(content) + 1
        interner = self.interner
        interner.reserve(0, len(content))
        kind, ids, rest = np.zeros(room, np.int8), np.zeros((2, room), np.int32), np.zeros((5, room), np.int64)
        large: dict[int, int] = {}
        events = Events(kind, ids[0], ids[1], Amounts(rest[0], large), rest[1], rest[2], rest[3], rest[4])
        progress, scratch = np.array([0, 0, first_line], np.int64), np.full(SCRATCH, -1, np.int64)
        if names != CANONICAL:
            progress[ROW] = _mark_unread(content, first_line, events)
        while names == CANONICAL and scan(
            np.frombuffer(content, np.uint8), events.kind, events.user, events.friend, rest[0], events.timestamp,
            events.start, events.end, events.line,
            interner.arena, interner.ends, interner.slots, interner.tally, progress, scratch,
        ):  # fmt: skip
            interner.reserve(max(len(interner), 64), 0)
        kept = int(progress[ROW])
        events = events[:kept]
        unread = np.flatnonzero(events.kind == UNREAD)
        rejected: list[Rejected] = []
        holes: list[Hole] = []
        for place in unread.tolist():
            before, line = int(events.start[place]), int(events.line[place])
            bad = self._read(content, events, place, large, names)
            if bad is not None:
                rejected.append(bad)
            nuls = content.count(b"\0", before, int(events.start[place]))
            if nuls >= (1 if bad is None else SMALLEST_HOLE):
                holes.append(Hole(line, nuls))
        if (events.kind[unread] == UNREAD).any():
            events = events[events.kind != UNREAD]
        if self.unseen:
            befriended = events.friend[events.kind != Kind.PURCHASE]
            self.unseen -= {*events.user.tolist(), *befriended.tolist()}
        return Decoded(events, rejected, holes)

    def _read(
        self, content: bytes, events: Events, place: int, large: dict[int, int], names: FieldNames
    ) -> Rejected | None:
        """Read what the kernel has left, from where the line really begins; a blank line stays unread."""
        before, end = int(events.start[place]), int(events.end[place])
        start = events.start[place] = begin_of_line(content, before, end)
        raw = content[start:end]
        if start > before and not raw.strip(b" \t\r"):
            return None
        try:
            event = parse_event(raw.removesuffix(b"\r"), names)
        except BadEvent as error:
            return Rejected(int(events.line[place]), start, str(error), raw)
        events.kind[place] = event.kind
        events.timestamp[place] = event.timestamp
        events.user[place] = self.interner.intern(event.user)
        if event.kind is not Kind.PURCHASE:
            events.friend[place] = self.interner.intern(event.friend)
        elif event.amount < LARGEST_AMOUNT:
            events.amount.held[place] = event.amount
        else:
            self._large += 1
            large[-self._large] = event.amount
            events.amount.held[place] = -self._large
        return None


def _mark_unread(content: bytes, first_line: int, events: Events) -> int:
    """Leave every line that is not blank to `parse_event`; returns the number of these lines."""
    start, rows = 0, 0
    for number, line in enumerate(content.split(b"\n"), first_line):
        if line.strip(b" \t\r"):
            events.kind[rows] = UNREAD
            events.start[rows], events.end[rows], events.line[rows] = start, start + len(line), number
            rows += 1
        start += len(line) + 1
    return rows
