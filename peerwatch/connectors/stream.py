"""A source in somebody else's system: what such a system has to do, and the source that reads it from any position."""

import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, NamedTuple, Protocol

import anyio
import msgspec

from peerwatch.connectors.server import ServerStatus
from peerwatch.connectors.source import Block, StreamPosition
from peerwatch.connectors.store import FIRST_PAUSE, LONGEST_PAUSE, jittered
from peerwatch.errors import SourceError, Unavailable, Unreachable, UsageError
from peerwatch.network.events import CANONICAL, FieldNames
from peerwatch.urls import ConnectorUrl

POLL_SECONDS: Final = 0.5
"""How long one fetch waits for entries."""


class Entry(NamedTuple):
    """One message: its id, as a value that msgspec can write as JSON, and its bytes; None is no line at all."""

    id: Any
    content: bytes | None


class Stream(Protocol):
    """A system that keeps messages in order: a topic, a stream. Used by one task at a time.

    Any method may raise `Unavailable` if the server does not answer: then it is connected again, where reading was.
    """

    url: ConnectorUrl

    async def connect(self, after: Any) -> None:
        """Connect, to go on behind the entry with this id; None begins with the first that there is.

        Raises:
            UsageError: a library is missing, there is no such topic, or entries behind `after` are gone unread.
            Unavailable: the server does not answer.
        """

    async def close(self) -> None:
        """Close the connection, if there is one. Never raises."""

    async def fetch(self, seconds: float) -> list[Entry]:
        """The next entries; none if nothing comes within so many seconds.

        Raises:
            SourceError: some are gone unread.
        """

    async def lag(self) -> int | None:
        """How many entries have not been fetched yet; None if the system does not say."""


class StreamSource:
    """The messages of a stream as lines, each message one event.

    Without `follow` it ends where the stream ended when reading began to wait; with it, after `idle_exit` seconds
    without anything new, or never. A server that is away is waited for.
    """

    size: int | None = None

    def __init__(
        self,
        stream: Stream,
        *,
        judged: bool,
        position: Any = None,
        follow: bool,
        idle_exit: float | None = None,
        give_up: float,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        names: FieldNames = CANONICAL,
    ) -> None:
        self.name = str(stream.url)
        self.judged = judged
        self.names = names
        self._stream = stream
        self._position = StreamPosition() if position is None else msgspec.convert(position, StreamPosition)
        self._idle_exit = idle_exit if follow else 0.0
        self._give_up = give_up
        self._warn = warn
        self._clock = clock
        self._lag: int | None = None
        self.away: str | None = None
        """Why the server does not answer at present, None if it does."""
        self.caught_up = time.time()
        """The last time at which nothing was left to read, in seconds since 1970."""

    @property
    def file(self) -> str:
        """What is being read."""
        return self.name

    def unread(self) -> int | None:
        """The number of entries that wait to be read, None if that is not known."""
        return self._lag

    def server(self) -> ServerStatus:
        """How it is with the server."""
        return ServerStatus(self.name, self.away, waiting=self._lag, caught_up=self.caught_up)

    @property
    def is_waiting(self) -> bool:
        """Whether the server is away: otherwise a fetch comes back soon, with nothing if there is nothing."""
        return self.away is not None

    async def open(self) -> None:
        """Connect at once, so that a mistake shows before anything is written.

        Raises:
            UsageError: the server does not answer, there is no such stream, or entries are gone unread.
        """
        try:
            await self._stream.connect(self._position.after)
        except Unavailable as error:
            await self._stream.close()
            raise Unreachable.server(self.name, error) from None

    async def close(self) -> None:
        """Close the connection."""
        with anyio.CancelScope(shield=True):
            await self._stream.close()

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The messages as lines, as they come; an empty block now and then while nothing comes.

        Raises:
            SourceError: entries are gone unread, or the server has been away for too long.
        """
        idle_since = self._clock()
        while True:
            entries = await self._fetched()
            if entries:
                yield self._block(entries)
                idle_since = self._clock()
                continue
            self.caught_up, self._lag = time.time(), 0
            if self._idle_exit is not None and self._clock() - idle_since >= self._idle_exit:
                return
            yield Block(b"", self._position.offset, self._position.line, self._position, caught_up=True)

    def _block(self, entries: list[Entry]) -> Block:
        content = _lines(entries)
        before = self._position
        self._position = StreamPosition(entries[-1].id, before.line + len(entries), before.offset + len(content))
        return Block(content, before.offset, before.line, self._position)

    async def _fetched(self) -> list[Entry]:
        began, pause, connected = self._clock(), FIRST_PAUSE, True
        while True:
            try:
                if not connected:
                    await self._stream.connect(self._position.after)
                    connected = True
                wait = POLL_SECONDS if self._idle_exit is None else min(POLL_SECONDS, max(self._idle_exit, 0.05))
                entries = await self._stream.fetch(wait)
                self._lag = await self._stream.lag()
                if self._lag == 0:
                    self.caught_up = time.time()
            except Unavailable as error:
                if self._clock() - began >= self._give_up:
                    raise SourceError(
                        f"{self.name} has been away for {self._give_up:g} seconds: {error}; start it and run again"
                    ) from None
                if self.away is None:
                    self._warn(f"{self.name} does not answer: {error}; waiting for it")
                self.away, connected = str(error), False
                await self._stream.close()
                await anyio.sleep(jittered(pause))
                pause = min(LONGEST_PAUSE, 2 * pause)
                continue
            except UsageError as error:  # what was there when the run began is not any more
                raise SourceError(str(error)) from None
            if self.away is not None:
                self._warn(f"{self.name} answers again")
                self.away = None
            return entries


def _lines(entries: list[Entry]) -> bytes:
    """Messages as lines."""
    content = b"\n".join([*(entry.content or b"" for entry in entries), b""])
    if content.count(b"\n") == len(entries) and b"\r" not in content:
        return content
    return b"".join(_line(entry.content) for entry in entries)


def _line(content: bytes | None) -> bytes:
    """A message as one line: JSON may have line ends between its tokens, and those are white space there."""
    if content is None:
        return b"\n"
    if b"\n" in content or b"\r" in content:
        content = content.replace(b"\r", b" ").replace(b"\n", b" ")
    return content + b"\n"
