"""The contract of a system that keeps records: a database, a topic, a stream. `exactly_once.py` makes it a sink."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from peerwatch.connectors.records import Kind, Record
from peerwatch.settings.model import Delivery
from peerwatch.urls import ConnectorUrl

EXACTLY_ONCE: Final = "exactly-once"
AT_LEAST_ONCE: Final = "at-least-once"
FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 5.0
"""Seconds between two attempts to reach a server: the pause doubles from the first to the longest."""


def unheard(_: str) -> None:
    """A warning that nobody wants."""


class StoreContext(NamedTuple):
    """What a store is told about the run: its name, the records that it will get, and how they are delivered.

    `timeout` is how long one answer may take, in seconds; `warn` takes what the user should know of the system.
    """

    run: str
    records: frozenset[Kind]
    delivery: Delivery = EXACTLY_ONCE
    timeout: float = 10.0
    warn: Callable[[str], None] = unheard


class Store(Protocol):
    """A system that keeps records: a database, a topic, a stream. One connection, used by one task at a time.

    Any method may raise `Unavailable` if the server does not answer: then it is called again, after `connect`.
    """

    url: ConnectorUrl
    memory: Any
    """What its keys depend on besides the records, as a value that msgspec can write as JSON; kept in checkpoints."""

    async def connect(self) -> None:
        """Connect, or connect anew after a failure. Nothing is created or changed.

        Raises:
            UsageError: a library is missing, or the server refuses the user or the name.
            Unavailable: it does not answer.
        """

    async def close(self) -> None:
        """Close the connection, if there is one. Never raises."""

    async def other_run(self) -> str | None:
        """The name of another run whose records are here, None if there is none."""

    async def prepare(self, *, anew: bool) -> None:
        """Create what is missing, and keep a second writer of this run out.

        With `anew` the run begins: what another run has left behind is removed where the system cannot keep both.

        Raises:
            UsageError: somebody else writes this run.
        """

    async def marks(self) -> Mapping[Kind, int] | None:
        """The highest number of this run's records of each kind; None if a repeat is harmless and nobody knows."""

    async def append(self, records: Sequence[Record]) -> None:
        """Keep records of one kind. They survive a power failure when it returns.

        Raises:
            SinkError: they are refused.
        """


def jittered(pause: float) -> float:
    """A pause of half to one and a half of so many seconds, so that clients do not come back all at once."""
    return pause * (0.5 + os.urandom(1)[0] / 256)
