"""Worker processes: what they answer, how many wait, and what becomes of one that dies or is not needed any more."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import anyio
import msgspec
import numpy as np
import pytest
from anyio.to_thread import run_sync
from support import befriend, purchase, running

from peerwatch.errors import BadInput, Busy, UsageError, WorkerDied
from peerwatch.replay.explain import explained
from peerwatch.replay.user_timeline import state_of
from peerwatch.service.workers import Workers
from peerwatch.settings.model import Layer
from peerwatch.studies.radius import bridges_of, radius_of
from peerwatch.studies.sweep import swept
from peerwatch.studies.sweep_table import SettingGrid
from peerwatch.studies.table_detection import detection

COLUMNS = {"a": np.array([1.0, 2.0, 1.5, 99.0])}
STUBBORN = "stubborn_detector:Stubborn"


@pytest.fixture
def layers(tmp_path: Path) -> list[Layer]:
    """The settings of two logs: 40 purchases among three friends, of which some stand out."""
    (tmp_path / "batch").write_bytes(befriend(1, 2) + befriend(2, 3) + purchase(1, "10") * 3 + purchase(3, "12") * 3)
    (tmp_path / "stream").write_bytes(b"".join(purchase(2, f"{11 + (n % 7 == 0) * 500}") for n in range(40)))
    values = {"input.batch": str(tmp_path / "batch"), "input.stream": str(tmp_path / "stream"), "D": 2, "T": 20}
    return [Layer(values, dict.fromkeys(values, "test"))]


async def wait_for(condition: Callable[[], bool]) -> None:
    """Look until it is so."""
    while not await run_sync(condition):  # noqa: ASYNC110 (nobody tells)
        await anyio.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether a process has ended, or only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def worker_of(parent: int) -> int | None:
    """The id of a process's child."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                return int(stat.parent.name)
    return None


async def test_workers_answer_as_the_functions_do(layers: list[Layer]) -> None:
    """Explanations, users, detectors and sweeps are the same as in this process, from one process for all of them."""
    shares: list[float] = []
    async with Workers(layers, 1) as workers:
        assert await workers.explain(20) == msgspec.json.encode(await explained(layers, seq=20))
        (first,) = workers.pids
        assert await workers.user("2", "30") == msgspec.json.encode(await state_of(layers, "2", "30"))
        assert await workers.radius("2", None, "30") == msgspec.json.encode(await radius_of(layers, user="2", at="30"))
        assert await workers.radius("1", "2", "30") == msgspec.json.encode(
            await radius_of(layers, friendship=("1", "2"), at="30")
        )
        assert await workers.bridges(2, "30") == msgspec.json.encode(await bridges_of(layers, most=2, at="30"))
        assert await workers.detect(COLUMNS, "iqr", {"k": 2}) == msgspec.json.encode(
            detection(COLUMNS, "iqr", {"k": 2})
        )
        assert await workers.sweep([1, 2], [5, 20], [2.0], shares.append) == msgspec.json.encode(
            await swept(layers, SettingGrid([1, 2], [5, 20], [2.0]))
        )
        assert workers.pids == [first]
    assert shares
    assert all(0 < share <= 1 for share in shares)
    assert await run_sync(is_gone, first)


async def test_mistakes_are_the_errors_of_the_functions(layers: list[Layer]) -> None:
    """With their sentences, and the worker goes on."""
    async with Workers(layers, 1) as workers:
        with pytest.raises(UsageError, match="there is no event 999"):
            await workers.explain(999)
        with pytest.raises(UsageError, match="user 3 is not a friend of user 1 as of event 30"):
            await workers.radius("1", "3", "30")
        with pytest.raises(UsageError, match="only purchases are judged"):
            await workers.explain(1)
        with pytest.raises(BadInput, match='iqr has no parameter "q"'):
            await workers.detect(COLUMNS, "iqr", {"q": 1})
        assert len(workers.pids) == 1


async def test_what_a_detector_prints_is_no_answer(layers: list[Layer]) -> None:
    """Standard output is not what the service reads."""
    async with Workers(layers, 1) as workers:
        found = msgspec.json.decode(await workers.detect(COLUMNS, STUBBORN, {"talks": True}))
        assert found["method"] == STUBBORN


