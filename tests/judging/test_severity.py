"""Levels of severity begin exactly where they are said to."""

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.errors import BadInput
from peerwatch.judging.severity import Severity
from peerwatch.network.statistics import Statistics


def test_levels_by_score() -> None:
    """A level begins above its bound, as flags do; infinite is beyond all."""
    severity = Severity(6.0, 10.0)
    levels = {score: severity.of(score) for score in (3.5, 6.0, 6.01, 10.0, 10.01, float("inf"))}
    assert [*levels.values()] == ["warning", "warning", "critical", "critical", "emergency", "emergency"]


def test_both_bounds_may_be_the_same() -> None:
    """Nothing is critical then."""
    assert {Severity(5, 5).of(score) for score in (4.0, 5.0, 5.5)} == {"warning", "emergency"}


def test_sigma_at_the_very_bound() -> None:
    """Amounts 9 and 11: mean 10, sd 1. 10.3 is 0.3 above, which no binary fraction is; a millionth more is critical."""
    statistics, severity = Statistics.of([9_000_000, 11_000_000]), Severity(0.3, 6.1)
    amounts = (10_300_000, 10_300_001, 16_100_000, 16_100_001)
    assert [severity.exact(statistics, amount) for amount in amounts] == [
        "warning",
        "critical",
        "critical",
        "emergency",
    ]


@given(
    amounts=st.lists(st.integers(0, 10**30), min_size=2, max_size=9), amount=st.integers(0, 10**32),
    bounds=st.tuples(st.integers(1, 90), st.integers(1, 90)).map(sorted),
)  # fmt: skip
def test_sigma_is_decided_as_fractions_decide_it(amounts: list[int], amount: int, bounds: list[int]) -> None:
    """Of tenths as bounds, and amounts of any size."""
    mean = Fraction(sum(amounts), len(amounts))
    variance = sum((each - mean) ** 2 for each in amounts) / len(amounts)
    above = [amount > mean and (amount - mean) ** 2 > Fraction(bound, 10) ** 2 * variance for bound in bounds]
    expected = ["warning", "critical", "emergency"][sum(above)]
    if bounds[0] == bounds[1] and above[0]:
        expected = "emergency"
    assert Severity(bounds[0] / 10, bounds[1] / 10).exact(Statistics.of(amounts), amount) == expected


@pytest.mark.parametrize(
    ("critical", "emergency", "sentence"),
    [
        (0, 5, 'severity: "critical" is 0; expected a number above 0'),
        (5, float("inf"), 'severity: "emergency" is inf; expected a number above 0'),
        ("a", 5, "severity: \"critical\" is 'a'; expected a number above 0"),
        (7.5, 5, 'severity: "critical" is 7.5; expected at most 5, "emergency"'),
    ],
)
def test_bounds_that_make_no_sense(critical: float, emergency: float, sentence: str) -> None:
    """One sentence names it."""
    with pytest.raises(BadInput, match=f"^{re.escape(sentence)}$"):
        Severity(critical, emergency)
