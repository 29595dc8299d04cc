"""The friendships on which the purchases in users' windows depend."""

from peerwatch.kernels import Int8s, Int32s, Int64s, kernel
from peerwatch.network.friendships import DEGREE, STRETCH, start_of

PLACES = 4
"""Places in `seen` for each user."""


@kernel
def hanging(
    users: Int32s, sizes: Int64s, buyers: Int32s, D: int, stamp: int, stretch: Int32s, pool: Int32s, seen: Int64s,
    reached: Int32s, owner: Int64s, near: Int32s, far: Int32s,
) -> int:  # fmt: skip
    """Write the friendships that are the only way from one hop to the next on a shortest path to a buyer.

    `buyers[sizes[q]:sizes[q + 1]]` are those of the q-th user. For each user `seen` has four places: when it was
    reached last, through whom, whether it was through another one as well, and when its way was written last. All
    stamps in it are at most `stamp`. Returns how many friendships there are, by their user's place.
    """
    found = 0
    for q in range(len(users)):
        now = stamp + q + 1
        reached[0] = users[q]
        seen[PLACES * users[q]] = now
        seen[PLACES * users[q] + 3] = now
        low, high = 0, 1
        for _ in range(D):
            end = high
            for place in range(low, high):
                one = reached[place]
                first = start_of(one, stretch)
                for i in range(first, first + stretch[STRETCH * one + DEGREE]):
                    at = PLACES * pool[i]
                    if seen[at] != now:
                        seen[at], seen[at + 1], seen[at + 2] = now, one, -high
                        reached[end] = pool[i]
                        end += 1
                    elif seen[at + 2] == -high and seen[at + 1] != one:
                        seen[at + 2] = 1
            low, high = high, end
        for i in range(sizes[q], sizes[q + 1]):
            one = buyers[i]
            while seen[PLACES * one + 3] != now:
                seen[PLACES * one + 3] = now
                if seen[PLACES * one + 2] < 1:
                    owner[found], near[found], far[found] = q, seen[PLACES * one + 1], one
                    found += 1
                one = seen[PLACES * one + 1]
    return found


@kernel
def mark_lost(
    offsets: Int64s, members: Int32s, owner: Int64s, sizes: Int64s, buyers: Int32s, stamp: int, seen: Int64s,
    lost: Int8s,
) -> None:  # fmt: skip
    """Mark the networks that lack one of the buyers in their owner's window; stamps as for `hanging`."""
    for q in range(len(owner)):
        for i in range(offsets[q], offsets[q + 1]):
            seen[PLACES * members[i]] = stamp + q
        for i in range(sizes[owner[q]], sizes[owner[q] + 1]):
            lost[q] |= seen[PLACES * buyers[i]] != stamp + q
