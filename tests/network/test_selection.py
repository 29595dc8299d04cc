"""Windows as a run selects them, by graph and histories together, against sorted lists."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import network_of
from strategies import examples
from support import FORCED

from peerwatch.amounts import Amounts
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.networks import Plan
from peerwatch.network.walk import COSTS
from peerwatch.network.windows import Windows, merged

USERS = 12
DEAR = (1, 0, 3, 8)
"""Costs with which most scans are given up."""


class Happened(NamedTuple):
    """An event; of a purchase `friend` means nothing, of the others `stamp`."""

    kind: Kind
    user: int
    friend: int
    stamp: int


@st.composite
def happenings(draw: st.DrawFn) -> list[Happened]:
    """Events in order of time, but for a share that comes late, by a little or by much, or all from somewhere on."""
    count = draw(st.integers(0, 160))
    kinds = draw(st.lists(st.sampled_from([*[Kind.PURCHASE] * 6, Kind.BEFRIEND, Kind.UNFRIEND]),
                          min_size=count, max_size=count))  # fmt: skip
    pairs = draw(st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(1, USERS - 1)),
                          min_size=count, max_size=count))  # fmt: skip
    late = draw(st.lists(st.sampled_from([0, 0, 1, 3, 40, 1000]), min_size=count, max_size=count))
    share, back, per_second = draw(st.sampled_from([0, 1, 1])), draw(st.sampled_from([0, 500])), draw(st.integers(1, 5))
    since = draw(st.integers(0, 160))
    return [
        Happened(kind, user, (user + other) % USERS, place // per_second - share * by - (back if place >= since else 0))
        for place, (kind, (user, other), by) in enumerate(zip(kinds, pairs, late, strict=True))
    ]


def paid(seq: int) -> int:
    """What the purchase with a sequence number cost: every fifth is too large for a column."""
    return 10**40 + seq if seq % 5 == 0 else 10 * seq


class Run(NamedTuple):
    """The state of a run that goes through events in batches."""

    graph: FriendGraph
    histories: list[PurchaseHistory]


def begun(D: int, T: int, shards: int, recent: int, costs: tuple[int, ...], *, directed: bool) -> Run:
    """Nobody, nothing bought."""
    graph = FriendGraph(D, T, directed=directed, recent=recent, costs=costs)
    graph.reserve(USERS)
    return Run(graph, [PurchaseHistory(T, recent=recent) for _ in range(shards)])


def restarted(run: Run, through: int) -> Run:
    """The run as of a checkpoint behind event `through`."""
    old, T, recent = run.graph, run.graph.T, run.graph.recent
    costs = old.costs.tolist()
    graph = FriendGraph.from_columns(old.D, T, *old.columns(), directed=old.directed, recent=recent, costs=costs)
    columns = [history.columns() for history in run.histories]
    user = np.concatenate([np.repeat(np.arange(USERS, dtype=np.int32), part.held) for part in columns])
    seq, stamp = (np.concatenate([getattr(part, name) for part in columns]) for name in ("seq", "timestamp"))
    graph.timeline.remember(seq, user, stamp, Amounts.joined([part.amount for part in columns]))
    return Run(graph, [PurchaseHistory.from_columns(T, part, through, recent=recent) for part in columns])


def judged(run: Run, events: list[Happened], seq: int, most: int, places: int) -> list[tuple[int, Windows, int]]:
    """Of each purchase among the events its number, its window and which of these windows it is."""
    graph, histories = run
    kind, user, friend, stamp = (np.array(column) for column in zip(*events, strict=True))
    numbers = seq + np.arange(len(events))
    amount = Amounts.of([paid(number) for number in numbers.tolist()], seq)
    bought = np.flatnonzero(kind == Kind.PURCHASE)
    for shard, history in enumerate(histories):
        mine = bought[user[bought] % len(histories) == shard]
        history.reserve(USERS)
        history.append(
            numbers[mine], user[mine].astype(np.int32), stamp[mine], amount[mine], seq + len(events) - 1
        )  # fmt: skip
    found, gone, asked = [], 0, 0
    while gone < len(events):
        rest = slice(gone, None)
        done, networks = graph.walk(
            kind[rest].astype(np.int8), user[rest].astype(np.int32), friend[rest].astype(np.int32), stamp[rest],
            amount[rest], seq + gone, most, places,
        )  # fmt: skip
        which = numbers[bought[asked : asked + len(networks.plan)]]
        if len(which):
            parts = []
            for history in histories:
                history.raise_low(int(which[0]))
                parts.append(history.windows(which, networks))
                networks = networks.unfound()
            windows = merged(parts, graph.T)
            found += [(number, windows, place) for place, number in enumerate(which.tolist())]
        gone, asked = gone + done, asked + len(which)
    return found


@settings(max_examples=examples(500))
@given(
    events=happenings(), D=st.integers(1, 4), T=st.integers(1, 9), shards=st.integers(1, 3),
    recent=st.sampled_from([1, 2, 4, 16, 1024]), costs=st.sampled_from([COSTS, DEAR, *FORCED.values()]),
    step=st.integers(1, 60), most=st.integers(1, 40), places=st.integers(1, 80),
    restart=st.none() | st.integers(0, 160), directed=st.booleans(),
)  # fmt: skip
def test_every_window_is_that_of_sorted_lists(
    events: list[Happened], D: int, T: int, shards: int, recent: int, costs: tuple[int, ...], step: int, most: int,
    places: int, restart: int | None, *, directed: bool,
) -> None:  # fmt: skip
    """However late purchases come, however little is remembered, whatever the plan, the shards, the batches' sizes."""
    run = begun(D, T, shards, recent, costs, directed=directed)
    found: list[tuple[int, Windows, int]] = []
    for begin in range(0, len(events), step):
        found += judged(run, events[begin : begin + step], begin + 1, most, places)
        if restart is not None and begin <= restart < begin + step:
            run = restarted(run, min(begin + step, len(events)))
    friends: dict[str, set[str]] = {}
    bought: list[tuple[int, int, int]] = []
    answers = iter(found)
    for seq, (kind, user, friend, stamp) in enumerate(events, 1):
        a, b = str(user), str(friend)
        if kind is Kind.PURCHASE:
            network = {int(member) for member in network_of(friends, a, D)}
            expected = sorted((when, which) for when, which, who in bought if who in network)[-T:]
            number, windows, place = next(answers)
            window = windows.window(place)
            assert number == seq
            rows = zip(windows.timestamp[window].tolist(), windows.seq[window].tolist(), strict=True)
            assert sorted(rows) == expected
            assert windows.amount[window].tolist() == [paid(which) for which in windows.seq[window].tolist()]
            bought.append((stamp, seq, user))
        elif kind is Kind.BEFRIEND:
            friends.setdefault(a, set()).add(b)
            if not directed:
                friends.setdefault(b, set()).add(a)
        else:
            friends.get(a, set()).discard(b)
            if not directed:
                friends.get(b, set()).discard(a)
    assert next(answers, None) is None


