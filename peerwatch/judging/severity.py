"""How bad a flagged purchase is."""

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
    """Levels by score: what is flagged is a warning, above `critical` critical, above `emergency` an emergency."""

    def __init__(self, critical: float, emergency: float) -> None:
        """Both in what the detector counts in: sigma in standard deviations above the mean.

        Raises:
            BadInput: one is no number above 0, or `critical` is above `emergency`.
        """
        positive("severity", critical=critical, emergency=emergency)
        if critical > emergency:
            raise BadInput(f'severity: "critical" is {critical!r}; expected at most {emergency!r}, "emergency"')
        self._critical = critical
        self._emergency = emergency

    def of(self, score: float) -> Level:
        """The level of a flagged purchase."""
        if score > self._emergency:
            return EMERGENCY
        return CRITICAL if score > self._critical else WARNING

    def exact(self, statistics: Statistics, amount: int) -> Level:
        """The level of a purchase that sigma has flagged, by integers: `amount` in millionths, beside its window.

        The bounds are meant as they are written in decimals, not as the nearest binary fractions.
        """
        if statistics.exceeded_by(amount, Fraction(repr(float(self._emergency)))):
            return EMERGENCY
        return CRITICAL if statistics.exceeded_by(amount, Fraction(repr(float(self._critical)))) else WARNING
