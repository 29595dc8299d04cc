"""Every flagged purchase of a run that goes on gets its explanation: beside rotations, kills and restarts."""

import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from random import Random

import anyio
import msgspec
import pytest
from anyio.to_thread import run_sync
from support import befriend, purchase

from peerwatch.errors import RunError
from peerwatch.replay.explain import explained
from peerwatch.replay.follow_flagged import FlaggedEvent
from peerwatch.service import explaining_follower
from peerwatch.service.explaining_follower import ExplainingFollower
from peerwatch.service.explanation_store import ExplanationStore
from peerwatch.service.worker_process import WorkerProcess
from peerwatch.settings.model import Layer

pytestmark = pytest.mark.slow

USERS = 12


class LiveLog:
    """A run that follows a log, with its flagged purchases in an SQLite database."""

    def __init__(self, directory: Path) -> None:
        self.stream, self.database = directory / "stream", directory / "store.db"
        batch = directory / "batch"
        friends = b"".join(befriend(a, (a + step) % USERS) for a in range(USERS) for step in (1, 3))
        batch.write_bytes(friends + b"".join(purchase(a, "10") + purchase(a, "11") for a in range(USERS)))
        self.stream.touch()
        values = {"input.batch": str(batch), "input.stream": str(self.stream), "D": 2, "T": 10, "follow": True}
        values |= {"state.directory": str(directory / "state")}
        self.layers = [Layer(values, dict.fromkeys(values, "--option"))]
        self.command = [
            sys.executable, "-m", "peerwatch", "run", str(batch), str(self.stream), f"sqlite:{self.database}",
            "--D", "2", "--T", "10", "--follow", "--quiet", "--state", str(directory / "state"),
        ]  # fmt: skip
        self._random = Random(1)
        self._high = 0

    def append(self, count: int) -> None:
        """Append purchases, every tenth of them far too high; among them friendships that change, and what is none."""
        lines = []
        for number in range(count):
            a, b = self._random.sample(range(USERS), 2)
            high = number % 10 == 9
            self._high += high
            lines.append(purchase(a, f"{9000 + self._high * 900 if high else 10 + self._random.random():.2f}"))
            if self._random.random() < 0.3:
                lines.append(befriend(a, b, self._random.choice(["befriend", "unfriend"])))
            if self._random.random() < 0.1:
                lines.append(b"no event\n")
        with self.stream.open("ab") as file:
            file.write(b"".join(lines))

    def rotate(self) -> None:
        """Rename the log, as logrotate does, and begin a new one."""
        self.stream.rename(self.stream.with_name("stream.1"))
        self.stream.touch()

    def flagged(self) -> list[tuple[str, int, str]]:
        """The run's name, event and buyer of each purchase that has been flagged."""
        try:
            with closing(sqlite3.connect(self.database)) as database:
                return database.execute("SELECT run, seq, id FROM peerwatch_flagged ORDER BY seq").fetchall()
        except sqlite3.Error:
            return []  # the run has not made its tables yet

    async def wait_flagged(self, least: int) -> tuple[str, list[FlaggedEvent]]:
        """Wait until so many are flagged; returns the run's name and all of them."""
        while len(rows := await run_sync(self.flagged)) < least:  # noqa: ASYNC110 (nobody tells)
            await anyio.sleep(0.01)
        return rows[0][0], [FlaggedEvent(seq, user) for _, seq, user in rows]


@asynccontextmanager
async def judging(live: LiveLog) -> AsyncIterator[None]:
    """The run, until the block ends; then it is stopped, not killed."""
    process = await anyio.open_process(live.command, stdout=None, stderr=None)
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            process.terminate()
            await process.wait()
            await process.aclose()


