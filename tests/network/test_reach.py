"""The networks of many users at once are those that sets find, whoever else asks at the same time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.amounts import Amounts
from peerwatch.network import reach
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph
from peerwatch.network.reach import FAR, hops_to, networks_of

USERS = 150


def hops_of(friends: list[set[int]], user: int, most: int) -> dict[int, int]:
    """How many hops it is from a user to everybody within `most`."""
    hops, frontier = {user: 0}, {user}
    for hop in range(1, most + 1):
        frontier = {friend for one in frontier for friend in friends[one]} - hops.keys()
        hops |= dict.fromkeys(frontier, hop)
    return hops


@given(
    seed=st.integers(0, 2**32 - 1), friendships=st.integers(0, 500), D=st.integers(1, 4), most=st.integers(1, 200),
    words=st.integers(1, 3), directed=st.booleans(),
)  # fmt: skip
def test_networks_and_distances_are_those_of_sets(
    seed: int, friendships: int, D: int, most: int, words: int, *, directed: bool
) -> None:
    """In answers and in walks of any size; the same users may be asked about twice."""
    rng = np.random.default_rng(seed)
    pairs = rng.integers(0, USERS, (friendships, 2)).astype(np.int32)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    graph = FriendGraph(D, 2, directed=directed)
    graph.reserve(USERS)
    nothing = np.zeros(len(pairs), np.int64)
    kind = np.full(len(pairs), Kind.BEFRIEND, np.int8)
    graph.walk(kind, pairs[:, 0].copy(), pairs[:, 1].copy(), nothing, Amounts(nothing), 1, 0, 1)
    friends: list[set[int]] = [set() for _ in range(USERS)]
    for a, b in pairs.tolist():
        friends[a].add(b)
        if not directed:
            friends[b].add(a)
    asked = rng.integers(0, USERS, rng.integers(0, 2 * USERS)).astype(np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reach, "MOST_WORDS", words)
        answers = [*networks_of(graph, asked, most)]
    assert all(len(answer.plan) <= most for answer in answers)
    found = [
        answer.members[begin:end].tolist()
        for answer in answers
        for begin, end in zip(answer.offsets[:-1].tolist(), answer.offsets[1:].tolist(), strict=True)
    ]
    assert found == [sorted(hops_of(friends, user, D).keys() - {user}) for user in asked.tolist()]
    assert [size for answer in answers for size in answer.size.tolist()] == [len(one) for one in found]
    end = int(rng.integers(USERS))
    to = [hops_of(friends, user, D).get(end, FAR) for user in range(USERS)]
    assert hops_to(graph, end, D).tolist() == to
