"""Systems that keep records, as the tests see them: a place of its own for each test, and what a reader finds there."""

import secrets
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any, ClassVar

from anyio.to_thread import run_sync
from servers import Server

from peerwatch.connectors.exactly_once import StoreSink
from peerwatch.connectors.records import FLAGGED, Kind
from peerwatch.connectors.registry import store_of, stream_of
from peerwatch.connectors.store import EXACTLY_ONCE, StoreContext
from peerwatch.connectors.stream import StreamSource
from peerwatch.urls import parsed


class SinkSystem(ABC):
    """One system, for one test: `server` is what can be killed and started again, None if there is no server."""

    server: Server | None = None
    has_marks: ClassVar[bool] = True
    """Whether it says what it holds; otherwise keys make repeats harmless, and what others did there is not seen."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.place = f"t{secrets.token_hex(6)}"
        """A name that nothing else in the system has."""
        self.kinds: frozenset[Kind] = frozenset({FLAGGED})
        self.give_up = 60.0
        self.timeout = 5.0
        self.warnings: list[str] = []
        self.begin_run()

    def begin_run(self) -> None:
        """From now on it is another run that opens it."""
        self.run = secrets.token_hex(8)

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL of the test's own place, as a user writes it."""

    def make(self) -> None:  # noqa: B027  # most need nothing
        """Make what the sink would not make by itself, with the server running."""

    async def open(self, stack: AsyncExitStack) -> StoreSink:
        """Open it, as a new process of the same run does."""
        context = StoreContext(self.run, self.kinds, timeout=self.timeout, warn=self.warnings.append)
        store = await run_sync(store_of, parsed(self.url), context)
        sink = StoreSink(store, delivery=EXACTLY_ONCE, give_up=self.give_up, warn=self.warnings.append)
        await sink.open(stack)
        return sink

    async def read(self) -> bytes:
        """What a reader finds of the run: the lines of its flagged purchases, in the order of their numbers."""
        return await run_sync(self.flagged)

    @abstractmethod
    def flagged(self) -> bytes:
        """The lines of the run's flagged purchases, read with the system's own client. Duplicates are there twice."""

    @abstractmethod
    def wipe(self) -> None:
        """Remove everything, as a restored backup or a careless colleague does."""


class SqliteSystem(SinkSystem):
    """A database in a file."""

    @property
    def url(self) -> str:
        """The file."""
        return f"sqlite:{self.directory}/{self.place}.db"

    def flagged(self) -> bytes:
        """The table's rows."""
        with closing(sqlite3.connect(self.directory / f"{self.place}.db")) as database:
            rows = database.execute("SELECT line FROM peerwatch_flagged WHERE run = ? ORDER BY seq", (self.run,))
            return "".join(f"{line}\n" for (line,) in rows).encode()

    def wipe(self) -> None:
        """Delete all rows."""
        with closing(sqlite3.connect(self.directory / f"{self.place}.db", isolation_level=None)) as database:
            for table in ("peerwatch_flagged", "peerwatch_marks"):
                database.execute(f"DELETE FROM {table}")  # noqa: S608


class SourceSystem(ABC):
    """One system that messages are read from, for one test."""

    server: Server | None = None

    def __init__(self) -> None:
        self.place = f"t{secrets.token_hex(6)}"
        """A name that nothing else in the system has."""
        self.give_up = 60.0
        self.warnings: list[str] = []

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL of the test's own place, as a user writes it."""

    @abstractmethod
    def make(self) -> None:
        """Make the topic or stream, empty."""

    @abstractmethod
    def put(self, lines: Sequence[bytes]) -> None:
        """Append messages, with the system's own client."""

    @abstractmethod
    def trim(self, count: int) -> None:
        """Remove the first `count` messages, as a retention does."""

    async def open(
        self, position: Any, stack: AsyncExitStack, *, follow: bool = False, idle_exit: float | None = None
    ) -> StreamSource:
        """Open it behind a position; without `follow` it ends where the stream ends now."""
        stream = await run_sync(stream_of, parsed(self.url), 5.0)
        source = StreamSource(
            stream, judged=True, position=position, follow=follow, idle_exit=idle_exit, give_up=self.give_up,
            warn=self.warnings.append,
        )  # fmt: skip
        stack.push_async_callback(source.close)
        await source.open()
        return source
