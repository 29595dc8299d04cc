"""Ordered requests to workers that may be lost at any moment, and are then built anew.

The driver keeps all batches since the last checkpoint (`ReplayLog`). Each worker has a slot. A worker that ends, or
does not reply in time, is replaced: the new one loads the checkpoint, follows the batches since, and answers again what
has not been answered. A request is answered exactly once, and always by the state before its batch.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, NamedTuple, Protocol, TypeAlias

import anyio
import msgspec
from anyio.abc import TaskGroup

from peerwatch.cluster.engine import Call, ClusterEngine, EngineWorker, WorkerLost, WorkerSilent
from peerwatch.cluster.pace import Pace
from peerwatch.cluster.pieces import ArraysInPieces, pieces_of
from peerwatch.cluster.wire import (
    Begin,
    ColumnPieces,
    Command,
    Done,
    Failure,
    Figures,
    Follow,
    GiveColumns,
    GiveMore,
    Hello,
    Judged,
    Judgement,
    Load,
    LoadFile,
    NetworkParts,
    Reply,
    StorageSeen,
    Unreadable,
    UseStorage,
    WindowParts,
    WritingPart,
    WrittenPart,
    encoded,
    hello,
    reply_from,
)
from peerwatch.errors import PeerwatchError, RunError
from peerwatch.judging.state import Arrays
from peerwatch.storage.checkpoints import StoredPart
from peerwatch.storage.status import WorkerState, WorkerStatus

IN_FLIGHT: Final = 3
"""Requests to one worker that may be unanswered: enough to keep it busy, few enough to bound memory."""
PORTION: Final = 1 << 17
"""The most events in one command while batches are replayed, so that each command is soon carried out."""
STARTING: Final = 2.5
"""How many times as long as for a reply a new worker is waited for."""
BYTES_A_SECOND: Final = 50e6
"""A worker that copies columns, or takes them over, is given the time that so many bytes a second take in addition."""
LOOK_SECONDS: Final = 0.05
"""How often a worker is asked whether it has written its columns."""
ATTEMPTS: Final = 8
"""Workers in a row that may be lost in one slot without an answer."""
LONGEST: Final = 16.0
"""How many times as long as usual a worker is waited for at most, because those before it were lost."""


class LoggedBatch(NamedTuple):
    """A batch in the replay log: its last event, how many events it has, and itself, packed."""

    through: int
    events: int
    content: msgspec.Raw


class ReplayLog:
    """The batches since the last checkpoint, by their number: 0 is the first one of the run."""

    def __init__(self, through: int) -> None:
        """Begin behind event `through`."""
        self._batches: deque[LoggedBatch] = deque()
        self.first = 0
        """The number of the first batch that is still there."""
        self._through = through

    @property
    def end(self) -> int:
        """The number of the next batch."""
        return self.first + len(self._batches)

    def add(self, batch: LoggedBatch) -> int:
        """Append a batch; returns its number."""
        self._batches.append(batch)
        return self.end - 1

    def number_behind(self, through: int) -> int:
        """The number of the first batch behind event `through`, with which one of the batches ends.

        Raises:
            LookupError: it is not there any more, or none of them ends there.
        """
        behind = sum(batch.through <= through for batch in self._batches)
        if through != (self._batches[behind - 1].through if behind else self._through):
            raise LookupError(through)
        return self.first + behind

    def between(self, begin: int, end: int) -> Iterator[LoggedBatch]:
        """The batches from number `begin` on, before `end`."""
        return (self._batches[number - self.first] for number in range(begin, end))

    def forget(self, number: int) -> None:
        """Drop the batches before this number."""
        while self.first < number and self._batches:
            self._through = self._batches.popleft().through
            self.first += 1


class StartingState(NamedTuple):
    """What a new worker begins with: the columns of a replica behind event `through`."""

    columns: Arrays
    through: int


class StartingFile(NamedTuple):
    """A checkpoint behind event `through`, of so many bytes, in the storage."""

    name: str
    through: int
    size: int


class StartingStates(Protocol):
    """What new workers begin with, as of now."""

    async def storage(self) -> UseStorage:
        """Where one worker may write and read columns itself, if it reaches it."""

    async def abandon(self, writer: str) -> None:
        """Remove what a worker that is lost has not written to its end there."""

    async def newest(self) -> StartingFile | None:
        """What a worker that reaches the storage should read there; None if it is to be sent."""

    async def columns(self) -> StartingState:
        """What is sent to a worker.

        Raises:
            RunError: there is nothing that can be read.
        """


class Columns(NamedTuple):
    """The answer to `GiveColumns`: the arrays, or the part of a checkpoint that has them."""

    arrays: Arrays
    part: StoredPart | None = None

    @property
    def size(self) -> int:
        """How many bytes they have."""
        return self.part.size if self.part is not None else sum(array.nbytes for array in self.arrays.values())


Answer: TypeAlias = Done | Judged | WindowParts | NetworkParts | Columns


class Request:
    """Something asked of one worker behind the batches up to, not including, number `end`."""

    def __init__(
        self, kind: type[Follow | Judgement | GiveColumns], end: int, wanted: bytes = b"", size: int = 0
    ) -> None:
        """`size` is how many purchases are to be judged; or about how many bytes copied, as far as that is known."""
        self.kind = kind
        self.end = end
        self.wanted = wanted
        self.size = size
        self.answered = anyio.Event()
        self._answer: Answer

    def put(self, answer: Answer) -> None:
        """Take the answer."""
        self._answer = answer
        self.answered.set()

    async def answer(self) -> Answer:
        """Wait for the answer, which may be large: it is handed over, once."""
        await self.answered.wait()
        answer = self._answer
        del self._answer
        return answer

    def command(self, batches: list[msgspec.Raw]) -> Follow | Judgement | GiveColumns:
        """The command that asks it, with the batches before it that the worker has not got yet."""
        if issubclass(self.kind, Judgement):
            return self.kind(batches, self.wanted)
        return self.kind(batches)


class Patience:
    """Waits for replies, but not for ever."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        """How long a worker may take for a reply, as a rule."""

    async def reply(self, call: Call, factor: float = 1.0, more: float = 0.0) -> bytes:
        """The reply to a call, if it comes within `factor` times as many seconds as usual, and `more` of them.

        The time passes in two halves, so that a driver that was itself stopped for a while still finds the replies that
        came meanwhile.

        Raises:
            WorkerSilent: it has not come.
            WorkerLost: it will not come.
        """
        seconds = factor * (self.seconds + more)
        for _ in range(2):
            with anyio.move_on_after(seconds / 2):
                return await call.reply()
        raise WorkerSilent(f"no reply within {seconds:.3g} s")


class ReplicaFailed(Exception):  # noqa: N818 (named for what has happened)
    """A worker could not carry out a command, which may be the fault of a line. The text has the worker's traceback."""


