"""`peerwatch sessions follow`: opens the log, the sinks and the state directory, and judges until told to stop."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import anyio
from anyio.to_thread import run_sync

from peerwatch.connectors.records import REJECT, SESSION, Kind
from peerwatch.connectors.sink import ResumableSink
from peerwatch.errors import BadEvent, UsageError
from peerwatch.files.file_sink import FileSink
from peerwatch.files.follow import FollowedLog
from peerwatch.files.position import position_of
from peerwatch.files.seen import Seen
from peerwatch.files.tail import Beginning, look_at
from peerwatch.network.events import parse_object
from peerwatch.network.rejects import decode_reject
from peerwatch.readable import path_of, shown
from peerwatch.sessions.live import (
    ADDED,
    LiveFacts,
    LiveIdentity,
    LiveSinks,
    LiveState,
    SessionJudge,
    SessionRun,
    model_digest,
)
from peerwatch.sessions.predictor import SessionModel
from peerwatch.settings.model import Delivery, ServerSettings
from peerwatch.storage.checkpoints import FilePlace, StateDirectory, files_in
from peerwatch.urls import is_url, parsed

Warn = Callable[[str], None]


class FollowOrder(NamedTuple):
    """What to follow: a model, a log and an output, and where the checkpoint is."""

    model: Path
    log: str
    output: str
    state: Path | None = None
    idle_exit: float | None = None
    reset: bool = False
    force: bool = False


async def follow(order: FollowOrder, warn: Warn) -> SessionJudge:
    """Judge a log as it grows, until it is idle or a signal comes; returns what was counted.

    Raises:
        UsageError: something of it cannot be used.
        RunError: the log cannot be read, or a sink not written, any further.
    """
    model = await run_sync(SessionModel.load, order.model)
    async with AsyncExitStack() as stack:
        state, resumed = await _state(order, warn, stack)
        facts = resumed[0] if resumed is not None else None
        run = state.run if state is not None else uuid4().hex
        flagged = await run_sync(_sink, order, order.output, SESSION, run, warn)
        sinks = LiveSinks(flagged, _rejects(order, run, warn))
        await sinks.open(stack)
        source = await _source(order, facts, warn, stack)
        await sinks.start(facts, force=order.force)
        live = SessionRun(model, source, sinks, state, resumed, seen=lambda: getattr(source, "seen", Seen()))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, live.stop)
            stack.callback(loop.remove_signal_handler, number)
        await live.run()
        return live.judge


async def _state(order: FollowOrder, warn: Warn, stack: AsyncExitStack) -> tuple[LiveState | None, Any]:
    if order.state is None:
        if order.reset:
            raise UsageError("--reset forgets what is in a state directory; name it with --state")
        return None, None
    directory = StateDirectory(order.state, warn)
    await run_sync(directory.open, stack)
    if await run_sync(files_in, order.state):
        raise UsageError(f"{shown(order.state)} is the state directory of a run over purchases; name another")
    identity = await run_sync(_identity, order, order.state)
    state = LiveState(order.state, identity, uuid4().hex)
    if order.reset:
        await run_sync(state.reset)
    return state, await run_sync(state.read)


def _identity(order: FollowOrder, directory: Path) -> LiveIdentity:
    log, output = (FilePlace.of(name, directory) for name in (order.log, order.output))
    return LiveIdentity(model_digest(order.model), log, output)


async def _source(order: FollowOrder, facts: LiveFacts | None, warn: Warn, stack: AsyncExitStack) -> Any:
    position = facts.position if facts is not None else None
    if is_url(order.log):
        from peerwatch.connectors.registry import stream_of  # noqa: PLC0415 (a run over files starts without)
        from peerwatch.connectors.stream import StreamSource  # noqa: PLC0415 (likewise)

        servers = ServerSettings()
        stream = await run_sync(stream_of, parsed(order.log), servers.timeout)
        source = StreamSource(
            stream,
            judged=True,
            position=position,
            follow=True,
            idle_exit=order.idle_exit,
            give_up=servers.give_up,
            warn=warn,
        )
        stack.push_async_callback(source.close)
        await source.open()
        return source
    path = path_of(order.log)
    if await anyio.Path(path).is_dir():
        raise UsageError(f"{shown(path)} is a directory; name the log file in it")
    if facts is not None and position is not None:
        beginning = Beginning(position_of(position), facts.seen)
    else:
        beginning = await run_sync(look_at, Path(path))
    resumable = order.state is not None
    return FollowedLog(path, beginning=beginning, idle_exit=order.idle_exit, resumable=resumable, warn=warn)


def _sink(order: FollowOrder, to: str, kind: Kind, run: str, warn: Warn) -> ResumableSink:
    if not is_url(to):
        return FileSink(path_of(to), warn, is_own=_is_flagged if kind == SESSION else _is_rejected)
    from peerwatch.connectors.exactly_once import StoreSink  # noqa: PLC0415 (a run over files starts without)
    from peerwatch.connectors.registry import store_of  # noqa: PLC0415 (likewise)
    from peerwatch.connectors.store import AT_LEAST_ONCE, EXACTLY_ONCE, StoreContext  # noqa: PLC0415 (likewise)

    url, servers = parsed(to), ServerSettings()
    delivery: Delivery = EXACTLY_ONCE if order.state is not None else AT_LEAST_ONCE
    if order.state is None:
        warn(f"{url} gets each record at least once; with --state it gets each exactly once")
    store = store_of(url, StoreContext(run, frozenset({kind}), delivery, servers.timeout, warn))
    return StoreSink(store, delivery=delivery, give_up=servers.give_up, warn=warn)


def _rejects(order: FollowOrder, run: str, warn: Warn) -> ResumableSink | None:
    """Beside an output that is a file; beside another they are only counted."""
    if is_url(order.output) or order.output == "-" or order.output.startswith("/dev/"):
        return None
    return _sink(order, f"{order.output}.rejects.json", REJECT, run, warn)


def _is_flagged(line: bytes) -> bool:
    try:
        return not line or set(ADDED) <= parse_object(line.rstrip(b"\n")).keys()
    except BadEvent:
        return False


def _is_rejected(line: bytes) -> bool:
    try:
        return not line or bool(decode_reject(line))
    except BadEvent:
        return False
