"""Whatever happens to workers, a run on a cluster writes the bytes of a run in one process."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import anyio
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cluster import STREAM, DriverKilled, Fault, KnowingPatience, MemoryEngine, layer, run_on, run_with, written
from strategies import examples, often

from peerwatch.cluster import pieces, worker
from peerwatch.cluster.connecting import STORED_BYTES, CheckpointStates
from peerwatch.cluster.engine import Call, WorkerSilent
from peerwatch.cluster.pace import Pace
from peerwatch.cluster.replica import Replica, ReplicaBatch
from peerwatch.cluster.transport import ATTEMPTS, Patience
from peerwatch.cluster.wire import STORAGE, UseStorage
from peerwatch.errors import RunError, SinkError
from peerwatch.judging.engine import AnsweredPurchases
from peerwatch.judging.state import Arrays
from peerwatch.runtime.pipeline import Totals
from peerwatch.storage.checkpoints import (
    PARTS,
    StateDirectory,
    StoredPart,
    files_in,
    read_checkpoint,
    write_part,
)
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


def run_through(
    alone: Alone, faults: Mapping[int, Fault], stored_bytes: int = STORED_BYTES, *, grows: bool = False, **values: Any
) -> MemoryEngine:
    """Run on a cluster, again after each death of the run itself; all that is written and counted must be the same."""
    engine = MemoryEngine(faults)
    for old in alone.directory.glob("there*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    while True:
        try:
            totals = run_on(engine, layer(alone.directory, "there", **values), stored_bytes, grows=grows).totals
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


def state_of(alone: Alone) -> Path:
    """The state directory of the run on the cluster."""
    return alone.directory / "there.state"


def parts_in(state: Path) -> list[Path]:
    """The parts of checkpoints that workers have written."""
    return sorted(state.glob(PARTS))


def parts_needed(state: Path) -> list[Path]:
    """Those that a checkpoint names."""
    return sorted(state / part.name for path in files_in(state) for part in read_checkpoint(path).envelope.parts)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_workers_write_their_columns_themselves(alone: Alone, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into the state directory, where they reach it, and read them there; no part is left that is not needed."""
    monkeypatch.delattr(CheckpointStates, "_read")
    run_through(alone, {}, stored_bytes=1, cluster__workers=workers)
    assert len(parts_in(state_of(alone))) == len(files_in(state_of(alone))) == 2
    assert parts_in(state_of(alone)) == parts_needed(state_of(alone))
    newest = files_in(state_of(alone))[-1]
    with np.load(newest) as archive:
        assert not {"degree", "friends", "held0"} & {*archive.files}
    assert {"degree", "friends", "held0"} <= {*read_checkpoint(newest).arrays}


