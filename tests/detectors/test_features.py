"""What is seen of a purchase: finite, the same in every batch, and what it says it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.detectors.base import Context, Floats
from peerwatch.detectors.features import FEATURES, features
from peerwatch.errors import BadInput
from peerwatch.kernels import Int64s

ANY = st.floats(allow_nan=False, allow_infinity=False)
MONEY = st.one_of(st.just(0.0), st.floats(1e-6, 1e15), st.floats(-1e15, -1e-6), ANY)
Drawn = tuple[list[float], float, list[float], float, float, int]
PURCHASE = st.tuples(
    st.one_of(st.lists(MONEY, max_size=60), st.tuples(MONEY, st.integers(1, 60)).map(lambda held: [held[0]] * held[1])),
    MONEY,
    st.lists(MONEY, max_size=20),
    st.floats(0, 1e10),
    st.floats(0, 24),
    st.integers(1, 10**9),
)


def put_together(lists: list[list[float]]) -> tuple[Int64s, Floats]:
    """Lists behind each other, and where each begins."""
    return np.cumsum([0, *map(len, lists)]), np.array([value for each in lists for value in each], np.float64)


def purchases(count: int, seed: int = 1) -> tuple[Int64s, Floats, Floats, Context]:
    """Purchases of ordinary amounts, a third of them by buyers who bought nothing before."""
    rng = np.random.default_rng(seed)
    offsets = np.cumsum([0, *rng.integers(0, 60, count)])
    own = rng.integers(0, 30, count) * (rng.random(count) > 1 / 3)
    own_offsets = np.cumsum([0, *own])
    since = np.where(own > 0, rng.exponential(1e5, count), np.nan)
    context = Context(
        own_offsets, rng.lognormal(3, 1, own_offsets[-1]), since, rng.uniform(0, 24, count), rng.integers(1, 99, count)
    )
    return offsets, rng.lognormal(3, 1, offsets[-1]), rng.lognormal(3, 1, count), context


def part(context: Context, place: int) -> Context:
    """What is known of one purchase."""
    begin, end = context.own_offsets[place : place + 2]
    one = slice(place, place + 1)
    return Context(
        np.array([0, end - begin]), context.own[begin:end], context.since[one], context.hour[one], context.members[one]
    )


@given(st.lists(PURCHASE, min_size=1, max_size=5))
def test_whatever_is_finite_has_finite_features(given: list[Drawn]) -> None:
    """Constant windows, zeros, negative amounts, the largest floats."""
    held, amount, own, since, hour, members = zip(*given, strict=True)
    offsets, window = put_together(list(held))
    own_offsets, bought = put_together(list(own))
    last = np.where(np.diff(own_offsets) > 0, np.array(since), np.nan)
    context = Context(own_offsets, bought, last, np.array(hour), np.array(members))
    for known in (context, None):
        found = features(offsets, window, np.array(amount), known)
        assert found.shape == (len(given), len(FEATURES))
        assert np.isfinite(found).all()


def test_a_row_is_the_same_whatever_the_batch() -> None:
    """Bit by bit, alone and among 500, with a context and without."""
    offsets, window, amount, context = purchases(500)
    known, unknown = features(offsets, window, amount, context), features(offsets, window, amount, None)
    for place in range(500):
        held = window[offsets[place] : offsets[place + 1]]
        alone = np.array([0, len(held)]), held, amount[place : place + 1]
        np.testing.assert_array_equal(features(*alone, part(context, place))[0], known[place])
        np.testing.assert_array_equal(features(*alone, None)[0], unknown[place])


def test_each_feature_of_one_purchase() -> None:
    """Worked out by hand."""
    context = Context(np.array([0, 2]), np.array([6.0, 10]), np.array([86399.0]), np.array([6.0]), np.array([9]))
    (found,) = features(np.array([0, 4]), np.array([1.0, 1, 3, 3]), np.array([7.0]), context)
    expected = {
        "deviations": np.arcsinh(5),
        "to median": np.arcsinh(7) - np.arcsinh(2),
        "to largest": np.arcsinh(7) - np.arcsinh(3),
        "spread": np.log(1.5),
        "window": np.log(5),
        "members": np.log(10),
        "to own mean": np.arcsinh(7) - np.arcsinh(8),
        "own": np.log(3),
        "since": 0,
    }
    assert tuple(expected) == FEATURES
    np.testing.assert_allclose(found, list(expected.values()), atol=1e-12)


def test_what_is_not_known_is_nothing_unusual() -> None:
    """Without a context, and for a buyer who has bought nothing."""
    new = Context(np.array([0, 0]), np.array([]), np.array([np.nan]), np.array([0.0]), np.array([0]))
    one = np.array([0, 2]), np.array([1.0, 2]), np.array([3.0])
    assert not features(*one, None)[0, 5:].any()
    assert not features(*one, new)[0, 5:].any()
    assert not features(np.array([0, 0]), np.array([]), np.array([3.0]), None).any()


def test_only_finite_numbers_are_looked_at() -> None:
    """But for the time since a purchase that there was not."""
    offsets, window, amount, context = purchases(9)
    for bad in (np.nan, np.inf, -np.inf):
        for spoilt in (context._replace(own=np.full_like(context.own, bad)),):
            with pytest.raises(BadInput, match="only finite numbers"):
                features(offsets, window, amount, spoilt)
    with pytest.raises(BadInput, match="only finite numbers"):
        features(offsets, window, amount, context._replace(since=np.full(9, np.inf)))
    assert features(np.array([0]), np.array([]), np.array([]), None).shape == (0, len(FEATURES))