@asynccontextmanager
async def following(follower: ExplainingFollower) -> AsyncIterator[None]:
    """The follower at work."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follower.run)
        yield
        tasks.cancel_scope.cancel()


async def opened(path: Path) -> ExplanationStore:
    """A store."""
    return await run_sync(ExplanationStore, path)


async def wait_explained(follower: ExplainingFollower, store: ExplanationStore, run: str) -> None:
    """Wait until nothing is missing, nor waits."""
    while await run_sync(store.missing, run, 0) or follower.statistics().waiting:
        assert not follower.statistics().stopped
        await anyio.sleep(0.01)


async def check_all(live: LiveLog, store: ExplanationStore, run: str, flagged: list[FlaggedEvent]) -> None:
    """Every explanation is the one that a replay makes, but files are called as they were called then."""
    assert flagged
    for one in flagged[:: max(1, len(flagged) // 6)]:
        expected = msgspec.json.encode(await explained(live.layers, seq=one.seq))
        found = await run_sync(store.get, run, one.seq)
        assert found is not None
        assert found.replace(b"stream.1", b"stream") == expected.replace(b"stream.1", b"stream")


@pytest.fixture
def warnings() -> list[str]:
    """What a follower has warned of."""
    return []


async def test_each_flagged_purchase_is_explained_through_rotations_and_kills(
    tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is rotated while it is followed, and the worker is killed: it begins again at a checkpoint."""
    monkeypatch.setattr(explaining_follower, "PAUSES", (0.0, 0.0, 0.0))
    started: list[int] = []
    start = WorkerProcess.start

    async def noted() -> WorkerProcess:
        worker = await start()
        started.append(worker.pid)
        return worker

    monkeypatch.setattr(WorkerProcess, "start", noted)
    live = await run_sync(LiveLog, tmp_path)
    async with judging(live):
        await run_sync(live.append, 100)
        run, flagged = await live.wait_flagged(10)
        store = await opened(live.database)
        follower = ExplainingFollower(live.layers, run, store, warnings.append)
        async with following(follower):
            follower.judged(flagged[-1].seq, flagged)
            await wait_explained(follower, store, run)
            await run_sync(live.rotate)
            await run_sync(live.append, 50)
            _, flagged = await live.wait_flagged(15)
            follower.judged(flagged[-1].seq, flagged)  # those that are known already as well, as after a restart
            await wait_explained(follower, store, run)
            os.kill(started[-1], signal.SIGKILL)
            await run_sync(live.append, 50)
            _, flagged = await live.wait_flagged(20)
            follower.judged(flagged[-1].seq, flagged)
            await follower.attend(flagged[-1].seq)  # as who asks for an explanation that is about to be made
            assert await run_sync(store.get, run, flagged[-1].seq) is not None
            await wait_explained(follower, store, run)
            assert follower.statistics().restarts == 1
        await check_all(live, store, run, flagged)
        await run_sync(store.close)
    assert warnings == []


async def test_what_was_flagged_without_a_service_is_made_up_for(tmp_path: Path, warnings: list[str]) -> None:
    """The run is stopped and goes on from its checkpoint; a service that comes later explains all of it."""
    live = await run_sync(LiveLog, tmp_path)
    for expected in (10, 20):
        async with judging(live):
            await run_sync(live.append, 100)
            run, flagged = await live.wait_flagged(expected)
    store = await opened(live.database)
    assert await run_sync(store.missing, run, 0) == flagged
    assert await run_sync(store.missing, run, flagged[10].seq) == flagged[11:]
    async with judging(live):
        follower = ExplainingFollower(live.layers, run, store, warnings.append)
        async with following(follower):
            await wait_explained(follower, store, run)
            assert follower.statistics().explained == len(flagged)
        await check_all(live, store, run, flagged)
        follower = ExplainingFollower(live.layers, run, store, warnings.append)
        async with following(follower):  # nothing is missing: it begins at the newest checkpoint
            await run_sync(live.append, 100)
            _, flagged = await live.wait_flagged(30)
            follower.judged(flagged[-1].seq, flagged)
            await wait_explained(follower, store, run)
            assert follower.statistics().explained == 10
        await check_all(live, store, run, flagged)
    await run_sync(store.drop_below, run, flagged[20].seq)
    assert await run_sync(store.get, run, flagged[19].seq) is None
    assert await run_sync(store.get, run, flagged[20].seq) is not None
    await run_sync(store.close)
    assert warnings == []


async def test_what_cannot_be_followed_is_said_once(
    tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detector that learns at once, a state directory of another run after some attempts; then nothing more waits."""
    monkeypatch.setattr(explaining_follower, "PAUSES", (0.0,))
    live = await run_sync(LiveLog, tmp_path)
    async with judging(live):
        await run_sync(live.append, 100)
        own, _ = await live.wait_flagged(10)
    store = await opened(tmp_path / "other.db")
    learning = [Layer({"detector.name": "isolation_forest"}, {"detector.name": "test"}), *live.layers]
    for layers, run, restarts in ((learning, own, 0), (live.layers, "another", 1)):
        follower = ExplainingFollower(layers, run, store, warnings.append)
        follower.judged(60, [FlaggedEvent(55, "3")])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follower.attend, 55)  # does not wait for ever
            await follower.run()
        follower.judged(70, [FlaggedEvent(66, "3")])
        assert follower.statistics() == (0, 0, restarts, True)
    await run_sync(store.close)
    assert [text.partition(": ")[2] for text in warnings] == [
        "isolation_forest decides by what it has learned or adapted to so far",
        f"the state directory {tmp_path / 'state'} holds another run",
    ]


def test_a_database_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    """With its path and the reason; nothing is written into a file that is no database."""
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(RunError, match=r"cannot use the explanations in .*text: file is not a data"):
        ExplanationStore(tmp_path / "text")
    assert (tmp_path / "text").read_text() == "no database " * 100
