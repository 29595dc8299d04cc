"""The latest purchases of all users in order of time, whatever order they came in."""

from collections.abc import Mapping
from math import isqrt
from typing import Final, NamedTuple

import numpy as np

from peerwatch.amounts import Amounts, LargeAmounts
from peerwatch.kernels import Int32s, Int64s, grown, kernel

RECENT: Final = 1 << 16
"""Purchases a timeline holds at least once it is full, among however many users: a scan further back never pays."""
SHORTEST: Final = 64
REACH: Final = 4
"""A scan that pays ends within a few times the root of T * users; a timeline is that many times as long."""
ROOM: Final = 4
"""Times as many purchases there is memory for: making room, which takes as long as what stays, is then seldom."""
SEQ, USER, TIMESTAMP, AMOUNT, REMEMBERED = range(5)
"""Columns of a purchase."""
ORDERED, LATE, END, FORGOTTEN, TALLY = range(5)
"""Places in the tally.

Purchases in order; late ones, which lie behind their memory; where that ends; whether any is gone that could be in a
window.
"""


class TimelineContents(NamedTuple):
    """All that a timeline holds: how many purchases it is for, its memory and tally, and large amounts by name."""

    length: int
    rows: Int64s
    tally: Int64s
    large: Mapping[int, int]


class Timeline:
    """The latest purchases by (timestamp, sequence number); no more than T of each user are sure to be kept.

    Most purchases come in order of time and are put behind all others. Late ones are held apart, in order as well,
    until there are so many (about the root of all) that moving the others to let them in costs little for each. When
    the memory is full the newest stay, without what is behind T others of the same user.
    """

    def __init__(self, T: int, most: int = RECENT) -> None:
        """For windows of T purchases; once it is full, `most` are held, or fewer among few users."""
        self.T, self._most, self._length = T, most, 0
        self.rows: Int64s = np.zeros(0, np.int64)
        self.counts: Int32s = np.zeros(0, np.int32)
        """A 0 for each user: memory in which purchases are counted."""
        self.tally: Int64s = np.zeros(TALLY, np.int64)
        self.large = LargeAmounts()
        self.reserve(0)

    def reserve(self, users: int) -> None:
        """Make room for the users 0 to `users` - 1."""
        self.counts = grown(self.counts, users)
        wanted = max(SHORTEST, REACH * isqrt(self.T * users))
        length = min(self._most, 1 << (wanted - 1).bit_length())
        if length > self._length:
            ordered, late = self._parts()
            self._length = length
            self.tally[END] = ROOM * length
            self.rows = np.zeros(REMEMBERED * (ROOM * length + isqrt(2 * ROOM * length)), np.int64)
            for part, rows in zip(self._parts(), (ordered, late), strict=True):
                part[:] = rows

    def _parts(self) -> tuple[Int64s, Int64s]:
        """The purchases in order, and the late ones."""
        ordered, late, end = self.tally[[ORDERED, LATE, END]].tolist()
        return self.rows[: REMEMBERED * ordered], self.rows[REMEMBERED * end : REMEMBERED * (end + late)]

    def remember(self, seq: Int64s, user: Int32s, timestamp: Int64s, amount: Amounts) -> None:
        """Start anew with purchases that were made before, in any order."""
        chosen, most = np.arange(len(seq)), int(self.tally[END])
        if len(seq) > most:
            chosen = np.flatnonzero(timestamp >= np.partition(timestamp, -most)[-most])
            self.tally[FORGOTTEN] = 1
        chosen = chosen[np.lexsort((seq[chosen], timestamp[chosen]))]
        amount = amount[chosen]
        self.large.add(amount)
        put_all(
            seq[chosen], user[chosen], timestamp[chosen], amount.held, self.T, self.rows, self.counts, self.tally
        )  # fmt: skip

    def forget_large(self) -> None:
        """Free large amounts whose purchases are gone, if enough have come."""
        if self.large.crowded:
            self.large.keep(*(rows[AMOUNT::REMEMBERED] for rows in self._parts()))

    def contents(self) -> TimelineContents:
        """All that it holds. Copies."""
        return TimelineContents(self._length, self.rows.copy(), self.tally.copy(), {**self.large.all})

    def take_over(self, contents: TimelineContents) -> None:
        """Hold the `contents` of another one for windows of as many purchases, which are this one's own from now on."""
        self._length, self.rows, self.tally, large = contents
        self.large = LargeAmounts(large)


