"""The friend graph against sets."""

import mmap
import sys
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import network_of
from strategies import examples
from support import FORCED

from peerwatch.amounts import Amounts
from peerwatch.kernels import Int32s
from peerwatch.network.events import Kind
from peerwatch.network.friendships import BITS, USED
from peerwatch.network.graph import FriendGraph
from peerwatch.network.networks import Networks, Plan
from peerwatch.network.walk import COSTS

EVENTS = st.lists(
    st.tuples(st.sampled_from(Kind), st.integers(0, 11), st.integers(0, 11), st.integers(0, 20)).filter(
        lambda e: e[1] != e[2]
    ),
    max_size=150,
)
EventTuple = tuple[Kind, int, int, int]
NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
"""Memory that is counted only where it is written; Python has the name from 3.13 on."""


class Answer(NamedTuple):
    """One question's plan, the network's size, and its members, or its window: purchases by their sequence numbers."""

    plan: Plan
    size: int
    places: list[int]


def answers_of(
    graph: FriendGraph, events: list[EventTuple], most: int, members: int, seq: int = 1, *, sizes: bool = False
) -> list[Answer]:
    """Walk to the end in as many answers as it takes."""
    kind, user, friend, stamp = (np.array(column) for column in zip(*events, strict=True))
    found: list[Answer] = []
    gone, asked = 0, seq + np.flatnonzero(kind == Kind.PURCHASE)
    while gone < len(kind):
        rest = slice(gone, None)
        done, networks = graph.walk(
            kind[rest].astype(np.int8), user[rest].astype(np.int32), friend[rest].astype(np.int32), stamp[rest],
            Amounts(10 * (seq + np.arange(gone, len(kind)))), seq + gone, most, members, sizes=sizes,
        )  # fmt: skip
        found += [answer_of(networks, i, dict(zip(asked.tolist(), stamp[asked - seq], strict=True)))
                  for i in range(len(networks.plan))]  # fmt: skip
        gone += done
    return found


def answer_of(networks: Networks, i: int, stamps: dict[int, int]) -> Answer:
    """The i-th answer; of what is in its window, timestamps and amounts have to be right as well."""
    plan, size, found = Plan(int(networks.plan[i])), int(networks.size[i]), networks.found
    members = networks.members[networks.offsets[i] : networks.offsets[i + 1]]
    if plan is Plan.PARTITION:
        assert len(found.seq[found.window(i)]) == 0
        return Answer(plan, size, sorted(members.tolist()))
    window = found.window(i)
    seqs, timestamps, amounts = (column[window].tolist() for column in (found.seq, found.timestamp, found.amount))
    assert amounts == [10 * seq for seq in seqs]
    assert all(stamp == stamps.get(seq, stamp) for seq, stamp in zip(seqs, timestamps, strict=True))
    return Answer(plan, size, sorted(seqs))


def expected_of(
    events: list[EventTuple], D: int, T: int, seq: int = 1, *, directed: bool = False
) -> list[tuple[list[int], list[int]]]:
    """Of each purchase the members of the network, and its T latest purchases' sequence numbers."""
    friends: dict[str, set[str]] = {}
    bought: list[tuple[int, int, int]] = []
    expected = []
    for number, (kind, a, b, stamp) in enumerate(events, seq):
        if kind is Kind.PURCHASE:
            network = {int(member) for member in network_of(friends, str(a), D)}
            latest = sorted((when, which) for when, which, who in bought if who in network)[-T:]
            expected.append((sorted(network), sorted(which for _, which in latest)))
            bought.append((stamp, number, a))
        elif kind is Kind.BEFRIEND:
            friends.setdefault(str(a), set()).add(str(b))
            if not directed:
                friends.setdefault(str(b), set()).add(str(a))
        else:
            friends.get(str(a), set()).discard(str(b))
            if not directed:
                friends.get(str(b), set()).discard(str(a))
    return expected


@settings(max_examples=examples(500))
@given(
    events=EVENTS, D=st.integers(1, 5), T=st.integers(1, 8), most=st.integers(1, 200), members=st.integers(1, 60),
    recent=st.sampled_from((4, 16, 1024)), costs=st.sampled_from((COSTS, *FORCED.values())), sizes=st.booleans(),
    directed=st.booleans(),
)  # fmt: skip
def test_answers_are_those_of_sets(
    events: list[EventTuple],
    D: int,
    T: int,
    most: int,
    members: int,
    recent: int,
    costs: tuple[int, ...],
    *,
    sizes: bool,
    directed: bool,
) -> None:
    """Each purchase sees its network at that moment, whatever the plan, however little is remembered, however cut."""
    graph = FriendGraph(D, T, directed=directed, recent=recent, costs=costs)
    graph.reserve(12)
    found = answers_of(graph, events, most, members, sizes=sizes) if events else []
    expected = expected_of(events, D, T, directed=directed)
    assert len(found) == len(expected)
    for answer, (network, latest) in zip(found, expected, strict=True):
        assert answer.places == (network if answer.plan is Plan.PARTITION else latest)
        assert answer.size == len(network) or (answer.plan is Plan.MEMBERSHIP and not sizes and answer.size == -1)


