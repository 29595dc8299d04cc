"""The sigma rule: the screen never contradicts the integers."""

from fractions import Fraction

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from strategies import examples

from peerwatch.amounts import Amounts
from peerwatch.judging.judge import Case
from peerwatch.judging.sigma import FLAGGED, NORMAL, UNDECIDED, Sigma, SigmaJudge
from peerwatch.network.statistics import Statistics
from peerwatch.network.windows import Windows


def screened(window: list[int], amount: int, k: Fraction) -> int:
    """The screen's code for one purchase."""
    return int(Sigma(k).screen(np.array([0, len(window)]), np.array(window, np.int64), np.array([amount]))[0])


@st.composite
def near_boundaries(draw: st.DrawFn) -> tuple[list[int], int, Fraction]:
    """A window and an amount within a few millionths of its threshold, at any magnitude."""
    scale = draw(st.sampled_from([1, 7, 10**4, 10**9, 10**15]))
    window = draw(st.lists(st.integers(0, 2000).map(lambda a: a * scale), min_size=2, max_size=60))
    k = draw(st.sampled_from([Fraction(3), Fraction(0), Fraction(5, 2), Fraction(1, 1000), Fraction(1000)]))
    threshold = int(Fraction(Statistics.of(window).threshold(k)) * 10**6)
    amount = max(0, min(threshold + draw(st.integers(-20_000, 20_000)), 2**63 - 1))
    return window, amount, k


@settings(max_examples=examples(1500))
@given(near_boundaries())
@example(([10**6, 10**6], 10**6, Fraction(3)))
@example(([2**62, 2**62], 2**63 - 1, Fraction(3)))
def test_the_screen_agrees_with_the_integers_or_leaves_it_to_them(case: tuple[list[int], int, Fraction]) -> None:
    """FLAGGED and NORMAL are what exact arithmetic says, next to the boundary and at the edge of 64 bits."""
    window, amount, k = case
    code = screened(window, amount, k)
    if code != UNDECIDED:
        assert code == (FLAGGED if Statistics.of(window).exceeded_by(amount, k) else NORMAL)


def test_clear_cases_are_decided_by_the_screen() -> None:
    """Ordinary amounts do not need the integers, nor do windows that are too small."""
    window = [10_000_000, 12_000_000, 11_000_000]
    assert screened(window, 11_500_000, Fraction(3)) == NORMAL
    assert screened(window, 90_000_000, Fraction(3)) == FLAGGED
    assert screened([5], 10**9, Fraction(3)) == NORMAL
    assert screened(window, -1, Fraction(3)) == UNDECIDED
    assert screened([*window, -1], 5, Fraction(3)) == UNDECIDED


def test_decisions_carry_their_reasons() -> None:
    """Those that are asked for become decisions, each with the window it was judged by."""
    windows = Windows(
        np.array([0, 3, 5, 5]), np.arange(1, 6), np.array([30, 10, 20, 5, 5]),
        Amounts.of([10**6, 2 * 10**6, 3 * 10**6, 10**30, 7 * 10**6]),
    )  # fmt: skip
    judge = SigmaJudge(Sigma(Fraction(3)))
    amount = Amounts.of([50 * 10**6, 5 * 10**6, 5 * 10**6])
    case = Case(windows, np.arange(6, 9), np.arange(3), amount, np.arange(3), np.arange(3))
    judged = judge.verdicts(case)
    assert judged.flagged.tolist() == [True, False, False]
    decisions = judge.decisions(case, judged, np.array([True, False, True]))
    assert [(d.place, d.flagged, d.amount, d.oldest, d.newest) for d in decisions] == [
        (0, True, 50 * 10**6, 10, 30),
        (2, False, 5 * 10**6, None, None),
    ]
    assert decisions[0].statistics == Statistics(3, 6 * 10**6, 14 * 10**12)
    (second,) = judge.decisions(case, judged, np.array([False, True, False]))
    assert second.statistics.S == 10**30 + 7 * 10**6
