"""Adaptive thresholds are what a plain computation gives, and do what they promise."""

import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from peerwatch.detectors.base import Floats
from peerwatch.errors import BadInput
from peerwatch.judging.adaptive_threshold import FEWEST, GRID, LABELS, RECENT, FlagRate, Labelled, Precision

INFINITE = float("inf")
OWN = 3.0


def thresholds(target: float, score: Floats, cuts: list[int], restored: set[int]) -> list[float | None]:
    """Which threshold judged each purchase, handed over in pieces with restores in between."""
    used: list[float | None] = []
    rate = FlagRate(target)
    for number, (begin, end) in enumerate(zip([0, *cuts], [*cuts, len(score)], strict=True)):
        place = begin
        while place < end:
            piece = score[place : min(end, place + rate.room())]
            used += [rate.value] * len(piece)
            rate.observe(piece)
            place += len(piece)
        if number in restored:
            arrays, rate = rate.arrays(), FlagRate(target)
            rate.restore(arrays)
    return used


@settings(max_examples=examples(50))
@given(
    seed=st.integers(0, 10**6),
    target=st.sampled_from([0.0001, 0.01, 0.07, 0.29, 0.5, 0.999]),
    cuts=st.lists(st.integers(0, 7000), max_size=20).map(sorted),
    restored=st.sets(st.integers(0, 20)),
)
def test_a_flag_rate_is_the_quantile_of_the_latest_scores(
    seed: int, target: float, cuts: list[int], restored: set[int]
) -> None:
    """At each multiple of GRID and nowhere else: the least score that at most the target's share exceeds."""
    rng = np.random.default_rng(seed)
    score = np.round(rng.exponential(2, 7000), int(rng.integers(0, 3)))
    score[rng.random(7000) < rng.choice([0, 0.1, 0.9])] = np.nan
    score[rng.random(7000) < rng.choice([0, 0.005, 0.1])] = np.inf
    used = thresholds(target, score, cuts, restored)
    assert used[:GRID] == [None] * GRID
    for moment in range(GRID, len(score), GRID):
        known = score[:moment][~np.isnan(score[:moment])][-RECENT:]
        above = {value: int((known > value).sum()) for value in np.unique(known).tolist()}
        expected = min(value for value, count in above.items() if count <= Fraction(repr(target)) * len(known))
        assert used[moment : moment + GRID] == [expected] * len(used[moment : moment + GRID])


def test_the_flag_rate_comes_back_to_its_target_after_a_shift() -> None:
    """Scores that double flag a sixth at first; 5,120 purchases later the share is the target again."""
    rng = np.random.default_rng(1)
    score = np.concatenate([np.abs(rng.normal(0, 1, 40 * GRID)), np.abs(rng.normal(0, 2, 40 * GRID))])
    used = np.array(thresholds(0.01, score, [], set()), np.float64)
    flagged = score > used
    shares = [float(part.mean()) for part in np.split(flagged, [GRID, 40 * GRID, 41 * GRID, 45 * GRID])]
    assert shares[0] == 0  # no threshold yet
    assert shares[1] == pytest.approx(0.01, abs=0.002)
    assert shares[2] > 0.1
    assert shares[4] == pytest.approx(0.01, abs=0.002)


def test_no_score_at_all_leaves_the_threshold_alone() -> None:
    """NaN says nothing, however often."""
    rate = FlagRate(0.1)
    for _ in range(3):
        rate.observe(np.full(rate.room(), np.nan))
    assert (rate.value, rate.room()) == (None, GRID)


SCORES = st.sampled_from([3.5, 4.0, 4.5, 5.0, 6.0, 9.0, INFINITE, OWN, 2.0, float("nan")])
LABELLED = st.builds(Labelled, seq=st.integers(1, 60), score=SCORES, anomaly=st.booleans())


def naive(labels: list[Labelled], target: float) -> float | None:
    """Every threshold tried."""
    latest = {label.seq: (place, label) for place, label in enumerate(labels) if label.score == label.score}
    kept = [label for _, label in sorted(latest.values())[-LABELS:] if label.score > OWN]
    if len(kept) < FEWEST:
        return None
    enough = []
    for threshold in {OWN, *(label.score for label in kept)}:
        above = [label.anomaly for label in kept if label.score > threshold]
        if above and Fraction(sum(above), len(above)) >= Fraction(repr(target)):
            enough.append(threshold)
    return min(enough) if enough else max(label.score for label in kept if not label.anomaly)


@given(
    labels=st.lists(LABELLED, max_size=120),
    target=st.sampled_from([0.1, 0.5, 0.9, 0.99]),
    cuts=st.lists(st.integers(0, 120), max_size=5).map(sorted),
)
def test_a_precision_is_held_by_the_lowest_threshold_that_does(
    labels: list[Labelled], target: float, cuts: list[int]
) -> None:
    """The same as trying every threshold, however labels come in, and restored in between."""
    precision = Precision(target, OWN)
    for begin, end in zip([0, *cuts], [*cuts, len(labels)], strict=True):
        precision.add(labels[begin:end])
        arrays, precision = precision.arrays(), Precision(target, OWN)
        precision.restore(arrays)
    assert precision.value == naive(labels, target)


def test_the_latest_thousand_labels_count() -> None:
    """Older ones are forgotten, whatever they said."""
    precision = Precision(0.9, OWN)
    wrong = [Labelled(seq, 5.0, anomaly=False) for seq in range(1, 1001)]
    precision.add(wrong)
    assert precision.value == 5.0
    precision.add(Labelled(seq, 4.0, anomaly=True) for seq in range(1001, 2001))
    assert precision.value == OWN
    assert len(precision.arrays()["seq"]) == LABELS


def test_labels_raise_the_precision_of_what_is_flagged_next() -> None:
    """Anomalies have higher scores, on the whole: after 400 labels nine in ten of the flagged are some, not six."""
    rng = np.random.default_rng(2)
    anomaly = rng.random(20_000) < 0.6
    score = OWN + np.where(anomaly, rng.exponential(4, 20_000), rng.exponential(1, 20_000))
    precision = Precision(0.9, OWN)
    precision.add(map(Labelled, range(400), score[:400].tolist(), anomaly[:400].tolist()))
    assert precision.value is not None
    assert precision.value > OWN
    assert anomaly[400:].mean() < 0.65
    assert anomaly[400:][score[400:] > precision.value].mean() == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize("target", [0, 1.0, -1, float("nan"), "x", True])
def test_targets_lie_between_0_and_1(target: Any) -> None:
    """The sentence names the key and the value."""
    with pytest.raises(BadInput, match=re.escape(f'"flag_rate" is {target!r}; expected a number between 0 and 1')):
        FlagRate(target)
    with pytest.raises(BadInput, match=re.escape(f'"precision" is {target!r}; expected a number between 0 and 1')):
        Precision(target, OWN)
