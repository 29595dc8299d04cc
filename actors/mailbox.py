"""Bounded mailboxes between actors, and the choice of where a kernel runs."""

from collections.abc import Callable
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
        await self._stream.send(message)
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


Receive = MemoryObjectReceiveStream


class Mailbox(Generic[Message]):
    """The two ends of a bounded mailbox for one type of message."""

    def __init__(self, name: str, capacity: int = CAPACITY) -> None:
        stream, receiver = anyio.create_memory_object_stream[Message](capacity)
        self.sender = Send(name, stream, [0])
        self.receiver: Receive[Message] = receiver

    def close(self) -> None:
        """Close both ends."""
        self.sender.close()
        self.receiver.close()


async def run_kernel(work: int, call: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
    """Run a call of about `work` nanoseconds: inline if that is short, else on a thread, to keep the loop free."""
    if work <= INLINE_WORK:
        return call(*arguments)
    return await run_sync(call, *arguments)
