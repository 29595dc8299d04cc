"""How unusual a user's place in the friend graph is: OddBall's power law of egonets (Akoglu et al., 2010).

The egonet of a user are the user, the friends, and all friendships among them. In a star of N friends there are N
friendships, in a clique N (N + 1) / 2; in one graph most egonets follow a power law between the two.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peerwatch.kernels import Int32s, Int64s, kernel
from peerwatch.network.graph import FriendGraph

FEWEST: Final = 2
"""Users with fewer friends have no shape: one friend is a star and a clique."""

Floats = NDArray[np.float64]


class Egonets(NamedTuple):
    """The egonets of all users: their friends, their friendships, those expected, and how unusual that is.

    The score is OddBall's: how many times too many or too few the friendships are, times the logarithm of the
    difference plus 1; 0 for users with fewer than FEWEST friends. Shapes [users].
    """

    friends: Int64s
    friendships: Int64s
    expected: Floats
    score: Floats


def egonets(graph: FriendGraph) -> Egonets:
    """Count the egonets of all users and fit the power law to them.

    It is fitted to the median of the friendships for each number of friends: by least squares of the logarithms, each
    number of friends with the weight of its users.
    """
    degree, friends = graph.columns()
    start = np.concatenate([[0], np.cumsum(degree, dtype=np.int64)])
    count = degree.astype(np.int64)
    friendships = count.copy()
    _count_triangles(start, friends, np.zeros(graph.users, np.int32), friendships)
    known = count >= FEWEST
    expected, score = friendships.astype(np.float64), np.zeros(graph.users)
    sizes = np.unique(count[known])
    if len(sizes) > 1:
        medians = np.array([np.median(friendships[count == size]) for size in sizes.tolist()])
        power, factor = np.polyfit(np.log(sizes), np.log(medians), 1, w=np.sqrt(np.bincount(count)[sizes]))
        expected[known] = np.exp(factor) * count[known] ** power
    elif len(sizes):
        expected[known] = np.median(friendships[known])
    more, less = np.maximum(friendships, expected)[known], np.minimum(friendships, expected)[known]
    score[known] = more / less * np.log1p(more - less)
    return Egonets(count, friendships, expected, score)


@kernel
def _count_triangles(start: Int64s, friends: Int32s, mark: Int32s, friendships: Int64s) -> None:
    """Add, for each user, the friendships among the friends; user u's are `friends[start[u]:start[u + 1]]`."""
    for user in range(len(friendships)):
        for place in range(start[user], start[user + 1]):
            mark[friends[place]] = user + 1
        ends = 0
        for place in range(start[user], start[user + 1]):
            friend = friends[place]
            for other in range(start[friend], start[friend + 1]):
                ends += mark[friends[other]] == user + 1
        friendships[user] += ends // 2
