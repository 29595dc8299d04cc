"""Purchase histories against sorted lists."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from peerwatch.amounts import Amounts
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.networks import Networks, Plan
from peerwatch.network.stretches import HELD
from peerwatch.network.windows import Windows, merged, shortened

USERS = 9


def bought(users: int, stamps: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    """Purchases: whose, and when."""
    return st.lists(st.tuples(st.integers(0, users - 1), st.integers(0, stamps)), max_size=120)


PURCHASES = st.one_of(bought(USERS, 12), bought(USERS, 2), bought(3, 12))
NETWORKS = st.lists(
    st.one_of(st.sets(st.integers(0, USERS - 1)), st.just({*range(USERS)})), min_size=1, max_size=12
)  # fmt: skip
LENGTHS = st.one_of(st.integers(1, 4), st.integers(1, 30))
"""T."""


def ask(history: PurchaseHistory, seqs: list[int], networks: list[set[int]]) -> Windows:
    """The windows of these networks before these events."""
    return history.windows(np.array(seqs), members_of(networks))


def members_of(networks: list[set[int]]) -> Networks:
    """The networks as a walk names them: by their members."""
    offsets = np.cumsum([0, *map(len, networks)])
    members = np.array([member for network in networks for member in sorted(network)], np.int32)
    count = len(networks)
    plan, size = np.full(count, Plan.PARTITION, np.int8), np.diff(offsets)
    return Networks(offsets, members, plan, size, np.zeros((count, 4), np.int64), Windows.empty(count))


def expected(
    purchases: list[tuple[int, int]], seq: int, network: set[int], T: int, shard: int = 0, shards: int = 1
) -> list[tuple[int, int]]:
    """(timestamp, seq) of the window; purchase i has sequence number 2 * i + 1."""
    rows = [
        (stamp, 2 * i + 1) for i, (user, stamp) in enumerate(purchases) if user in network and user % shards == shard
    ]
    return sorted(row for row in rows if row[1] < seq)[-T:]


def rows_of(windows: Windows, i: int) -> list[tuple[int, int]]:
    """(timestamp, seq) of the i-th window, sorted; each amount is its purchase's sequence number times ten."""
    window = windows.window(i)
    assert (windows.amount.held[window] == windows.seq[window] * 10).all()
    return sorted(zip(windows.timestamp[window].tolist(), windows.seq[window].tolist(), strict=True))


