"""Batches get as large as an answer in good time allows, and no larger."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.cluster.pace import GROWTH, SHARE, Pace

costs = st.floats(1e-7, 10)


def settle(pace: Pace, cost: float, answers: int = 60) -> None:
    """Batches of the size that the pace gives, each purchase of which takes so many seconds."""
    for _ in range(answers):
        pace.took(cost * pace.events, pace.events, pace.events)


def test_a_batch_is_never_much_larger_than_one_that_was_answered() -> None:
    """The first has one event: nobody knows yet how long that takes. Then they grow, by the largest so far."""
    pace, sizes = Pace(5000, 3.0), list[int]()
    while not sizes or sizes[-1] < 5000:
        sizes.append(pace.events)
        pace.took(0.0, 1, pace.events)
    assert sizes == [1, GROWTH, GROWTH**2, GROWTH**3, GROWTH**4, 5000]


@given(costs, st.integers(1, 20_000), st.floats(0.1, 60))
def test_an_answer_takes_a_part_of_its_time(cost: float, most: int, deadline: float) -> None:
    """Or one event is asked about at a time; and it is never more events than allowed."""
    pace = Pace(most, deadline)
    for _ in range(60):
        assert pace.events == 1 or pace.events * cost <= 1.001 * deadline / SHARE
        settle(pace, cost, 1)
    assert 1 <= pace.events <= most
    assert pace.events == most or (pace.events + 1) * cost >= 0.999 * deadline / SHARE


@given(st.lists(costs, max_size=20), costs)
def test_batches_get_smaller_at_once_and_larger_by_and_by(before: list[float], cost: float) -> None:
    """After one answer that took long, and after several that did not; whatever was before, it settles."""
    pace, fresh = Pace(10_000, 3.0), Pace(10_000, 3.0)
    for each in before:
        settle(pace, each, 1)
    settle(pace, cost, 1)
    assert pace.events == 1 or pace.events * cost <= 1.001 * 3.0 / SHARE
    settle(pace, cost)
    settle(fresh, cost)
    assert pace.events == pytest.approx(fresh.events, abs=1)


def test_purchases_count_and_not_events() -> None:
    """A friendship takes no answer: where there were few purchases, there may soon be more."""
    pace = Pace(1000, 3.0)
    settle(pace, 0.0)
    pace.took(1.0, 10, 1000)
    assert pace.events == 3
