"""The order of time."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from peerwatch.network.order_in_time import kth_largest, sort_in_time


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


@settings(max_examples=examples(300))
@given(values=st.lists(st.integers(-5, 5) | st.integers(-(2**62), 2**62), min_size=1, max_size=200), data=st.data())
def test_kth_largest(values: list[int], data: st.DataObject) -> None:
    """Selection finds what sorting finds."""
    k = data.draw(st.integers(1, len(values)))
    assert kth_largest(np.array(values), len(values), k) == sorted(values, reverse=True)[k - 1]
