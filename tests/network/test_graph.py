"""The friend graph against sets."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import network_of

from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph

EVENTS = st.lists(
    st.tuples(st.sampled_from(Kind), st.integers(0, 11), st.integers(0, 11)).filter(lambda e: e[1] != e[2]),
    max_size=150,
)


def networks_of(graph: FriendGraph, events: list[tuple[Kind, int, int]], most: int, members: int) -> list[list[int]]:
    """Walk to the end in as many answers as it takes."""
    kind, user, friend = (np.array(column) for column in zip(*events, strict=True))
    found = []
    while len(kind):
        gone, networks = graph.walk(kind.astype(np.int8), user.astype(np.int32), friend.astype(np.int32), most, members)
        found += [networks.members[a:b].tolist() for a, b in zip(networks.offsets, networks.offsets[1:], strict=False)]
        kind, user, friend = kind[gone:], user[gone:], friend[gone:]
    return found


@settings(max_examples=300)
@given(events=EVENTS, D=st.integers(1, 5), most=st.integers(1, 200), members=st.integers(1, 60))
def test_networks_are_those_of_sets(events: list[tuple[Kind, int, int]], D: int, most: int, members: int) -> None:
    """Each purchase sees everyone within D hops at that moment, once, however the answers are cut."""
    friends: dict[str, set[str]] = {}
    expected = []
    for kind, a, b in events:
        if kind is Kind.PURCHASE:
            expected.append(sorted(network_of(friends, str(a), D)))
        elif kind is Kind.BEFRIEND:
            friends.setdefault(str(a), set()).add(str(b))
            friends.setdefault(str(b), set()).add(str(a))
        else:
            friends.get(str(a), set()).discard(str(b))
            friends.get(str(b), set()).discard(str(a))
    graph = FriendGraph(D)
    graph.reserve(12)
    found = networks_of(graph, events, most, members) if events else []
    assert [sorted(str(member) for member in network) for network in found] == expected
    assert graph.friendships == sum(map(len, friends.values())) // 2
    for user in range(12):
        assert {str(friend) for friend in graph.friends(user).tolist()} == friends.get(str(user), set())


def test_the_pool_grows_and_closes_its_gaps() -> None:
    """A hub with thousands of friends, made and ended twice, needs no more than a few times its friendships."""
    graph = FriendGraph(1)
    users = 5000
    graph.reserve(users)
    others = np.arange(1, users, dtype=np.int32)
    for _ in range(2):
        for kind in (Kind.BEFRIEND, Kind.UNFRIEND, Kind.BEFRIEND):
            graph.walk(np.full(users - 1, kind, np.int8), np.zeros(users - 1, np.int32), others, 0, 0)
    assert sorted(graph.friends(0).tolist()) == others.tolist()
    assert len(graph.pool) < 20 * users
