"""The friendships on which the purchases in users' windows depend.

A friendship is on every path of at most D hops from a user to a buyer only if breadth-first search comes to its far end
over no other friendship. Without it only those are farther who are reached through that end alone, and they alone are
looked at again (as in Ramalingam and Reps, "An Incremental Algorithm for a Generalization of the Shortest-Path
Problem", 1996).
"""

from peerwatch.kernels import Int32s, Int64s, kernel
from peerwatch.network.friendships import DEGREE, STRETCH, start_of

REACHED, HOP, THROUGH, WAYS, WRITTEN, IN_WINDOW, MET, MET_BY, CUT, LATER, PLACES = range(11)
"""Places in `marks` for each user.

The walk that reached it last, at which hop, through whom first, and through how many; the walk in which its way was
written last, and in which it has a purchase in the window. The friendship left out by which it was met last, by how
many that are farther without it, by which it is farther itself, and its hop then (0: too far).
"""
USER, FRIENDSHIP, STAMP, PROGRESS = range(4)
"""Places in the progress: the user's index, its friendships that are done, and the latest walk or friendship."""


def _walk(user: int, walk: int, D: int, stretch: Int32s, pool: Int32s, marks: Int64s, reached: Int32s) -> None:
    """Mark a user and the network."""
    reached[0] = user
    at = PLACES * user
    marks[at + REACHED] = marks[at + WRITTEN] = walk
    marks[at + HOP] = marks[at + WAYS] = 0
    low, high = 0, 1
    for hop in range(1, D + 1):
        end = high
        for place in range(low, high):
            one = reached[place]
            first = start_of(one, stretch)
            for i in range(first, first + stretch[STRETCH * one + DEGREE]):
                at = PLACES * pool[i]
                if marks[at + REACHED] != walk:
                    marks[at + REACHED], marks[at + HOP], marks[at + THROUGH], marks[at + WAYS] = walk, hop, one, 1
                    reached[end] = pool[i]
                    end += 1
                elif marks[at + HOP] == hop:
                    marks[at + WAYS] += 1
        low, high = high, end


def _farther(
    far: int, walk: int, stamp: int, D: int, stretch: Int32s, pool: Int32s, marks: Int64s, cut: Int32s
) -> int:  # fmt: skip
    """Mark and write all who are farther without the only way to `far`; returns how many."""
    cut[0] = far
    marks[PLACES * far + CUT], marks[PLACES * far + LATER] = stamp, 0
    place, end = 0, 1
    while place < end:
        one = cut[place]
        place += 1
        hop = marks[PLACES * one + HOP]
        if hop == D:
            continue
        first = start_of(one, stretch)
        for i in range(first, first + stretch[STRETCH * one + DEGREE]):
            at = PLACES * pool[i]
            if marks[at + REACHED] != walk or marks[at + HOP] != hop + 1:
                continue
            if marks[at + MET] != stamp:
                marks[at + MET], marks[at + MET_BY] = stamp, 0
            marks[at + MET_BY] += 1
            if marks[at + MET_BY] == marks[at + WAYS]:
                marks[at + CUT], marks[at + LATER] = stamp, 0
                cut[end] = pool[i]
                end += 1
    return end


def _lost(
    near: int, far: int, walk: int, stamp: int, D: int, incoming: Int32s, pool: Int32s, marks: Int64s, cut: Int32s,
    end: int,
) -> bool:  # fmt: skip
    """Find the new hops of those who are farther; whether a buyer in the window is too far then."""
    for hop in range(marks[PLACES * far + HOP] + 1, D + 1):
        for place in range(end):
            one = cut[place]
            if marks[PLACES * one + LATER] != 0:
                continue
            first = start_of(one, incoming)
            for i in range(first, first + incoming[STRETCH * one + DEGREE]):
                at = PLACES * pool[i]
                if marks[at + REACHED] != walk or (one == far and pool[i] == near):
                    continue
                if marks[at + CUT] != stamp:
                    before = marks[at + HOP]
                elif marks[at + LATER] != 0:
                    before = marks[at + LATER]
                else:
                    continue
                if before < hop:
                    marks[PLACES * one + LATER] = hop
                    break
    for place in range(end):
        at = PLACES * cut[place]
        if marks[at + LATER] == 0 and marks[at + IN_WINDOW] == walk:
            return True
    return False


def _window(
    user: int, walk: int, stamp: int, T: int, begin: int, count: int, deepest: int, held: Int32s, candidates: Int32s,
    buyer: Int32s, marks: Int64s, to: int, places: Int32s,
) -> int:  # fmt: skip
    """Write the window without the lost from place `to` on; returns its end.

    If the purchases held are not enough, the candidates behind the last one are looked through.
    """
    end = to
    for i in range(begin, begin + count):
        at = PLACES * buyer[held[i]]
        if marks[at + CUT] != stamp or marks[at + LATER] != 0:
            places[end] = held[i]
            end += 1
            if end == to + T:
                return end
    if count < deepest:
        return end
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if candidates[middle] <= held[begin + count - 1]:
            low = middle + 1
        else:
            high = middle
    for i in range(low, len(candidates)):
        one = buyer[candidates[i]]
        at = PLACES * one
        if marks[at + REACHED] == walk and one != user and (marks[at + CUT] != stamp or marks[at + LATER] != 0):
            places[end] = candidates[i]
            end += 1
            if end == to + T:
                break
    return end


@kernel
def without_each(
    users: Int32s, D: int, T: int, deepest: int, count: Int64s, held: Int32s, candidates: Int32s, buyer: Int32s,
    stretch: Int32s, incoming: Int32s, pool: Int32s, marks: Int64s, reached: Int32s, cut: Int32s, progress: Int64s,
    owner: Int64s, near: Int32s, far: Int32s, offsets: Int64s, places: Int32s,
) -> int:  # fmt: skip
    """Find the friendships without which windows would be others, and these windows.

    The purchases of the q-th user's network that are held are `held[deepest * q:deepest * q + count[q]]`, the first T
    of them the window. Writes the user's index, the friendship's ends, and the places of the window without it, behind
    each other. Returns how many there are; if `progress[USER]` is not the number of users, there are more.
    """
    found = 0
    while progress[USER] < len(users):
        q = progress[USER]
        user, begin, size = users[q], deepest * q, min(count[q], T)
        progress[STAMP] += 1
        walk, seen = progress[STAMP], 0
        _walk(user, walk, D, stretch, pool, marks, reached)
        for i in range(begin, begin + size):
            marks[PLACES * buyer[held[i]] + IN_WINDOW] = walk
        for i in range(begin, begin + size):
            one = buyer[held[i]]
            while marks[PLACES * one + WRITTEN] != walk:
                at = PLACES * one
                marks[at + WRITTEN] = walk
                before = marks[at + THROUGH]
                if marks[at + WAYS] == 1:
                    seen += 1
                    if seen > progress[FRIENDSHIP]:
                        if found == len(owner) or offsets[found] + T > len(places):
                            return found
                        progress[STAMP] += 1
                        progress[FRIENDSHIP] = seen
                        stamp = progress[STAMP]
                        end = _farther(one, walk, stamp, D, stretch, pool, marks, cut)
                        if _lost(before, one, walk, stamp, D, incoming, pool, marks, cut, end):
                            owner[found], near[found], far[found] = q, before, one
                            offsets[found + 1] = _window(
                                user, walk, stamp, T, begin, count[q], deepest, held, candidates, buyer, marks,
                                offsets[found], places,
                            )  # fmt: skip
                            found += 1
                one = before
        progress[USER] += 1
        progress[FRIENDSHIP] = 0
    return found
