"""The friend graph and the D-hop walk."""

from typing import NamedTuple

import numpy as np

from peerwatch.network.events import Kind
from peerwatch.network.kernels import Int8s, Int32s, Int64s, flag, grown, i4s, i8, i8s, kernel, nothing

FIRST_ROOM = 4
"""Friends a user's stretch of the pool has room for when it is first made; it doubles from there."""


class Networks(NamedTuple):
    """The networks of q users: `members[offsets[i]:offsets[i + 1]]` (dense users) is the i-th, nearest hop first.

    `offsets` has shape [q + 1]; q may be smaller than what was asked for, see `FriendGraph.walk`.
    """

    offsets: Int64s
    members: Int32s


class FriendGraph:
    """Mutual friendships of dense users, as stretches of one pool.

    User u's friends are `pool[start[u]:start[u] + degree[u]]`; the stretch has room for `room[u]` and moves to the
    pool's end when that is used up.
    """

    def __init__(self, D: int) -> None:
        self.D = D
        self.start: Int64s = np.zeros(0, np.int64)
        self.degree: Int32s = np.zeros(0, np.int32)
        self.room: Int32s = np.zeros(0, np.int32)
        self.pool: Int32s = np.zeros(1 << 10, np.int32)
        self.tally: Int64s = np.zeros(3, np.int64)
        """Used places of the pool, friendships in force, walks made so far."""
        self.seen: Int64s = np.zeros(0, np.int64)

    @property
    def friendships(self) -> int:
        """How many mutual friendships are in force."""
        return int(self.tally[1])

    def friends(self, user: int) -> Int32s:
        """The friends of one user, in no particular order."""
        begin = self.start[user]
        return self.pool[begin : begin + self.degree[user]]

    def reserve(self, users: int) -> None:
        """Make room for the users 0 to `users` - 1."""
        if users > len(self.start):
            self.start, self.degree = grown(self.start, users), grown(self.degree, users)
            self.room, self.seen = grown(self.room, users), grown(self.seen, users)

    def columns(self) -> tuple[Int32s, Int32s]:
        """How many friends each user has, and all their friends one user after the other. Copies."""
        degree = self.degree.copy()
        friends = np.empty(int(degree.sum()), np.int32)
        _compact(self.start.copy(), degree, degree, self.pool, friends)
        return degree, friends

    @classmethod
    def from_columns(cls, D: int, degree: Int32s, friends: Int32s) -> "FriendGraph":
        """The graph whose `columns` these are."""
        graph = cls(D)
        graph.reserve(len(degree))
        graph.start[: len(degree)] = np.cumsum(degree) - degree
        graph.degree[: len(degree)] = graph.room[: len(degree)] = degree
        graph.pool = grown(friends, 1)
        graph.tally[:2] = len(friends), len(friends) // 2
        return graph

    def walk(self, kind: Int8s, user: Int32s, friend: Int32s, most: int, members: int) -> tuple[int, Networks]:
        """Go through events in order: apply friendship changes, answer each purchase with its buyer's network.

        Stops early once `most` networks or `members` members are there (a network is never split), so that an answer
        is bounded; the caller goes on from the number of events gone through, which is the first result.
        """
        offsets, found = np.zeros(most + 1, np.int64), np.empty(members + len(self.start), np.int32)
        gone, answered = 0, 0
        while True:
            gone, answered, full = _walk(
                kind, user, friend, gone, answered, self.D, members,
                self.start, self.degree, self.room, self.pool, self.tally, self.seen, offsets, found,
            )  # fmt: skip
            if not full:
                return gone, Networks(offsets[: answered + 1], found[: offsets[answered]])
            self._make_room(2 * int(self.room.max()) + FIRST_ROOM)

    def _make_room(self, needed: int) -> None:
        """Close the gaps that moved stretches have left; grow the pool if that is not enough."""
        live = int(self.room.sum())
        pool = np.zeros(max(len(self.pool), 2 * live + needed), np.int32)
        _compact(self.start, self.degree, self.room, self.pool, pool)
        self.pool = pool
        self.tally[0] = live


@kernel(nothing(i8s, i4s, i4s, i4s, i4s))
def _compact(start: Int64s, degree: Int32s, room: Int32s, pool: Int32s, into: Int32s) -> None:
    used = 0
    for user in range(len(start)):
        begin = start[user]
        into[used : used + degree[user]] = pool[begin : begin + degree[user]]
        start[user] = used
        used += room[user]


