"""Worker processes for what takes long, so that the pipeline beside them keeps its event loop and its priority."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self

import anyio

from peerwatch.detectors.base import Floats
from peerwatch.errors import BadInput, Busy, RunError, UsageError, WorkerDied
from peerwatch.service.worker_messages import (
    Answered,
    DescribeDataset,
    DetectInDataset,
    DetectInRows,
    ExplainDecision,
    ProgressMade,
    Refused,
    Request,
    ShowBridges,
    ShowRadius,
    ShowUser,
    SweepSettings,
)
from peerwatch.service.worker_process import WorkerProcess
from peerwatch.settings.model import Layer

ERRORS: Final = {"UsageError": UsageError, "BadInput": BadInput, "RunError": RunError}


def nothing(share: float) -> None:
    """Take no notice of progress."""


def replayed(layers: Sequence[Layer]) -> list[Layer]:
    """Return the layers of a run for reading its logs again: from the beginning while there is no checkpoint."""
    key = "state.directory"
    return [Layer(each.values, {**each.origins, key: "the run"}) if key in each.values else each for each in layers]


class Workers:
    """Up to `count` worker processes, which start when they are needed and then stay.

    At most `waiting` requests wait for one of them. A request that is cancelled kills its worker; another one takes its
    place when it is needed. Use as an asynchronous context manager.
    """

    def __init__(self, layers: Sequence[Layer], count: int = 2, waiting: int = 16) -> None:
        self._layers = replayed(layers)
        self._free = anyio.Semaphore(count)
        self._idle: list[WorkerProcess] = []
        self._most_waiting = waiting
        self._waiting = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._idle:
            await self._idle.pop().kill()

    @property
    def pids(self) -> list[int]:
        """The ids of the processes that are idle."""
        return [worker.pid for worker in self._idle]

    async def explain(self, seq: int) -> bytes:
        """Explain the decision on event `seq`: an `ExplanationRecord` as JSON.

        Raises:
            Busy: too many requests wait.
            UsageError: there is no such decision.
            RunError: a log could not be read any further, or the worker died.
        """
        return await self._ask(ExplainDecision(self._layers, seq))

    async def user(self, user: str, at: str) -> bytes:
        """Show a user as of `at`, an event's number or a timestamp: a `UserState` as JSON.

        Raises:
            Busy, UsageError, RunError: as `explain`.
        """
        return await self._ask(ShowUser(self._layers, user, at))

    async def radius(self, user: str, friend: str | None, at: str) -> bytes:
        """Show what a user, or with `friend` a friendship, takes part in as of `at`: a `RadiusRecord` as JSON.

        Raises:
            Busy, UsageError, RunError: as `explain`.
        """
        return await self._ask(ShowRadius(self._layers, user, friend, at))

    async def bridges(self, most: int, at: str) -> bytes:
        """Show the `most` friendships that matter most as of `at`: a `BridgesRecord` as JSON.

        Raises:
            Busy, UsageError, RunError: as `explain`.
        """
        return await self._ask(ShowBridges(self._layers, most, at))

    async def detect(self, columns: Mapping[str, Floats], method: str, parameters: Mapping[str, Any]) -> bytes:
        """Apply a detector to columns: a `Detection` as JSON.

        Raises:
            Busy: too many requests wait.
            BadInput: the detector does not take these parameters or values.
            RunError: the worker died.
        """
        named = {name: column.tolist() for name, column in columns.items()}
        return await self._ask(DetectInRows(named, method, dict(parameters)))

    async def detect_in_dataset(self, dataset: str, method: str, parameters: Mapping[str, Any]) -> bytes:
        """Apply a detector to a data set: a `DatasetDetection` as JSON.

        Raises:
            Busy, BadInput, RunError: as `detect`.
        """
        return await self._ask(DetectInDataset(dataset, method, dict(parameters)))

    async def describe_dataset(self, dataset: str) -> bytes:
        """Compute the statistics of a data set: `DatasetStatistics` as JSON.

        Raises:
            Busy, RunError: as `detect`.
        """
        return await self._ask(DescribeDataset(dataset))

    async def sweep(
        self,
        D: Sequence[int],
        T: Sequence[int],
        k: Sequence[float],
        progress: Callable[[float], None] = nothing,
        *,
        waits: bool = False,
    ) -> bytes:
        """Judge the stream log with every combination: a `SweepRecord` as JSON. `progress` is told the share done.

        With `waits` it waits for a worker, however many others do.

        Raises:
            Busy, UsageError, RunError: as `explain`.
        """
        return await self._ask(SweepSettings(self._layers, list(D), list(T), list(k)), progress, waits=waits)

    async def _ask(
        self, request: Request, progress: Callable[[float], None] = nothing, *, waits: bool = False
    ) -> bytes:
        await self._turn(waits=waits)
        try:
            worker = await self._begun(request)
            try:
                answer = await _answer(worker, progress)
            except BaseException:  # it may still be at work: cancelled, or in the middle of a message
                await worker.kill()
                raise
            self._idle.append(worker)
        finally:
            self._free.release()
        if isinstance(answer, Refused):
            raise ERRORS[answer.error](answer.message)
        return bytes(answer.result)

    async def _turn(self, *, waits: bool) -> None:
        """Wait until one more worker may be at work."""
        try:
            self._free.acquire_nowait()
        except anyio.WouldBlock:
            if waits:
                await self._free.acquire()
                return
            if self._waiting >= self._most_waiting:
                raise Busy(f"{self._waiting} requests wait already; ask again later") from None
            self._waiting += 1
            try:
                await self._free.acquire()
            finally:
                self._waiting -= 1

    async def _begun(self, request: Request) -> WorkerProcess:
        """Return a worker that has taken the request.

        Raises:
            WorkerDied: no process could be started, or it ended at once.
        """
        while self._idle:
            worker = self._idle.pop()  # the last one that did something is surely in memory
            with suppress(WorkerDied):  # while it was idle
                await _begin(worker, request)
                return worker
        worker = await WorkerProcess.start()
        await _begin(worker, request)
        return worker


async def _begin(worker: WorkerProcess, request: Request) -> None:
    try:
        await worker.begin(request)
    except BaseException:  # died, or cancelled
        await worker.kill()
        raise


async def _answer(worker: WorkerProcess, progress: Callable[[float], None]) -> Answered | Refused:
    while True:
        answer = await worker.receive()
        if isinstance(answer, Answered | Refused):
            return answer
        if isinstance(answer, ProgressMade):
            progress(answer.share)
