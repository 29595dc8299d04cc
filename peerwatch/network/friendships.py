"""Friendships as stretches of one pool: where a user's friends stand, and how one more is added or taken away.

The columns `stretch` say where a user's friends stand, `incoming` where those stand whose friend the user is. If
friendships are mutual these are the same users, and `incoming` is the same array as `stretch`.
"""

import numpy as np

from peerwatch.kernels import Int32s, Int64s, kernel
from peerwatch.network.events import Kind

FIRST_ROOM = 4
"""Friends a user's stretch of the pool has room for when it is first made; it doubles from there."""
LOW, DEGREE, ROOM, HIGH, STRETCH = range(5)
"""Columns of a user's stretch, all in one line of the processor's cache. It starts at LOW + (HIGH << BITS)."""
BITS = 31
"""Bits of a stretch's start in LOW: HIGH is 0 up to two billion places."""
USED, FRIENDSHIPS, WALKS, EXPECTED, FOUND, SPENT, IN_VAIN, PAUSE, TALLIED = range(9)
"""Places in the graph's tally.

Used places of the pool, friendships in force, walks made, members that the planner expected of the networks it then
saw, members that it found, nanoseconds its answers should have cost, scans in a row that were in vain, and questions
that are to be answered without one.
"""


def start_of(user: int, stretch: Int32s) -> int:
    """The place of the pool at which a user's stretch starts."""
    at = STRETCH * user
    return np.int64(stretch[at + HIGH]) << BITS | stretch[at + LOW]  # type: ignore[no-any-return]


def _move(user: int, start: int, stretch: Int32s) -> None:
    """Let a user's stretch start at another place."""
    at = STRETCH * user
    stretch[at + LOW], stretch[at + HIGH] = start & ((1 << BITS) - 1), start >> BITS


@kernel
def compact(stretch: Int32s, pool: Int32s, into: Int32s, used: int) -> int:
    """Copy all stretches to `into` behind its first `used` places, each with its room; returns where they end."""
    for user in range(len(stretch) // STRETCH):
        begin, at = start_of(user, stretch), STRETCH * user
        for i in range(stretch[at + DEGREE]):
            into[used + i] = pool[begin + i]
        _move(user, used, stretch)
        used += stretch[at + ROOM]
    return used


def _has_room(user: int, stretch: Int32s, pool: Int32s, tally: Int64s) -> bool:
    """See that one more friend fits, moving the stretch if need be; False if the pool is used up."""
    at = STRETCH * user
    degree, room = stretch[at + DEGREE], stretch[at + ROOM]
    if degree < room:
        return True
    larger = max(FIRST_ROOM, 2 * room)
    begin, new = start_of(user, stretch), tally[USED]
    if new + larger > len(pool):
        return False
    for i in range(degree):
        pool[new + i] = pool[begin + i]
    _move(user, new, stretch)
    stretch[at + ROOM] = larger
    tally[USED] = new + larger
    return True


def _place(user: int, friend: int, stretch: Int32s, pool: Int32s) -> int:
    """Where in the pool `friend` stands among `user`'s friends, or -1."""
    begin = start_of(user, stretch)
    for i in range(begin, begin + stretch[STRETCH * user + DEGREE]):
        if pool[i] == friend:
            return i
    return -1


def _remove(user: int, friend: int, stretch: Int32s, pool: Int32s) -> None:
    place, at = _place(user, friend, stretch, pool), STRETCH * user
    stretch[at + DEGREE] -= 1
    pool[place] = pool[start_of(user, stretch) + stretch[at + DEGREE]]


def _add(user: int, friend: int, stretch: Int32s, pool: Int32s) -> None:
    at = STRETCH * user
    pool[start_of(user, stretch) + stretch[at + DEGREE]] = friend
    stretch[at + DEGREE] += 1


def change(kind: int, a: int, b: int, stretch: Int32s, incoming: Int32s, pool: Int32s, tally: Int64s) -> bool:
    """Apply one befriend or unfriend event; False, with nothing changed, if the pool is used up."""
    if stretch[STRETCH * a + DEGREE] <= incoming[STRETCH * b + DEGREE]:
        known = _place(a, b, stretch, pool) >= 0
    else:
        known = _place(b, a, incoming, pool) >= 0
    if kind == Kind.BEFRIEND and not known:
        if not _has_room(a, stretch, pool, tally) or not _has_room(b, incoming, pool, tally):
            return False
        _add(a, b, stretch, pool)
        _add(b, a, incoming, pool)
        tally[FRIENDSHIPS] += 1
    elif kind == Kind.UNFRIEND and known:
        _remove(a, b, stretch, pool)
        _remove(b, a, incoming, pool)
        tally[FRIENDSHIPS] -= 1
    return True
