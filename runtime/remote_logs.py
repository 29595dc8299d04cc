"""Opens logs that are no files: a stream on a server, a table in place of a batch log.

A run over files does not import it.
"""

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync

from peerwatch.connectors.interleaved import InterleavedStream, Partitioned
from peerwatch.connectors.registry import stream_of
from peerwatch.connectors.stream import Stream, StreamSource
from peerwatch.connectors.table import TableSource
from peerwatch.connectors.table_by_name import table_of
from peerwatch.errors import Unavailable, Unreachable, UsageError
from peerwatch.settings.model import Settings
from peerwatch.storage.checkpoints import INTERLEAVING
from peerwatch.urls import parsed, redacted


async def open_table(
    settings: Settings, name: str, position: Any, warn: Callable[[str], None], stack: AsyncExitStack
) -> TableSource:
    """Open the table that is named in place of a batch log; a position is its end.

    Raises:
        UsageError: it cannot be read, or lacks a column.
    """
    servers = settings.servers
    table = await run_sync(table_of, name, servers.timeout, servers.give_up, warn)
    source = TableSource(redacted(name), table, position=position, names=settings.input.names())
    await source.open(stack)
    return source


async def open_stream(
    settings: Settings,
    name: str,
    position: Any,
    warn: Callable[[str], None],
    stack: AsyncExitStack,
    *,
    judged: bool,
    again: bool = False,
) -> StreamSource:
    """Open the stream that a URL names, to go on behind a position.

    Raises:
        UsageError: the server does not answer, there is no such stream, or entries are gone unread.
    """
    stream = await run_sync(stream_of, parsed(name), settings.servers.timeout)
    if settings.input.journal and judged:
        stream = await _interleaved(stream, settings, again=again)
    source = StreamSource(
        stream,
        judged=judged,
        position=position,
        follow=settings.follow and judged,
        idle_exit=settings.idle_exit,
        give_up=settings.servers.give_up,
        warn=warn,
        names=settings.input.names(),
    )
    stack.push_async_callback(source.close)
    await source.open()
    return source


async def _interleaved(stream: Stream, settings: Settings, *, again: bool) -> Stream:
    """All partitions of a stream, in the order that the state directory's journal has."""
    if settings.state.directory is None:
        raise UsageError('"input.journal" is kept in a state directory; name one with --state')
    if not isinstance(stream, Partitioned):
        raise UsageError(f'{stream.url} has no partitions; leave out "input.journal"')
    try:
        partitions = await stream.split()
    except Unavailable as error:
        raise Unreachable.server(stream.url, error) from None
    return InterleavedStream(stream.url, partitions, Path(settings.state.directory) / INTERLEAVING, again=again)
