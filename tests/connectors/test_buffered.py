"""A buffered sink keeps what every sink promises, and no failure of the sink behind it is lost."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest
from systems import SqliteSystem

from peerwatch.connectors import checks
from peerwatch.connectors.buffered import BufferedSink
from peerwatch.connectors.checks import flagged
from peerwatch.connectors.records import Record, encoded
from peerwatch.errors import SinkError


class Buffered:
    """The sink of a database behind a buffer, opened by one process after the other."""

    def __init__(self, directory: Path, capacity: int) -> None:
        self.system = SqliteSystem(directory)
        self.begin_run = self.system.begin_run
        self.read = self.system.read
        self._capacity = capacity

    async def open(self, stack: AsyncExitStack) -> BufferedSink:
        """As a run does."""
        async with AsyncExitStack() as unused:
            sink = await self.system.open(unused)
        buffered = BufferedSink(sink, capacity=self._capacity)
        await buffered.open(stack)
        return buffered


@pytest.mark.parametrize("capacity", [1, 3, 10_000])
@pytest.mark.parametrize(
    "check",
    [
        checks.check_sink_keeps_what_is_written,
        checks.check_sink_resumes,
        checks.check_sink_begins_anew,
        checks.check_sink_takes_any_purchase,
        checks.check_sink_goes_on_anywhere,
    ],
)
async def test_a_buffered_sink_is_a_sink(tmp_path: Path, check: Callable[..., Any], capacity: int) -> None:
    """Each promise, however much may wait."""
    await check(Buffered(tmp_path, capacity))


class Gate:
    """A sink that writes when the test lets it, and fails when it is told to."""

    name = "gate"

    def __init__(self) -> None:
        self.data = b""
        self.writes = 0
        self.failure: Exception | None = None
        self.open_gate = anyio.Event()
        self.begun = anyio.Event()

    async def open(self, stack: AsyncExitStack) -> None:
        """Nothing is to be opened."""

    async def check_new(self) -> None:
        """Nothing is lost."""

    async def has_more(self, mark: int) -> bool:
        """Whether there is more."""
        return len(self.data) > mark

    async def start(self, mark: Any = None, *, force: bool = False) -> None:
        """Nothing is cut back."""

    async def look(self) -> None:
        """It is what it was."""

    async def write(self, records: Sequence[Record]) -> None:
        """Wait for the gate, and write or fail."""
        self.begun.set()
        await self.open_gate.wait()
        if self.failure is not None:
            raise self.failure
        self.writes += 1
        self.data += encoded(records)

    async def sync(self) -> int:
        """How much there is."""
        return len(self.data)

    async def finish(self) -> None:
        """Nothing is left to do."""


async def test_who_writes_waits_only_for_a_full_buffer() -> None:
    """What has been taken is written together, in order; a mark is that of everything taken."""
    gate = Gate()
    async with AsyncExitStack() as stack:
        sink = BufferedSink(gate, capacity=4, gather=1e9)
        await sink.open(stack)
        for number in range(1, 5):
            await sink.write([flagged(number)])
        waiting = anyio.Event()

        async def write_more() -> None:
            waiting.set()
            await sink.write([flagged(5)])
            assert gate.writes == 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write_more)
            await waiting.wait()
            await gate.begun.wait()
            assert gate.writes == 0
            gate.open_gate.set()
        assert await sink.sync() == len(encoded([flagged(number) for number in range(1, 6)]))
    assert gate.data == encoded([flagged(number) for number in range(1, 6)])


@pytest.mark.parametrize("failure", [SinkError("the disk is full"), RuntimeError("a defect")])
@pytest.mark.parametrize("call", ["write", "sync", "finish", "look", "settle"])
async def test_every_call_after_a_failure_raises_it(call: str, failure: Exception) -> None:
    """Also the ones that were waiting when it came; until the sink is started again."""
    gate = Gate()
    gate.failure = failure
    async with AsyncExitStack() as stack:
        sink = BufferedSink(gate, gather=0.0)
        await sink.open(stack)
        await sink.write([flagged(1)])
        gate.open_gate.set()
        with pytest.raises(type(failure), match=str(failure)):
            await sink.sync()
        with pytest.raises(type(failure), match=str(failure)):
            await getattr(sink, call)(*[[flagged(2)]] * (call == "write"))
        gate.failure = None
        await sink.start(0)
        await sink.write([flagged(3)])
        await sink.finish()
    assert gate.data == encoded([flagged(3)])


async def test_an_error_of_the_run_passes_through_as_it_is() -> None:
    """Not as a group of errors, though the buffer has a task of its own; what waits is not waited for."""
    gate = Gate()

    async def run() -> None:
        async with AsyncExitStack() as stack:
            sink = BufferedSink(gate)
            await sink.open(stack)
            await sink.write([flagged(1)])
            await gate.begun.wait()
            raise SinkError("another one")

    with pytest.raises(SinkError, match="another one"):
        await run()
