"""What holds for every test: no blocking call on an event loop, no task left behind, no verdict by the clock."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase
from support import ROOT

from peerwatch import kernels
from peerwatch.runtime import runner

assert runner  # imports everything that has kernels
kernels.load()  # as a run does, before there is an event loop
for number in (
    signal.SIGHUP,
    signal.SIGTERM,
    signal.SIGQUIT,
):  # whoever starts the tests may ignore them, as nohup does
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
ALWAYS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # timing never decides
settings.register_profile("bounds", ALWAYS, derandomize=True, max_examples=5)  # the same cases every run
settings.register_profile("short", ALWAYS, derandomize=True, max_examples=20)
settings.register_profile("full", ALWAYS, derandomize=True, max_examples=100)
settings.register_profile(  # other cases every run; those that failed are kept, and tried first in the next one
    "soak", ALWAYS, derandomize=False, max_examples=500, print_blob=True,
    database=DirectoryBasedExampleDatabase(ROOT / ".hypothesis" / "examples"),
)  # fmt: skip
settings.load_profile("short")  # `--hypothesis-profile` names another


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """A blocking call on an event loop fails the test."""
    with blockbuster_ctx() as blockbuster:
        blockbuster.functions["os.read"].can_block_in("asyncinotify/__init__.py", "_get")  # its descriptor never blocks
        for function in ("acquire", "acquire_lock"):  # a loop that closes waits for its executor's threads
            blockbuster.functions[f"threading.Lock.{function}"].can_block_in("asyncio/runners.py", "close")
        yield


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    """A run hides what is there from the garbage collector, for it ends with its process; here other tests follow."""
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="module")
def no_heap_of_runs() -> Iterator[None]:
    """What runs have left behind is let go."""
    yield
    gc.collect()


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
