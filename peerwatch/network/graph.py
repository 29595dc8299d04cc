"""The friend graph, and the planner that chooses how the window of a buyer's network is found."""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np

from peerwatch.amounts import Amounts
from peerwatch.errors import RunError
from peerwatch.kernels import Int8s, Int32s, Int64s, grown, kernel
from peerwatch.network.events import Kind
from peerwatch.network.timeline import (
    AMOUNT,
    END,
    FORGOTTEN,
    LATE,
    ORDERED,
    RECENT,
    REMEMBERED,
    SEQ,
    TIMESTAMP,
    USER,
    Timeline,
    TimelineContents,
    is_later,
    is_next,
    put,
    put_next,
)
from peerwatch.network.windows import Windows

FIRST_ROOM = 4
"""Friends a user's stretch of the pool has room for when it is first made; it doubles from there."""
MOST_FRIENDS: Final = 2**31 - 1
"""Places the pool can have: a stretch begins at an int32."""

DONE, NEEDS_POOL, FULL = range(3)
"""Why a walk ended: no events are left, the pool must grow, the answer is full."""
START, DEGREE, ROOM, STRETCH = 0, 1, 2, 4
"""Columns of a user's stretch: all in one line of the processor's cache, therefore one unused."""
USED, FRIENDSHIPS, WALKS, EXPECTED, FOUND, SPENT, IN_VAIN, PAUSE, TALLIED = range(9)
"""Places in the graph's tally.

Used places of the pool, friendships in force, walks made, members that the planner expected of the networks it then
saw, members that it found, nanoseconds its answers should have cost, scans in a row that were in vain, and questions
that are to be answered without one.
"""
GONE, ANSWERED, STATE = range(3)
"""Places in a walk's progress: events processed, queries answered, why it ended."""


class Plan(IntEnum):
    """How a window is selected; the planner chooses the cheapest way for each query."""

    PARTITION = 1
    """The network is walked, and the shards look at each member's latest purchases."""
    SCAN = 2
    """The network is walked, and the latest purchases of all users are scanned for buyers in it."""
    MEMBERSHIP = 3
    """The last hop is not walked; recent buyers are tested for a friend within D - 1 hops."""


LAST_HOP, TEST, ROW, MEMBER = range(4)
"""Places in the costs."""
COMPARED: Final = 4
"""How many expected costs a query has."""
COSTS: Final = (4, 2, 3, 8)
"""Nanoseconds it takes to walk a friendship of the last hop, to test one of a recent buyer, to scan a recent purchase,
and to look at a member in the partition: fitted on `make bench`'s cases."""
FEW: Final = 64
"""Room for at least this many found windows, however few there were in the last answer."""
MOST_WALKS: Final = 1 << 28
"""Walks after which the marks are cleared: they are int32, so that twice as many stay in the processor's cache."""
MEMORY: Final = 1 << 22
"""Expected members after which what the planner has learned is halved."""
GIVE_UP: Final = 2
"""A scan ends without an answer at this many times the cost of the other way."""
PATIENCE: Final = 4
LONGEST_PAUSE: Final = 8
"""PATIENCE scans that fail in a row start a pause, in which queries are answered without a scan; LONGEST_PAUSE is the
longest pause, as a power of two."""


class Networks(NamedTuple):
    """The networks of q buyers: their members, or their windows if a scan has found them.

    If `plan[i]` is PARTITION, `members[offsets[i]:offsets[i + 1]]` are the i-th's members (dense users, nearest hop
    first); otherwise its window has been found already: the i-th of `found`, which is empty for the others. `size[i]`
    is the number of members, -1 if the last hop was not walked. `expected[i]` are the costs (ns) that the planner
    compared: of walking the last hop, of testing membership instead, of scanning for members, of the partition; -1 for
    what was not considered. `offsets` has shape [q + 1], `expected` [q, 4]; q may be smaller than what was asked for,
    see `FriendGraph.walk`.
    """

    offsets: Int64s
    members: Int32s
    plan: Int8s
    size: Int64s
    expected: Int64s
    found: Windows

    def unfound(self) -> "Networks":
        """The same networks without the windows that have been found."""
        return self._replace(found=Windows.empty(len(self.plan)))


