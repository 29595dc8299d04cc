"""Thresholds are calibrated for the share that is expected, and probabilities mean what they say."""

import numpy as np
import pytest

from peerwatch.errors import BadInput
from peerwatch.sessions.threshold import ThresholdRule, calibrated, curve, uncalibrated, weights

RNG = np.random.default_rng(1)
LABELS = np.repeat([False, True], [6000, 4000])
SCORE = RNG.normal(0, 1, 10_000) + 2 * LABELS
"""Two normal distributions: the log odds are known exactly."""


def fresh(share: float) -> tuple[np.ndarray, np.ndarray]:
    """Other sessions with so many anomalies."""
    labels = RNG.random(40_000) < share
    return RNG.normal(0, 1, 40_000) + 2 * labels, labels


def test_the_probability_is_that_of_the_expected_share() -> None:
    """Trained at 40 %: where 4 % are anomalous, of sessions with a probability of p about p are."""
    found = calibrated(SCORE, LABELS, 0.04, ThresholdRule())
    score, labels = fresh(0.04)
    share = found.probability(score)
    assert share.mean() == pytest.approx(0.04, abs=0.005)
    high = share > 0.5
    assert labels[high].mean() == pytest.approx(share[high].mean(), abs=0.08)
    assert found.slope == pytest.approx(2, rel=0.1)  # the log odds of these two distributions rise by 2 a unit


def test_each_rule_does_what_it_says() -> None:
    """On sessions of the expected share: that share is flagged, the recall reached, dear misses avoided."""
    score, labels = fresh(0.04)
    flagged = {
        text: score >= calibrated(SCORE, LABELS, 0.04, ThresholdRule.parsed(text)).threshold
        for text in ("share", "recall=0.9", "costs=1", "costs=100", "f1")
    }
    assert flagged["share"].mean() == pytest.approx(0.04, abs=0.008)
    assert flagged["recall=0.9"][labels].mean() == pytest.approx(0.9, abs=0.04)
    assert flagged["costs=100"].sum() > 5 * flagged["costs=1"].sum()
    best = max(2 * (labels & (score >= t)).sum() / ((score >= t).sum() + labels.sum()) for t in np.linspace(0, 4, 80))
    found = 2 * (labels & flagged["f1"]).sum() / (flagged["f1"].sum() + labels.sum())
    assert found == pytest.approx(best, abs=0.02)


def test_without_labels_the_contamination_is_flagged() -> None:
    """As many of the sessions that it was fitted on."""
    found = uncalibrated(SCORE, 0.1)
    assert (found.threshold <= SCORE).mean() == pytest.approx(0.1, abs=0.001)
    assert found.probability(np.array([found.threshold]))[0] == pytest.approx(0.5)


def test_confidence_is_none_on_the_threshold_and_grows_from_it() -> None:
    """From 0 to 1, on both sides."""
    found = calibrated(SCORE, LABELS, 0.04, ThresholdRule())
    assert found.confidence(np.array([found.threshold]))[0] == pytest.approx(0)
    steps = found.confidence(found.threshold + np.linspace(0, 6, 20))
    assert (np.diff(steps) > 0).all()
    assert (np.diff(found.confidence(found.threshold - np.linspace(0, 6, 20))) > 0).all()


def test_a_score_that_says_nothing_gives_the_expected_share() -> None:
    """And one that says the opposite is not trusted."""
    for score in (np.zeros(10_000), -SCORE):
        share = calibrated(score, LABELS, 0.04, ThresholdRule()).probability(score)
        assert share == pytest.approx(0.04, abs=0.01)


def test_equal_scores_are_one_threshold() -> None:
    """Precision and recall stand at each score that occurs, not within ties."""
    found = curve(
        np.array([2.0, 1.0, 1.0, 0.0]),
        np.array([True, True, False, False]),
        weights(np.array([True, True, False, False]), 0.5),
    )
    assert found.score.tolist() == [2, 1, 0]
    assert found.recall.tolist() == pytest.approx([0.5, 1, 1])
    assert found.precision.tolist() == pytest.approx([1, 2 / 3, 0.5])


@pytest.mark.parametrize("text", ["", "f2", "recall=2", "recall=x", "costs=0", "costs=inf", "f1=3", "recall=nan"])
def test_a_rule_that_is_none_is_refused(text: str) -> None:
    """With what is expected; what is right is written as it is read."""
    with pytest.raises(BadInput, match="expected f1, share, recall="):
        ThresholdRule.parsed(text)
    for right in ("f1", "share", "recall=0.9", "costs=20"):
        assert str(ThresholdRule.parsed(right)) == right
