"""Flagged purchases that a sink has written to another system, read back as the bytes that a file would have."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from typing import Final, Protocol, runtime_checkable

import msgspec
from anyio.to_thread import run_sync

from peerwatch.connectors.records import FLAGGED
from peerwatch.connectors.registry import can_be_read, store_of, stream_of
from peerwatch.connectors.store import StoreContext
from peerwatch.connectors.stream import StreamSource
from peerwatch.connectors.tables import WrittenLine
from peerwatch.errors import Unavailable, Unreachable, UsageError
from peerwatch.settings.model import ServerSettings
from peerwatch.urls import ConnectorUrl, parsed

SEVERAL: Final = "{} holds the records of several runs; name the state directory of the one that is meant with --state"


@runtime_checkable
class ReadableStore(Protocol):
    """A store that is asked for its records by their numbers: a database."""

    async def connect(self) -> None:
        """Connect, as any store does."""

    async def close(self) -> None:
        """Close the connection, if there is one. Never raises."""

    async def runs(self) -> list[str]:
        """The names of the runs that have written flagged purchases."""

    async def lines_after(self, run: str, seq: int) -> list[WrittenLine]:
        """The next flagged purchases of a run behind number `seq`, in order; none at their end."""


class WrittenMessage(msgspec.Struct, frozen=True):
    """What is needed of a record as messages hold it; anything else that is there is none of the run's."""

    run: str
    kind: str
    seq: int
    line: str = ""


class WrittenPurchases:
    """The flagged purchases of one run, with the methods of an open file that reading takes."""

    def __init__(
        self, url: str, run: str | None, servers: ServerSettings, warn: Callable[[str], None], *, repeats: bool
    ) -> None:
        """Read those of `run`, or, if it is not known, of the only one that is there; nothing is connected.

        With `repeats` a record that comes again is skipped: it was delivered at least once.
        """
        self._url = parsed(url)
        self.name = str(self._url)
        self._run = run
        self._is_known = run is not None
        self._repeats = repeats
        self._last = 0
        self._servers = servers
        self._warn = warn
        self._held = bytearray()

    async def open(self, stack: AsyncExitStack) -> None:
        """Connect; the connection is closed with the stack.

        Raises:
            UsageError: it cannot be read again, or the server does not answer.
        """
        context = StoreContext(self._run or "", frozenset({FLAGGED}), timeout=self._servers.timeout)
        store = await run_sync(store_of, self._url, context)
        if isinstance(store, ReadableStore):
            stack.push_async_callback(store.close)
            try:
                await store.connect()
                self._lines = self._rows(store, await self._only(store))
            except Unavailable as error:
                raise Unreachable.server(self.name, error) from None
        elif await run_sync(can_be_read, self._url):
            stream = await run_sync(stream_of, _readable(self._url), self._servers.timeout)
            source = StreamSource(stream, judged=False, follow=False, give_up=self._servers.give_up, warn=self._warn)
            stack.push_async_callback(source.close)
            await source.open()
            self._lines = self._messages(source)
        else:
            raise UsageError(
                f"{self.name} cannot be read again; judge the logs into a file and compare that, or run with --audit"
            )
        stack.push_async_callback(self._lines.aclose)

    async def read(self, size: int) -> bytes:
        """The next bytes, fewer only at the end.

        Raises:
            PeerwatchError: they cannot be read.
        """
        while len(self._held) < size and await self._more():
            pass
        return self._taken(size)

    async def readline(self) -> bytes:
        """The rest of a line, with its line feed."""
        while b"\n" not in self._held and await self._more():
            pass
        return self._taken(self._held.find(b"\n") + 1)

    def _taken(self, size: int) -> bytes:
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken

    async def _more(self) -> bool:
        lines = await anext(self._lines, None)
        self._held += lines or b""
        return lines is not None

    async def _only(self, store: ReadableStore) -> str:
        if self._run is not None:
            return self._run
        runs = await store.runs()
        if len(runs) > 1:
            raise UsageError(SEVERAL.format(self.name))
        return runs[0] if runs else ""

    async def _rows(self, store: ReadableStore, run: str) -> AsyncGenerator[bytes, None]:
        seq = 0
        while rows := await store.lines_after(run, seq):
            yield b"".join([row.line.encode() + b"\n" for row in rows])
            seq = rows[-1].seq

    async def _messages(self, source: StreamSource) -> AsyncGenerator[bytes, None]:
        async for block in source.blocks():
            yield b"".join([message.line.encode() + b"\n" for message in self._own(block.content)])

    def _own(self, content: bytes) -> list[WrittenMessage]:
        own = []
        for line in content.splitlines():
            try:
                message = msgspec.json.decode(line, type=WrittenMessage)
            except msgspec.MsgspecError:
                continue
            if message.kind != FLAGGED:
                continue
            if self._run is None:
                self._run = message.run
            if message.run != self._run:
                if not self._is_known:
                    raise UsageError(SEVERAL.format(self.name))
            elif message.seq > self._last or not self._repeats:
                own.append(message)
                self._last = message.seq
        return own


def _readable(url: ConnectorUrl) -> ConnectorUrl:
    """A sink's URL as that of a source: records are in a topic's first partition."""
    return msgspec.structs.replace(url, query={**url.query, "partition": "0"}) if url.scheme == "kafka" else url
