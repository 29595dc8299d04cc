"""`peerwatch config check`: whether a run with these settings can read its sources and write its sinks."""

import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from anyio.to_thread import run_sync

from peerwatch.connectors.records import FLAGGED
from peerwatch.connectors.registry import store_of, stream_of
from peerwatch.connectors.store import StoreContext
from peerwatch.connectors.table_by_name import is_table
from peerwatch.errors import PeerwatchError
from peerwatch.files.descriptors import descriptor_of
from peerwatch.readable import shown, why_unwritable
from peerwatch.runtime.preflight import output_paths
from peerwatch.runtime.remote_logs import open_table
from peerwatch.settings.model import Settings
from peerwatch.urls import is_url, parsed, redacted


class Connection(NamedTuple):
    """One source or sink: the setting that names it, where it is, and the problem with it, None if there is none."""

    key: str
    where: str
    problem: str | None


async def checked(settings: Settings) -> list[Connection]:
    """Connect to every source and sink that the settings name. Nothing is written.

    Raises:
        UsageError: no output is set.
    """
    paths = await run_sync(output_paths, settings)
    found = []
    batch, stream = settings.input.batch, settings.input.stream
    if batch is not None and is_table(batch):
        found.append(await _connection("input.batch", batch, _read_table, settings))
        batch = None
    for key, place in (("input.batch", batch), ("input.stream", stream)):
        if place is not None:
            found.append(await _connection(key, place, _read_url if is_url(place) else _read_file, settings))
    named = [(f"output.{name}", place) for name, place in paths._asdict().items()]
    named += [(f"sinks[{number}]", sink.to) for number, sink in enumerate(settings.sinks)]
    for key, place in named:
        if place is not None:
            found.append(await _connection(key, place, _write_url if is_url(place) else _write_file, settings))
    return found


async def _connection(
    key: str, place: str, check: Callable[[str, Settings], Awaitable[str | None]], settings: Settings
) -> Connection:
    try:
        problem = await check(place, settings)
    except PeerwatchError as error:
        problem = str(error).removeprefix(f"{redacted(place)}: ")
    return Connection(key, redacted(place), problem)


async def _read_url(place: str, settings: Settings) -> None:
    stream = await run_sync(stream_of, parsed(place), settings.servers.timeout)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(stream.close)
        await stream.connect(None)


async def _read_table(place: str, settings: Settings) -> None:
    async with AsyncExitStack() as stack:
        await open_table(settings, place, None, lambda _: None, stack)


async def _write_url(place: str, settings: Settings) -> None:
    context = StoreContext("check", frozenset({FLAGGED}), timeout=settings.servers.timeout)
    store = await run_sync(store_of, parsed(place), context)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        await store.connect()


async def _read_file(place: str, _: Settings) -> str | None:
    return None if descriptor_of(place, 0) is not None else await run_sync(_why_unreadable, Path(place))


def _why_unreadable(path: Path) -> str | None:
    if path.is_dir():
        return "it is a directory; name the log file in it"
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError as error:
        return error.strerror
    return None


async def _write_file(place: str, settings: Settings) -> str | None:
    in_state = settings.state.directory is not None and Path(place).parent == Path(settings.state.directory)
    if descriptor_of(place, 1) is not None or in_state:  # a run makes the state directory
        return None
    return await run_sync(_why_not_writable, Path(place))


def _why_not_writable(path: Path) -> str | None:
    directory = path if path.is_dir() else path.parent
    if (path.is_dir() and path.suffix != "") or not directory.exists():
        return why_unwritable(path, OSError())
    there = path if path.exists() else directory
    return None if os.access(there, os.W_OK) else f"{shown(there)} cannot be written: permission denied"
