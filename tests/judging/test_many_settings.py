"""Many T and k at once give what each gives alone."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.amounts import Amounts
from peerwatch.judging.many_settings import judge_grid
from peerwatch.network.statistics import Statistics
from peerwatch.network.windows import Windows

AMOUNTS = st.integers(0, 30).map(lambda amount: amount * 10**6) | st.sampled_from([2**62 - 1, 10**30])


@given(
    windows=st.lists(st.lists(AMOUNTS, max_size=12), min_size=1, max_size=6), data=st.data(),
    T=st.sets(st.integers(1, 13), min_size=1, max_size=4).map(lambda values: sorted(values, reverse=True)),
    k=st.lists(st.sampled_from([Fraction(0), Fraction(1, 2), Fraction(2), Fraction(3)]), min_size=1, unique=True),
    reasons=st.booleans(),
)  # fmt: skip
def test_every_cell_is_decided_as_integers_decide_it_alone(
    windows: list[list[int]], data: st.DataObject, T: list[int], k: list[Fraction], *, reasons: bool
) -> None:
    """Also with amounts too large for a column; the statistics are those of whatever any k flags."""
    windows = [window[: T[0]] for window in windows]
    amounts = [data.draw(AMOUNTS) for _ in windows]
    held = Amounts.of([amount for window in windows for amount in window])
    bought = Amounts.of(amounts, first=len(held))
    order = np.arange(len(held))
    given_windows = Windows(np.cumsum([0, *map(len, windows)]), order, order.copy(), held)
    for most, verdicts in zip(T, judge_grid(given_windows, bought, T, k, reasons=reasons), strict=True):
        exact = [Statistics.of(window[-most:]) for window in windows]
        flagged = [
            [statistics.exceeded_by(amount, each) for statistics, amount in zip(exact, amounts, strict=True)]
            for each in k
        ]
        assert verdicts.flagged.tolist() == flagged
        any_k = [i for i in range(len(windows)) if any(row[i] for row in flagged)]
        assert verdicts.statistics == ({i: exact[i] for i in any_k} if reasons else {})