def is_next(timestamp: int, rows: Int64s, tally: Int64s) -> bool:
    """Whether a purchase belongs at the end, and there is room for it."""
    count = tally[ORDERED]
    is_late = count > 0 and timestamp < rows[REMEMBERED * (count - 1) + TIMESTAMP]
    return not is_late and count < tally[END]


def put_next(seq: int, user: int, timestamp: int, amount: int, rows: Int64s, tally: Int64s) -> None:
    """Append a purchase at the end; so small that the compiler inlines it in its caller's loop."""
    _write(rows, tally[ORDERED], seq, user, timestamp, amount)
    tally[ORDERED] += 1


def put(
    seq: int, user: int, timestamp: int, amount: int, T: int, rows: Int64s, counts: Int32s, tally: Int64s
) -> None:  # fmt: skip
    """Put a purchase in its place; its sequence number is above all others."""
    count, end = tally[ORDERED], tally[END]
    if count == 0 or timestamp >= rows[REMEMBERED * (count - 1) + TIMESTAMP]:
        if count == end:
            _thin(T, rows, counts, tally)
        put_next(seq, user, timestamp, amount, rows, tally)
        return
    if tally[FORGOTTEN] and timestamp < rows[TIMESTAMP]:
        return
    if REMEMBERED * (end + tally[LATE]) == len(rows):
        _merge(T, rows, counts, tally)
    place = end + tally[LATE]
    while place > end and rows[REMEMBERED * (place - 1) + TIMESTAMP] > timestamp:
        _copy(rows, place - 1, place)
        place -= 1
    _write(rows, place, seq, user, timestamp, amount)
    tally[LATE] += 1


def is_later(rows: Int64s, row: int, other: int) -> bool:
    """Whether one purchase is later than another: by timestamp, then by sequence number."""
    at, by = REMEMBERED * row, REMEMBERED * other
    if rows[at + TIMESTAMP] == rows[by + TIMESTAMP]:
        return rows[at + SEQ] > rows[by + SEQ]  # type: ignore[no-any-return]
    return rows[at + TIMESTAMP] > rows[by + TIMESTAMP]  # type: ignore[no-any-return]


def _write(rows: Int64s, row: int, seq: int, user: int, timestamp: int, amount: int) -> None:
    at = REMEMBERED * row
    rows[at + SEQ], rows[at + USER], rows[at + TIMESTAMP], rows[at + AMOUNT] = seq, user, timestamp, amount


def _copy(rows: Int64s, row: int, to: int) -> None:
    for i in range(REMEMBERED):
        rows[REMEMBERED * to + i] = rows[REMEMBERED * row + i]


def _thin(T: int, rows: Int64s, counts: Int32s, tally: Int64s) -> None:
    """Free most of the memory; at most T purchases of each user stay."""
    row = first = tally[ORDERED]
    most = tally[END] // ROOM
    while row > 0:
        row -= 1
        user = rows[REMEMBERED * row + USER]
        if counts[user] == T:
            continue
        if tally[ORDERED] - first == most:
            tally[FORGOTTEN] = 1
            break
        counts[user] += 1
        first -= 1
        _copy(rows, row, first)
    for place in range(tally[ORDERED] - first):
        counts[rows[REMEMBERED * (first + place) + USER]] = 0
        _copy(rows, first + place, place)
    tally[ORDERED] -= first


def _merge(T: int, rows: Int64s, counts: Int32s, tally: Int64s) -> None:
    """Merge the late purchases into the others, from the latest back; older ones than all others if none is gone."""
    end = oldest = tally[END]
    one = end + tally[LATE]
    if tally[ORDERED] + tally[LATE] > end:
        _thin(T, rows, counts, tally)
    while tally[FORGOTTEN] and oldest < one and is_later(rows, 0, oldest):
        oldest += 1
    row, to = tally[ORDERED], tally[ORDERED] + one - oldest
    tally[ORDERED], tally[LATE] = to, 0
    while one > oldest:
        to -= 1
        if row > 0 and is_later(rows, row - 1, one - 1):
            row -= 1
            _copy(rows, row, to)
        else:
            one -= 1
            _copy(rows, one, to)


@kernel
def put_all(
    seq: Int64s, user: Int32s, timestamp: Int64s, amount: Int64s, T: int, rows: Int64s, counts: Int32s, tally: Int64s
) -> None:  # fmt: skip
    """Put purchases in their places, in order of their timestamps."""
    for i in range(len(seq)):
        put(seq[i], user[i], timestamp[i], amount[i], T, rows, counts, tally)
