"""Where a purchase history holds purchases: each user's as a stretch of one pool, and how arrivals join them."""

from typing import Final

from peerwatch.kernels import Int32s, Int64s, kernel

FIRST_ROOM: Final = 4
"""Purchases a user's stretch of the pool has room for when it is first made; it doubles up to a bit more than T."""
START, COUNT, ROOM, STRETCH = range(4)
"""Columns of a user's stretch."""
TIMESTAMP, SEQ, AMOUNT, HELD = range(4)
"""Columns of a purchase in the pool."""
USER, NEWEST, OLDER, ARRIVED = range(3, 7)
"""Further columns of an arrival: whose it is, the newest timestamp up to it, the row of the same user's before it."""
USED, ROWS, LINKED, TALLY = range(4)
"""Places in the tally: rows of the pool in use; arrivals that are remembered, those of them in their stretches."""


@kernel
def chain(arrivals: Int32s, recent: Int64s, tally: Int64s) -> None:
    """Connect the arrivals of purchases that are in their stretches already."""
    while tally[LINKED] < tally[ROWS]:
        row = tally[LINKED]
        user = recent[ARRIVED * row + USER]
        recent[ARRIVED * row + OLDER] = arrivals[user]
        arrivals[user] = row
        tally[LINKED] += 1


@kernel
def move(stretch: Int64s, pool: Int64s, into: Int64s) -> None:
    """Copy all stretches to `into`, one after the other, each with its room."""
    used = 0
    for at in range(0, len(stretch), STRETCH):
        begin = stretch[at + START]
        for i in range(HELD * stretch[at + COUNT]):
            into[HELD * used + i] = pool[HELD * begin + i]
        stretch[at + START] = used
        used += stretch[at + ROOM]


@kernel
def unpack(T: int, stretch: Int64s, pool: Int64s, seq: Int64s, timestamp: Int64s, amount: Int64s) -> None:
    """Write the T + 1 latest purchases of each user to columns, one user after the other."""
    to = 0
    for at in range(0, len(stretch), STRETCH):
        end = stretch[at + START] + stretch[at + COUNT]
        for row in range(max(stretch[at + START], end - T - 1), end):
            timestamp[to], seq[to] = pool[HELD * row + TIMESTAMP], pool[HELD * row + SEQ]
            amount[to] = pool[HELD * row + AMOUNT]
            to += 1


@kernel
def unpack_amounts(stretch: Int64s, pool: Int64s, amount: Int64s) -> None:
    """Write the amounts of all purchases to a column, one user after the other."""
    to = 0
    for at in range(0, len(stretch), STRETCH):
        for row in range(stretch[at + START], stretch[at + START] + stretch[at + COUNT]):
            amount[to] = pool[HELD * row + AMOUNT]
            to += 1


def _forget(at: int, T: int, low: int, stretch: Int64s, pool: Int64s) -> bool:
    """Drop purchases older than the T + 1 latest before `low`, if that frees an eighth of the stretch.

    Windows need T; one more tells what a verdict would have been without one of them.
    """
    begin, count = stretch[at + START], stretch[at + COUNT]
    needed, first = 0, count
    while first > 0 and needed <= T:
        first -= 1
        if pool[HELD * (begin + first) + SEQ] < low:
            needed += 1
    if 8 * first < stretch[at + ROOM] or first == 0:
        return False
    for i in range(HELD * (count - first)):
        pool[HELD * begin + i] = pool[HELD * (begin + first) + i]
    stretch[at + COUNT] = count - first
    return True


def _link(
    row: int, T: int, low: int, last: Int64s, arrivals: Int32s, stretch: Int64s, pool: Int64s, recent: Int64s,
    tally: Int64s,
) -> bool:  # fmt: skip
    """Put an arrival into its user's stretch; False, with nothing changed, if the pool is used up.

    A late purchase (older timestamp) moves back to its place. It is left out if T + 1 of the user's are later: all of
    them came before it, so that whoever is asked about an event behind it sees those, too.
    """
    arrival = ARRIVED * row
    user, timestamp = recent[arrival + USER], recent[arrival + TIMESTAMP]
    at = STRETCH * user
    if not _is_outdated(at, timestamp, T, stretch, pool):
        count, room = stretch[at + COUNT], stretch[at + ROOM]
        if count == room and not (room >= T and _forget(at, T, low, stretch, pool)):
            larger, enough = max(FIRST_ROOM, 2 * room), T + T // 4 + FIRST_ROOM
            if room < enough:
                larger = min(larger, enough)
            new = tally[USED]
            if HELD * (new + larger) > len(pool):
                return False
            for i in range(HELD * count):
                pool[HELD * new + i] = pool[HELD * stretch[at + START] + i]
            stretch[at + START], stretch[at + ROOM] = new, larger
            tally[USED] = new + larger
        begin, place = stretch[at + START], stretch[at + START] + stretch[at + COUNT]
        while place > begin and pool[HELD * (place - 1) + TIMESTAMP] > timestamp:
            for i in range(HELD):
                pool[HELD * place + i] = pool[HELD * (place - 1) + i]
            place -= 1
        pool[HELD * place + TIMESTAMP], pool[HELD * place + SEQ] = timestamp, recent[arrival + SEQ]
        pool[HELD * place + AMOUNT] = recent[arrival + AMOUNT]
        stretch[at + COUNT] += 1
        last[user] = max(last[user], timestamp)
    recent[arrival + OLDER] = arrivals[user]
    arrivals[user] = row
    return True


def _is_outdated(at: int, timestamp: int, T: int, stretch: Int64s, pool: Int64s) -> bool:
    """Whether T + 1 purchases in a stretch are later. For a purchase in order only the last one is compared."""
    count, end = stretch[at + COUNT], HELD * (stretch[at + START] + stretch[at + COUNT])
    if count <= T or pool[end - HELD + TIMESTAMP] <= timestamp:
        return False
    return pool[end - HELD * (T + 1) + TIMESTAMP] > timestamp  # type: ignore[no-any-return]


@kernel
def link_all(
    T: int, low: int, last: Int64s, arrivals: Int32s, stretch: Int64s, pool: Int64s, recent: Int64s, tally: Int64s
) -> int:  # fmt: skip
    """Let all arrivals join their stretches; returns 1 if the pool must grow first."""
    while tally[LINKED] < tally[ROWS]:
        if not _link(tally[LINKED], T, low, last, arrivals, stretch, pool, recent, tally):
            return 1
        tally[LINKED] += 1
    return 0