def _error_of(failure: Failure, worker: EngineWorker) -> Exception:
    return RunError(failure.text) if failure.is_final else ReplicaFailed(f"on {worker.node}: {failure.text.strip()}")


def check_version(reply: Reply, node: str, kind: type[PeerwatchError]) -> None:
    """Check that a worker runs what this process runs.

    Raises:
        kind: it does not.
    """
    own = hello()
    if reply != own:
        known = reply if isinstance(reply, Hello) else Hello("unknown", "unknown")
        raise kind(
            f"the worker on {node} runs peerwatch {known.version} with kernels {known.kernels}, this process"
            f" {own.version} with {own.kernels}; install the same version there, and the same Python and numpy"
        )


class _InFlight(NamedTuple):
    """A call, and the request that it serves; none if it only brings the worker to where a request is.

    The worker has to copy about `size` bytes for it.
    """

    call: Call
    request: Request | None = None
    size: int = 0


class WorkerSlot:
    """One worker, or the one that takes its place, with the requests to it that are not answered yet."""

    def __init__(
        self,
        number: int,
        engine: ClusterEngine,
        log: ReplayLog,
        begin: Begin,
        starting_states: StartingStates,
        patience: Patience,
        pace: Pace,
        warn: Callable[[str], Awaitable[None]],
    ) -> None:
        """`warn` is called with a sentence whenever a worker is lost."""
        self._number = number
        self._engine = engine
        self._log = log
        self._begin = begin
        self._starting_states = starting_states
        self._patience = patience
        self._pace = pace
        self._warn = warn
        self._writer = ""
        """What the present worker is called in the storage."""
        self._requests: deque[Request] = deque()
        """Those that are not answered, in order. Columns may take longer than what is asked behind them."""
        self._columns = ArraysInPieces()
        """As far as the present worker has sent them."""
        self._loaded = 0
        """The bytes of columns that the present worker began with."""
        self._room = anyio.Semaphore(IN_FLIGHT)
        self._closed = False
        self._worker: EngineWorker | None = None
        self._in_flight: deque[_InFlight] = deque()
        self._sent = 0
        """How many of the requests have been sent to the present worker."""
        self._change = anyio.Event()
        self._attempts = 0
        """Workers lost since the last answer."""
        self._node = ""
        self._restarts = 0
        self._state: WorkerState = "starting"
        self._why = ""
        self._bytes_sent = 0
        self._bytes_received = 0
        self.position = log.first
        """The number of the first batch that the present worker has not been sent; before it has begun, of the first
        that it might need."""
        self.confirmed = log.first
        """The number of the first batch that no reply has covered yet."""
        self.figures = Figures()
        """What the present worker has said of itself with its last reply."""
        self._cpu_before = 0.0

    async def ask(self, request: Request) -> None:
        """Add a request behind all others. Waits while too many are not answered."""
        await self._room.acquire()
        self._requests.append(request)
        self._changed()

    def close(self) -> None:
        """End once all requests are answered."""
        self._closed = True
        self._changed()

    def status(self) -> WorkerStatus:
        """How the worker is doing."""
        end = self._requests[-1].end if self._requests else self._log.first
        lag = sum(batch.events for batch in self._log.between(max(self.confirmed, self._log.first), end))
        return WorkerStatus(
            number=self._number,
            node=self._node,
            pid=self.figures.pid,
            state=self._state,
            lag_events=lag,
            restarts=self._restarts,
            why=self._why,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
            cpu_seconds=self._cpu_before + self.figures.cpu_seconds,
        )

    async def run(self) -> None:
        """Keep a worker, and have it answer the requests, until closed.

        Raises:
            RunError: no worker can be started, or one after the other is lost.
        """
        while True:
            try:
                await self._serve()
            except WorkerLost as error:
                self._attempts += 1
                self._restarts += 1
                self._cpu_before += self.figures.cpu_seconds
                self.figures = Figures(self.figures.friendships)
                self._state, self._why = "starting", str(error)
                await self._warn(f"worker {self._number} was lost: {error}; another takes its place")
                if self._attempts >= ATTEMPTS:
                    raise RunError(
                        f"worker {self._number} was lost {ATTEMPTS} times in a row, the last time because of: {error};"
                        " run again to go on from the last checkpoint"
                    ) from None
            else:
                return
            finally:
                if self._worker is not None:
                    self._worker.end()
                    self._worker = None
            await self._starting_states.abandon(self._writer)

    def _changed(self) -> None:
        self._change.set()
        self._change = anyio.Event()

    @property
    def _factor(self) -> float:
        """A worker that is lost again and again may be slow, so that each is given longer than the one before."""
        return min(LONGEST, 2.0**self._attempts)

    async def _serve(self) -> None:
        self._in_flight.clear()
        self._columns = ArraysInPieces()
        self._sent = 0
        self.position = self._log.first  # keeps the log from forgetting what the new worker may need
        self._worker = worker = await self._engine.start()
        self._node = worker.node
        try:
            await self._build(worker)
            self._state = "working"
            await self._exchange(worker)
        except WorkerLost as error:
            self._engine.suspect(worker, silent=isinstance(error, WorkerSilent))
            raise

    async def _build(self, worker: EngineWorker) -> None:
        """Bring a new worker to where the replay log begins."""
        check_version(await self._called(worker, self._begin), worker.node, RunError)
        self.position = self._log.number_behind(await self._load(worker))

    async def _load(self, worker: EngineWorker) -> int:
        """Have a new worker begin with the newest checkpoint; returns the last event of that."""
        storage = await self._starting_states.storage()
        self._writer = storage.writer
        seen = await self._called(worker, storage)
        file = await self._starting_states.newest()
        if file is not None and isinstance(seen, StorageSeen) and seen.seen:
            self._loaded = file.size
            reply = await self._called(worker, LoadFile(file.name, file.through), file.size)
            if not isinstance(reply, Unreadable):
                return file.through
            await self._warn(f"worker {self._number} cannot read {file.name}: {reply.why}; the state is sent to it")
        state = await self._starting_states.columns()
        self._loaded = sum(column.nbytes for column in state.columns.values())
        for pieces, is_last in pieces_of(state.columns):
            await self._called(worker, Load(pieces, state.through, is_last), self._loaded if is_last else 0)
        return state.through

    async def _called(self, worker: EngineWorker, command: Command, size: int = 0) -> Reply:
        return await self._replied(self._call(worker, command), worker, STARTING, size)

    def _call(self, worker: EngineWorker, command: Command) -> Call:
        content = encoded(command)
        self._bytes_sent += len(content)
        return worker.call(content)

    async def _replied(self, call: Call, worker: EngineWorker, factor: float = 1.0, size: int = 0) -> Reply:
        content = await self._patience.reply(call, factor * self._factor, size / BYTES_A_SECOND)
        self._bytes_received += len(content)
        reply = reply_from(content)
        if isinstance(reply, Failure):
            raise _error_of(reply, worker)
        return reply

    async def _exchange(self, worker: EngineWorker) -> None:
        """Send the requests, and receive the replies."""
        lost: list[WorkerLost] = []

        async def receive() -> None:
            try:
                await self._receive(worker, tasks)
            except WorkerLost as error:  # not out of the group, which would wrap it
                lost.append(error)
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await self._send(worker)
        if lost:
            raise lost[0]

    async def _send(self, worker: EngineWorker) -> None:
        while not (self._closed and self._sent == len(self._requests)):
            change = self._change
            while self._sent < len(self._requests):
                request = self._requests[self._sent]
                for command in self._following(request):
                    self._in_flight.append(_InFlight(self._call(worker, command)))
                size = max(request.size, self._loaded) if request.kind is GiveColumns else 0
                self._in_flight.append(_InFlight(self._call(worker, self._command(request)), request, size))
                self._sent += 1
                self._changed()
            await change.wait()

    def _following(self, request: Request) -> Iterator[Follow]:
        """Commands that bring the worker so near to where the request is that one command does the rest."""
        batches: list[msgspec.Raw] = []
        events = 0
        for batch in self._log.between(self.position, request.end):
            if batches and events + batch.events > PORTION:
                yield Follow(batches)
                self.position += len(batches)
                batches, events = [], 0
            batches.append(batch.content)
            events += batch.events

    def _command(self, request: Request) -> Command:
        """The one command that does the rest."""
        batches = [batch.content for batch in self._log.between(self.position, request.end)]
        self.position = max(self.position, request.end)
        return request.command(batches)

    async def _receive(self, worker: EngineWorker, tasks: TaskGroup) -> None:
        while True:
            change = self._change
            while self._in_flight:
                call, request, size = self._in_flight[0]
                reply = await self._replied(call, worker, size=size)
                self._in_flight.popleft()
                if isinstance(reply, Done | Judged | WindowParts | NetworkParts):
                    self.figures = reply.figures
                if request is not None:
                    self._take(reply, request, worker, tasks)
            if self._closed and not self._requests:
                return
            await change.wait()

    def _take(self, reply: Reply, request: Request, worker: EngineWorker, tasks: TaskGroup) -> None:
        """Complete a request with a reply, or ask for more."""
        self.confirmed = max(self.confirmed, request.end)
        if isinstance(reply, Judged | WindowParts | NetworkParts):
            (batch,) = self._log.between(request.end - 1, request.end)
            self._pace.took(reply.figures.seconds, request.size, batch.events)
        answer = self._answer_in(reply)
        if answer is not None:
            self._requests.remove(request)
            self._sent -= 1
            self._attempts = 0
            request.put(answer)
            self._room.release()
        elif isinstance(reply, WritingPart):
            tasks.start_soon(self._ask_later, worker, request)
        else:
            self._ask_more(worker, request)

    def _answer_in(self, reply: Reply) -> Answer | None:
        """The answer that is complete with this reply; None if there is more to it."""
        match reply:
            case Done() | Judged() | WindowParts() | NetworkParts():
                return reply
            case WrittenPart():
                return Columns({}, reply.part)
            case ColumnPieces():
                self._columns.add(reply.pieces)
                if reply.is_last:
                    columns, self._columns = self._columns.arrays(), ArraysInPieces()
                    return Columns(columns)
            case WritingPart():
                pass
            case _:
                raise TypeError(reply)
        return None

    def _ask_more(self, worker: EngineWorker, request: Request) -> None:
        self._in_flight.append(_InFlight(self._call(worker, GiveMore()), request))
        self._changed()

    async def _ask_later(self, worker: EngineWorker, request: Request) -> None:
        await anyio.sleep(LOOK_SECONDS)
        self._ask_more(worker, request)