def test_a_fault_at_each_call_in_turn_while_workers_write(alone: Alone) -> None:
    """Likewise while a worker loads a checkpoint from the state directory, or writes its part, before that is named."""
    calls = run_through(alone, {}, stored_bytes=1).calls
    walked = [(call, fault) for fault in Fault for call in range(calls)]
    for call, fault in walked[:: often(len(walked) // 10, 1)]:
        run_through(alone, {call: fault}, stored_bytes=1)
        assert parts_in(state_of(alone)) == parts_needed(state_of(alone))


@settings(max_examples=examples(50))
@given(
    st.dictionaries(st.integers(0, 120), st.sampled_from(Fault), max_size=12),
    st.sampled_from([1, STORED_BYTES]),
    st.booleans(),
)
def test_several_faults_while_columns_travel(
    alone: Alone, faults: dict[int, Fault], stored_bytes: int, grows: bool
) -> None:
    """They are sent in many messages, or written beside the batches, which may be small at first."""
    with patch.object(pieces, "PIECE", 100):
        run_through(alone, faults, stored_bytes, grows=grows)


@pytest.mark.parametrize("where", ["elsewhere", "a copy"])
def test_a_worker_that_does_not_reach_the_state_directory_is_sent_all(
    alone: Alone, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it take another directory at that path, such as a copy, for it."""
    marked = CheckpointStates._marked  # noqa: SLF001

    def seen(states: CheckpointStates) -> UseStorage:
        found = marked(states)
        if where == "a copy":
            (tmp_path / STORAGE).write_bytes(b"of another run")
        return msgspec.structs.replace(found, directory=bytes(tmp_path))

    monkeypatch.setattr(CheckpointStates, "_marked", seen)
    run_through(alone, {11: Fault.LOST_BEFORE}, stored_bytes=1)
    assert not parts_in(state_of(alone))


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-9])])
def test_a_part_that_is_gone_or_damaged(
    alone: Alone, spoil: Callable[[Path], object], capfd: pytest.CaptureFixture[str]
) -> None:
    """Its checkpoint is damaged: the run goes on from the one before it, on the cluster and in one process."""
    for run in (run_with, partial(run_on, MemoryEngine(), stored_bytes=1)):
        run_through(alone, {}, stored_bytes=1)
        spoil(parts_in(state_of(alone))[-1])
        run(layer(alone.directory, "there"))
        assert "is damaged" in capfd.readouterr().err
        assert written(alone.directory, "there") == alone.written
        assert len(files_in(state_of(alone))) == 2
        assert parts_in(state_of(alone)) == parts_needed(state_of(alone))


def test_a_part_that_cannot_be_written_is_sent(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be that one node alone has lost the storage."""

    def gone(path: Path, arrays: Arrays) -> StoredPart:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), path, len(arrays))

    monkeypatch.setattr(worker, "write_part", gone)
    run_through(alone, {}, stored_bytes=1)
    assert not parts_in(state_of(alone))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.write_bytes(b""), r"it has 0 bytes of [\d,]+"),
        (lambda path: path.unlink(), "No such file or directory"),
    ],
)
def test_a_part_that_the_driver_cannot_use_ends_the_run(
    alone: Alone, spoil: Callable[[Path], object], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one sentence, and without its checkpoint, which nobody could read."""

    def lose(path: Path, arrays: Arrays) -> StoredPart:
        part = write_part(path, arrays)
        spoil(path)
        return part

    with monkeypatch.context() as patched:
        patched.setattr(worker, "write_part", lose)
        with pytest.raises(SinkError, match=rf"cannot use .*/part-.*npz, a part of .*: {said}; let workers and"):
            run_through(alone, {}, stored_bytes=1)
    run_on(MemoryEngine(), layer(alone.directory, "there"), 1)
    assert written(alone.directory, "there") == alone.written


def test_batches_are_answered_while_columns_are_written(alone: Alone, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the worker that writes, too: the first part is not there before another answer is."""
    took, judged, blocked = Pace.took, Event(), list[bool]()

    def noted(pace: Pace, seconds: float, purchases: int, events: int) -> None:
        took(pace, seconds, purchases, events)
        judged.set()

    def slowly(path: Path, arrays: Arrays) -> StoredPart:
        if not blocked:
            judged.clear()
            blocked.append(judged.wait(60))
        return write_part(path, arrays)

    monkeypatch.setattr(Pace, "took", noted)
    monkeypatch.setattr(worker, "write_part", slowly)
    run_through(alone, {}, stored_bytes=1, cluster__workers=1)
    assert blocked == [True]


def test_a_state_directory_of_any_name(tmp_path: Path) -> None:
    """Also of one that is no text."""
    directory = tmp_path / os.fsdecode(b"\xff")
    directory.mkdir()
    alone = alone_in(directory)
    run_through(alone, {}, stored_bytes=1)
    assert len(parts_in(state_of(alone))) == 2


def test_reset_forgets_parts(alone: Alone) -> None:
    """With their checkpoints."""
    run_through(alone, {}, stored_bytes=1)
    StateDirectory(state_of(alone), print).reset()
    assert not parts_in(state_of(alone))


@pytest.mark.parametrize("detector", ["sigma", "mad", "zscore"])
def test_workers_that_take_long_are_asked_about_less(
    detector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether they judge or send windows. By a clock of the workers' own, for which a purchase takes 0.05 s."""
    values: dict[str, Any] = {"detector.name": detector, "cluster.batch": 16384}
    if detector == "zscore":
        values["detector.adapt.flag_rate"] = 0.05
    alone, took, asked, seconds = alone_in(tmp_path, **values), Pace.took, list[int](), [0.0]

    def answered(replica: Replica, batch: ReplicaBatch) -> Iterator[AnsweredPurchases]:
        for part in answer(replica, batch):
            seconds[0] += 0.05 * len(part.case.seq)
            yield part

    def noted(pace: Pace, took_seconds: float, purchases: int, events: int) -> None:
        asked.append(purchases)
        took(pace, took_seconds, purchases, events)

    answer = Replica.answer
    monkeypatch.setattr(Replica, "answer", answered)
    monkeypatch.setattr(worker, "time", SimpleNamespace(perf_counter=lambda: seconds[0], process_time=lambda: 0.0))
    monkeypatch.setattr(Pace, "took", noted)
    run_through(alone, {}, grows=True, cluster__workers=1, **values)
    assert 1 < max(asked) <= 0.375 / 0.05 + 1e-9


async def test_a_worker_that_copies_much_is_given_time_for_that() -> None:
    """In addition to that for any reply, and as many times as much where others were lost before."""

    class Silent:
        async def reply(self) -> bytes:
            await anyio.sleep_forever()
            raise AssertionError

    with pytest.raises(WorkerSilent, match=r"no reply within 0\.06 s"):
        await Patience(0.01).reply(Silent(), 2.0, 0.02)


@pytest.mark.parametrize("stored_bytes", [1, STORED_BYTES])
def test_only_what_copies_columns_is_waited_for_longer(
    alone: Alone, stored_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that loads them, and one that gives them; not one that is asked whether it has written them."""
    more, reply = list[float](), KnowingPatience.reply

    async def noted(patience: KnowingPatience, call: Call, factor: float = 1.0, extra: float = 0.0) -> bytes:
        more.append(extra)
        return await reply(patience, call, factor, extra)

    monkeypatch.setattr(KnowingPatience, "reply", noted)
    run_through(alone, {}, stored_bytes=stored_bytes)
    status = msgspec.json.decode((state_of(alone) / "status.json").read_bytes(), type=Status)
    assert status.checkpoints is not None
    loaded = 2 if stored_bytes == 1 else 0  # the first checkpoint is empty, and then there is nothing to send
    assert sum(each > 0 for each in more) == loaded + status.checkpoints.written - 1  # nor has a worker given that


def test_workers_that_are_lost_again_and_again_end_the_run(alone: Alone) -> None:
    """After so many in a row that answered nothing it ends with one sentence, and a later run goes on."""
    first = run_through(alone, {}).calls // 2
    faults = dict.fromkeys(range(first, first + 20 * ATTEMPTS), Fault.LOST_BEFORE)
    with pytest.raises(RunError, match=f"lost {ATTEMPTS} times in a row.*run again"):
        run_through(alone, faults)
    run_on(MemoryEngine(), layer(alone.directory, "there"))
    assert written(alone.directory, "there") == alone.written


def test_a_cluster_and_one_process_go_on_from_each_other(alone: Alone) -> None:
    """A checkpoint of a run on a cluster is one like any other, with a part or without, of however many shards."""
    for old in alone.directory.glob("there*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for place, part in enumerate(range(100, 500, 50)):
        values = {"input.stream": str(alone.directory / "growing"), "shards": 1 + place % 3}
        lines = STREAM.splitlines(keepends=True)[:part]
        (alone.directory / "growing").write_bytes(b"".join(lines))
        stored_bytes = 1 if place % 4 else STORED_BYTES
        run = run_with if place % 2 else partial(run_on, MemoryEngine(), stored_bytes=stored_bytes)
        run(layer(alone.directory, "there", **values))
    assert written(alone.directory, "there")[0] == alone.written[0]
