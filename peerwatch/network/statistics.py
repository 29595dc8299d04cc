"""Exact statistics of a window, in integers only."""

from collections.abc import Sequence
from fractions import Fraction
from math import isqrt
from typing import NamedTuple

CENT = 10_000
"""Millionths in one cent: what is printed is truncated to two decimals."""


class Statistics(NamedTuple):
    """Of n amounts (millionths): their sum S and their sum of squares Q."""

    n: int
    S: int
    Q: int

    @classmethod
    def of(cls, amounts: Sequence[int]) -> "Statistics":
        """The statistics of amounts as Python integers, which never overflow."""
        return cls(len(amounts), sum(amounts), sum(amount * amount for amount in amounts))

    @property
    def spread(self) -> int:
        """N * Q - S * S, which is (n * sd) squared."""
        return self.n * self.Q - self.S * self.S

    def exceeded_by(self, amount: int, k: Fraction) -> bool:
        """Whether amount > mean + k * sd (population), strictly; never with fewer than two amounts.

        With d = n * amount - S this is d > 0 and d^2 > k^2 * (n * Q - S^2), here multiplied by k's denominator squared.
        """
        if self.n < 2:
            return False
        d = self.n * amount - self.S
        return d > 0 and (d * k.denominator) ** 2 > k.numerator**2 * self.spread

    def highest_normal(self, k: Fraction) -> int:
        """The largest amount (millionths) that these do not flag; below 0 if even 0 is flagged. Needs n > 1.

        With k = p / q, d^2 <= k^2 * V is d <= isqrt(p^2 * V) // q for an integer d, and d = n * amount - S.
        """
        return (self.S + isqrt(k.numerator**2 * self.spread) // k.denominator) // self.n

    def mean(self) -> str:
        """The mean, truncated to two decimals. Needs n > 0."""
        return cents(self.S // (self.n * CENT))

    def sd(self) -> str:
        """The population standard deviation, truncated to two decimals. Needs n > 0."""
        return cents(isqrt(self.spread) // (self.n * CENT))

    def threshold(self, k: Fraction) -> str:
        """The mean + k * sd, truncated to two decimals. Needs n > 0."""
        root = isqrt(k.numerator**2 * self.spread)
        return cents((k.denominator * self.S + root) // (k.denominator * self.n * CENT))


def cents(value: int) -> str:
    """Cents >= 0 as a decimal number: 1234 gives 12.34."""
    return f"{value // 100}.{value % 100:02d}"


def decimal(micros: int) -> str:
    """Millionths >= 0 as a decimal number with 2 to 6 decimals: 16830000 gives 16.83."""
    whole, fraction = divmod(micros, 1_000_000)
    return f"{whole}.{f'{fraction:06d}'.rstrip('0').ljust(2, '0')}"


def shown_k(k: Fraction) -> str:
    """A number of standard deviations as a person writes it."""
    return str(k) if k.denominator == 1 else repr(float(k))
