"""Has any detector but sigma judge windows: in floats, and in order of time."""

from collections.abc import Sequence

import numpy as np

from peerwatch.detectors.base import Detector, Floats
from peerwatch.detectors.judge import Decision, Mask, Spoken
from peerwatch.network.errors import RunError
from peerwatch.network.history import Windows
from peerwatch.network.kernels import Int64s
from peerwatch.network.statistics import Statistics

UNIT = 10**6
"""Millionths in what a detector counts in."""


class RuleJudge:
    """A detector and the amounts too large for the columns."""

    def __init__(self, detector: Detector, large: Sequence[int] = ()) -> None:
        self.detector = detector
        self.large = list(large)
        """Where a column holds -1 - i, the amount is `large[i]`."""

    def judge(self, windows: Windows, amount: Int64s, wanted: Mask) -> list[Decision]:
        """Judge q purchases against their windows.

        `amount` and `wanted` have shape [q]. Returns the decisions that are flagged or wanted, in order. Mean and sd
        are exact here, too: they are written whoever judges.

        Raises:
            RunError: the detector failed.
        """
        owner = np.repeat(np.arange(len(amount)), np.diff(windows.offsets))
        in_time = np.lexsort((windows.seq, windows.timestamp, owner))
        given = windows.offsets, self._floats(windows.amount[in_time]), self._floats(amount)
        try:
            verdicts = self.detector.judge(*given)
        except Exception as error:  # a user's own code: trying again would not help
            what = f"{type(error).__name__}: {error}"
            raise RunError(f"the detector {self.detector.name} failed: {what}") from error
        decisions = []
        for place in np.flatnonzero(verdicts.flagged | wanted).tolist():
            window = windows.window(place)
            amounts, times = windows.amount[window].tolist(), windows.timestamp[window]
            statistics = Statistics.of([self._exact(held) for held in amounts])
            oldest, newest = (int(times.min()), int(times.max())) if len(times) else (None, None)
            spoken = Spoken(self.detector.name, float(verdicts.score[place]), float(verdicts.threshold[place]))
            exact, flagged = self._exact(int(amount[place])), bool(verdicts.flagged[place])
            decisions.append(Decision(place, flagged, exact, statistics, oldest, newest, spoken))
        return decisions

    def _floats(self, held: Int64s) -> Floats:
        """Amounts in units, as near as floats come."""
        amounts = held / UNIT
        for place in np.flatnonzero(held < 0).tolist():
            amounts[place] = self._exact(int(held[place])) // UNIT  # too large for its fraction to matter
        return amounts

    def _exact(self, held: int) -> int:
        return held if held >= 0 else self.large[-1 - held]
