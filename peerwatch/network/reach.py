"""The networks of many users at once: one walk over the friend graph for all of them, a bit for each.

The algorithm is the multi-source breadth-first search of Then et al., "The More the Merrier" (VLDB 2014): where
networks overlap, a friendship is looked at once for 64 users instead of once for each.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peerwatch.kernels import Int8s, Int32s, Int64s, kernel
from peerwatch.network.friendships import DEGREE, STRETCH, start_of
from peerwatch.network.graph import FriendGraph

BITS: Final = 64
"""Users in a word."""
MOST_WORDS: Final = 16
MOST_PLACES: Final = 1 << 20
"""Words that a walk may take for all users together."""
PLANES: Final = 32
"""Binary digits of the number of members of a network."""
FAR: Final = 1 << 30
"""The distance of whoever is not near."""


class Reach(NamedTuple):
    """The networks of q users: a bit for each of them at every member.

    Bit `i % 64` of `seen[words * member + i // 64]` says whether a member is in the network of the i-th; nobody is in
    the own one. All other members than the `reached` have none.
    """

    words: int
    seen: Int64s
    reached: Int32s

    def sizes(self, q: int) -> Int64s:
        """How many members each network has. Shape [q]."""
        sizes = np.zeros(q, np.int64)
        count(self.reached, self.words, self.seen, np.zeros(PLANES * self.words, np.int64), sizes)
        return sizes

    def members(self, q: int) -> tuple[Int64s, Int32s]:
        """The networks one behind the other, members in no particular order; where each begins, shape [q + 1]."""
        offsets = np.zeros(q + 1, np.int64)
        np.cumsum(self.sizes(q), out=offsets[1:])
        members = np.empty(int(offsets[-1]), np.int32)
        collect(self.reached, self.words, self.seen, offsets[:-1].copy(), members)
        return offsets, members

    def holds(self, members: Int32s, owner: Int64s) -> NDArray[np.bool_]:
        """Whether each of some users is a member of the network of the one with the index `owner`."""
        words = self.seen[self.words * members.astype(np.int64) + owner // BITS]
        held: NDArray[np.bool_] = (words >> (owner % BITS) & 1).astype(np.bool_)
        return held

    def without(self, other: "Reach") -> "Reach":
        """The members that are not in the networks of the same users in `other`. Uses this one up."""
        subtract(self.reached, self.words, self.seen, other.seen)
        return self


def batches(graph: FriendGraph, users: Int32s, most: int) -> Iterator[Int32s]:
    """Users in parts that one walk takes: at most `most`, or 64."""
    words = max(1, min(MOST_WORDS, MOST_PLACES // max(1, graph.users), most // BITS))
    for begin in range(0, len(users), BITS * words):
        yield users[begin : begin + BITS * words]


def reach_of(graph: FriendGraph, users: Int32s) -> Reach:
    """The networks of some users, found in one walk."""
    words = max(1, -(-len(users) // BITS))
    bits, touched = np.zeros((3, words * graph.users), np.int64), np.zeros(graph.users, np.int8)
    reached, frontier = np.empty(graph.users, np.int32), np.empty((2, graph.users), np.int32)
    found = spread(
        users, graph.D, words, graph.stretch, graph.pool, bits[0], bits[1], bits[2], touched, reached, frontier[0],
        frontier[1],
    )  # fmt: skip
    return Reach(words, bits[0], reached[:found])


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

    `seen`, `front`, `coming` and `touched` must be 0; no user is a member of its own network.
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
    for place in range(len(users)):
        seen[words * users[place] + place // 64] &= ~(np.int64(1) << np.int64(place % 64))
    return found


def place_of(word: int) -> int:
    """The place of the lowest bit that is set in a word, which is not 0."""
    place = 0
    for width in (32, 16, 8, 4, 2, 1):
        if word & ((1 << width) - 1) == 0:
            word >>= width
            place += width
    return place


@kernel
def count(reached: Int32s, words: int, seen: Int64s, planes: Int64s, sizes: Int64s) -> None:
    """Count the members of each network; `planes` and `sizes` are 0 before.

    All networks of a word are counted at once: a plane holds a binary digit of each of their numbers.
    """
    for place in range(len(reached)):
        for word in range(words):
            carry, at = seen[words * reached[place] + word], PLANES * word
            while carry != 0:
                digit = planes[at]
                planes[at] = digit ^ carry
                carry &= digit
                at += 1
    for q in range(len(sizes)):
        for plane in range(PLANES):
            sizes[q] += (planes[PLANES * (q // BITS) + plane] >> (q % BITS) & 1) << plane


@kernel
def collect(reached: Int32s, words: int, seen: Int64s, places: Int64s, members: Int32s) -> None:
    """Write the members of each network from its place on."""
    for i in range(len(reached)):
        for word in range(words):
            bits = seen[words * reached[i] + word]
            while bits != 0:
                q = BITS * word + place_of(bits)
                members[places[q]] = reached[i]
                places[q] += 1
                bits &= bits - 1


@kernel
def subtract(reached: Int32s, words: int, seen: Int64s, others: Int64s) -> None:
    """Clear the bits that are set in `others`."""
    for i in range(len(reached)):
        for at in range(words * reached[i], words * reached[i] + words):
            seen[at] &= ~others[at]


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
