"""Has checkpoints taken when they are due."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from anyio.to_thread import run_sync
from numpy.typing import NDArray

from peerwatch.actors.mailbox import Receive
from peerwatch.actors.snapshot import (
    CoordinatorPart,
    DispatcherPart,
    GraphPart,
    OutputPart,
    ReplicaPart,
    ShardPart,
    SnapshotPart,
    SnapshotRequest,
)  # fmt: skip
from peerwatch.errors import SinkError
from peerwatch.files.seen import Seen
from peerwatch.judging.state import DISAGREED, NOTHING_DONE, Arrays, State, arrays_of
from peerwatch.judging.verdict_hash import VerdictHash
from peerwatch.storage.checkpoints import VERSION, CheckpointEnvelope, Facts, Identity, StateDirectory, StoredPart
from peerwatch.storage.status import CheckpointTally

Part = TypeVar("Part", bound=SnapshotPart)


class Checkpointer:
    """Has snapshots taken when they are due, collects their parts, and writes them while the events flow on."""

    def __init__(
        self,
        directory: StateDirectory,
        identity: Identity,
        state: State,
        seconds: float,
        events: int,
        seen: Callable[[], Seen],
        tally: CheckpointTally | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Checkpoints of `state`, after `seconds` or `events` events; `seen` tells what the stream log remembers.

        The `tally` counts them.
        """
        self._tally = tally or CheckpointTally()
        self._directory = directory
        self._identity = identity
        self._state = state
        self._shards = len(state.histories)
        self._seen = seen
        self._seconds = seconds
        self._events = events
        self._requests = 0
        self._pending: dict[int, tuple[float, Seen]] = {}
        """When each snapshot was requested that is not written yet, and what the stream log remembered then."""
        self._clock = clock
        self._last_time = clock()
        self._last_events = state.progress.events
        self._last_position: Any = None
        self._told: Callable[[int], None] = lambda _: None
        self.written = 0.0
        """When the newest checkpoint was written, in seconds since 1970; 0 if none has been."""

    def due(self, events: int, position: Any, last: bool) -> SnapshotRequest | None:  # noqa: FBT001 (the dispatcher's question)
        """A request for a snapshot to send along if one is due: by time, by events, or behind the last block.

        None where reading could not go on: within a source that has no position before its end.
        """
        if position is None and events:
            return None
        now = self._clock()
        is_due = now - self._last_time >= self._seconds or events - self._last_events >= self._events
        if not last and (self._pending or not is_due or position == self._last_position):
            return None
        self._last_time, self._last_events, self._last_position = now, events, position
        self._requests += 1
        self._pending[self._requests] = now, self._seen()  # as of the position
        return SnapshotRequest(self._requests)

    def tell(self, told: Callable[[int], None]) -> None:
        """Call `told` with the last event of each checkpoint that has been written, once it is durable."""
        self._told = told

    async def run(self, parts: Receive[SnapshotPart], expected: Collection[str]) -> None:
        """Write each snapshot once all its `expected` parts are there, until the mailbox ends."""
        held: dict[int, dict[str, SnapshotPart]] = {}
        with parts:
            async for part in parts:
                number = part.id
                held.setdefault(number, {})[part.part] = part
                del part  # or it would stay in memory until the next one
                if held[number].keys() == set(expected):
                    await self._write_snapshot(held.pop(number).values(), *self._pending[number])
                    del self._pending[number]  # only now may another be due

    async def _write_snapshot(self, parts: Collection[SnapshotPart], requested: float, seen: Seen) -> None:
        stored = [one.stored for one in parts if isinstance(one, ReplicaPart) and one.stored is not None]
        arrays, facts = await run_sync(_assembled, parts)
        await self._write(arrays, facts | {"seen": seen}, requested, stored)

    async def write_beginning(self, judging: Arrays, marks: Mapping[str, Any]) -> None:
        """Write down the fresh state, with what the judges remember, and the marks of the sinks that are begun.

        A run that is killed before its first checkpoint then knows where it began.
        """
        nothing = {"progress": NOTHING_DONE, "judged": False, "position": None, "flagged": 0, "marks": marks}
        nothing |= {"verdicts": VerdictHash(), "unseen": [], "bookmarks": [], "seen": self._seen()}
        await self._write({**self._state.arrays(), **judging}, nothing, self._clock())

    async def _write(
        self, arrays: Arrays, facts: Mapping[str, Any], requested: float, stored: Sequence[StoredPart] = ()
    ) -> None:
        complete = Facts(**facts, shards=self._shards)
        names = sorted([*arrays, *(name for part in stored for name in part.arrays)])
        envelope = CheckpointEnvelope(VERSION, self._identity, complete, time.time(), names, [*stored])
        try:
            self._tally.bytes = await run_sync(self._directory.write, arrays, envelope)
        except SinkError:
            self._tally.failures += 1
            raise
        self._tally.seconds = self._clock() - requested
        self._tally.written += 1
        self.written = envelope.taken
        self._told(complete.progress.events)


def _assembled(parts: Collection[SnapshotPart]) -> tuple[Arrays, dict[str, Any]]:
    """A snapshot's arrays and facts from its parts."""
    dispatcher = _one(DispatcherPart, parts)
    coordinator, output = _one(CoordinatorPart, parts), _one(OutputPart, parts)
    arrays: dict[str, NDArray[Any]] = {
        "arena": dispatcher.arena,
        "ends": dispatcher.ends,
        DISAGREED: coordinator.disagreed,
        **coordinator.judges,
    }
    for part in parts:
        if isinstance(part, GraphPart):
            arrays |= {"degree": part.degree, "friends": part.friends}
        elif isinstance(part, ShardPart):
            arrays |= arrays_of(part.columns, part.number)
        elif isinstance(part, ReplicaPart):
            arrays |= part.arrays
    return arrays, {
        "progress": dispatcher.progress,
        "judged": dispatcher.judged,
        "position": dispatcher.position,
        "bookmarks": dispatcher.bookmarks,
        "unseen": dispatcher.unseen,
        "marks": output.marks,
        "flagged": output.flagged,
        "verdicts": output.verdicts,
    }


def _one(kind: type[Part], parts: Iterable[SnapshotPart]) -> Part:
    """The part of a kind of which there is one."""
    (found,) = (part for part in parts if isinstance(part, kind))
    return found
