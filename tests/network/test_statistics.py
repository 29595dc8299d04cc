"""Exact statistics against fractions."""

from fractions import Fraction
from math import isqrt

from hypothesis import given
from hypothesis import strategies as st

from peerwatch.network.statistics import Statistics, cents, decimal

AMOUNTS = st.lists(st.integers(0, 10**12), min_size=1, max_size=60)


@given(AMOUNTS)
def test_mean_and_sd_are_truncated_not_rounded(amounts: list[int]) -> None:
    """What is printed is the largest number of cents that does not exceed the true value."""
    statistics = Statistics.of(amounts)
    n = len(amounts)
    mean = Fraction(sum(amounts), n)
    variance = sum((a - mean) ** 2 for a in amounts) / n
    assert statistics.mean() == cents(int(mean / 10**4))
    shown = round(Fraction(statistics.sd()) * 10**6)
    assert shown**2 <= variance < (shown + 10**4) ** 2


@given(AMOUNTS, st.integers(0, 10**13), st.fractions(0, 5, max_denominator=100))
def test_the_comparison_is_that_of_real_numbers(amounts: list[int], amount: int, k: Fraction) -> None:
    """exceeded_by compares amount - mean with k * sd without taking the root."""
    statistics = Statistics.of(amounts)
    mean = Fraction(sum(amounts), len(amounts))
    variance = sum((a - mean) ** 2 for a in amounts) / len(amounts)
    exceeded = len(amounts) > 1 and amount > mean and (amount - mean) ** 2 > k * k * variance
    assert statistics.exceeded_by(amount, k) == exceeded
    threshold = Fraction(statistics.threshold(k)) * 10**6
    assert threshold <= mean + Fraction(isqrt(int(k * k * variance)) + 1)


def test_numbers_as_text() -> None:
    """Cents have two decimals; millionths two to six."""
    assert [cents(0), cents(5), cents(1234)] == ["0.00", "0.05", "12.34"]
    assert [decimal(0), decimal(16_830_000), decimal(1), decimal(1_234_500)] == ["0.00", "16.83", "0.000001", "1.2345"]
