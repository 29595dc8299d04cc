"""What every source and every sink promises, as checks that take one: for those here, and for a connector of your own.

Each raises an AssertionError that says which promise is not kept.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final, Protocol

import msgspec

from peerwatch.connectors.records import FlaggedPurchase, encoded
from peerwatch.connectors.sink import ResumableSink
from peerwatch.connectors.source import Block, Source

OpenSource = Callable[[Any, AsyncExitStack], Awaitable[Source]]
"""Opens a source of given lines behind a position (None: from the beginning); it is closed with the stack."""


def flagged(seq: int, user: str = "1", amount: str = "1601.83", timestamp: str | None = None) -> FlaggedPurchase:
    """A flagged purchase to write."""
    stamp = timestamp or f"2017-06-13 11:33:{seq // 1000 % 60:02}.{seq % 1000:06}"
    fields = {
        "event_type": "purchase",
        "timestamp": stamp,
        "id": user,
        "amount": amount,
        "mean": "29.10",
        "sd": "21.46",
    }
    return FlaggedPurchase(seq, msgspec.json.encode(fields) + b"\n")


HELD: Final = flagged(1)
BEHIND: Final = flagged(2)


class SinkUnderTest(Protocol):
    """A sink that checks can open again and again, as one process after the other does."""

    async def open(self, stack: AsyncExitStack) -> ResumableSink:
        """Open it, as a new process of the same run does."""

    def begin_run(self) -> None:
        """From now on it is another run that opens it."""

    async def read(self) -> bytes:
        """What a reader finds in it of the run, as a file would hold it."""


async def blocks_of(open_source: OpenSource, position: Any = None) -> list[Block]:
    """All blocks of a source behind a position."""
    async with AsyncExitStack() as stack:
        source = await open_source(position, stack)
        async with aclosing(source.blocks()) as blocks:
            return [block async for block in blocks]


async def check_source_holds_whole_lines(open_source: OpenSource, content: bytes) -> None:
    """Blocks hold the log's lines, whole, in order, each once, and number them from 1."""
    blocks, line, read = [block for block in await blocks_of(open_source) if block.content], 1, b""
    for block in blocks:
        _expect(block.line == line, f"a block begins at line {line}, and says {block.line}")
        _expect(not read or read.endswith(b"\n"), "a block behind another begins within a line")
        line += block.content.count(b"\n")
        read += block.content
    _expect(read == content, "the lines of all blocks are those of the log")


async def check_source_resumes(open_source: OpenSource, content: bytes) -> None:
    """From each block's position, which survives being written as JSON, it goes on with exactly the rest."""
    read, lines = b"", 0
    for block in await blocks_of(open_source):
        read += block.content
        lines += block.content.count(b"\n")
        if not block.content:
            continue
        kept = msgspec.json.decode(msgspec.json.encode(block.position))
        rest = [each for each in await blocks_of(open_source, kept) if each.content]
        _expect(b"".join(each.content for each in rest) == content[len(read) :], "it goes on behind its position")
        _expect(not rest or rest[0].line == lines + 1, "it goes on numbering lines where it was")


async def check_sink_keeps_what_is_written(sink: SinkUnderTest) -> None:
    """What has been written and made durable is what a reader finds, in order."""
    records = [flagged(number) for number in range(1, 4)]
    async with AsyncExitStack() as stack:
        opened = await sink.open(stack)
        await opened.start(None)
        for record in records:
            await opened.write([record])
        await opened.sync()
    _expect(await sink.read() == encoded(records), "records are kept")


async def check_sink_resumes(sink: SinkUnderTest) -> None:
    """A run that goes on behind a mark, which survives being written as JSON, repeats nothing and loses nothing."""
    async with AsyncExitStack() as stack:
        opened = await sink.open(stack)
        await opened.start(None)
        await opened.write([HELD])
        mark = await opened.sync()
        await opened.write([BEHIND])
        await opened.sync()
    kept = msgspec.json.decode(msgspec.json.encode(mark))
    for _ in range(2):  # the run that goes on may die as well
        async with AsyncExitStack() as stack:
            opened = await sink.open(stack)
            _expect(await opened.has_more(kept), "it knows of what is behind its mark")
            await opened.start(kept)
            await opened.write([BEHIND])
            await opened.sync()
        _expect(await sink.read() == encoded([HELD, BEHIND]), "what is written again behind a mark is there once")


async def check_sink_begins_anew(sink: SinkUnderTest) -> None:
    """A run without a mark finds nothing of its own, whatever an earlier run has left."""
    for records in ([HELD, BEHIND], [BEHIND]):
        sink.begin_run()
        async with AsyncExitStack() as stack:
            opened = await sink.open(stack)
            await opened.start(None, force=True)
            await opened.write(records)
            await opened.sync()
        _expect(await sink.read() == encoded(records), "a new run begins with nothing")


async def check_sink_takes_any_purchase(sink: SinkUnderTest) -> None:
    """Ids of any characters, a line of a mebibyte, any amount and time: what is read is what was written."""
    records = [
        flagged(1, user="Zo\u00eb \U0001f600 '; DROP TABLE x; -- %s $1 \\\" ,=\t"),
        flagged(2, amount="9" * 300 + ".123456"),
        flagged(3, user="x" * (1 << 20)),
        flagged(4, user="a\0b"),
        flagged(5, amount="0e99999999999"),
        flagged(6, amount="+.5"),
        flagged(7, amount="1E+307", timestamp="0001-01-01 00:00:00+23:59"),
        flagged(8, amount="25.e-1", timestamp="9999-12-31 23:59:59.999999-23:59"),
    ]
    async with AsyncExitStack() as stack:
        opened = await sink.open(stack)
        await opened.start(None)
        for record in records:
            await opened.write([record])
        await opened.sync()
    _expect(await sink.read() == encoded(records), "any purchase is kept as it is")


async def check_sink_goes_on_anywhere(sink: SinkUnderTest, count: int = 12) -> None:
    """A run that dies behind any write, and goes on behind any mark that it had, leaves each record once, in order."""
    records = [flagged(3 * number + 1) for number in range(count)]
    marks: list[Any] = []
    async with AsyncExitStack() as stack:
        opened = await sink.open(stack)
        await opened.start(None)
        marks.append(await opened.sync())
        for record in records:
            await opened.write([record])
            marks.append(await opened.sync())
    for place in range(count, -1, -1):
        async with AsyncExitStack() as stack:
            opened = await sink.open(stack)
            await opened.start(msgspec.json.decode(msgspec.json.encode(marks[place])))
            for begin in range(place, count, 5):  # cut into batches in another way
                await opened.write(records[begin : begin + 5])
            await opened.sync()
        _expect(
            await sink.read() == encoded(records), f"each record is there once after going on behind record {place}"
        )


async def check_sink_outlives(sink: SinkUnderTest, disturb: Callable[[int], Awaitable[None]], count: int = 40) -> None:
    """Whatever `disturb` does to the server before each write, each record is there once, in order."""
    records = [flagged(number + 1) for number in range(count)]
    async with AsyncExitStack() as stack:
        opened = await sink.open(stack)
        await opened.start(None)
        for number, record in enumerate(records):
            await disturb(number)
            await opened.write([record])
        await opened.sync()
    _expect(await sink.read() == encoded(records), "each record is there once although the server was disturbed")


def _expect(kept: bool, promise: str) -> None:  # noqa: FBT001 (like assert)
    if not kept:
        raise AssertionError(f"this is not so: {promise}")
