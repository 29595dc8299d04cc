"""Has checkpoints taken when they are due."""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
from anyio.to_thread import run_sync

from peerwatch.actors.snapshot import Snapshot
from peerwatch.connectors.output_file import Written
from peerwatch.connectors.position import Position
from peerwatch.connectors.seen import Seen
from peerwatch.judging.state import NOTHING_DONE, Arrays, State
from peerwatch.judging.verdict_hash import VerdictHash
from peerwatch.storage.checkpoints import VERSION, CheckpointEnvelope, Facts, Identity, StateDirectory


class Checkpointer:
    """Has snapshots taken when they are due, and writes them while the events flow on."""

    def __init__(
        self,
        directory: StateDirectory,
        identity: Identity,
        state: State,
        seconds: float,
        events: int,
        seen: Callable[[], Seen],
    ) -> None:
        """Checkpoints of `state`, after `seconds` or `events` events; `seen` tells what the stream log remembers."""
        self._directory = directory
        self._identity = identity
        self._state = state
        self._shards = len(state.histories)
        self._seen = seen
        self._seconds = seconds
        self._events = events
        self._pending: deque[Snapshot] = deque()
        self._closed = False
        self._news = anyio.Event()
        self._last_time = time.monotonic()
        self._last_events = state.progress.events
        self._last_position: Any = None
        self.written = 0.0
        """When the newest checkpoint was written, in seconds since 1970; 0 if none has been."""

    def due(self, events: int, position: Any, last: bool) -> Snapshot | None:  # noqa: FBT001 (the dispatcher's question)
        """A snapshot to send along if one is due: by time, by events, or behind the last block."""
        now = time.monotonic()
        is_due = now - self._last_time >= self._seconds or events - self._last_events >= self._events
        if not last and (self._pending or not is_due or position == self._last_position):
            return None
        self._last_time, self._last_events, self._last_position = now, events, position
        snapshot = Snapshot(parts=4 + self._shards)
        snapshot.facts["seen"] = self._seen()  # as of the position
        self._pending.append(snapshot)
        self._news.set()
        return snapshot

    def close(self) -> None:
        """No more snapshots come."""
        self._closed = True
        self._news.set()

    async def run(self) -> None:
        """Write each snapshot once it is complete, until `close`."""
        while self._pending or not self._closed:
            if self._pending:
                snapshot = self._pending[0]
                await snapshot.wait_complete()
                await self._write(snapshot.arrays, snapshot.facts)
                self._pending.popleft()  # only now may another be due
            else:
                await self._news.wait()
                self._news = anyio.Event()

    async def write_beginning(self, judging: Arrays, written: dict[str, Written | None]) -> None:
        """Write down the fresh state, with what those who judge remember, and the outputs that are begun.

        A run that is killed before its first checkpoint then knows where it began.
        """
        nothing = {"progress": NOTHING_DONE, "judged": False, "position": Position(), "flagged": 0}
        nothing |= {"verdicts": VerdictHash(), "unseen": [], "bookmarks": [], "seen": self._seen()} | written
        await self._write({**self._state.arrays(), **judging}, nothing)

    async def _write(self, arrays: Arrays, facts: dict[str, Any]) -> None:
        complete = Facts(**facts, shards=self._shards)
        envelope = CheckpointEnvelope(VERSION, self._identity, complete, time.time(), sorted(arrays))
        await run_sync(self._directory.write, arrays, envelope)
        self.written = envelope.taken
