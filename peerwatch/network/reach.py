"""The networks of many users at once: one walk over the friend graph for all of them, a bit for each.

The algorithm is the multi-source breadth-first search of Then et al., "The More the Merrier" (VLDB 2014): where
networks overlap, a friendship is looked at once for 64 users instead of once for each.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np

from peerwatch.kernels import Int8s, Int32s, Int64s, kernel
from peerwatch.network.friendships import DEGREE, STRETCH, start_of
from peerwatch.network.graph import FriendGraph
from peerwatch.network.networks import COMPARED, Networks, Plan
from peerwatch.network.windows import Windows

BITS: Final = 64
"""Users in a word."""
MOST_WORDS: Final = 16
MOST_PLACES: Final = 1 << 20
"""Words that a walk may take for all users together; its answer holds at most 64 times as many members."""
FAR: Final = 1 << 30
"""The distance of whoever is not near."""


def networks_of(graph: FriendGraph, users: Int32s, most: int) -> Iterator[Networks]:
    """The networks of some users, in order, at most `most` in one answer. Members ascend."""
    words = max(1, min(MOST_WORDS, MOST_PLACES // max(1, graph.users), -(-len(users) // BITS)))
    bits = np.zeros((3, words * graph.users), np.int64)
    reached, touched = np.empty(graph.users, np.int32), np.zeros(graph.users, np.int8)
    frontier = np.empty((2, graph.users), np.int32)
    for begin in range(0, len(users), BITS * words):
        some = users[begin : begin + BITS * words]
        found = spread(
            some, graph.D, words, graph.stretch, graph.pool, bits[0], bits[1], bits[2], touched, reached, frontier[0],
            frontier[1],
        )  # fmt: skip
        reached[:found].sort()
        offsets = np.zeros(len(some) + 1, np.int64)
        count(found, words, reached, bits[0], offsets[1:])
        size = offsets[1:].copy()
        np.cumsum(size, out=offsets[1:])
        members = np.empty(int(offsets[-1]), np.int32)
        collect(found, words, reached, bits[0], offsets[:-1].copy(), members)
        q = len(some)
        plan, expected = np.full(q, Plan.PARTITION, np.int8), np.full((q, COMPARED), -1, np.int64)
        whole = Networks(offsets, members, plan, size, expected, Windows.empty(q))
        for first in range(0, q, most):
            yield whole.part(first, min(first + most, q))


def hops_to(graph: FriendGraph, user: int, most: int) -> Int64s:
    """For every user the hops to one user, if these are at most `most`, else FAR. Shape [users]."""
    hops, reached = np.full(graph.users, FAR, np.int64), np.empty(graph.users, np.int32)
    approach(user, most, graph.incoming, graph.pool, hops, reached)
    return hops


@kernel
def spread(
    users: Int32s, D: int, words: int, stretch: Int32s, pool: Int32s, seen: Int64s, front: Int64s, coming: Int64s,
    touched: Int8s, reached: Int32s, active: Int32s, following: Int32s,
) -> int:  # fmt: skip
    """Set the bits of the users in `seen[words * member:]` of all their members. Returns how many are reached.

    All other columns must be 0 and are 0 again in the end, besides `seen`; no user is a member of its own network.
    """
    found = live = 0
    for place in range(len(users)):
        one = users[place]
        bit = np.int64(1) << np.int64(place % 64)
        if touched[one] == 0:
            touched[one] = 1
            reached[found] = one
            active[live] = one
            found += 1
            live += 1
        seen[words * one + place // 64] |= bit
        front[words * one + place // 64] |= bit
    for _ in range(D):
        nexts = 0
        for place in range(live):
            one = active[place]
            first = start_of(one, stretch)
            for i in range(first, first + stretch[STRETCH * one + DEGREE]):
                other = pool[i]
                if touched[other] < 2:
                    if touched[other] == 0:
                        reached[found] = other
                        found += 1
                    touched[other] = 2
                    following[nexts] = other
                    nexts += 1
                for word in range(words):
                    coming[words * other + word] |= front[words * one + word]
        for place in range(live):
            one = active[place]
            for word in range(words):
                front[words * one + word] = 0
        live = 0
        for place in range(nexts):
            other = following[place]
            touched[other] = 1
            new_ones = np.int64(0)
            for word in range(words):
                at = words * other + word
                new = coming[at] & ~seen[at]
                coming[at] = 0
                seen[at] |= new
                front[at] = new
                new_ones |= new
            if new_ones != 0:
                active[live] = other
                live += 1
    for place in range(live):
        one = active[place]
        for word in range(words):
            front[words * one + word] = 0
    for place in range(found):
        touched[reached[place]] = 0
    for place in range(len(users)):
        seen[words * users[place] + place // 64] &= ~(np.int64(1) << np.int64(place % 64))
    return found


@kernel
def count(found: int, words: int, reached: Int32s, seen: Int64s, sizes: Int64s) -> None:
    """Count the members of each network."""
    for place in range(found):
        for word in range(words):
            bits = seen[words * reached[place] + word]
            q = 64 * word
            while bits != 0 and q < 64 * word + 64:
                if bits & 1 and q < len(sizes):
                    sizes[q] += 1
                bits >>= 1
                q += 1


@kernel
def collect(found: int, words: int, reached: Int32s, seen: Int64s, places: Int64s, members: Int32s) -> None:
    """Write the members of each network from its place on, and clear all bits."""
    for place in range(found):
        for word in range(words):
            at = words * reached[place] + word
            bits = seen[at]
            seen[at] = 0
            q = 64 * word
            while bits != 0 and q < 64 * word + 64:
                if bits & 1 and q < len(places):
                    members[places[q]] = reached[place]
                    places[q] += 1
                bits >>= 1
                q += 1


@kernel
def approach(user: int, most: int, incoming: Int32s, pool: Int32s, hops: Int64s, reached: Int32s) -> None:
    """Write the hops of everybody who comes to a user within `most`; `hops` must be larger than that before."""
    hops[user] = 0
    reached[0] = user
    low, high = 0, 1
    for hop in range(1, most + 1):
        end = high
        for place in range(low, high):
            one = reached[place]
            first = start_of(one, incoming)
            for i in range(first, first + incoming[STRETCH * one + DEGREE]):
                if hops[pool[i]] > most:
                    hops[pool[i]] = hop
                    reached[end] = pool[i]
                    end += 1
        low, high = high, end
