"""The networks of many users at once are those that sets find, whoever else asks at the same time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.amounts import Amounts
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.reach import FAR, Reach, batches, hops_to, reach_of
from peerwatch.network.windows_at_once import LatestFirst, held_by

USERS = 150
Friends = list[set[int]]


def hops_of(friends: Friends, user: int, most: int) -> dict[int, int]:
    """How many hops it is from a user to everybody within `most`."""
    hops, frontier = {user: 0}, {user}
    for hop in range(1, most + 1):
        frontier = {friend for one in frontier for friend in friends[one]} - hops.keys()
        hops |= dict.fromkeys(frontier, hop)
    return hops


def graph_of(rng: np.random.Generator, friendships: int, D: int, *, directed: bool) -> tuple[FriendGraph, Friends]:
    """A graph of random friendships, and the friends of each user as sets."""
    pairs = rng.integers(0, USERS, (friendships, 2)).astype(np.int32)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    graph = FriendGraph(D, 2, directed=directed)
    graph.reserve(USERS)
    nothing = np.zeros(len(pairs), np.int64)
    kind = np.full(len(pairs), Kind.BEFRIEND, np.int8)
    graph.walk(kind, pairs[:, 0].copy(), pairs[:, 1].copy(), nothing, Amounts(nothing), 1, 0, 1)
    friends: Friends = [set() for _ in range(USERS)]
    for a, b in pairs.tolist():
        friends[a].add(b)
        if not directed:
            friends[b].add(a)
    return graph, friends


def networks_in(reach: Reach, q: int) -> list[set[int]]:
    """The networks as sets."""
    offsets, members = reach.members(q)
    return [{*members[offsets[i] : offsets[i + 1]].tolist()} for i in range(q)]


@given(
    seed=st.integers(0, 2**32 - 1), friendships=st.integers(0, 500), D=st.integers(1, 4), most=st.integers(1, 300),
    directed=st.booleans(),
)  # fmt: skip
def test_networks_and_distances_are_those_of_sets(
    seed: int, friendships: int, D: int, most: int, *, directed: bool
) -> None:
    """In walks of any size; the same users may be asked about twice."""
    rng = np.random.default_rng(seed)
    graph, friends = graph_of(rng, friendships, D, directed=directed)
    asked = rng.integers(0, USERS, rng.integers(0, 2 * USERS)).astype(np.int32)
    parts, found = [*batches(graph, asked, most)], list[set[int]]()
    assert all(len(part) <= max(most, 64) for part in parts)
    assert np.concatenate([asked[:0], *parts]).tolist() == asked.tolist()
    wanted = [hops_of(friends, user, D).keys() - {user} for user in asked.tolist()]
    for part in parts:
        reach, q = reach_of(graph, part), len(part)
        some, owner = rng.integers(0, USERS, 50).astype(np.int32), rng.integers(0, q, 50)
        pairs = zip(some.tolist(), owner.tolist(), strict=True)
        assert reach.holds(some, owner).tolist() == [one in wanted[len(found) + i] for one, i in pairs]
        assert reach.sizes(q).tolist() == [len(one) for one in wanted[len(found) :][:q]]
        found += networks_in(reach, q)
    assert found == wanted
    end = int(rng.integers(USERS))
    to = [hops_of(friends, user, D).get(end, FAR) for user in range(USERS)]
    assert hops_to(graph, end, D).tolist() == to


@given(seed=st.integers(0, 2**32 - 1), friendships=st.integers(0, 500), D=st.integers(2, 4), T=st.integers(1, 40))
def test_lost_members_and_windows_are_those_of_sets(seed: int, friendships: int, D: int, T: int) -> None:
    """The members that shorter networks lack, and the T latest purchases of each, of those that are wanted."""
    rng = np.random.default_rng(seed)
    graph, friends = graph_of(rng, friendships, D, directed=False)
    asked = rng.integers(0, USERS, rng.integers(1, 100)).astype(np.int32)
    q, near = len(asked), graph.copy(D - 1)
    bought = int(rng.integers(0, 300))
    seq, timestamp = np.arange(1, bought + 1), rng.integers(0, 50, bought)
    buyer, amount = rng.integers(0, USERS - 10, bought), rng.integers(0, 1000, bought)
    history = PurchaseHistory(T)
    history.reserve(USERS - 10)
    history.append(seq, buyer.astype(np.int32), timestamp, Amounts(amount), bought)
    wanted = np.flatnonzero(rng.random(q) < 0.7)
    reach = reach_of(graph, asked)
    networks = networks_in(reach, q)
    purchases = LatestFirst.of(history)
    held = held_by(purchases, purchases.by(reach.reached), reach, wanted, q, T)
    windows = purchases.windows(*held.joined(T))
    order = sorted(zip(timestamp.tolist(), seq.tolist(), buyer.tolist(), strict=True), reverse=True)
    for i in range(q):
        latest = [number for _, number, user in order if user in networks[i]][:T] if i in wanted else []
        assert windows.seq[windows.window(i)].tolist() == latest
    latest_of = {user: number for _, number, user in order[::-1]}
    assert [int(purchases.seq[place]) if place >= 0 else None for place in purchases.latest().tolist()] == [
        latest_of.get(user) for user in range(USERS - 10)
    ]
    lost = reach.without(reach_of(near, asked))
    inner = [hops_of(friends, user, D - 1).keys() for user in asked.tolist()]
    assert networks_in(lost, q) == [one - less for one, less in zip(networks, inner, strict=True)]
