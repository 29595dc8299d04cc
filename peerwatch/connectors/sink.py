"""What a sink of results is."""

from typing import Any, Protocol


class Sink(Protocol):
    """Where bytes go."""

    async def write(self, data: bytes) -> None:
        """Append.

        Raises:
            SinkError: it could not be written.
        """

    async def sync(self) -> Any:
        """Make everything written so far survive a power failure; returns how far that is, in the sink's own words.

        Raises:
            SinkError: it could not be done.
        """
