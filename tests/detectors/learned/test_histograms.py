"""Histograms column by column."""

import numpy as np
from learned_tables import tables

from peerwatch.detectors.learned.histograms import LEAST_DENSITY, Hbos


def test_a_score_is_the_sum_of_the_logarithms_of_densities() -> None:
    """Counted by hand: the share of the rows in the bin over its width, in scaled units."""
    train, _ = tables()
    detector = Hbos(bins=7).fit(train)
    rows = (train - detector.center_) / detector.scale_
    expected = np.zeros(len(rows))
    for column in rows.T:
        low, width = column.min(), np.ptp(column) / 7 or 1 / 7
        place = np.clip(np.ceil((column - low) / width) - 1, 0, 6)
        share = np.array([(place == each).mean() for each in place])
        expected -= np.log2(share / width + LEAST_DENSITY)
    np.testing.assert_allclose(detector.decision_scores_, expected)


def test_beyond_the_range_the_score_grows_with_the_distance() -> None:
    """From that of an empty bin on, on both sides, without an end."""
    detector = Hbos().fit(np.array([[0.0], [1], [1], [2], [10]]))
    for sign, edge in ((1, 10.0), (-1, 0.0)):
        scores = -detector.score_samples(edge + sign * np.array([[1e-9], [1], [100], [1e30]]))
        assert (np.diff(scores) > 0).all()
        assert np.isclose(scores[0], -np.log2(LEAST_DENSITY))
        assert np.isfinite(scores).all()
