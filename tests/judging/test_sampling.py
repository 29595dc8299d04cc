"""The sample that decisions are logged and recomputed by."""

import numpy as np

from peerwatch.judging.sampling import sampled


def test_a_sample_is_even_and_the_same_in_every_run() -> None:
    """About the share asked for, by sequence number alone."""
    seq = np.arange(1, 100_001)
    chosen = sampled(seq, 0.01)
    assert 900 < chosen.sum() < 1100
    assert (sampled(seq[500:600], 0.01) == chosen[500:600]).all()
    assert sampled(seq, 1.0).all()
    assert not sampled(seq, 0.0).any()