def alone(user: Int32s) -> Networks:
    """Networks in which each user is alone."""
    q = len(user)
    plan, expected = np.full(q, Plan.PARTITION, np.int8), np.full((q, COMPARED), -1, np.int64)
    return Networks(np.arange(q + 1, dtype=np.int64), user, plan, np.ones(q, np.int64), expected, Windows.empty(q))


class GraphContents(NamedTuple):
    """All that a graph holds but its marks, which mean nothing to later walks."""

    users: int
    stretch: Int32s
    pool: Int32s
    tally: Int64s
    timeline: TimelineContents


class FriendGraph:
    """Mutual friendships of dense users, as stretches of one pool, and the latest purchases of all.

    User u's friends are `pool[start:start + degree]` with the columns of `stretch` from STRETCH * u on; the stretch
    moves to the pool's end when its room is used up.
    """

    def __init__(self, D: int, T: int, *, recent: int = RECENT, costs: Sequence[int] = COSTS) -> None:
        """Networks of D hops, windows of T purchases.

        `recent` purchases are held at least once there are many; `costs` are the planner's, in place of COSTS.
        """
        self.D, self.T, self.recent = D, T, recent
        self.timeline = Timeline(T, recent)
        self._found = 0
        """About how many purchases the latest windows found by scans held."""
        self.costs: Int64s = np.array(costs, np.int64)
        self.users = 0
        self.stretch: Int32s = np.zeros(0, np.int32)
        self.pool: Int32s = np.zeros(1 << 10, np.int32)
        self.tally: Int64s = np.zeros(TALLIED, np.int64)
        self.seen: Int32s = np.zeros(0, np.int32)

    @property
    def friendships(self) -> int:
        """How many mutual friendships are in force."""
        return int(self.tally[FRIENDSHIPS])

    @property
    def spent(self) -> int:
        """The nanoseconds that all answers so far should have cost, by the planner's estimate."""
        return int(self.tally[SPENT])

    def friends(self, user: int) -> Int32s:
        """The friends of one user, in no particular order."""
        begin = self.stretch[STRETCH * user + START]
        return self.pool[begin : begin + self.stretch[STRETCH * user + DEGREE]]

    def reserve(self, users: int) -> None:
        """Make room for the users 0 to `users` - 1."""
        self.users = max(self.users, users)
        self.stretch, self.seen = grown(self.stretch, STRETCH * users), grown(self.seen, users)
        self.timeline.reserve(users)

    def columns(self) -> tuple[Int32s, Int32s]:
        """How many friends each user has, and all their friends one user after the other. Copies."""
        stretch = self.stretch[: STRETCH * self.users].copy()
        degree = stretch[DEGREE::STRETCH].copy()
        friends = np.empty(int(degree.sum()), np.int32)
        stretch[ROOM::STRETCH] = degree
        compact(stretch, self.pool, friends)
        return degree, friends

    @classmethod
    def from_columns(cls, D: int, T: int, degree: Int32s, friends: Int32s, **options: Any) -> "FriendGraph":
        """The graph whose `columns` these are; the options are those of a new one."""
        graph = cls(D, T, **options)
        graph.reserve(len(degree))
        stretch = graph.stretch.reshape(-1, STRETCH)[: len(degree)]
        stretch[:, START] = np.cumsum(degree) - degree
        stretch[:, DEGREE] = stretch[:, ROOM] = degree
        graph.pool = grown(friends, 1)
        graph.tally[USED], graph.tally[FRIENDSHIPS] = len(friends), len(friends) // 2
        return graph

    def copy(self, D: int | None = None, costs: Sequence[int] | None = None) -> "FriendGraph":
        """An independent copy of the graph; for networks of `D` hops and with other costs, if those are given."""
        other = FriendGraph(D or self.D, self.T, recent=self.recent, costs=costs or self.costs.tolist())
        other.take_over(self.contents())
        return other

    def contents(self) -> GraphContents:
        """All that it holds. Copies."""
        stretch, pool, tally = self.stretch.copy(), self.pool.copy(), self.tally.copy()
        return GraphContents(self.users, stretch, pool, tally, self.timeline.contents())

    def take_over(self, contents: GraphContents) -> None:
        """As new: hold the `contents` of another graph of the same T, which are this one's own from now on."""
        users, self.stretch, self.pool, self.tally, timeline = contents
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
                self.costs, self.stretch, self.pool, self.tally, self.seen, lately.rows, lately.counts, lately.tally,
                offsets, members, plan, size, expected, ends, windows, progress,
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
        rooms = self.stretch[ROOM::STRETCH]
        live = int(rooms.sum(dtype=np.int64))
        needed = 2 * int(rooms.max()) + FIRST_ROOM
        if live + needed > MOST_FRIENDS:
            raise RunError(f"the friend graph holds at most {MOST_FRIENDS // 4} friendships")
        pool = np.empty(max(len(self.pool), min(live + live // 2 + needed, MOST_FRIENDS)), np.int32)
        compact(self.stretch, self.pool, pool)
        self.pool = pool
        self.tally[USED] = live


@kernel
def compact(stretch: Int32s, pool: Int32s, into: Int32s) -> None:
    """Copy all stretches to `into`, one after the other, each with its room."""
    used = 0
    for at in range(0, len(stretch), STRETCH):
        begin = stretch[at + START]
        for i in range(stretch[at + DEGREE]):
            into[used + i] = pool[begin + i]
        stretch[at + START] = used
        used += stretch[at + ROOM]


def _has_room(user: int, stretch: Int32s, pool: Int32s, tally: Int64s) -> bool:
    """See that one more friend fits, moving the stretch if need be; False if the pool is used up."""
    at = STRETCH * user
    degree, room = stretch[at + DEGREE], stretch[at + ROOM]
    if degree < room:
        return True
    larger = max(FIRST_ROOM, 2 * room)
    begin, new = stretch[at + START], tally[USED]
    if new + larger > len(pool):
        return False
    for i in range(degree):
        pool[new + i] = pool[begin + i]
    stretch[at + START], stretch[at + ROOM] = new, larger
    tally[USED] = new + larger
    return True


def _place(user: int, friend: int, stretch: Int32s, pool: Int32s) -> int:
    """Where in the pool `friend` stands among `user`'s friends, or -1."""
    begin = stretch[STRETCH * user + START]
    for i in range(begin, begin + stretch[STRETCH * user + DEGREE]):
        if pool[i] == friend:
            return i
    return -1


def _remove(user: int, friend: int, stretch: Int32s, pool: Int32s) -> None:
    place, at = _place(user, friend, stretch, pool), STRETCH * user
    stretch[at + DEGREE] -= 1
    pool[place] = pool[stretch[at + START] + stretch[at + DEGREE]]


def _add(user: int, friend: int, stretch: Int32s, pool: Int32s) -> None:
    at = STRETCH * user
    pool[stretch[at + START] + stretch[at + DEGREE]] = friend
    stretch[at + DEGREE] += 1


def _change(kind: int, a: int, b: int, stretch: Int32s, pool: Int32s, tally: Int64s) -> bool:
    """Apply one befriend or unfriend event; False, with nothing changed, if the pool is used up."""
    shorter, longer = (a, b) if stretch[STRETCH * a + DEGREE] <= stretch[STRETCH * b + DEGREE] else (b, a)
    known = _place(shorter, longer, stretch, pool) >= 0
    if kind == Kind.BEFRIEND and not known:
        if not _has_room(a, stretch, pool, tally) or not _has_room(b, stretch, pool, tally):
            return False
        _add(a, b, stretch, pool)
        _add(b, a, stretch, pool)
        tally[FRIENDSHIPS] += 1
    elif kind == Kind.UNFRIEND and known:
        _remove(a, b, stretch, pool)
        _remove(b, a, stretch, pool)
        tally[FRIENDSHIPS] -= 1
    return True


OUTSIDE, LAST, INSIDE, BUYER = range(4)
"""Marks of a user: tested and not a member; a member at the last hop; a member within D - 1 hops; the buyer."""


def _hop(
    low: int, high: int, mark: int, stretch: Int32s, pool: Int32s, seen: Int32s, places: Int32s
) -> int:  # fmt: skip
    """Append the friends of `places[low:high]` that are not marked yet; returns the end."""
    end, walk = high, mark & ~3
    for reached in range(low, high):
        friend = places[reached]
        first = stretch[STRETCH * friend + START]
        for i in range(first, first + stretch[STRETCH * friend + DEGREE]):
            other = pool[i]
            known = seen[other]
            places[end] = other
            end += known < walk
            seen[other] = max(known, mark)
    return end


def _scan(
    walk: int, tests: bool, budget: int, costs: Int64s, T: int, stretch: Int32s, pool: Int32s, seen: Int32s,
    rows: Int64s, lately: Int64s, begin: int, windows: Int64s,
) -> tuple[int, int]:  # fmt: skip
    """Write the T latest purchases by members from place `begin` on, by scanning the timeline from the newest back.

    With `tests` a buyer without a mark is a member if one of its friends is within D - 1 hops, and gets the mark that
    says so. Returns how many were found, or -1 if the budget (ns) or the timeline does not reach; and how many
    purchases were scanned.
    """
    room, scanned = len(windows) // 3, 0
    row, first, to = lately[ORDERED], lately[END], begin
    late = first + lately[LATE]
    while to < begin + T and (row > 0 or (late > first and not lately[FORGOTTEN])):
        if late > first and (row == 0 or is_later(rows, late - 1, row - 1)):
            late -= 1
            at = REMEMBERED * late
        else:
            row -= 1
            at = REMEMBERED * row
        scanned += 1
        budget -= costs[ROW]
        user = rows[at + USER]
        mark = seen[user]
        if mark < walk and tests:
            start = stretch[STRETCH * user + START]
            end = start + stretch[STRETCH * user + DEGREE]
            mark = walk + OUTSIDE
            i = start
            while i < end:
                if seen[pool[i]] >= walk + INSIDE:
                    mark = walk + LAST
                    break
                i += 1
            budget -= costs[TEST] * (i - start)
            seen[user] = mark
        if budget < 0:
            return -1, scanned
        if mark == walk + LAST or mark == walk + INSIDE:
            windows[to], windows[room + to] = rows[at + SEQ], rows[at + TIMESTAMP]
            windows[2 * room + to] = rows[at + AMOUNT]
            to += 1
    return (-1 if to < begin + T and lately[FORGOTTEN] else to - begin), scanned


@kernel
def walk(
    kind: Int8s, user: Int32s, friend: Int32s, timestamp: Int64s, amount: Int64s, seq: int, D: int, T: int, users: int,
    places: int, sizes: bool, costs: Int64s, stretch: Int32s, pool: Int32s, tally: Int64s, seen: Int32s, rows: Int64s,
    counts: Int32s, lately: Int64s, offsets: Int64s, members: Int32s, plans: Int8s, size: Int64s, expected: Int64s,
    ends: Int64s, windows: Int64s, progress: Int64s,
) -> None:  # fmt: skip
    """Go through the events from where `progress` says; it then says how far it came, and why no further."""
    most = len(plans)
    gone, answered = progress[GONE], progress[ANSWERED]
    progress[STATE] = DONE
    while gone < len(kind):
        if kind[gone] != Kind.PURCHASE:
            if not _change(kind[gone], user[gone], friend[gone], stretch, pool, tally):
                progress[STATE] = NEEDS_POOL
                break
        else:
            if most > 0:
                begin, end = offsets[answered], ends[answered]
                if answered == most or begin >= places or end + min(T, len(rows)) > len(windows) // 3:
                    progress[STATE] = FULL
                    break
                tally[WALKS] += 1
                plan, network, window, reached = _answer(
                    user[gone], D, T, users, 4 * tally[WALKS], sizes, begin, end, costs, stretch, pool, tally, seen,
                    rows, lately, members, expected[COMPARED * answered : COMPARED * (answered + 1)], windows,
                )  # fmt: skip
                plans[answered], size[answered] = plan, reached
                answered += 1
                offsets[answered], ends[answered] = network, window
            if is_next(timestamp[gone], rows, lately):
                put_next(seq + gone, user[gone], timestamp[gone], amount[gone], rows, lately)
            else:
                put(seq + gone, user[gone], timestamp[gone], amount[gone], T, rows, counts, lately)
        gone += 1
    progress[GONE], progress[ANSWERED] = gone, answered


def _learn(expected: int, found: int, tally: Int64s) -> None:
    """Compare a network's size with what was expected; older comparisons count less and less."""
    if tally[EXPECTED] > MEMORY:
        tally[EXPECTED] //= 2
        tally[FOUND] //= 2
    tally[EXPECTED] += expected
    tally[FOUND] += found


def _note(reached: bool, tally: Int64s) -> None:
    """Record whether a scan found a window; after several failures in a row scans are tried ever more rarely."""
    if reached:
        tally[IN_VAIN] = 0
        return
    tally[IN_VAIN] += 1
    if tally[IN_VAIN] >= PATIENCE:
        tally[PAUSE] = 1 << min(tally[IN_VAIN] - PATIENCE, LONGEST_PAUSE)


def _answer(
    user: int, D: int, T: int, users: int, mark: int, sizes: bool, begin: int, window: int, costs: Int64s,
    stretch: Int32s, pool: Int32s, tally: Int64s, seen: Int32s, rows: Int64s, lately: Int64s, members: Int32s,
    expected: Int64s, windows: Int64s,
) -> tuple[int, int, int, int]:  # fmt: skip
    """The plan; where the members from place `begin` on end, and the window from place `window` on; the network's size.

    The planner: about T * users / members purchases must be scanned to meet T members. How many members the last hop
    brings is expected as if friends were drawn at random, times the share that walks have found of that so far.
    """
    seen[user] = mark + BUYER
    low = high = begin
    first = stretch[STRETCH * user + START]
    for i in range(first, first + stretch[STRETCH * user + DEGREE]):
        seen[pool[i]] = mark + INSIDE
        members[high] = pool[i]
        high += 1
    for _ in range(2, D):
        end = _hop(low, high, mark + INSIDE, stretch, pool, seen, members)
        low, high = high, end
        if low == high:
            break
    reach, there = 0, lately[ORDERED] + lately[LATE]
    if tally[PAUSE] > 0:
        tally[PAUSE] -= 1
        there = 0
    likely, hop_cost, test_cost, count, scanned = 0.0, 0, 0, -1, 0
    if D > 1:
        for i in range(low, high):
            reach += stretch[STRETCH * members[i] + DEGREE]
        likely = (high - begin) + (users - (high - begin)) * (1.0 - np.exp(-reach / users))
        share = (tally[FOUND] + 1.0) / (tally[EXPECTED] + 1.0)
        least = T * users / max(likely * share, 1.0)
        mean_degree = 2.0 * tally[FRIENDSHIPS] / users
        hop_cost = costs[LAST_HOP] * reach
        test_cost = int(min(least, 1e9) * (costs[ROW] + costs[TEST] * mean_degree))
        expected[0], expected[1] = hop_cost, test_cost
        if least <= there and test_cost < hop_cost:
            count, scanned = _scan(
                mark, True, GIVE_UP * hop_cost, costs, T, stretch, pool, seen, rows, lately, window, windows,
            )  # fmt: skip
            _note(count >= 0, tally)
    if count >= 0:
        if count >= T:
            _learn(int(likely), T * users // scanned, tally)
        plan, size = Plan.MEMBERSHIP, -1
        tally[SPENT] += test_cost
        if sizes:
            tally[WALKS] += 1
            seen[user] = 4 * tally[WALKS]
            for i in range(begin, high):
                seen[members[i]] = 4 * tally[WALKS]
            size = _hop(low, high, 4 * tally[WALKS], stretch, pool, seen, members) - begin
    else:
        end = high
        if D > 1:
            if scanned:  # the scan has marked whom it tested: mark anew
                tally[WALKS] += 1
                mark = 4 * tally[WALKS]
                seen[user] = mark + BUYER
                for i in range(begin, high):
                    seen[members[i]] = mark + INSIDE
            end = _hop(low, high, mark + LAST, stretch, pool, seen, members)
            _learn(int(likely), end - begin, tally)
        size = end - begin
        needed = T * users // max(size, 1)
        expected[2], expected[3] = costs[ROW] * needed, costs[MEMBER] * size
        if needed <= there and expected[2] < expected[3]:
            count, scanned = _scan(
                mark, False, GIVE_UP * expected[3], costs, T, stretch, pool, seen, rows, lately, window, windows,
            )  # fmt: skip
            _note(count >= 0, tally)
        tally[SPENT] += costs[LAST_HOP] * (reach + size)
        plan = Plan.SCAN
        if count < 0:
            return Plan.PARTITION, end, window, size
    tally[SPENT] += costs[ROW] * scanned
    return plan, begin, window + count, size
