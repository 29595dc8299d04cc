"""The order of time."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.network.latest import sort_in_time


@given(st.lists(st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 200)), max_size=60, unique=True), max_size=5))
def test_each_window_is_put_in_order_of_time(windows: list[list[tuple[int, int]]]) -> None:
    """By timestamp, then by sequence number; the amounts go with them, and no window touches another."""
    offsets = np.cumsum([0, *map(len, windows)])
    timestamp, seq = (np.array([one[i] for window in windows for one in window], np.int64) for i in (0, 1))
    amount = 1000 * timestamp + seq
    sort_in_time(offsets, seq, timestamp, amount)
    expected = [one for window in windows for one in sorted(window)]
    assert list(zip(timestamp.tolist(), seq.tolist(), strict=True)) == expected
    assert amount.tolist() == [1000 * at + number for at, number in expected]
