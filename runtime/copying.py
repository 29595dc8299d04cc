"""`peerwatch copy`: sends the events of a log or a stream to a topic, a stream or a file."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Final

import anyio
from anyio.to_thread import run_sync

from peerwatch.connectors.registry import stream_of, target_of
from peerwatch.connectors.source import Source
from peerwatch.connectors.stream import StreamSource
from peerwatch.connectors.target import EventTarget, FileTarget
from peerwatch.errors import RunError, Unavailable, Unreachable, UsageError
from peerwatch.files.log_file import LogFile
from peerwatch.settings.model import ServerSettings
from peerwatch.urls import is_url, parsed, redacted

AT_ONCE: Final = 1000
"""Events that are sent together at most."""
PACE_SECONDS: Final = 0.005
"""The pause between two sends at a given rate."""
_SAME: Final = "{} is named for the source and for the target; name two"


async def copy(
    source: str,
    to: str,
    *,
    rate: float | None,
    warn: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> int:
    """Send each event of `source`, a log or a stream, to `to`, at most `rate` a second; returns how many there were.

    Blank lines and a header line are left out; all other lines are sent as they are, whether they are events or not.

    Raises:
        UsageError: one of them cannot be used.
        RunError: the source could not be read, or the target not written, to the end.
    """
    if to == source:
        raise UsageError(_SAME.format(redacted(to)))
    async with AsyncExitStack() as stack:
        log = await _opened(source, warn, stack)
        target = await run_sync(target_of, to, ServerSettings().timeout)
        stack.push_async_callback(target.close)
        if isinstance(target, FileTarget) and await run_sync(target.is_at, source):
            raise UsageError(_SAME.format(redacted(to)))
        try:
            await target.connect()
        except Unavailable as error:
            raise Unreachable.server(redacted(to), error) from None
        return await _send(log, target, redacted(to), rate, clock, sleep)


async def _opened(source: str, warn: Callable[[str], None], stack: AsyncExitStack) -> Source:
    if not is_url(source):
        log = LogFile(source, judged=False)
        await log.open(stack)
        await log.read_ahead()
        log.take_header(set())
        return log
    servers = ServerSettings()
    stream = await run_sync(stream_of, parsed(source), servers.timeout)
    read = StreamSource(stream, judged=False, follow=False, give_up=servers.give_up, warn=warn)
    stack.push_async_callback(read.close)
    await read.open()
    return read


async def _send(
    log: Source,
    target: EventTarget,
    name: str,
    rate: float | None,
    clock: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]],
) -> int:
    sent, began = 0, clock()
    async with aclosing(_lines(log)) as pieces:
        async for lines in pieces:
            while lines:
                allowed = AT_ONCE if rate is None else min(AT_ONCE, int(rate * (clock() - began)) + 1 - sent)
                if allowed < 1:
                    await sleep(PACE_SECONDS)
                    continue
                try:
                    await target.send(lines[:allowed])
                except Unavailable as error:
                    raise RunError(f"{name} does not answer any more: {error}; {sent:,} events had been sent") from None
                sent += len(lines[:allowed])
                lines = lines[allowed:]  # noqa: PLW2901 (what is left of it)
    return sent


async def _lines(log: Source) -> AsyncGenerator[list[bytes], None]:
    async with aclosing(log.blocks()) as blocks:
        async for block in blocks:
            lines = [line.removesuffix(b"\r") for line in block.content.split(b"\n")]
            yield [line for line in lines if line.strip()]
