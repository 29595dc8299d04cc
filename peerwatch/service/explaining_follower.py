"""Has each flagged purchase explained by a worker process that reads the logs behind the run."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

import anyio
from anyio.to_thread import run_sync

from peerwatch.errors import BadInput, PeerwatchError, RunError
from peerwatch.replay.follow_flagged import FlaggedEvent, JudgedThrough
from peerwatch.runtime.pipeline import task_group
from peerwatch.service.explanation_store import ExplanationStore
from peerwatch.service.worker_messages import Answered, Explained, FollowFlagged, Refused
from peerwatch.service.worker_process import WorkerProcess
from peerwatch.service.workers import ERRORS, replayed
from peerwatch.settings.model import Layer

GATHER_SECONDS: Final = 0.02
"""The least time between two messages to the worker."""
MOST_WAITING: Final = 100_000
"""The most flagged purchases that wait to be explained; those beyond it, the oldest, are explained by replay."""
PAUSES: Final = (0.5, 2.0, 8.0)
"""Seconds before the worker begins again after it has failed once, twice, three times without an explanation."""


class FollowerStatistics(NamedTuple):
    """Counts of a follower. With `stopped` flagged purchases are explained by replay alone."""

    explained: int
    waiting: int
    restarts: int
    stopped: bool


class ExplainingFollower:
    """Explains the flagged purchases of a run soon after they were flagged, and keeps the explanations in a store.

    What is missing there, because the service was stopped meanwhile, is made up for first. A worker that loses its
    place or dies begins again at a checkpoint.
    """

    def __init__(self, layers: Sequence[Layer], run: str, store: ExplanationStore, warn: Callable[[str], None]) -> None:
        """`warn` is called once if purchases can only be explained by replay."""
        self._layers = replayed(layers)
        self._run = run
        self._store = store
        self._warn = warn
        self._through = 0
        self._waiting: dict[int, FlaggedEvent] = {}
        """The purchases that have no explanation yet, in order."""
        self._news: list[FlaggedEvent] = []
        """Those that the worker has not been told of."""
        self._changed = anyio.Event()
        self._less_waiting = anyio.Event()
        self._explained = self._failures = self._restarts = 0
        self._stopped = False

    def judged(self, through: int, flagged: Sequence[FlaggedEvent]) -> None:
        """Say that all events up to `through` are judged, and name those flagged since the last call, in order.

        A run that has begun again at a checkpoint may say again what it has said before.
        """
        new = [one for one in flagged if one.seq > self._through]
        if through > self._through and not self._stopped:
            self._through = through
            self._add(new)
            self._changed.set()

    def statistics(self) -> FollowerStatistics:
        """Return the counts so far."""
        return FollowerStatistics(self._explained, len(self._waiting), self._restarts, self._stopped)

    def is_about_to_explain(self, seq: int) -> bool:
        """Whether an event was flagged and has not been explained yet."""
        return seq in self._waiting

    async def attend(self, seq: int) -> None:
        """Wait until an event has been explained, as long as it is about to be."""
        while self.is_about_to_explain(seq):
            await self._less_waiting.wait()

    async def run(self) -> None:
        """Explain, until cancelled, or until the logs end or cannot be followed."""
        missing = await run_sync(self._store.missing, self._run, 0)
        later = [one for one in self._waiting.values() if not missing or one.seq > missing[-1].seq]
        self._waiting.clear()
        self._add([*missing, *later])
        self._through = max(self._through, await run_sync(self._store.judged_through, self._run))
        try:
            for pause in self._pauses():
                await anyio.sleep(pause)
                if await self._tried():
                    break
        except PeerwatchError as error:
            await run_sync(
                self._warn, f"explanations of flagged purchases are made only when they are asked for: {error}"
            )
        finally:
            self._stopped = True
            self._waiting.clear()
            self._news.clear()
            self._less_waiting.set()

    def _pauses(self) -> Iterator[float]:
        """Yield the seconds before each attempt."""
        yield 0.0
        while True:
            yield PAUSES[self._failures - 1]

    async def _tried(self) -> bool:
        """Follow with a new worker, and return whether it came to the end of the logs.

        Raises:
            PeerwatchError: it is of no use to try again.
        """
        worker = await WorkerProcess.start()
        try:
            await self._follow(worker)
        except BadInput:
            raise
        except PeerwatchError:
            if self._failures == len(PAUSES):
                raise
            self._failures += 1
            self._restarts += 1
            return False
        finally:
            await worker.kill()
        return True

    def _add(self, flagged: Sequence[FlaggedEvent]) -> None:
        self._waiting |= {one.seq: one for one in flagged}
        self._news += flagged
        while len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]
            self._tell_waiting()

    def _tell_waiting(self) -> None:
        """Wake those who attend an event."""
        self._less_waiting.set()
        self._less_waiting = anyio.Event()

    async def _follow(self, worker: WorkerProcess) -> None:
        """Have a worker explain all that waits and all that comes.

        Raises:
            BadInput: the detector's decisions cannot be explained in this way.
            PeerwatchError: it has lost its place, or died.
        """
        first = next(iter(self._waiting), self._through + 1)
        self._news = list(self._waiting.values())
        self._changed.set()
        await worker.begin(FollowFlagged(self._layers, self._run, first))
        async with task_group() as tasks:
            tasks.start_soon(self._tell, worker)
            await self._receive(worker)
            tasks.cancel_scope.cancel()

    async def _tell(self, worker: WorkerProcess) -> None:
        """Tell the worker how far it may go."""
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            news, self._news = self._news, []
            if self._through:
                await worker.send(JudgedThrough(self._through, news))
            await anyio.sleep(GATHER_SECONDS)

    async def _receive(self, worker: WorkerProcess) -> None:
        """Keep the explanations that come, until the worker ends."""
        while True:
            answer = await worker.receive()
            match answer:
                case Explained(seq, explanation):
                    await run_sync(self._store.put, self._run, [(seq, bytes(explanation))])
                    self._waiting.pop(seq, None)
                    self._tell_waiting()
                    self._explained += 1
                    self._failures = 0
                case Refused(kind, message):
                    raise ERRORS[kind](message)
                case Answered():
                    return
                case _:
                    raise RunError("the worker said something else")