@pytest.mark.parametrize("directed", [False, True])
@pytest.mark.parametrize("plan", Plan)
def test_each_plan_finds_what_sets_find(plan: Plan, *, directed: bool) -> None:
    """In many busy networks, by each plan: that it has been taken often is a part of the test."""
    rng = np.random.default_rng(8)
    taken = 0
    for _ in range(40):
        D, T = int(rng.integers(2 if plan is Plan.MEMBERSHIP else 1, 5)), int(rng.integers(1, 9))
        kinds = rng.choice([*Kind], 150, p=[0.6, 0.25, 0.15])
        users = rng.integers(0, 12, 150)
        others = (users + rng.integers(1, 12, 150)) % 12
        stamps = np.arange(150) // 3 - 5 * (rng.random(150) < 0.1)
        rows = zip(kinds.tolist(), users.tolist(), others.tolist(), stamps.tolist(), strict=True)
        events = [(Kind(kind), user, other, stamp) for kind, user, other, stamp in rows]
        graph = FriendGraph(D, T, directed=directed, costs=FORCED[plan])
        graph.reserve(12)
        found = answers_of(graph, events, 200, 1 << 20)
        for answer, (network, latest) in zip(found, expected_of(events, D, T, directed=directed), strict=True):
            assert answer.places == (network if answer.plan is Plan.PARTITION else latest)
            taken += answer.plan is plan
    assert taken > 1000


@pytest.mark.parametrize("plan", Plan)
def test_the_planner_follows_its_costs(plan: Plan) -> None:
    """With costs that favour a plan, it is the plan, and what was compared says why."""
    rng = np.random.default_rng(3)
    events = [(Kind.BEFRIEND, int(a), int(b), 0) for a, b in rng.integers(0, 12, (30, 2)) if a != b]
    events += [(Kind.PURCHASE, int(user), 12, i) for i, user in enumerate(rng.integers(0, 12, 200))]
    graph = FriendGraph(3, 5, costs=FORCED[plan])
    graph.reserve(12)
    user, kind = (np.array([event[i] for event in events]) for i in (1, 0))
    friend, stamp = (np.array([event[i] for event in events]) for i in (2, 3))
    amount = Amounts(10 * np.arange(1, len(kind) + 1))
    _, networks = graph.walk(
        kind.astype(np.int8), user.astype(np.int32), friend.astype(np.int32), stamp, amount, 1, 200, 1 << 20
    )
    assert (networks.plan[100:] == plan).all()
    last_hop, membership, scan, partition = networks.expected[-1].tolist()
    assert (membership < last_hop) == (plan is Plan.MEMBERSHIP)
    if plan is not Plan.MEMBERSHIP:
        assert (scan < partition) == (plan is Plan.SCAN)
    assert [a.places for a in answers_of(graph, events[30:], 200, 1 << 20, 300)]  # it goes on from there


@settings(max_examples=examples(150))
@given(
    events=EVENTS, later=EVENTS, D=st.integers(1, 3), T=st.integers(1, 8),
    costs=st.sampled_from(list(FORCED.values())), directed=st.booleans(),
)  # fmt: skip
def test_a_restored_graph_answers_as_before(
    events: list[EventTuple], later: list[EventTuple], D: int, T: int, costs: tuple[int, ...], *, directed: bool
) -> None:
    """From its columns and the purchases so far, the last of which alone it remembers, a graph goes on alike."""
    graph = FriendGraph(D, T, directed=directed)
    graph.reserve(12)
    answers_of(graph, events, 200, 1 << 20) if events else []
    other = FriendGraph.from_columns(D, T, *graph.columns(), directed=directed, recent=8, costs=costs)
    assert other.friendships == graph.friendships
    other.reserve(12)
    bought = [(number, user, stamp) for number, (kind, user, _, stamp) in enumerate(events, 1) if kind is Kind.PURCHASE]
    seq, user, stamp = (np.array([row[i] for row in bought], np.int64) for i in range(3))
    other.timeline.remember(seq, user.astype(np.int32), stamp, Amounts(10 * seq))
    found = answers_of(other, later, 200, 1 << 20, len(events) + 1) if later else []
    expected = expected_of([*events, *later], D, T, directed=directed)[len(bought) :]
    for answer, (network, latest) in zip(found, expected, strict=True):
        assert answer.places == (network if answer.plan is Plan.PARTITION else latest)


