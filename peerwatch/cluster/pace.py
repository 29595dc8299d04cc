"""How many events a worker is asked about at a time."""

from typing import Final

SHARE: Final = 8
"""An answer should take this part of the time that a worker may take for it."""
FIRST: Final = 64
"""The events in a batch as long as it is not known how long an answer takes."""


class Pace:
    """The size of batches, by how long the answers before them took.

    A detector may take any time for a purchase, and large networks take long, too. A worker that is asked about too
    many purchases at once seems to be lost.
    """

    def __init__(self, most: int, deadline: float) -> None:
        """Batches of at most `most` events, for workers that are given `deadline` seconds."""
        self._most = most
        self._seconds = deadline / SHARE
        self._cost: float | None = None
        """Seconds a purchase; after answers that take less than before it falls slowly."""

    @property
    def events(self) -> int:
        """The most events in the next batch."""
        if self._cost is None:
            return min(FIRST, self._most)
        return max(1, int(min(self._most, self._seconds / self._cost)))

    def took(self, seconds: float, purchases: int) -> None:
        """Note how long an answer about so many purchases took, at least one."""
        cost = max(seconds, 1e-9) / purchases
        self._cost = cost if self._cost is None or cost > self._cost else (cost + self._cost) / 2
