"""Walks over the friend graph, and the planner that chooses how the window of a buyer's network is found."""

from typing import Final

import numpy as np

from peerwatch.kernels import Int8s, Int32s, Int64s, kernel
from peerwatch.network.events import Kind
from peerwatch.network.friendships import (
    DEGREE,
    EXPECTED,
    FOUND,
    FRIENDSHIPS,
    IN_VAIN,
    PAUSE,
    SPENT,
    STRETCH,
    WALKS,
    change,
    start_of,
)
from peerwatch.network.networks import COMPARED, Plan
from peerwatch.network.timeline import (
    AMOUNT,
    END,
    FORGOTTEN,
    LATE,
    ORDERED,
    REMEMBERED,
    SEQ,
    TIMESTAMP,
    USER,
    is_later,
    is_next,
    put,
    put_next,
)

DONE, NEEDS_POOL, FULL = range(3)
"""Why a walk ended: no events are left, the pool must grow, the answer is full."""
GONE, ANSWERED, STATE = range(3)
"""Places in a walk's progress: events processed, queries answered, why it ended."""
LAST_HOP, TEST, ROW, MEMBER = range(4)
"""Places in the costs."""
COSTS: Final = (4, 2, 3, 8)
"""Nanoseconds it takes to walk a friendship of the last hop, to test one of a recent buyer, to scan a recent purchase,
and to look at a member in the partition: fitted on `make bench`'s cases."""
MEMORY: Final = 1 << 22
"""Expected members after which what the planner has learned is halved."""
GIVE_UP: Final = 2
"""A scan ends without an answer at this many times the cost of the other way."""
PATIENCE: Final = 4
LONGEST_PAUSE: Final = 8
"""PATIENCE scans that fail in a row start a pause, in which queries are answered without a scan; LONGEST_PAUSE is the
longest pause, as a power of two."""
OUTSIDE, LAST, INSIDE, BUYER = range(4)
"""Marks of a user: tested and not a member; a member at the last hop; a member within D - 1 hops; the buyer."""


def _hop(
    low: int, high: int, mark: int, stretch: Int32s, pool: Int32s, seen: Int32s, places: Int32s
) -> int:  # fmt: skip
    """Append the friends of `places[low:high]` that are not marked yet; returns the end."""
    end, walk = high, mark & ~3
    for reached in range(low, high):
        friend = places[reached]
        first = start_of(friend, stretch)
        for i in range(first, first + stretch[STRETCH * friend + DEGREE]):
            other = pool[i]
            known = seen[other]
            places[end] = other
            end += known < walk
            seen[other] = max(known, mark)
    return end


def _scan(
    walk: int, tests: bool, budget: int, costs: Int64s, T: int, incoming: Int32s, pool: Int32s, seen: Int32s,
    rows: Int64s, lately: Int64s, begin: int, windows: Int64s,
) -> tuple[int, int]:  # fmt: skip
    """Write the T latest purchases by members from place `begin` on, by scanning the timeline from the newest back.

    With `tests` a buyer without a mark is a member if somebody within D - 1 hops has it as a friend, and gets the mark
    that says so. Returns how many were found, or -1 if the budget (ns) or the timeline does not reach; and how many
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
            start = start_of(user, incoming)
            end = start + incoming[STRETCH * user + DEGREE]
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
    places: int, sizes: bool, directed: bool, costs: Int64s, stretch: Int32s, incoming: Int32s, pool: Int32s,
    tally: Int64s, seen: Int32s, rows: Int64s, counts: Int32s, lately: Int64s, offsets: Int64s, members: Int32s,
    plans: Int8s, size: Int64s, expected: Int64s, ends: Int64s, windows: Int64s, progress: Int64s,
) -> None:  # fmt: skip
    """Go through the events from where `progress` says; it then says how far it came, and why no further."""
    most = len(plans)
    gone, answered = progress[GONE], progress[ANSWERED]
    progress[STATE] = DONE
    while gone < len(kind):
        if kind[gone] != Kind.PURCHASE:
            if not change(kind[gone], user[gone], friend[gone], stretch, incoming, pool, tally):
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
                    user[gone], D, T, users, 4 * tally[WALKS], sizes, directed, begin, end, costs, stretch, incoming,
                    pool, tally, seen, rows, lately, members,
                    expected[COMPARED * answered : COMPARED * (answered + 1)], windows,
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
    user: int, D: int, T: int, users: int, mark: int, sizes: bool, directed: bool, begin: int, window: int,
    costs: Int64s, stretch: Int32s, incoming: Int32s, pool: Int32s, tally: Int64s, seen: Int32s, rows: Int64s,
    lately: Int64s, members: Int32s, expected: Int64s, windows: Int64s,
) -> tuple[int, int, int, int]:  # fmt: skip
    """The plan; where the members from place `begin` on end, and the window from place `window` on; the network's size.

    The planner: about T * users / members purchases must be scanned to meet T members. How many members the last hop
    brings is expected as if friends were drawn at random, times the share that walks have found of that so far.
    """
    seen[user] = mark + BUYER
    low = high = begin
    first = start_of(user, stretch)
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
        mean_degree = (1.0 if directed else 2.0) * tally[FRIENDSHIPS] / users
        hop_cost = costs[LAST_HOP] * reach
        test_cost = int(min(least, 1e9) * (costs[ROW] + costs[TEST] * mean_degree))
        expected[0], expected[1] = hop_cost, test_cost
        if least <= there and test_cost < hop_cost:
            count, scanned = _scan(
                mark, True, GIVE_UP * hop_cost, costs, T, incoming, pool, seen, rows, lately, window, windows,
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
                mark, False, GIVE_UP * expected[3], costs, T, incoming, pool, seen, rows, lately, window, windows,
            )  # fmt: skip
            _note(count >= 0, tally)
        tally[SPENT] += costs[LAST_HOP] * (reach + size)
        plan = Plan.SCAN
        if count < 0:
            return Plan.PARTITION, end, window, size
    tally[SPENT] += costs[ROW] * scanned
    return plan, begin, window + count, size
