"""Egonets and communities, against sets and graphs whose shape is known."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from peerwatch.network.communities import communities
from peerwatch.network.egonets import egonets
from peerwatch.network.graph import FriendGraph


def graph_of(friendships: list[tuple[int, int]], users: int) -> FriendGraph:
    """The graph of these friendships."""
    both = sorted({*friendships, *((b, a) for a, b in friendships)})
    degree = np.bincount([a for a, _ in both], minlength=users).astype(np.int32)
    return FriendGraph.from_columns(2, 50, degree, np.array([b for _, b in both], np.int32))


PAIRS = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)).filter(lambda pair: pair[0] != pair[1]), max_size=60)


@given(friendships=PAIRS)
@settings(max_examples=examples(60))
def test_friendships_within_an_egonet_are_counted(friendships: list[tuple[int, int]]) -> None:
    """Those of the user, and those among the friends; scores are numbers, 0 for whoever has fewer than two friends."""
    found = egonets(graph_of(friendships, 15))
    known = {frozenset(pair) for pair in friendships}
    for user in range(15):
        friends = {other for pair in known if user in pair for other in pair} - {user}
        own = [pair for pair in known if pair <= friends | {user}]
        assert (found.friends[user], found.friendships[user]) == (len(friends), len(own))
    assert np.isfinite(found.score).all()
    assert (found.score >= 0).all()
    assert not found.score[found.friends < 2].any()


def test_a_ring_and_a_star_stand_out() -> None:
    """Beside ordinary users: some whose friends all know each other, and one whose friends do not."""
    rng = np.random.default_rng(1)
    friendships = [(a, b) for a, b in itertools.combinations(range(200), 2) if abs(a - b) < 9 and rng.random() < 0.6]
    friendships += itertools.combinations(range(200, 216), 2)
    friendships += [(216, 3 * other) for other in range(60)]
    found = egonets(graph_of(friendships, 217))
    ring, star = np.arange(200, 216), 216
    assert (found.friendships[ring] > found.expected[ring]).all()
    assert found.friendships[star] < found.expected[star]
    assert found.score[200:].min() > found.score[:200].max()


def test_communities_are_cliques_with_a_bridge_between_them() -> None:
    """The largest is number 0; twice the same answer."""
    friendships = [*itertools.combinations(range(9), 2), *itertools.combinations(range(9, 15), 2), (0, 9)]
    graph = graph_of(friendships, 16)
    found = communities(graph)
    assert found.tolist() == [0] * 9 + [1] * 6 + [2]
    np.testing.assert_array_equal(communities(graph), found)


def test_an_empty_graph_has_no_communities() -> None:
    """Nor egonets."""
    graph = FriendGraph(1, 2)
    assert len(communities(graph)) == len(egonets(graph).score) == 0
    assert egonets(graph_of([(0, 1)], 3)).score == pytest.approx([0.0, 0.0, 0.0])
