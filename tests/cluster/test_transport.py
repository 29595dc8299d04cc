"""Whatever happens to workers, a run on a cluster writes the bytes of a run in one process."""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cluster import STREAM, DriverKilled, Fault, MemoryEngine, layer, run_on, run_with, written
from strategies import examples, often

from peerwatch.cluster.transport import ATTEMPTS
from peerwatch.errors import RunError
from peerwatch.runtime.pipeline import Totals
from peerwatch.storage.status import Status


class Alone(NamedTuple):
    """A folder with the logs, and what a run in one process has written there and counted."""

    directory: Path
    written: list[bytes]
    totals: Totals


def alone_in(directory: Path, **values: Any) -> Alone:
    """Run in one process."""
    totals = run_with(layer(directory, "alone", **values)).totals
    assert totals.flagged >= 10
    return Alone(directory, written(directory, "alone"), totals)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """A run in one process."""
    return alone_in(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def directed(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """A run in one process with friendships in one direction."""
    return alone_in(tmp_path_factory.mktemp("directed"), friendships="directed")


def run_through(alone: Alone, faults: Mapping[int, Fault], **values: Any) -> MemoryEngine:
    """Run on a cluster, again after each death of the run itself; all that is written and counted must be the same."""
    engine = MemoryEngine(faults)
    for old in alone.directory.glob("there*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    while True:
        try:
            totals = run_on(engine, layer(alone.directory, "there", **values)).totals
        except DriverKilled:
            continue
        break
    assert written(alone.directory, "there") == alone.written
    assert totals == alone.totals
    return engine


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_same_bytes_with_any_number_of_workers(alone: Alone, workers: int) -> None:
    """Output, rejected lines, ledger and totals are those of one process."""
    assert run_through(alone, {}, cluster__workers=workers).started == workers
    status = msgspec.json.decode((alone.directory / "there.state" / "status.json").read_bytes(), type=Status)
    assert status.checkpoints is not None
    assert status.checkpoints.written >= 4
    assert [worker.lag_events for worker in status.workers] == [0] * workers


def test_a_fault_at_each_call_in_turn(alone: Alone) -> None:
    """Wherever a worker is lost, frozen or late, or the run itself dies, what is written and counted is the same.

    The profile says at how many of the calls; in the profile `full` at each of them.
    """
    calls = run_through(alone, {}).calls
    walked = [(call, fault) for fault in Fault for call in range(calls)]
    for call, fault in walked[:: often(len(walked) // 10, 1)]:
        engine = run_through(alone, {call: fault})
        assert engine.calls >= call  # a late reply may save a command


@settings(max_examples=examples(50))
@given(st.dictionaries(st.integers(0, 80), st.sampled_from(Fault), max_size=12))
def test_several_faults(alone: Alone, faults: dict[int, Fault]) -> None:
    """Faults may come in a row, in both slots, while batches are replayed, and while a checkpoint is taken."""
    run_through(alone, faults)


@pytest.mark.parametrize(
    "faults",
    [
        {},
        {9: Fault.LOST_AFTER, 12: Fault.FROZEN, 20: Fault.DRIVER_KILLED},
        *(pytest.param({call: fault}, marks=pytest.mark.slow) for fault in Fault for call in (3, 11, 18, 25)),
    ],
)
def test_directed_friendships(alone: Alone, directed: Alone, faults: dict[int, Fault]) -> None:
    """They are followed in one direction on workers, too, by those that take the place of a lost one as well."""
    assert directed.written != alone.written
    engine = run_through(directed, faults, friendships="directed")
    assert engine.calls > max(faults, default=0)
    assert (engine.started > 2) == bool({*faults.values()} - {Fault.LATE})


@pytest.mark.slow
@settings(max_examples=examples(20))
@given(st.dictionaries(st.integers(0, 80), st.sampled_from(Fault), max_size=12), st.integers(1, 3))
def test_several_faults_with_directed_friendships(directed: Alone, faults: dict[int, Fault], workers: int) -> None:
    """Likewise with any number of workers."""
    run_through(directed, faults, friendships="directed", cluster__workers=workers)


def test_workers_that_are_lost_again_and_again_end_the_run(alone: Alone) -> None:
    """After so many in a row that answered nothing it ends with one sentence, and a later run goes on."""
    first = run_through(alone, {}).calls // 2
    faults = dict.fromkeys(range(first, first + 20 * ATTEMPTS), Fault.LOST_BEFORE)
    with pytest.raises(RunError, match=f"lost {ATTEMPTS} times in a row.*run again"):
        run_through(alone, faults)
    run_on(MemoryEngine(), layer(alone.directory, "there"))
    assert written(alone.directory, "there") == alone.written


def test_a_cluster_and_one_process_go_on_from_each_other(alone: Alone) -> None:
    """A checkpoint of a run on a cluster is one like any other, of however many shards."""
    for old in alone.directory.glob("there*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for place, part in enumerate(range(100, 500, 50)):
        values = {"input.stream": str(alone.directory / "growing"), "shards": 1 + place % 3}
        lines = STREAM.splitlines(keepends=True)[:part]
        (alone.directory / "growing").write_bytes(b"".join(lines))
        run = run_with if place % 2 else partial(run_on, MemoryEngine())
        run(layer(alone.directory, "there", **values))
    assert written(alone.directory, "there")[0] == alone.written[0]
