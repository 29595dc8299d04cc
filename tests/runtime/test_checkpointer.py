"""The checkpointer's contract: a snapshot is written once all its parts are there, whatever the order they come in."""

import weakref
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.actors.mailbox import Mailbox
from peerwatch.actors.snapshot import (
    CoordinatorPart,
    DispatcherPart,
    GraphPart,
    OutputPart,
    ReplicaPart,
    ShardPart,
    SnapshotPart,
)  # fmt: skip
from peerwatch.errors import SinkError
from peerwatch.files.position import Position
from peerwatch.files.seen import Seen
from peerwatch.judging.state import DISAGREED, Arrays, Counts, State
from peerwatch.judging.verdict_hash import VerdictHash
from peerwatch.runtime.checkpointer import Checkpointer
from peerwatch.storage.checkpoints import CheckpointEnvelope, FilePlace, Identity, StateDirectory
from peerwatch.storage.status import CheckpointTally

NOWHERE = FilePlace("-", "-")
PARTS = {"dispatcher", "graph", "shard 0", "shard 1", "coordinator", "output"}


class Kept(StateDirectory):
    """Keeps checkpoints in memory."""

    def __init__(self) -> None:
        super().__init__(Path("state"), lambda _: None)
        self.checkpoints: list[tuple[Arrays, CheckpointEnvelope]] = []

    def write(self, arrays: Arrays, envelope: CheckpointEnvelope) -> int:
        """Keep it."""
        self.checkpoints.append((arrays, envelope))
        return 1000


def parts_of(request: int) -> list[SnapshotPart]:
    """All parts of a snapshot behind `request` events of two shards."""
    state = State.fresh(1, 3, 2)
    arena, ends = state.decoder.interner.columns()
    return [
        DispatcherPart(
            request, "dispatcher", Counts(events=request), judged=True, position=Position(), bookmarks=[], unseen=[],
            arena=arena, ends=ends,
        ),
        GraphPart(request, "graph", *state.graph.columns()),
        *(ShardPart(request, f"shard {number}", number, state.histories[number].columns()) for number in range(2)),
        CoordinatorPart(request, "coordinator", np.array([request, 0]), {}),
        OutputPart(request, "output", {"flagged": None}, request, VerdictHash()),
    ]  # fmt: skip


async def checkpoints(parts: Sequence[SnapshotPart], requests: int) -> list[tuple[Arrays, CheckpointEnvelope]]:
    """The checkpoints that come of these parts, so many snapshots having been requested."""
    directory = Kept()
    identity = Identity("run", 1, 3, {}, NOWHERE, {})
    checkpointer = Checkpointer(directory, identity, State.fresh(1, 3, 2), 0.0, 1, Seen)
    for number in range(requests):
        request = checkpointer.due(number, number, last=True)
        assert request is not None
        assert request.id == number + 1
    box = Mailbox[SnapshotPart]("checkpointer", 100)
    with box.sender as sender:
        for part in parts:
            await sender.send(part)
    await checkpointer.run(box.receiver, PARTS)
    return directory.checkpoints


@given(st.permutations([part for request in (1, 2, 3) for part in parts_of(request)]), st.integers(0, 17))
def test_each_snapshot_is_written_once_and_whole(parts: list[SnapshotPart], missing: int) -> None:
    """Parts of three snapshots in any order, one of them missing: two are written, each of its own parts alone."""
    lacking = parts.pop(missing).id
    found = anyio.run(checkpoints, parts, 3)
    events = [envelope.facts.progress.events for _, envelope in found]
    assert sorted(events) == sorted({1, 2, 3} - {lacking})
    for (arrays, envelope), seq in zip(found, events, strict=True):
        assert (arrays[DISAGREED].tolist(), envelope.facts.flagged, envelope.facts.shards) == ([seq, 0], seq, 2)
        assert envelope.names == sorted(State.fresh(1, 3, 2).arrays())


async def test_another_snapshot_is_due_only_when_the_one_before_is_written() -> None:
    """Behind the last block alone one is taken whatever is pending."""
    directory = Kept()
    checkpointer = Checkpointer(directory, Identity("run", 1, 3, {}, NOWHERE, {}), State.fresh(1, 3, 2), 0.0, 1, Seen)
    assert checkpointer.due(1, "a", last=False) is not None
    assert checkpointer.due(2, "b", last=False) is None
    box = Mailbox[SnapshotPart]("checkpointer", 100)
    with box.sender as sender:
        for part in parts_of(1):
            await sender.send(part)
    await checkpointer.run(box.receiver, PARTS)
    assert checkpointer.due(2, "b", last=False) is not None
    assert checkpointer.due(3, "c", last=True) is not None


