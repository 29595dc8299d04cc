"""Drift is found where there is some, and never depends on how purchases are handed over."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from peerwatch.detectors.base import Floats, Mask
from peerwatch.errors import BadInput
from peerwatch.judging import drift
from peerwatch.judging.drift import BLOCK, Change, Drift

K = 3.0


def scores(seed: int, *scales: tuple[int, float]) -> Floats:
    """Distances from the mean of purchases whose amounts are log-normal; n of each scale."""
    rng = np.random.default_rng(seed)
    return np.concatenate([np.abs(rng.lognormal(0, 0.8, n) * scale - 1.38) / 1.3 for n, scale in scales])


def changes_of(score: Floats, flagged: Mask | None = None) -> list[Change]:
    """What one call finds."""
    return Drift().observe(score, score > K if flagged is None else flagged, np.full(len(score), K))


def some_flagged(seed: int, *shares: tuple[int, float]) -> list[Change]:
    """What is found in a flag rate, and scores that stay as they are."""
    rng = np.random.default_rng(seed)
    flagged = np.concatenate([rng.random(n) < share for n, share in shares])
    return changes_of(np.ones(len(flagged)), flagged)


def test_what_stays_the_same_raises_no_alarm() -> None:
    """Not one in 2,000,000 purchases, neither on log-normal amounts nor on the heaviest of tails."""
    assert changes_of(scores(1, (1_000_000, 1.0))) == []
    heavy = np.random.default_rng(2).pareto(1.2, 1_000_000) / 2
    assert changes_of(heavy, np.random.default_rng(3).random(1_000_000) < 0.1) == []


@pytest.mark.parametrize("scales", [(1.0, 2.0), (2.0, 1.0)])
def test_a_jump_of_the_scores_is_found_by_both(scales: tuple[float, float]) -> None:
    """Once each within 12,000 purchases, up and down, with the means on either side of where it was."""
    found = [
        change for change in changes_of(scores(4, *((200_000, scale) for scale in scales))) if change.series == "score"
    ]
    assert sorted(change.by for change in found) == ["adwin", "page_hinkley"]
    before, after = (scores(5, (200_000, scale)).mean() / K for scale in scales)
    for change in found:
        assert 200_000 < change.judged <= 212_000
        np.testing.assert_allclose((change.before, change.after), (before, after), rtol=0.1)


@pytest.mark.parametrize("shares", [(0.01, 0.05), (0.05, 0.01)])
def test_a_jump_of_the_flag_rate_is_found_by_both(shares: tuple[float, float]) -> None:
    """Page-Hinkley within 5,000 purchases, ADWIN, which promises more, within 20,000."""
    found = some_flagged(6, *((200_000, share) for share in shares))
    assert [(change.series, change.by) for change in found] == [("flag rate", "page_hinkley"), ("flag rate", "adwin")]
    for change, most in zip(found, (5_000, 20_000), strict=True):
        assert 200_000 < change.judged <= 200_000 + most
        np.testing.assert_allclose((change.before, change.after), shares, atol=0.01)


def test_a_slow_climb_is_found() -> None:
    """Scores that double over 500,000 purchases: each finds it, and says that they have grown."""
    climb = scores(7, (1_000_000, 1.0)) * np.concatenate([np.ones(500_000), np.linspace(1, 2, 500_000)])
    found = [change for change in changes_of(climb) if change.series == "score"]
    assert {change.by for change in found} == {"adwin", "page_hinkley"}
    assert all(change.before < change.after for change in found)
    assert min(change.judged for change in found) > 500_000


def test_scores_without_measure_count_for_nothing_and_infinite_ones_for_ten_thresholds() -> None:
    """A block that has no score at all has no mean; flags count all the same."""
    score = np.tile([1.5, np.nan, 0.3, -2.0], BLOCK // 4 * 3)
    score[BLOCK : 2 * BLOCK] = np.nan
    score[-1] = np.inf
    threshold = np.full(len(score), 3.0)
    threshold[0] = 0.0
    watching = Drift()
    watching.observe(score, np.isinf(score), threshold)
    arrays = watching.arrays()
    expected = [(15 * 0.5 + 16 * 0.1) / 47, (16 * 0.5 + 16 * 0.1 + 10) / 48]
    np.testing.assert_allclose(arrays["score_adwin"], [expected[0], (16 * 0.5 + 16 * 0.1 + 10.0) / 48])
    np.testing.assert_allclose(arrays["score_page_hinkley"], expected)
    np.testing.assert_allclose(arrays["flag_rate_adwin"], [0, 0, 1 / BLOCK])


@settings(max_examples=examples(25))
@given(
    seed=st.integers(0, 3),
    cuts=st.lists(st.integers(0, 60_000), max_size=30).map(sorted),
    restored=st.sets(st.integers(0, 30)),
    most=st.sampled_from([100, drift.MOST]),
)
def test_neither_cuts_nor_restores_change_anything(seed: int, cuts: list[int], restored: set[int], most: int) -> None:
    """Any cutting into calls, restored from arrays between any two of them: the same changes, the same state."""
    score = scores(seed, (20_000, 1.0), (20_000, 4.0), (20_000, 0.5))
    score[np.random.default_rng(seed).random(len(score)) < 0.05] = np.nan
    flagged, threshold = score > K, np.full(len(score), K)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift, "MOST", most)
        whole = Drift()
        expected = whole.observe(score, flagged, threshold)
        pieces, found = Drift(), []
        for number, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(score)], strict=True)):
            found += pieces.observe(score[begin:end], flagged[begin:end], threshold[begin:end])
            if number in restored:
                arrays, pieces = pieces.arrays(), Drift()
                pieces.restore(arrays)
    assert {(change.series, change.by) for change in expected} >= {("score", "page_hinkley"), ("score", "adwin")}
    assert found == expected
    mine, other = whole.arrays(), pieces.arrays()
    assert all(np.array_equal(mine[name], other[name], equal_nan=True) for name in mine)


def test_a_state_is_bounded() -> None:
    """After MOST values a detector starts afresh."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drift, "MOST", 100)
        watching = Drift()
        watching.observe(np.ones(250 * BLOCK + 7), np.zeros(250 * BLOCK + 7, np.bool_), np.ones(250 * BLOCK + 7))
    assert {name: array.shape for name, array in watching.arrays().items()} == {
        "judged": (), "score": (7,), "flagged": (7,), "threshold": (7,),
        "score_adwin": (50,), "score_page_hinkley": (50,), "flag_rate_adwin": (50,), "flag_rate_page_hinkley": (50,),
    }  # fmt: skip


def test_without_river_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(sys.modules, "river.drift", None)
    with pytest.raises(
        BadInput, match=r'^drift needs river, which is not installed: pip install "peerwatch\[learn\]"$'
    ):
        Drift()
