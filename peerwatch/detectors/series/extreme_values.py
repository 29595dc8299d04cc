"""The detector `spot`: thresholds from extreme value theory."""

from typing import ClassVar, Final

import numpy as np

from peerwatch.detectors.base import Floats, Summary, positive, ratio
from peerwatch.detectors.series.causal import Causal, by_latest
from peerwatch.errors import BadInput

FEWEST: Final = 10
"""The fewest values that a tail is fitted to."""
STRAIGHT: Final = 1e-9
"""A tail of a smaller shape is exponential."""


class Spot(Causal):
    """Flags a value further out in a tail than one in 1 / `risk` values is expected to be (Siffer et al., 2017).

    Beyond a high quantile, values of nearly any distribution are distributed like a generalised Pareto distribution
    (Pickands, Balkema and de Haan). It is fitted to the largest values of the window, and likewise to the smallest: to
    the share `tail`, ten at least. The score is -log10 of the probability of a value as far out; 0 between the tails.

    SPOT fits by maximum likelihood, one series at a time. This fits by probability-weighted moments (Hosking and
    Wallis, 1987), which have a closed form and hold up better in small samples. A tail that seems to end somewhere is
    taken as exponential, so that what lies beyond its end is still ranked.
    """

    name: ClassVar[str] = "spot"
    least: ClassVar[int] = 2 * FEWEST

    def __init__(self, *, risk: float = 1e-3, tail: float = 0.02) -> None:
        self.risk = risk
        self.tail = tail

    def check(self) -> None:
        """Check that risk and tail are shares, the risk the smaller one.

        Raises:
            BadInput: they are not.
        """
        positive(self.name, risk=self.risk, tail=self.tail)
        if self.tail > 0.5:
            raise BadInput(f'{self.name}: "tail" is {self.tail!r}; expected at most 0.5')
        if self.risk >= self.tail:
            raise BadInput(f'{self.name}: "risk" is {self.risk!r}; expected less than "tail", which is {self.tail!r}')

    @property
    def threshold(self) -> float:
        """The score of a value that is expected once in 1 / `risk`."""
        return -float(np.log10(self.risk))

    def summarise(self, window: Floats) -> Summary:
        """For each tail, the low one mirrored: where it begins, its scale and shape, and its share of the window."""
        return *self._tail(-window), *self._tail(window)

    def score_amounts(self, summary: Summary, amount: Floats) -> Floats:
        """The score of each amount."""
        return np.maximum(_rarity(-amount, *summary[:4]), _rarity(amount, *summary[4:]))

    def along(self, series: Floats) -> Floats:
        """How rare each value is after the latest ones before it. Shape [n]."""
        return by_latest(self, series)

    def _tail(self, window: Floats) -> Summary:
        count = max(FEWEST, int(np.ceil(self.tail * window.shape[1])))
        held = np.sort(np.partition(window, -count - 1, axis=1)[:, -count - 1 :], axis=1)
        begin = held[:, 0]
        beyond = held[:, 1:] - begin[:, None]
        mean = beyond.mean(axis=1)
        weights = 1 - (np.arange(1, count + 1) - 0.35) / count
        weighted = (beyond * weights).mean(axis=1)
        rest = np.where(mean > 0, mean - 2 * weighted, 1.0)
        shape = np.maximum(2 - mean / rest, 0.0)
        scale = np.where(shape > 0, 2 * mean * weighted / rest, mean)
        return begin, scale, shape, np.full(len(window), count / window.shape[1])


def _rarity(amount: Floats, begin: Floats, scale: Floats, shape: Floats, share: Floats) -> Floats:
    """The -log10 of the probability of a value at least as far out in a generalised Pareto tail; 0 before the tail."""
    distance = ratio(np.maximum(amount - begin, 0.0), scale)
    curved = shape > STRAIGHT
    log = np.where(curved, np.log1p(shape * distance) / np.where(curved, shape, 1.0), distance)
    return np.where(distance > 0, log / np.log(10) - np.log10(share), 0.0)
