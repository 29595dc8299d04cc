"""Every system that keeps records: each record is there once, whatever happens to the run or to the server."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from anyio.to_thread import run_sync
from every_system import SINKS
from soak_connectors import soak
from strategies import often
from systems import SinkSystem

from peerwatch.connectors import checks
from peerwatch.errors import SinkError, UsageError
from peerwatch.studies.generate import Recipe, generate

"""Each system, and the fixture that starts its server."""
WITH_SERVER: Final = [name for name, (_, fixture) in SINKS.items() if fixture is not None]
KILLED: Final = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in {"webhook", "webhook-batch", "influxdb"})) for name in SINKS
]
"""Webhooks and InfluxDB have a test of this of their own."""
WITH_MARKS: Final = [name for name, (kind, _) in SINKS.items() if kind.has_marks]


def made(name: str, request: pytest.FixtureRequest, directory: Path) -> SinkSystem:
    """A system, its server started."""
    kind, fixture = SINKS[name]
    system = kind(directory)
    if fixture is not None:
        system.server = request.getfixturevalue(fixture)
    system.make()
    return system


@pytest.fixture(params=SINKS)
def system(request: pytest.FixtureRequest, tmp_path: Path) -> SinkSystem:
    """Each system."""
    return made(request.param, request, tmp_path)


@pytest.fixture(params=WITH_SERVER)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> SinkSystem:
    """Each system that has a server."""
    return made(request.param, request, tmp_path)


@pytest.fixture(params=WITH_MARKS)
def marked(request: pytest.FixtureRequest, tmp_path: Path) -> SinkSystem:
    """Each system that says what it holds."""
    return made(request.param, request, tmp_path)


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
async def test_it_is_a_sink(system: SinkSystem, check: Callable[..., Any]) -> None:
    """Each promise of the contract."""
    await check(system)


async def test_records_of_another_run_are_not_mixed_with(marked: SinkSystem) -> None:
    """A new run is refused where another one has written; the sentence names the ways out."""
    await checks.check_sink_keeps_what_is_written(marked)
    before = await marked.read()
    first = marked.run
    marked.begin_run()
    async with AsyncExitStack() as stack:
        sink = await marked.open(stack)
        with pytest.raises(UsageError, match=rf"holds the records of another run \({first}\); .* or add --force"):
            await sink.check_new()
    marked.run = first
    assert await marked.read() == before


async def test_a_place_that_was_emptied_is_refused(marked: SinkSystem) -> None:
    """What had been written before the checkpoint is gone: the run does not go on as if nothing were."""
    async with AsyncExitStack() as stack:
        sink = await marked.open(stack)
        await sink.start()
        await sink.write([checks.HELD])
        mark = await sink.sync()
    await run_sync(marked.wipe)
    async with AsyncExitStack() as stack:
        sink = await marked.open(stack)
        with pytest.raises(UsageError, match="was emptied or restored; bring them back, add --force to go on without"):
            await sink.start(mark)
        await sink.start(mark, force=True)
        await sink.write([checks.BEHIND])
    assert await marked.read() == checks.BEHIND.encode()


async def test_a_server_that_is_killed_is_waited_for(served: SinkSystem) -> None:
    """Killed and started again in the middle, and at once again: nothing is lost or repeated, and both is told."""
    server = served.server
    assert server is not None

    async def disturb(number: int) -> None:
        if number in {7, 8, often(7, 20)}:
            await run_sync(server.kill)
            await run_sync(server.start)

    await checks.check_sink_outlives(served, disturb)
    assert all("answer" in warning for warning in served.warnings)


async def test_a_server_that_stays_away_ends_the_run(served: SinkSystem) -> None:
    """After the time that is set; what was written before it went is there, and a later run goes on.

    At the start of a run nobody waits: the sentence names the URL and what to do.
    """
    server = served.server
    assert server is not None
    served.give_up = 0.0
    async with AsyncExitStack() as stack:
        sink = await served.open(stack)
        await sink.start()
        await sink.write([checks.HELD])
        mark = await sink.sync()
        await run_sync(server.kill)
        try:
            with pytest.raises(SinkError, match=r"has been away for 0 seconds: .*; start it and run again"):
                await sink.write([checks.BEHIND])
            with pytest.raises(UsageError, match=r"cannot reach .*; start the server, or name another"):
                await served.open(stack)
        finally:
            await run_sync(server.start)
    served.give_up = 60.0
    async with AsyncExitStack() as stack:
        sink = await served.open(stack)
        await sink.start(mark)
        await sink.write([checks.BEHIND])
    assert await served.read() == checks.HELD.encode() + checks.BEHIND.encode()


@pytest.mark.parametrize("system", KILLED, indirect=True)
def test_a_run_that_is_killed_leaves_what_an_uninterrupted_one_does(system: SinkSystem, tmp_path: Path) -> None:
    """The real command, killed as records arrive, and its server once: the same bytes as in a file."""
    lines = generate(Recipe(users=300, batch_events=3000, stream_events=6000, anomalies=0.05))
    batch, stream = ("".join(part).encode() for part in lines[:2])
    soak(system, tmp_path, (batch, stream), kills=often(2, 4), outages=1, seed=5)