@settings(max_examples=examples(100))
@given(
    events=EVENTS, later=EVENTS, other=EVENTS, D=st.integers(1, 3), T=st.integers(1, 8),
    costs=st.sampled_from((COSTS, *FORCED.values())), directed=st.booleans(),
)  # fmt: skip
def test_a_graph_that_took_over_what_another_holds_answers_alike(
    events: list[EventTuple],
    later: list[EventTuple],
    other: list[EventTuple],
    D: int,
    T: int,
    costs: tuple[int, ...],
    *,
    directed: bool,
) -> None:
    """By the same plans; what either goes through from then on changes nothing in the other."""
    first, second, third = (FriendGraph(D, T, directed=directed, recent=8, costs=costs) for _ in range(3))
    for graph in (first, third):
        graph.reserve(12)
        answers_of(graph, events, 200, 1 << 20) if events else []
    second.take_over(first.contents())
    answers_of(first, other, 200, 1 << 20, len(events) + 1) if other else []
    if later:
        found = answers_of(second, later, 200, 1 << 20, len(events) + 1)
        assert found == answers_of(third, later, 200, 1 << 20, len(events) + 1)


def changed(graph: FriendGraph, kind: Kind, a: int, others: np.ndarray) -> None:
    """User a befriends or unfriends all others."""
    count = len(others)
    nothing = np.zeros(count, np.int64)
    graph.walk(
        np.full(count, kind, np.int8), np.full(count, a, np.int32), others, nothing, Amounts(nothing), 1, 0, 0
    )  # fmt: skip


@pytest.mark.parametrize("directed", [False, True])
def test_the_pool_grows_and_closes_its_gaps(*, directed: bool) -> None:
    """A hub with thousands of friends, made and ended twice, needs no more than a few times its friendships."""
    graph = FriendGraph(1, 2, directed=directed)
    users = 5000
    graph.reserve(users)
    others = np.arange(1, users, dtype=np.int32)
    for _ in range(2):
        for kind in (Kind.BEFRIEND, Kind.UNFRIEND, Kind.BEFRIEND):
            changed(graph, kind, 0, others)
    assert sorted(graph.friends(0).tolist()) == others.tolist()
    assert all(graph.friends(other).tolist() == ([] if directed else [0]) for other in others.tolist())
    assert graph.friendships == len(others)
    assert len(graph.pool) < 20 * users


@pytest.fixture(scope="module")
def far() -> Int32s:
    """More places than 32 bits count: address space alone, of which memory is taken only where it is written."""
    size = 4 * (5 << BITS)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE
    return np.frombuffer(mmap.mmap(-1, size, flags=flags), np.int32)


@settings(max_examples=examples(100))
@given(
    events=EVENTS,
    later=EVENTS,
    D=st.integers(1, 4),
    T=st.integers(1, 8),
    costs=st.sampled_from((COSTS, *FORCED.values())),
    begin=st.integers((1 << BITS) - 60, 1 << BITS) | st.integers((4 << BITS) - 60, 4 << BITS),
)
def test_friendships_may_stand_further_out_than_32_bits_count(
    far: Int32s, events: list[EventTuple], later: list[EventTuple], D: int, T: int, costs: tuple[int, ...], begin: int
) -> None:
    """Stretches that begin around and behind place 2^31 or 2^33 give the answers of a graph that begins at 0.

    So do the columns that they are copied to.
    """
    graph, near = (FriendGraph(D, T, costs=costs) for _ in range(2))
    graph.pool, graph.tally[USED] = far, begin
    for each in (graph, near):
        each.reserve(12)
    if events:
        assert answers_of(graph, events, 200, 1 << 20) == answers_of(near, events, 200, 1 << 20)
    for user in range(12):
        assert graph.friends(user).tolist() == near.friends(user).tolist()
    for column, other in zip(graph.columns(), near.columns(), strict=True):
        assert column.tolist() == other.tolist()
    if later:
        seq = len(events) + 1
        assert answers_of(graph, later, 200, 1 << 20, seq) == answers_of(near, later, 200, 1 << 20, seq)


def test_mutual_friendships_are_held_once() -> None:
    """Only directed ones take a second set of columns."""
    graph = FriendGraph(1, 2)
    graph.reserve(9)
    changed(graph, Kind.BEFRIEND, 0, np.arange(1, 9, dtype=np.int32))
    for each in (graph, graph.copy(), FriendGraph.from_columns(1, 2, *graph.columns())):
        assert each.incoming is each.stretch
