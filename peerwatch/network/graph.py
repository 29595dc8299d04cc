"""The friend graph: it takes befriendings and unfriendings, and answers with the networks of buyers."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from peerwatch.amounts import Amounts
from peerwatch.kernels import Int8s, Int32s, Int64s, grown
from peerwatch.network.friendships import (
    BITS,
    DEGREE,
    FIRST_ROOM,
    FRIENDSHIPS,
    HIGH,
    LOW,
    ROOM,
    SPENT,
    STRETCH,
    TALLIED,
    USED,
    WALKS,
    compact,
    start_of,
)
from peerwatch.network.networks import COMPARED, Networks
from peerwatch.network.timeline import RECENT, Timeline, TimelineContents
from peerwatch.network.walk import ANSWERED, COSTS, GONE, NEEDS_POOL, STATE, walk
from peerwatch.network.windows import Windows

FEW: Final = 4096
"""Room for at least this many found windows, however few there were in the last answer."""
MOST_WALKS: Final = 1 << 28
"""Walks after which the marks are cleared: they are int32, so that twice as many stay in the processor's cache."""


class GraphContents(NamedTuple):
    """All that a graph holds but its marks, which mean nothing to later walks.

    `incoming` is None if friendships are mutual.
    """

    users: int
    stretch: Int32s
    incoming: Int32s | None
    pool: Int32s
    tally: Int64s
    timeline: TimelineContents


