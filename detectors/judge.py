"""Turns windows into verdicts: floats screen, integers decide."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from peerwatch.detectors.sigma import FLAGGED, NORMAL, UNDECIDED, Sigma
from peerwatch.network.history import Windows
from peerwatch.network.kernels import Int64s
from peerwatch.network.statistics import Statistics

Mask = NDArray[np.bool_]


class Decision(NamedTuple):
    """One verdict with its reasons. `place` is the purchase's place in the judged batch.

    `amount` is in millionths; `oldest` and `newest` are the timestamps (microseconds) at the window's ends, None if it
    is empty. `spoken` is what a detector other than sigma had to say.
    """

    place: int
    flagged: bool
    amount: int
    statistics: Statistics
    oldest: int | None
    newest: int | None
    spoken: "Spoken | None" = None


class Spoken(NamedTuple):
    """A detector's own words: its name, the score it gave (NaN if the window was too small), and its threshold."""

    detector: str
    score: float
    threshold: float


class Judging(Protocol):
    """What turns windows into verdicts. Where a column holds -1 - i, the amount is `large[i]`."""

    large: list[int]

    def judge(self, windows: Windows, amount: Int64s, wanted: Mask) -> list[Decision]:
        """Judge q purchases, see `Judge.judge`."""


class Judge:
    """The rule sigma, decided exactly, and the amounts too large for the columns."""

    def __init__(self, detector: Sigma, large: Sequence[int] = ()) -> None:
        self.detector = detector
        self.large = list(large)
        """Where a column holds -1 - i, the amount is `large[i]`."""

    def judge(self, windows: Windows, amount: Int64s, wanted: Mask) -> list[Decision]:
        """Judge q purchases against their windows.

        `amount` and `wanted` have shape [q]. Returns the decisions that are flagged or wanted, in order.
        """
        codes = self.detector.screen(windows.offsets, windows.amount, amount)
        decisions = (
            self._decide(place, codes[place], windows, int(amount[place]))
            for place in np.flatnonzero((codes != NORMAL) | wanted).tolist()
        )
        return [decision for decision in decisions if decision.flagged or wanted[decision.place]]

    def flags(self, windows: Windows, amount: Int64s) -> Mask:
        """Which of q purchases are flagged: the verdicts of `judge`, without its reasons. Shape [q]."""
        codes = self.detector.screen(windows.offsets, windows.amount, amount)
        flagged: Mask = codes == FLAGGED
        for place in np.flatnonzero(codes == UNDECIDED).tolist():
            exact = self._exact(int(amount[place]))
            flagged[place] = self.statistics(windows, place).exceeded_by(exact, self.detector.k)
        return flagged

    def statistics(self, windows: Windows, place: int) -> Statistics:
        """The exact statistics of one window."""
        return Statistics.of([self._exact(held) for held in windows.amount[windows.window(place)].tolist()])

    def _decide(self, place: int, code: int, windows: Windows, amount: int) -> Decision:
        statistics = self.statistics(windows, place)
        exact = self._exact(amount)
        flagged = code == FLAGGED or (code != NORMAL and statistics.exceeded_by(exact, self.detector.k))
        times = windows.timestamp[windows.window(place)]
        oldest, newest = (int(times.min()), int(times.max())) if len(times) else (None, None)
        return Decision(place, flagged, exact, statistics, oldest, newest)

    def _exact(self, held: int) -> int:
        return held if held >= 0 else self.large[-1 - held]
