"""Batches get as large as an answer in good time allows, and no larger."""

from hypothesis import given
from hypothesis import strategies as st

from peerwatch.cluster.pace import FIRST, SHARE, Pace

costs = st.floats(1e-7, 10)


def test_the_first_batches_are_small() -> None:
    """Nobody knows yet how long an answer takes."""
    assert Pace(5000, 3.0).events == FIRST
    assert Pace(40, 3.0).events == 40


@given(costs, st.integers(1, 20_000), st.floats(0.1, 60))
def test_an_answer_takes_a_part_of_its_time(cost: float, most: int, deadline: float) -> None:
    """Or one event is asked about at a time; and it is never more events than allowed."""
    pace = Pace(most, deadline)
    pace.took(7 * cost, 7)
    assert 1 <= pace.events <= most
    assert pace.events == 1 or pace.events * cost <= 1.001 * deadline / SHARE
    assert pace.events == most or (pace.events + 1) * cost >= 0.999 * deadline / SHARE


@given(st.lists(costs, max_size=20), costs)
def test_batches_get_smaller_at_once_and_larger_by_and_by(before: list[float], cost: float) -> None:
    """After one answer that took long, and after several that did not; whatever was before, it settles."""
    pace = Pace(10_000, 3.0)
    for each in before:
        pace.took(each, 1)
    pace.took(cost, 1)
    assert pace.events == 1 or pace.events * cost <= 1.001 * 3.0 / SHARE
    for _ in range(60):
        pace.took(cost, 1)
    settled = Pace(10_000, 3.0)
    settled.took(cost, 1)
    assert abs(pace.events - settled.events) <= 1


def test_an_answer_may_take_no_time() -> None:
    """As far as the clock can tell."""
    pace = Pace(10_000, 3.0)
    pace.took(0.0, 1)
    assert pace.events == 10_000