@kernel(flag(i8, i8s, i4s, i4s, i4s, i8s))
def _has_room(user: int, start: Int64s, degree: Int32s, room: Int32s, pool: Int32s, tally: Int64s) -> bool:
    """See that one more friend fits, moving the stretch if need be; False if the pool is used up."""
    if degree[user] < room[user]:
        return True
    larger = max(FIRST_ROOM, 2 * room[user])
    if tally[0] + larger > len(pool):
        return False
    begin, new = start[user], tally[0]
    for i in range(degree[user]):
        pool[new + i] = pool[begin + i]
    start[user], room[user] = new, larger
    tally[0] = new + larger
    return True


@kernel(i8(i8, i8, i8s, i4s, i4s))
def _place(user: int, friend: int, start: Int64s, degree: Int32s, pool: Int32s) -> int:
    """Where in the pool `friend` stands among `user`'s friends, or -1."""
    for i in range(start[user], start[user] + degree[user]):
        if pool[i] == friend:
            return i
    return -1


@kernel(nothing(i8, i8, i8s, i4s, i4s))
def _remove(user: int, friend: int, start: Int64s, degree: Int32s, pool: Int32s) -> None:
    place = _place(user, friend, start, degree, pool)
    degree[user] -= 1
    pool[place] = pool[start[user] + degree[user]]


@kernel(flag(i8, i8, i8, i8s, i4s, i4s, i4s, i8s))
def _change(
    kind: int, a: int, b: int, start: Int64s, degree: Int32s, room: Int32s, pool: Int32s, tally: Int64s
) -> bool:
    """Apply one befriend or unfriend event; False, with nothing changed, if the pool is used up."""
    shorter, longer = (a, b) if degree[a] <= degree[b] else (b, a)
    known = _place(shorter, longer, start, degree, pool) >= 0
    if kind == Kind.BEFRIEND and not known:
        if not _has_room(a, start, degree, room, pool, tally) or not _has_room(b, start, degree, room, pool, tally):
            return False
        pool[start[a] + degree[a]] = b
        pool[start[b] + degree[b]] = a
        degree[a] += 1
        degree[b] += 1
        tally[1] += 1
    elif kind == Kind.UNFRIEND and known:
        _remove(a, b, start, degree, pool)
        _remove(b, a, start, degree, pool)
        tally[1] -= 1
    return True


@kernel(i8(i8, i8, i8s, i4s, i4s, i8s, i8, i4s, i8))
def _network(
    user: int, D: int, start: Int64s, degree: Int32s, pool: Int32s, seen: Int64s, stamp: int, found: Int32s, begin: int
) -> int:
    """Write everyone within D hops of `user`, without `user`, to `found[begin:]`; returns the end. Breadth first."""
    seen[user] = stamp
    end = begin
    for i in range(start[user], start[user] + degree[user]):
        seen[pool[i]] = stamp
        found[end] = pool[i]
        end += 1
    low = begin
    for _ in range(1, D):
        high = end
        for reached in range(low, high):
            friend = found[reached]
            for i in range(start[friend], start[friend] + degree[friend]):
                other = pool[i]
                if seen[other] != stamp:
                    seen[other] = stamp
                    found[end] = other
                    end += 1
        if end == high:
            break
        low = high
    return end


@kernel(
    "Tuple((int64, int64, boolean))(int8[::1], int32[::1], int32[::1], int64, int64, int64, int64, int64[::1],"
    " int32[::1], int32[::1], int32[::1], int64[::1], int64[::1], int64[::1], int32[::1])"
)
def _walk(
    kind: Int8s, user: Int32s, friend: Int32s, gone: int, answered: int, D: int, members: int, start: Int64s,
    degree: Int32s, room: Int32s, pool: Int32s, tally: Int64s, seen: Int64s, offsets: Int64s, found: Int32s,
) -> tuple[int, int, bool]:  # fmt: skip
    """Events gone through, networks answered, and whether the pool must grow before the next event."""
    most = len(offsets) - 1
    while gone < len(kind):
        if kind[gone] != Kind.PURCHASE:
            if not _change(kind[gone], user[gone], friend[gone], start, degree, room, pool, tally):
                return gone, answered, True
        else:
            if answered == most or offsets[answered] >= members:
                break
            tally[2] += 1
            offsets[answered + 1] = _network(
                user[gone], D, start, degree, pool, seen, tally[2], found, offsets[answered]
            )
            answered += 1
        gone += 1
    return gone, answered, False
