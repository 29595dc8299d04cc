"""The latest purchases in order of time, against sorted lists."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from peerwatch.amounts import Amounts
from peerwatch.network.timeline import END, FORGOTTEN, LATE, ORDERED, REMEMBERED, ROOM, Timeline, put_all

Row = tuple[int, int, int]
"""Timestamp, sequence number, user."""
USERS = 5
STAMPS = st.one_of(st.integers(0, 30), st.just(0), st.integers(1000, 1010))
PURCHASES = st.lists(
    st.one_of(
        st.tuples(st.integers(0, USERS - 1), STAMPS),
        st.tuples(st.just(0), st.integers(0, 300)),  # one buys more than others
    ),
    max_size=250,
)


def put(timeline: Timeline, rows: list[Row]) -> None:
    """Purchases come; each amount is its sequence number times ten."""
    stamp, seq, user = (np.array([row[i] for row in rows], np.int64) for i in range(3))
    put_all(
        seq, user.astype(np.int32), stamp, seq * 10, timeline.T, timeline.rows, timeline.counts, timeline.tally
    )  # fmt: skip


def read(timeline: Timeline) -> list[Row]:
    """What a scan can see, from the oldest on: late ones that are older than all others only if nothing is gone."""
    ordered, late, end, forgotten = timeline.tally[[ORDERED, LATE, END, FORGOTTEN]].tolist()
    table = timeline.rows.reshape(-1, REMEMBERED)
    parts = [[(at, seq, user) for seq, user, at, _ in part.tolist()]
             for part in (table[:ordered], table[end : end + late])]  # fmt: skip
    assert all(part == sorted(part) for part in parts)
    assert (table[:ordered, 3] == 10 * table[:ordered, 0]).all()
    return sorted(row for row in parts[0] + parts[1] if not forgotten or row >= parts[0][0])


def needed(rows: list[Row], T: int) -> list[Row]:
    """Of each user the T latest."""
    return sorted(row for user in range(USERS) for row in sorted(row for row in rows if row[2] == user)[-T:])


@settings(max_examples=examples(400))
@given(
    purchases=PURCHASES, T=st.integers(1, 12), most=st.sampled_from([1, 2, 4, 8, 1024]), ordered=st.integers(0, 2),
    again=st.none() | st.integers(0, 250), grows=st.none() | st.integers(0, 250),
)  # fmt: skip
def test_nothing_that_a_window_can_hold_is_missing_behind_what_is_there(
    purchases: list[tuple[int, int]], T: int, most: int, ordered: int, again: int | None, grows: int | None
) -> None:
    """In whatever order they come: down to the oldest that is seen, all among their users' T latest are seen."""
    if ordered:
        purchases = sorted(purchases, key=lambda row: row[1] // ordered)
    rows = [(stamp, seq, user) for seq, (user, stamp) in enumerate(purchases, 1)]
    timeline = Timeline(T, most)
    timeline.reserve(USERS)
    for count, row in enumerate(rows):
        if count == grows:
            timeline._most *= 4  # noqa: SLF001 (as for more users, of whom a test would need thousands)
            timeline.reserve(USERS)
        if count == again:
            timeline = restored(timeline, rows[:count])
        put(timeline, [row])
        seen, there = read(timeline), rows[: count + 1]
        assert len(seen) == len({*seen})
        assert {*seen} <= {*there}
        assert {one for one in needed(there, T) if one >= seen[0]} <= {*seen}
        if not timeline.tally[FORGOTTEN]:
            assert {*needed(there, T)} <= {*seen}
        elif again is None:
            assert len(seen) >= min(most, len(needed(there, T)))
    copied, before = Timeline(T, timeline._most), read(timeline)  # noqa: SLF001
    copied.take_over(timeline.contents())
    copied.reserve(USERS)
    assert read(copied) == before
    put(copied, [(5, 1000, 1)])
    assert read(timeline) == before


def restored(timeline: Timeline, rows: list[Row]) -> Timeline:
    """Another one that takes over what the first has seen."""
    other = Timeline(timeline.T, timeline._most)  # noqa: SLF001
    other.reserve(USERS)
    stamp, seq, user = (np.array([row[i] for row in rows[::-1]], np.int64) for i in range(3))
    other.remember(seq, user.astype(np.int32), stamp, Amounts(seq * 10))
    return other


def test_late_ones_do_not_move_what_is_there_one_by_one() -> None:
    """Of thousands about the root is held apart, and there is memory for a few times as many as are sure to stay."""
    timeline = Timeline(1000, 1 << 16)
    timeline.reserve(10_000)
    length = int(timeline.tally[END]) // ROOM
    assert length == 1 << 14
    assert 300 < len(timeline.rows) // REMEMBERED - ROOM * length < 1000


def test_a_flood_by_one_user_does_not_fill_it() -> None:
    """Behind a hundred thousand purchases by one, far in the future, there is room for what all others buy."""
    timeline = Timeline(20, 1 << 16)
    timeline.reserve(100)
    length = int(timeline.tally[END]) // ROOM
    put(timeline, [(10**9 + i, i + 1, 0) for i in range(100_000)])
    put(timeline, [(i, 200_000 + i, 1 + i % 99) for i in range(3000)])
    others = [row for row in read(timeline) if row[2]]
    assert others == [(i, 200_000 + i, 1 + i % 99) for i in range(3000 - len(others), 3000)]
    assert len(others) > length - 2 * 20
