"""The contract of a sink of results."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from peerwatch.connectors.records import Record


class Sink(Protocol):
    """Takes records, and makes what it has taken durable."""

    async def write(self, records: Sequence[Record]) -> None:
        """Take records, in order.

        Raises:
            SinkError: they could not be written.
        """

    async def sync(self) -> Any:
        """Make everything taken so far survive a power failure; returns a mark: how far that is.

        A mark is the sink's own value, which msgspec can write as JSON. Nobody else looks into it.

        Raises:
            SinkError: it could not be done.
        """

    async def finish(self) -> None:
        """Complete what is there: the run has come to its end.

        Raises:
            SinkError: it could not be done.
        """


class ResumableSink(Sink, Protocol):
    """A sink that a later run goes on in, so that each record is there once whatever happens in between.

    It keeps that promise in one of three ways: it is cut back to the mark (a file), it says itself which record it
    holds last and skips what comes again (a database, a topic), or a key makes a repeat harmless.
    `connectors/checks.py` holds it to that. A mark comes back as JSON is read: as dicts, lists and plain values.
    """

    name: str
    """What messages call it."""

    async def open(self, stack: AsyncExitStack) -> None:
        """Open it; it is closed with the stack. Nothing that it holds is touched before `start`.

        Raises:
            UsageError: it cannot be written.
        """

    async def check_new(self) -> None:
        """See that a run which begins anew loses nothing here that somebody may still want.

        Raises:
            UsageError: it would.
        """

    async def has_more(self, mark: Any) -> bool:
        """Whether something is behind a mark, which somebody may have read."""

    async def start(self, mark: Any = None, *, force: bool = False) -> None:
        """Go on behind a mark, or begin anew.

        Raises:
            UsageError: what had been written before the mark is not there.
        """

    async def look(self) -> None:
        """See whether it is still what it was: called about once a second.

        Raises:
            SinkError: nothing can be written to it any more.
        """
