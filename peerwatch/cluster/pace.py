"""How many events a worker is asked about at a time."""

from typing import Final

SHARE: Final = 8
"""An answer should take this part of the time that a worker may take for it."""
GROWTH: Final = 8
"""How many times as large as the largest so far a batch may be."""


class Pace:
    """The size of batches, by how long the answers before them took.

    A detector may take any time for a purchase, and large networks take long, too. A worker that is asked about too
    many purchases at once seems to be lost.
    """

    def __init__(self, most: int, deadline: float) -> None:
        """Batches of one event to begin with, and of at most `most`, for workers that are given `deadline` seconds."""
        self._most = most
        self._seconds = deadline / SHARE
        self._cost = 0.0
        """Seconds a purchase; after answers that take less than before it falls slowly."""
        self._tried = 1
        """The most events that may be tried, by the largest batch that has been answered."""

    @property
    def events(self) -> int:
        """The most events in the next batch."""
        most = min(self._most, self._tried)
        return most if most * self._cost <= self._seconds else max(1, int(self._seconds / self._cost))

    def took(self, seconds: float, purchases: int, events: int) -> None:
        """Note how long the answer to a batch took, of so many events and at least one purchase."""
        cost = seconds / purchases
        self._cost = cost if cost > self._cost else (cost + self._cost) / 2
        self._tried = max(self._tried, GROWTH * events)
