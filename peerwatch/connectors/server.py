"""How it is with a server that a run reads from or writes to, and with a sink."""

from bisect import bisect_left
from typing import Final, Protocol, runtime_checkable

import msgspec

WRITE_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: the upper bounds of the classes into which the durations of writes are sorted. One more has none."""


class ServerStatus(msgspec.Struct, frozen=True):
    """A server that a run reads from or writes to: why it does not answer at present, None if it does.

    `records` have been written to it by this run, `retries` were necessary; `waiting` entries have not been read yet,
    None if nobody knows. At `caught_up`, in seconds since 1970, nothing was left to read.
    """

    name: str
    away: str | None
    records: int = 0
    retries: int = 0
    waiting: int | None = None
    caught_up: float = 0.0


@runtime_checkable
class Remote(Protocol):
    """A source or sink on a server."""

    def server(self) -> ServerStatus:
        """How it is with the server."""

    @property
    def is_waiting(self) -> bool:
        """Whether the run waits for the server at this moment."""


@runtime_checkable
class RemoteSink(Remote, Protocol):
    """A sink on a server."""

    def stop(self, seconds: float) -> None:
        """The run has been told to stop: what is being written may take so many seconds more.

        If they are not enough, whoever writes gets a `SinkError`.
        """


class WriteTimes(msgspec.Struct):
    """How long a sink took to write: seconds in all, and the number of writes by class of duration."""

    seconds: float = 0.0
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(WRITE_BOUNDS) + 1))

    def add(self, seconds: float) -> None:
        """Count a write."""
        self.seconds += seconds
        self.counts[bisect_left(WRITE_BOUNDS, seconds)] += 1


class SinkStatus(msgspec.Struct, frozen=True):
    """What this process has done at a sink: records written, failed attempts, and those that were made again.

    A record that is written again after a restart counts again.
    """

    name: str
    sent: int
    errors: int
    retries: int
    writes: WriteTimes
