"""The bounded mailboxes between actors, and where kernels run."""

from collections.abc import Callable
from typing import Final, Generic, NamedTuple, Self, TypeVar, TypeVarTuple

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from anyio.to_thread import run_sync

Message = TypeVar("Message")
Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

CAPACITY: Final = 4
"""Messages a mailbox holds before its senders wait: enough to overlap the actors, few enough to bound memory."""
INLINE_WORK: Final = 20_000
"""Elementary kernel steps (about a nanosecond each) that are cheaper done at once than handed to a thread."""


class Depth(NamedTuple):
    """Messages in a mailbox: now, and at most so far."""

    now: int
    peak: int


class Send(Generic[Message]):
    """The end of a mailbox that messages are put in; waits while the mailbox is full."""

    def __init__(self, name: str, stream: MemoryObjectSendStream[Message], peak: list[int]) -> None:
        self.name = name
        self._stream = stream
        self._peak = peak

    async def send(self, message: Message) -> None:
        """Put a message in."""
        await self._stream.send(message)
        self._peak[0] = max(self._peak[0], self._stream.statistics().current_buffer_used)

    def depth(self) -> Depth:
        """How full the mailbox is."""
        return Depth(self._stream.statistics().current_buffer_used, self._peak[0])

    def clone(self) -> "Send[Message]":
        """Another end; the mailbox ends when all are closed."""
        return Send(self.name, self._stream.clone(), self._peak)

    def close(self) -> None:
        """No more messages come from here."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


Receive = MemoryObjectReceiveStream


class Mailbox(Generic[Message]):
    """A bounded mailbox for one type of message: its two ends."""

    def __init__(self, name: str, capacity: int = CAPACITY) -> None:
        stream, receiver = anyio.create_memory_object_stream[Message](capacity)
        self.sender = Send(name, stream, [0])
        self.receiver: Receive[Message] = receiver

    def close(self) -> None:
        """Close both ends."""
        self.sender.close()
        self.receiver.close()


async def run_kernel(work: int, call: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
    """Run a call of about `work` elementary steps: a small one inline, a large one on a thread, the loop left free."""
    if work <= INLINE_WORK:
        return call(*arguments)
    return await run_sync(call, *arguments)
