"""Thresholds from extreme value theory."""

import numpy as np
import pytest
from scipy.stats import genpareto

from peerwatch.detectors.series.extreme_values import FEWEST, Spot
from peerwatch.errors import BadInput


@pytest.mark.parametrize("shape", [0.0, 0.2, 0.4])
def test_the_fitted_tail_is_the_one_the_values_come_from(shape: float) -> None:
    """Probabilities far out agree with SciPy's generalised Pareto distribution; both tails alike."""
    rng = np.random.default_rng(1)
    beyond = genpareto.rvs(shape, scale=3, size=20_000, random_state=rng)
    values = np.where(rng.random(len(beyond)) < 0.5, 100 + beyond, -100 - beyond)
    detector = Spot(tail=0.4)
    detector.fit(values[:, None])
    far = np.array([110.0, 120.0, 140.0])
    expected = -np.log10(0.5 * genpareto.sf(far - 100, shape, scale=3))
    for side in (far, -far):
        assert -detector.score_samples(side[:, None]) == pytest.approx(expected, rel=0.08)


def test_values_as_far_out_are_as_rare_as_it_is_told() -> None:
    """Of a hundred thousand new normal values about a hundred exceed a risk of 1 in 1,000."""
    rng = np.random.default_rng(2)
    detector = Spot(risk=1e-3).fit(rng.normal(size=(20_000, 1)))
    flagged = int((detector.predict(rng.normal(size=(100_000, 1))) == -1).sum())
    assert 60 <= flagged <= 240, "two tails"


def test_what_lies_beyond_all_is_still_ranked() -> None:
    """A bounded distribution ends; scores beyond its end are finite and grow."""
    scores = -Spot().fit(np.random.default_rng(3).uniform(size=(500, 1))).score_samples([[0.5], [1.1], [2.0], [1e9]])
    assert scores[0] == 0
    assert np.isfinite(scores).all()
    assert (np.diff(scores) > 0).all()


def test_few_values_have_no_tail() -> None:
    """Twice ten are needed; the risk is smaller than the tail."""
    with pytest.raises(BadInput, match="at least 20 rows"):
        Spot().fit(np.zeros((2 * FEWEST - 1, 1)))
    with pytest.raises(BadInput, match=r'"risk" is 0\.1; expected less than "tail"'):
        Spot(risk=0.1, tail=0.1).check()
    with pytest.raises(BadInput, match=r'"tail" is 0\.6; expected at most 0\.5'):
        Spot(tail=0.6).check()