@pytest.mark.parametrize("late", ["older", "within", "a little", "half", "one ahead"])
def test_scans_reach_as_soon_as_ever_however_late_purchases_come(late: str) -> None:
    """Thousands of late purchases, more than are remembered, change neither the plans nor how far scans go."""
    rng = np.random.default_rng(5)
    users, T, count = 300, 10, 12_000
    graph = FriendGraph(2, T)
    graph.reserve(users)
    pairs = rng.integers(0, users, (2, 1500)).astype(np.int32)
    nothing = np.zeros(1500, np.int64)
    graph.walk(np.full(1500, Kind.BEFRIEND, np.int8), pairs[0], pairs[1], nothing, Amounts(nothing), 1, 0, 0)
    user, stamp = rng.integers(0, users, count).astype(np.int32), np.arange(count)
    second = count // 2 + np.arange(count // 2)
    stamp[count // 2 :] = {
        "older": second - 10**6, "within": rng.integers(0, count // 2, count // 2),
        "a little": second - rng.integers(0, 400, count // 2), "half": second - 10**6 * (second % 2),
        "one ahead": np.where(second == second[0], 10**9, second),
    }[late]  # fmt: skip
    spent, plans = [], []
    begin = 0
    for end in (count // 2, count):
        before = graph.spent
        chosen = np.zeros(4, np.int64)
        while begin < end:
            part = slice(begin, end)
            kind = np.full(end - begin, Kind.PURCHASE, np.int8)
            gone, networks = graph.walk(
                kind, user[part], user[part], stamp[part], Amounts(stamp[part] * 0), 2000 + begin, count, 1 << 30
            )
            begin += gone
            chosen += np.bincount(networks.plan, minlength=4)
        spent.append(graph.spent - before)
        plans.append(chosen / (count // 2))
    assert spent[1] < 1.2 * spent[0]
    assert plans[1][Plan.PARTITION] < plans[0][Plan.PARTITION] + 0.01
