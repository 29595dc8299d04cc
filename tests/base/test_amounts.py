"""Amounts of any size in columns of 64 bits."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerwatch import amounts as amounts_module
from peerwatch.amounts import Amounts, LargeAmounts
from peerwatch.network.history import PurchaseHistory

PAID = st.lists(st.one_of(st.integers(0, 2**62 - 1), st.integers(2**62 - 2, 2**62 + 2), st.integers(0, 10**313)))


@given(columns=st.lists(PAID, min_size=1, max_size=4), data=st.data())
def test_a_column_holds_what_it_was_made_of(columns: list[list[int]], data: st.DataObject) -> None:
    """Cut, picked from and put together, every amount is what it was, at the edge of 64 bits and far beyond it."""
    firsts = np.cumsum([0, *map(len, columns)]).tolist()
    made = [Amounts.of(paid, first) for paid, first in zip(columns, firsts, strict=False)]
    together, paid = Amounts.joined(made), [amount for column in columns for amount in column]
    assert together.tolist() == paid
    assert [together.exact(place) for place in range(len(together))] == paid
    which = data.draw(st.lists(st.sampled_from(range(len(paid))))) if paid else []
    assert together[np.array(which, np.int64)].tolist() == [paid[place] for place in which]
    assert together[1:5].tolist() == paid[1:5]
    assert together.units() == pytest.approx([float(amount // 10**6) for amount in paid], rel=1e-15, abs=1)


@given(steps=st.lists(st.tuples(PAID, st.integers(0, 12)), max_size=20))
def test_what_a_column_names_is_never_let_go_of(steps: list[tuple[list[int], int]]) -> None:
    """Purchases come, and the oldest go; columns that were handed out before stay what they were."""
    large, held, count = LargeAmounts(), deque[tuple[int, int]](), 0
    handed: list[tuple[Amounts, list[int]]] = []
    for paid, left in steps:
        column = Amounts.of(paid, count)
        count += len(paid)
        large.add(column)
        held.extend(zip(column.held.tolist(), paid, strict=True))
        while len(held) > left:
            held.popleft()
        names = np.array([name for name, _ in held], np.int64)
        large.keep(names)
        assert len(large) == sum(name < 0 for name, _ in held)
        handed.append((Amounts(names, large.all), [amount for _, amount in held]))
    assert [column.tolist() for column, _ in handed] == [amounts for _, amounts in handed]


@pytest.mark.parametrize("recent", [8, 1 << 16])
def test_a_history_holds_the_large_amounts_of_the_purchases_it_holds(recent: int) -> None:
    """Of 300,000 purchases of 200 digits by 50 users little more than T each are left, also behind a checkpoint."""
    users, T, step = 50, 50, 1000
    history, most = PurchaseHistory(T, recent=recent), 0
    history.reserve(users)
    for begin in range(0, 300_000, step):
        if begin == 150_000:
            history = PurchaseHistory.from_columns(T, history.columns(), begin, recent=recent)
            assert len(history.large) == history.columns().held.sum()
        seq = np.arange(begin + 1, begin + 1 + step)
        paid = Amounts.of([10**200 + place for place in range(step)], begin)
        history.append(seq, (seq % users).astype(np.int32), seq // 7, paid, begin + step)
        history.raise_low(begin + step + 1)
        history.settle()
        most = max(most, len(history.large))
    assert most <= users * (T + T // 4 + 5) * (1 + 1 / amounts_module.SHARE) + step
    columns = history.columns()
    assert columns.amount.tolist() == [10**200 + (place - 1) % step for place in columns.seq.tolist()]
