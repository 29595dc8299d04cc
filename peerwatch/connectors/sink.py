"""What a sink of results is."""

from contextlib import AsyncExitStack
from typing import Any, Protocol


class Sink(Protocol):
    """Where records go, each a line."""

    async def write(self, data: bytes) -> None:
        """Append records.

        Raises:
            SinkError: it could not be written.
        """

    async def sync(self) -> Any:
        """Make everything written so far survive a power failure; returns a mark: how far that is.

        A mark is the sink's own: a value that msgspec can write as JSON, and that `start` goes on behind.

        Raises:
            SinkError: it could not be done.
        """


class ResumableSink(Sink, Protocol):
    """A sink that a later run goes on in, so that each record is there once whatever happens in between.

    It keeps that promise by cutting back to the mark, by comparing what is written again with what is there, or by keys
    that make repeats harmless; `connectors/checks.py` holds it to that.
    """

    async def open(self, stack: AsyncExitStack) -> None:
        """Open it; it is closed with the stack. Nothing that it holds is touched before `start`.

        Raises:
            UsageError: it cannot be written.
        """

    async def has_more(self, mark: Any) -> bool:
        """Whether something is behind a mark, which somebody may have read."""

    async def start(self, mark: Any = None, *, force: bool = False) -> None:
        """Go on behind a mark, or begin anew.

        Raises:
            UsageError: what had been written before the mark is not there.
        """