async def test_a_worker_that_is_killed_at_work_is_replaced(layers: list[Layer], tmp_path: Path) -> None:
    """The request it had gets an error that says so, the next one an answer."""
    note = tmp_path / "note"
    async with Workers(layers, 1) as workers:
        await workers.detect(COLUMNS, "iqr", {})
        (pid,) = workers.pids

        async def stubborn() -> None:
            with pytest.raises(WorkerDied, match="has ended by signal 9"):
                await workers.detect(COLUMNS, STUBBORN, {"note": str(note)})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stubborn)
            await wait_for(note.exists)
            os.kill(pid, signal.SIGKILL)
        assert workers.pids == []
        await workers.detect(COLUMNS, "iqr", {})
        assert workers.pids != [pid]


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="waits for a process without reaping it")
async def test_a_worker_that_is_killed_while_idle_is_replaced(layers: list[Layer]) -> None:
    """The next request gets an answer, from another one."""
    async with Workers(layers, 1) as workers:
        await workers.detect(COLUMNS, "iqr", {})
        (pid,) = workers.pids
        os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):  # it has been reaped already
            # without the event loop, which is not to know of it yet
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
        await workers.detect(COLUMNS, "iqr", {})
        assert workers.pids != [pid]


@pytest.mark.skipif(sys.platform != "linux", reason="a process is kept off a processor on Linux alone")
async def test_workers_leave_a_processor_to_the_pipeline(layers: list[Layer]) -> None:
    """The same one, unless there is only one."""
    allowed = os.sched_getaffinity(0)
    async with Workers(layers, 1) as workers:
        await workers.detect(COLUMNS, "iqr", {})
        (pid,) = workers.pids
        assert os.sched_getaffinity(pid) == (allowed - {min(allowed)} or allowed)


async def test_a_request_that_is_cancelled_frees_its_worker(layers: list[Layer], tmp_path: Path) -> None:
    """The process that was at it is killed, and the next request has its place."""
    note = tmp_path / "note"
    async with Workers(layers, 1) as workers:
        await workers.detect(COLUMNS, "iqr", {})
        (pid,) = workers.pids
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(workers.detect, COLUMNS, STUBBORN, {"note": str(note)})
            await wait_for(note.exists)
            tasks.cancel_scope.cancel()
        assert await run_sync(is_gone, pid)
        await workers.detect(COLUMNS, "iqr", {})


async def test_only_so_many_wait(layers: list[Layer], tmp_path: Path) -> None:
    """One more is turned away at once; a sweep that may wait is not, nor does it take anybody's place in the queue."""
    note = tmp_path / "note"
    ends: list[bytes] = []

    async def ask() -> None:
        ends.append(await workers.detect(COLUMNS, "iqr", {}))

    async def sweep_later() -> None:
        ends.append(await workers.sweep([2], [5], [2.0], waits=True))

    async with Workers(layers, 1, 2) as workers, anyio.create_task_group() as tasks:
        stubborn = anyio.CancelScope()

        async def block() -> None:
            with stubborn:
                await workers.detect(COLUMNS, STUBBORN, {"note": str(note)})

        tasks.start_soon(block)
        await wait_for(note.exists)
        for call in (ask, sweep_later, ask):
            tasks.start_soon(call)
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(Busy, match="2 requests wait already"):
            await workers.explain(20)
        assert ends == []
        stubborn.cancel()
    assert len(ends) == 3


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_workers_do_not_outlive_a_service_that_is_killed(tmp_path: Path) -> None:
    """Whatever they are doing."""
    note = tmp_path / "note"
    program = (
        "import anyio\nimport numpy as np\nfrom peerwatch.service.workers import Workers\n"
        f"anyio.run(Workers([]).detect, {{'a': np.ones(4)}}, {STUBBORN!r}, {{'note': {str(note)!r}}})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with running([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL) as service:
        while not note.exists():
            assert service.poll() is None
        worker = worker_of(service.pid)
        assert worker is not None
        service.kill()
        service.wait()
        while not is_gone(worker):
            pass
