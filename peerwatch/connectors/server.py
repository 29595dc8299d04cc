"""How it is with a server that a run reads from or writes to."""

from typing import Protocol, runtime_checkable

import msgspec


class ServerStatus(msgspec.Struct, frozen=True):
    """A server that a run reads from or writes to: why it does not answer at present, None if it does.

    `records` have been written to it by this run, `retries` were necessary; `waiting` entries have not been read yet,
    None if nobody knows.
    """

    name: str
    away: str | None
    records: int = 0
    retries: int = 0
    waiting: int | None = None


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