async def test_a_snapshot_does_not_stay_in_memory() -> None:
    """Until the next one: it may be as large as all of the rest. The last part that comes is the one of the workers."""

    class Weak(Kept):
        def write(self, arrays: Arrays, envelope: CheckpointEnvelope) -> int:
            held.extend(weakref.ref(array) for array in arrays.values())
            return super().write({}, envelope)

    held: list[weakref.ref[Any]] = []
    checkpointer = Checkpointer(Weak(), Identity("run", 1, 3, {}, NOWHERE, {}), State.fresh(1, 3, 2), 0.0, 1, Seen)
    assert checkpointer.due(1, "a", last=False) is not None
    box = Mailbox[SnapshotPart]("checkpointer", 100)
    columns = {"degree": np.zeros(3, np.int32), "friends": np.zeros(3, np.int32)}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(checkpointer.run, box.receiver, {*PARTS, "replicas"})
        with box.sender as sender:
            for part in (*parts_of(1), ReplicaPart(1, "replicas", columns, None)):
                await sender.send(part)
            del part, columns
            while checkpointer.due(2, "b", last=False) is None:  # noqa: ASYNC110 (which it is once all is done)
                await anyio.sleep(0.001)
            assert len(held) > 8
            assert not [each for each in held if each() is not None]


async def test_no_snapshot_is_due_where_reading_could_not_go_on() -> None:
    """Within a table there is no position to go on from, also when the run ends there; before it and behind it is."""
    checkpointer = Checkpointer(Kept(), Identity("run", 1, 3, {}, NOWHERE, {}), State.fresh(1, 3, 2), 0.0, 1, Seen)
    assert checkpointer.due(5, None, last=False) is None
    assert checkpointer.due(5, None, last=True) is None
    assert checkpointer.due(9, "end", last=False) is not None
    assert checkpointer.due(0, None, last=True) is not None


async def test_a_snapshot_is_due_by_time_or_by_count() -> None:
    """Whichever comes first, by a clock from outside; and never twice at one position."""
    now = [100.0]
    checkpointer = Checkpointer(
        Kept(), Identity("run", 1, 3, {}, NOWHERE, {}), State.fresh(1, 3, 2), 10.0, 50, Seen, clock=lambda: now[0]
    )
    assert checkpointer.due(49, "a", last=False) is None
    now[0] += 9.9
    assert checkpointer.due(49, "b", last=False) is None
    now[0] += 0.1
    assert checkpointer.due(49, "c", last=False) is not None
    assert checkpointer.due(49, "c", last=False) is None
    by_count = Checkpointer(
        Kept(), Identity("run", 1, 3, {}, NOWHERE, {}), State.fresh(1, 3, 2), 1e9, 50, Seen, clock=lambda: now[0]
    )
    assert by_count.due(49, "a", last=False) is None
    assert by_count.due(50, "b", last=False) is not None


class FullDisk(Kept):
    """Writes one checkpoint, and no other."""

    def write(self, arrays: Arrays, envelope: CheckpointEnvelope) -> int:
        """Keep the first one."""
        if self.checkpoints:
            raise SinkError("cannot write the checkpoint: No space left on device")
        return super().write(arrays, envelope)


async def test_checkpoints_are_counted_with_their_size_and_duration() -> None:
    """From the request to when it was durable; one that could not be written is a failure, and changes no figure."""
    now, tally = [100.0], CheckpointTally()
    checkpointer = Checkpointer(
        FullDisk(), Identity("run", 1, 3, {}, NOWHERE, {}), State.fresh(1, 3, 2), 0.0, 1, Seen, tally, lambda: now[0]
    )
    for request, failures in ((1, 0), (2, 1)):
        assert checkpointer.due(request, request, last=False) is not None
        now[0] += 2.5 * request
        box = Mailbox[SnapshotPart]("checkpointer", 100)
        with box.sender as sender:
            for part in parts_of(request):
                await sender.send(part)
        with pytest.raises(SinkError) if failures else nullcontext():
            await checkpointer.run(box.receiver, PARTS)
        assert tally == CheckpointTally(written=1, failures=failures, seconds=2.5, bytes=1000)
