"""Severity levels of flagged purchases."""

from fractions import Fraction
from typing import Final, Literal

from peerwatch.detectors.base import positive
from peerwatch.errors import BadInput
from peerwatch.network.statistics import Statistics

Level = Literal["warning", "critical", "emergency"]
WARNING: Final = "warning"
CRITICAL: Final = "critical"
EMERGENCY: Final = "emergency"


class Severity:
    """Levels by score: above `emergency` emergency, above `critical` critical, otherwise warning."""

    def __init__(self, critical: float, emergency: float) -> None:
        """Set the bounds, in units of the detector's score; for sigma in standard deviations above the mean.

        Raises:
            BadInput: a bound is not a number above 0, or `critical` is above `emergency`.
        """
        positive("severity", critical=critical, emergency=emergency)
        if critical > emergency:
            raise BadInput(f'severity: "critical" is {critical!r}; expected at most {emergency!r}, "emergency"')
        self._critical = critical
        self._emergency = emergency

    def of(self, score: float) -> Level:
        """Return the level of a flagged purchase with this score."""
        if score > self._emergency:
            return EMERGENCY
        return CRITICAL if score > self._critical else WARNING

    def exact(self, statistics: Statistics, amount: int) -> Level:
        """Return the level of a purchase that sigma has flagged, computed in integers; `amount` is in millionths.

        The bounds are taken as decimals, not as the nearest binary fractions.
        """
        if statistics.exceeded_by(amount, Fraction(repr(float(self._emergency)))):
            return EMERGENCY
        return CRITICAL if statistics.exceeded_by(amount, Fraction(repr(float(self._critical)))) else WARNING