def filled(
    purchases: list[tuple[int, int]], T: int, cuts: list[int], shard: int = 0, shards: int = 1, recent: int = 1024,
    low: int = 0,
) -> PurchaseHistory:  # fmt: skip
    """A shard's history after the purchases have been appended in pieces, `low` its low watermark."""
    history = PurchaseHistory(T, recent=recent)
    history.raise_low(low)
    history.reserve(USERS)
    places = sorted({0, len(purchases), *(cut % (len(purchases) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(places):
        mine = [i for i in range(begin, end) if purchases[i][0] % shards == shard]
        seq = np.array([2 * i + 1 for i in mine], np.int64)
        user = np.array([purchases[i][0] for i in mine], np.int32)
        stamp = np.array([purchases[i][1] for i in mine], np.int64)
        history.append(seq, user, stamp, Amounts(seq * 10), 2 * end)
    return history


@settings(max_examples=examples(400))
@given(
    purchases=PURCHASES, networks=NETWORKS, T=LENGTHS, cuts=st.lists(st.integers(0, 200), max_size=3),
    seqs=st.lists(st.integers(0, 260), min_size=12, max_size=12), ordered=st.booleans(),
)  # fmt: skip
def test_windows_are_the_latest_as_of_any_event(
    purchases: list[tuple[int, int]],
    networks: list[set[int]],
    T: int,
    cuts: list[int],
    seqs: list[int],
    *,
    ordered: bool,
) -> None:
    """Late and equal timestamps, questions about the past and in any order: always the T latest before the event."""
    seqs = (sorted(seqs) if ordered else seqs)[: len(networks)]
    history = filled(purchases, T, cuts, recent=8, low=min(seqs))
    windows = ask(history, seqs, networks)
    for i, (seq, network) in enumerate(zip(seqs, networks, strict=True)):
        assert rows_of(windows, i) == expected(purchases, seq, network, T)


@settings(max_examples=examples(200))
@given(purchases=PURCHASES, networks=NETWORKS, T=st.integers(1, 6), asked=st.integers(0, 240), cut=st.integers(0, 120))
def test_what_is_forgotten_is_never_missed(
    purchases: list[tuple[int, int]], networks: list[set[int]], T: int, asked: int, cut: int
) -> None:
    """With a rising low watermark, and through a checkpoint, every question it allows gets its T latest."""
    cut = min(cut, len(purchases))
    history = filled(purchases[:cut], T, [], low=2 * cut + 1)
    history.settle()
    history = PurchaseHistory.from_columns(T, history.columns(), 2 * cut, recent=8)
    for i, (user, stamp) in enumerate(purchases[cut:], cut):
        seq = np.array([2 * i + 1])
        history.append(seq, np.array([user], np.int32), np.array([stamp]), Amounts(seq * 10), 2 * i + 2)
        history.raise_low(min(2 * i + 2, max(asked, 2 * cut + 1)))
        history.settle()
    now = max(asked, 2 * cut + 1)
    windows = ask(history, [now] * len(networks), networks)
    for i, network in enumerate(networks):
        assert rows_of(windows, i) == expected(purchases, now, network, T)


@given(purchases=PURCHASES, T=st.integers(1, 6), users=st.sets(st.integers(0, 40)))
def test_the_columns_of_some_users_are_theirs_alone(purchases: list[tuple[int, int]], T: int, users: set[int]) -> None:
    """The others have none; users that the history does not know have none either."""
    history = filled(purchases, T, [], low=2 * len(purchases) + 1)
    everything, some = history.columns(), history.columns_of(np.array(sorted(users), np.int64))
    owner = np.repeat(np.arange(len(everything.held)), everything.held)
    theirs = np.isin(owner, [*users])
    known = np.isin(np.arange(len(everything.held)), [*users])
    assert some.held.tolist() == np.where(known, everything.held, 0).tolist()
    for name in ("seq", "timestamp"):
        assert getattr(some, name).tolist() == getattr(everything, name)[theirs].tolist()
    assert [*map(some.amount.exact, range(len(some.seq)))] == [
        *map(everything.amount.exact, np.flatnonzero(theirs).tolist())
    ]


def test_a_history_holds_what_can_still_be_needed_and_no_more() -> None:
    """A hundred thousand purchases of one user take the place of little more than T, in a checkpoint too."""
    history, count = PurchaseHistory(50, recent=64), 100_000
    history.reserve(2)
    for begin in range(0, count, 1000):
        seq = np.arange(begin + 1, begin + 1001)
        history.append(seq, (seq % 1000 == 0).astype(np.int32), seq, Amounts(seq * 10), begin + 1000)
        history.raise_low(begin + 1001)
        history.settle()
    assert history.columns().held.tolist()[0] < 2 * 50
    assert (len(history.pool), len(history.recent)) <= (HELD << 10, 40_000)  # no larger than at first
    assert rows_of(ask(history, [count + 1], [{0, 1}]), 0)[0] == (count - 49, count - 49)


@given(purchases=PURCHASES, networks=NETWORKS, T=st.integers(1, 10), shards=st.integers(1, 5))
def test_merged_shards_give_what_one_shard_gives(
    purchases: list[tuple[int, int]], networks: list[set[int]], T: int, shards: int
) -> None:
    """A decision's window does not depend on how users are spread over shards."""
    seqs = [len(purchases) * 2 + 1] * len(networks)
    parts = [ask(filled(purchases, T, [], shard, shards), seqs, networks) for shard in range(shards)]
    windows = merged(parts, T)
    for i, network in enumerate(networks):
        assert rows_of(windows, i) == expected(purchases, seqs[i], network, T)


@given(
    purchases=PURCHASES, networks=NETWORKS, T=st.lists(LENGTHS, min_size=1, max_size=4),
    cuts=st.lists(st.integers(0, 200), max_size=3), seqs=st.lists(st.integers(0, 260), min_size=12, max_size=12),
)  # fmt: skip
def test_the_windows_of_a_view_cut_shorter_are_those_of_the_smaller_T(
    purchases: list[tuple[int, int]], networks: list[set[int]], T: list[int], cuts: list[int], seqs: list[int]
) -> None:
    """From the largest T down, each cut gives what a history of that T would have answered; so does a view."""
    T.sort(reverse=True)
    seqs = seqs[: len(networks)]
    history = filled(purchases, T[0], cuts, low=min(seqs))
    windows = ask(history.view(), seqs, networks)
    for most in T:
        windows = shortened(windows, most)
        for i, (seq, network) in enumerate(zip(seqs, networks, strict=True)):
            assert rows_of(windows, i) == expected(purchases, seq, network, most)


TIMES: dict[str, Callable[[np.random.Generator, np.ndarray], np.ndarray]] = {
    "in order": lambda _, seq: seq // 5,
    "some late": lambda rng, seq: seq // 5 - (rng.random(len(seq)) < 0.05) * rng.integers(0, 500, len(seq)),
    "all late": lambda rng, seq: np.where(seq < len(seq) // 3, 10**6 + seq // 5, rng.integers(0, 10**6, len(seq))),
    "newest first": lambda _, seq: -seq // 5,
    "few moments": lambda rng, seq: rng.integers(0, 3, len(seq)),
}
"""When purchases are made, by their sequence numbers."""


@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("recent", [64, 1 << 16])
@pytest.mark.parametrize("T", [1, 3, 40])
def test_windows_of_thousands_of_purchases_are_the_latest(times: str, recent: int, T: int) -> None:
    """Few members or many, in order or late, settled or not, about the past as well, with the rest forgotten."""
    rng = np.random.default_rng(7)
    count, users, first = 6000, 300, 5000
    user, seq = rng.integers(0, users, count).astype(np.int32), np.arange(1, count + 1)
    stamp = TIMES[times](rng, seq)
    history = PurchaseHistory(T, recent=recent)
    history.reserve(users)
    for begin in range(0, first, 500):  # as a batch log comes
        part = slice(begin, begin + 500)
        history.append(seq[part], user[part], stamp[part], Amounts(seq[part] * 10), begin + 500)
        history.raise_low(begin + 501)
        history.settle()
    history.append(seq[first:], user[first:], stamp[first:], Amounts(seq[first:] * 10), count)
    networks = [set(rng.permutation(users)[:size].tolist()) for size in (1, 2, 5, 20, 60, 90, 200, 299)]
    asked = [first + 1 + 120 * i for i in range(len(networks))]
    order = np.lexsort((seq, stamp))

    def check(history: PurchaseHistory, asked: list[int]) -> None:
        windows = ask(history, asked, networks)
        for i, (now, network) in enumerate(zip(asked, networks, strict=True)):
            inside = order[np.isin(user[order], [*network]) & (seq[order] < now)][-T:]
            assert rows_of(windows, i) == list(zip(stamp[inside].tolist(), seq[inside].tolist(), strict=True))

    check(history, asked)
    check(history.view(), asked[::-1])
    check(history, asked)
    check(PurchaseHistory.from_columns(T, history.columns(), count, recent=recent), [count + 1] * len(networks))
