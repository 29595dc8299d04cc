"""Turns windows into verdicts: floats screen, integers decide."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from peerwatch.detectors.sigma import FLAGGED, NORMAL, Sigma
from peerwatch.network.history import Windows
from peerwatch.network.kernels import Int64s
from peerwatch.network.statistics import Statistics

Mask = NDArray[np.bool_]


class Decision(NamedTuple):
    """One verdict with its reasons. `place` is the purchase's place in the judged batch.

    `amount` is in millionths; `oldest` and `newest` are the timestamps (microseconds) at the window's ends, None if it
    is empty.
    """

    place: int
    flagged: bool
    amount: int
    statistics: Statistics
    oldest: int | None
    newest: int | None


class Judge:
    """A detector and the amounts too large for the columns."""

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

    def _decide(self, place: int, code: int, windows: Windows, amount: int) -> Decision:
        window = windows.window(place)
        statistics = Statistics.of([self._exact(held) for held in windows.amount[window].tolist()])
        exact = self._exact(amount)
        flagged = code == FLAGGED or (code != NORMAL and statistics.exceeded_by(exact, self.detector.k))
        times = windows.timestamp[window]
        oldest, newest = (int(times.min()), int(times.max())) if len(times) else (None, None)
        return Decision(place, flagged, exact, statistics, oldest, newest)

    def _exact(self, held: int) -> int:
        return held if held >= 0 else self.large[-1 - held]