class FriendGraph:
    """Friendships of dense users, as stretches of one pool, and the latest purchases of all.

    User u's friends are `pool[start:start + degree]` with the columns of `stretch` from STRETCH * u on; the stretch
    moves to the pool's end when its room is used up. If friendships are `directed`, those who have u as a friend stand
    in the same pool by the columns of `incoming`; otherwise `incoming` is `stretch` itself.
    """

    def __init__(
        self, D: int, T: int, *, directed: bool = False, recent: int = RECENT, costs: Sequence[int] = COSTS
    ) -> None:
        """Networks of D hops, windows of T purchases.

        If friendships are `directed`, user a befriends user b without becoming b's friend; hops follow the direction.
        `recent` purchases are held at least once there are many; `costs` are the planner's, in place of COSTS.
        """
        self.D, self.T, self.directed, self.recent = D, T, directed, recent
        self.timeline = Timeline(T, recent)
        self._found = 0
        """About how many purchases the latest windows found by scans held."""
        self.costs: Int64s = np.array(costs, np.int64)
        self.users = 0
        self.stretch: Int32s = np.zeros(0, np.int32)
        self.incoming: Int32s = np.zeros(0, np.int32) if directed else self.stretch
        self.pool: Int32s = np.zeros(1 << 10, np.int32)
        self.tally: Int64s = np.zeros(TALLIED, np.int64)
        self.seen: Int32s = np.zeros(0, np.int32)

    @property
    def friendships(self) -> int:
        """How many friendships are in force."""
        return int(self.tally[FRIENDSHIPS])

    @property
    def spent(self) -> int:
        """The nanoseconds that all answers so far should have cost, by the planner's estimate."""
        return int(self.tally[SPENT])

    def friends(self, user: int) -> Int32s:
        """The friends of one user, in no particular order."""
        begin = start_of(user, self.stretch)
        return self.pool[begin : begin + self.stretch[STRETCH * user + DEGREE]]

    def reserve(self, users: int) -> None:
        """Make room for the users 0 to `users` - 1."""
        self.users = max(self.users, users)
        self.stretch, self.seen = grown(self.stretch, STRETCH * users), grown(self.seen, users)
        self.incoming = grown(self.incoming, STRETCH * users) if self.directed else self.stretch
        self.timeline.reserve(users)

    def columns(self) -> tuple[Int32s, Int32s]:
        """How many friends each user has, and all their friends one user after the other. Copies."""
        stretch = self.stretch[: STRETCH * self.users].copy()
        degree = stretch[DEGREE::STRETCH].copy()
        friends = np.empty(int(degree.sum()), np.int32)
        stretch[ROOM::STRETCH] = degree
        compact(stretch, self.pool, friends, 0)
        return degree, friends

    @classmethod
    def from_columns(cls, D: int, T: int, degree: Int32s, friends: Int32s, **options: Any) -> "FriendGraph":
        """The graph whose `columns` these are; the options are those of a new one."""
        graph = cls(D, T, **options)
        graph.reserve(len(degree))
        stretch = graph.stretch.reshape(-1, STRETCH)[: len(degree)]
        _start_at(stretch, np.cumsum(degree, dtype=np.int64) - degree)
        stretch[:, DEGREE] = stretch[:, ROOM] = degree
        graph.pool = grown(friends, 1)
        graph.tally[USED], graph.tally[FRIENDSHIPS] = len(friends), len(friends) // 2
        if graph.directed:
            graph._fill_incoming(degree, friends)
        return graph

    def _fill_incoming(self, degree: Int32s, friends: Int32s) -> None:
        """As new, with the friends of all in place: find for each user those who have it as a friend."""
        befriended_by = np.repeat(np.arange(len(degree), dtype=np.int32), degree)[np.argsort(friends, kind="stable")]
        count = np.bincount(friends, minlength=len(degree))
        incoming = self.incoming.reshape(-1, STRETCH)[: len(degree)]
        _start_at(incoming, len(friends) + np.cumsum(count) - count)
        incoming[:, DEGREE] = incoming[:, ROOM] = count
        self.pool = grown(np.concatenate([friends, befriended_by]), 1)
        self.tally[USED], self.tally[FRIENDSHIPS] = 2 * len(friends), len(friends)

    def copy(self, D: int | None = None, costs: Sequence[int] | None = None) -> "FriendGraph":
        """An independent copy of the graph; for networks of `D` hops and with other costs, if those are given."""
        costs = costs or self.costs.tolist()
        other = FriendGraph(D or self.D, self.T, directed=self.directed, recent=self.recent, costs=costs)
        other.take_over(self.contents())
        return other

    def contents(self) -> GraphContents:
        """All that it holds. Copies."""
        stretch, pool, tally = self.stretch.copy(), self.pool.copy(), self.tally.copy()
        incoming = self.incoming.copy() if self.directed else None
        return GraphContents(self.users, stretch, incoming, pool, tally, self.timeline.contents())

    def take_over(self, contents: GraphContents) -> None:
        """As new: hold the `contents` of another graph of the same T and kind, which are its own from now on."""
        users, self.stretch, incoming, self.pool, self.tally, timeline = contents
        self.incoming = incoming if incoming is not None else self.stretch
        self.timeline.take_over(timeline)
        self.reserve(users)

    def walk(
        self, kind: Int8s, user: Int32s, friend: Int32s, timestamp: Int64s, amount: Amounts, seq: int, most: int,
        places: int, *, sizes: bool = False,
    ) -> tuple[int, Networks]:  # fmt: skip
        """Go through events in order, the first numbered `seq`: apply friendship changes, answer each purchase.

        Stops early once `most` networks, or `places` members or purchases are there (a network is never split), or more
        windows have been found than usual, so that an answer is bounded; the caller goes on from the number of events
        gone through, which is the first result. With `most` 0 purchases are remembered but not answered. With `sizes`
        every network is counted, whatever its plan.
        """
        lately = self.timeline
        lately.large.add(amount)
        # few answers need little memory: fresh memory is slow
        members = np.empty(min(places, most * self.users) + self.users, np.int32)
        longest = min(self.T, len(lately.rows))
        room = min(places, most * longest, max(2 * self._found, FEW * longest)) + longest
        offsets, ends, windows = (
            np.zeros(most + 1, np.int64),
            np.zeros(most + 1, np.int64),
            np.empty(3 * room, np.int64),
        )
        plan, size, expected = np.empty(most, np.int8), np.empty(most, np.int64), np.full(COMPARED * most, -1, np.int64)
        progress = np.zeros(3, np.int64)
        if self.tally[WALKS] > MOST_WALKS:
            self.tally[WALKS] = 0
            self.seen[:] = 0
        while True:
            walk(
                kind, user, friend, timestamp, amount.held, seq, self.D, self.T, self.users, places, sizes,
                self.directed, self.costs, self.stretch, self.incoming, self.pool, self.tally, self.seen, lately.rows,
                lately.counts, lately.tally, offsets, members, plan, size, expected, ends, windows, progress,
            )  # fmt: skip
            if progress[STATE] != NEEDS_POOL:
                break
            self._make_room()
        q = int(progress[ANSWERED])
        seqs, timestamps, amounts = windows.reshape(3, -1)[:, : ends[q]]
        found = Windows(ends[: q + 1], seqs, timestamps, Amounts(amounts, lately.large.all))
        if most:
            self._found = max(int(ends[q]), self._found // 2)
        lately.forget_large()
        return int(progress[GONE]), Networks(
            offsets[: q + 1], members[: offsets[q]], plan[:q], size[:q], expected[: COMPARED * q].reshape(-1, COMPARED),
            found,
        )  # fmt: skip

    def _make_room(self) -> None:
        """Close the gaps that moved stretches have left; grow the pool if that is not enough."""
        sides = (self.stretch, self.incoming) if self.directed else (self.stretch,)
        rooms = [side[ROOM::STRETCH] for side in sides]
        live = sum(int(room.sum(dtype=np.int64)) for room in rooms)
        needed = 2 * max(int(room.max()) for room in rooms) + FIRST_ROOM
        pool = np.empty(max(len(self.pool), live + live // 2 + needed), np.int32)
        used = 0
        for side in sides:
            used = compact(side, self.pool, pool, used)
        self.pool = pool
        self.tally[USED] = used


def _start_at(stretches: Int32s, starts: Int64s) -> None:
    """Say where stretches, of shape [users, STRETCH], start."""
    stretches[:, LOW], stretches[:, HIGH] = starts & ((1 << BITS) - 1), starts >> BITS
