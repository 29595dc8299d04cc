"""Purchase histories against sorted lists."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from peerwatch.network.history import PurchaseHistory, Windows, merged
from peerwatch.network.kernels import kth_largest

USERS = 9
PURCHASES = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, 12)), max_size=120)
NETWORKS = st.lists(st.sets(st.integers(0, USERS - 1)), min_size=1, max_size=12)


def ask(history: PurchaseHistory, seqs: list[int], networks: list[set[int]]) -> Windows:
    """The windows of these networks before these events."""
    offsets = np.cumsum([0, *map(len, networks)])
    members = np.array([member for network in networks for member in sorted(network)], np.int32)
    return history.windows(np.array(seqs), offsets, members)


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
    assert (windows.amount[window] == windows.seq[window] * 10).all()
    return sorted(zip(windows.timestamp[window].tolist(), windows.seq[window].tolist(), strict=True))


def filled(
    purchases: list[tuple[int, int]], T: int, cuts: list[int], shard: int = 0, shards: int = 1
) -> PurchaseHistory:
    """A shard's history after the purchases have been appended in pieces."""
    history = PurchaseHistory(T)
    history.reserve(USERS)
    places = sorted({0, len(purchases), *(cut % (len(purchases) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(places):
        mine = [i for i in range(begin, end) if purchases[i][0] % shards == shard]
        seq = np.array([2 * i + 1 for i in mine], np.int64)
        user = np.array([purchases[i][0] for i in mine], np.int32)
        stamp = np.array([purchases[i][1] for i in mine], np.int64)
        history.append(seq, user, stamp, seq * 10, 2 * end)
    return history


@settings(max_examples=400)
@given(
    purchases=PURCHASES, networks=NETWORKS, T=st.integers(1, 30), cuts=st.lists(st.integers(0, 200), max_size=3),
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
    history = filled(purchases, T, cuts)
    seqs = (sorted(seqs) if ordered else seqs)[: len(networks)]
    windows = ask(history, seqs, networks)
    for i, (seq, network) in enumerate(zip(seqs, networks, strict=True)):
        assert rows_of(windows, i) == expected(purchases, seq, network, T)


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


@settings(max_examples=300)
@given(values=st.lists(st.integers(-5, 5) | st.integers(-(2**62), 2**62), min_size=1, max_size=200), data=st.data())
def test_kth_largest(values: list[int], data: st.DataObject) -> None:
    """Selection finds what sorting finds."""
    k = data.draw(st.integers(1, len(values)))
    assert kth_largest(np.array(values), len(values), k) == sorted(values, reverse=True)[k - 1]


def test_scan_and_partition_give_the_same_windows() -> None:
    """On a long history with late purchases both selections answer alike, whichever the planner would choose."""
    rng = np.random.default_rng(7)
    count, users, T = 20_000, 400, 40
    user, seq = rng.integers(0, users, count).astype(np.int32), np.arange(1, count + 1)
    stamp = seq // 5 - (rng.random(count) < 0.05) * rng.integers(0, 500, count)
    networks = [set(rng.permutation(users)[:size].tolist()) for size in (200, 300, 399)]
    answers = []
    for wide, scans in ((1, True), (200, False)):
        history = PurchaseHistory(T)
        history.reserve(users * wide)  # more users make the scan look longer, so that the planner never tries it
        history.append(seq, user, stamp, seq * 10, count)
        windows = ask(history, [count // 2, count, count + 1], networks)
        answers.append([rows_of(windows, i) for i in range(3)])
        assert (history.linked == 0) == scans  # only the partition needs the chains
    assert answers[0] == answers[1]
    assert [len(answer) for answer in answers[0]] == [T] * 3
