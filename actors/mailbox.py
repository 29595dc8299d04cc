"""Bounded mailboxes between actors, how busy an actor is between its messages, and where a kernel runs."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Generic, NamedTuple, Self, TypeVar, TypeVarTuple

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from anyio.to_thread import run_sync

Message = TypeVar("Message")
Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

CAPACITY: Final = 4
"""Messages in a full mailbox: enough for actors to work side by side, few enough to bound memory."""
INLINE_WORK: Final = 20_000
"""The most work to run inline, in kernel steps of about a nanosecond. More is handed to a thread."""


class BusyTime:
    """The seconds in which at least one task of an actor has worked, that is, has not waited for somebody else.

    A task waits while it receives a message, while it sends one into a full mailbox, and where it says so (`waiting`).
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._tasks = 0
        self._since = 0.0
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        """The seconds so far."""
        return self._seconds + (self._clock() - self._since if self._tasks else 0.0)

    def begin(self) -> None:
        """One more task works."""
        if not self._tasks:
            self._since = self._clock()
        self._tasks += 1

    def end(self) -> None:
        """One task fewer works."""
        self._tasks -= 1
        if not self._tasks:
            self._seconds += self._clock() - self._since


_busy: ContextVar[BusyTime] = ContextVar("busy", default=BusyTime())  # noqa: B039 (nobody reads that of no actor)
"""Of the actor that the current task belongs to. A task that it starts belongs to it as well."""


@contextmanager
def waiting() -> Iterator[None]:
    """The current task waits for somebody else meanwhile."""
    busy = _busy.get()
    busy.end()
    try:
        yield
    finally:
        busy.begin()


async def working(call: Callable[[*Arguments], Awaitable[None]], *arguments: *Arguments) -> None:
    """Run a task of the current actor."""
    busy = _busy.get()
    busy.begin()
    try:
        await call(*arguments)
    finally:
        busy.end()


async def measured(busy: BusyTime, call: Callable[[*Arguments], Awaitable[None]], *arguments: *Arguments) -> None:
    """Run an actor, and count its work."""
    _busy.set(busy)
    await working(call, *arguments)


class Depth(NamedTuple):
    """The number of messages in a mailbox: the current one, and the largest so far."""

    now: int
    peak: int


class Send(Generic[Message]):
    """The sending end of a mailbox. Sending waits while the mailbox is full."""

    def __init__(self, name: str, stream: MemoryObjectSendStream[Message], peak: list[int]) -> None:
        self.name = name
        self._stream = stream
        self._peak = peak

    async def send(self, message: Message) -> None:
        """Send a message."""
        busy = _busy.get()
        busy.end()  # not `waiting`: this is done for every message
        try:
            await self._stream.send(message)
        finally:
            busy.begin()
        self._peak[0] = max(self._peak[0], self._stream.statistics().current_buffer_used)

    def depth(self) -> Depth:
        """The mailbox's current and largest number of messages."""
        return Depth(self._stream.statistics().current_buffer_used, self._peak[0])

    def clone(self) -> "Send[Message]":
        """Another sending end. The mailbox ends when all of them are closed."""
        return Send(self.name, self._stream.clone(), self._peak)

    def close(self) -> None:
        """Close this sending end."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Receive(Generic[Message]):
    """The receiving end of a mailbox. Receiving waits while the mailbox is empty."""

    def __init__(self, stream: MemoryObjectReceiveStream[Message]) -> None:
        self._stream = stream

    async def receive(self) -> Message:
        """Receive a message.

        Raises:
            anyio.EndOfStream: all sending ends are closed, and nothing is left.
        """
        busy = _busy.get()
        busy.end()
        try:
            return await self._stream.receive()
        finally:
            busy.begin()

    def receive_nowait(self) -> Message:
        """Receive a message that is there.

        Raises:
            anyio.WouldBlock: none is.
            anyio.EndOfStream: none will come.
        """
        return self._stream.receive_nowait()

    def close(self) -> None:
        """Close the receiving end."""
        self._stream.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        busy = _busy.get()
        busy.end()
        try:
            return await self._stream.receive()
        except anyio.EndOfStream:
            raise StopAsyncIteration from None
        finally:
            busy.begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Mailbox(Generic[Message]):
    """The two ends of a bounded mailbox for one type of message."""

    def __init__(self, name: str, capacity: int = CAPACITY) -> None:
        stream, receiver = anyio.create_memory_object_stream[Message](capacity)
        self.sender = Send(name, stream, [0])
        self.receiver = Receive(receiver)

    def close(self) -> None:
        """Close both ends."""
        self.sender.close()
        self.receiver.close()


async def run_kernel(work: int, call: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
    """Run a call of about `work` nanoseconds: inline if that is short, else on a thread, to keep the loop free."""
    if work <= INLINE_WORK:
        return call(*arguments)
    return await run_sync(call, *arguments)
