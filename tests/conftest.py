"""What holds for every test: no blocking call on an event loop, no task left behind."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from blockbuster import blockbuster_ctx
from hypothesis import settings

from peerwatch.network import kernels
from peerwatch.runtime import runner

TESTS = Path(__file__).parent
assert runner  # imports everything that has kernels
kernels.load()  # as a run does, before there is an event loop
settings.register_profile("peerwatch", deadline=None, derandomize=True)  # timing never decides; same cases every run
settings.load_profile("peerwatch")


def pytest_collection_finish(session: pytest.Session) -> None:
    """The tests of kernels run once more, with every index checked, beside all others: it takes a core a minute."""
    wanted = any(item.path.name == "test_bounds.py" for item in session.items)
    if wanted and not session.config.option.collectonly:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        session.config.bounds_run = subprocess.Popen(  # type: ignore[attr-defined]
            [*command, str(TESTS / "network"), str(TESTS / "test_exactness.py")],
            env=os.environ | {"NUMBA_BOUNDSCHECK": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


def pytest_unconfigure(config: pytest.Config) -> None:
    """Nothing goes on when the tests are over."""
    run: subprocess.Popen[str] | None = getattr(config, "bounds_run", None)
    if run is not None and run.stdout is not None and not run.stdout.closed:
        run.kill()
        run.communicate()


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """A blocking call on an event loop fails the test."""
    with blockbuster_ctx() as blockbuster:
        blockbuster.functions["os.read"].can_block_in("asyncinotify/__init__.py", "_get")  # its descriptor never blocks
        yield


@pytest_asyncio.fixture
async def no_leftover_tasks() -> AsyncIterator[None]:
    """A task that outlives the test fails it."""
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() <= before | {asyncio.current_task()}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every async test is watched for leftover tasks."""
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("asyncio") is not None:
            item.fixturenames.insert(0, "no_leftover_tasks")
