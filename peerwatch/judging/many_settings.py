"""Judges the same purchases with many values of T and k at once."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from peerwatch.amounts import Amounts
from peerwatch.judging.judge import Mask
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.network.statistics import Statistics
from peerwatch.network.windows import Windows, shortened


class GridVerdicts(NamedTuple):
    """The verdicts with one T: `flagged` has shape [ks, q].

    `statistics` holds those of the windows of purchases that any k flags, by index.
    """

    flagged: Mask
    statistics: dict[int, Statistics]


def judge_grid(
    windows: Windows, amount: Amounts, T: Sequence[int], k: Sequence[Fraction], *, reasons: bool
) -> Iterator[GridVerdicts]:
    """Judge q purchases with each T, the largest first, and each k. `windows` must be those of the largest T.

    The T latest purchases of a network are the latest of any larger window, so windows are shortened in place. `amount`
    has shape [q]. Without `reasons` no statistics are computed: they take longer than the verdicts.
    """
    judges = [SigmaJudge(Sigma(each)) for each in k]
    for most in T:
        windows = shortened(windows, most)
        flagged = np.stack([judge.flags(windows, amount) for judge in judges])
        places = np.flatnonzero(flagged.any(axis=0)).tolist() if reasons else []
        yield GridVerdicts(flagged, {place: judges[0].statistics(windows, place) for place in places})
