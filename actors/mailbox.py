"""The bounded mailboxes between actors, and where kernels run."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar, TypeVarTuple

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from anyio.to_thread import run_sync

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

Send = MemoryObjectSendStream
Receive = MemoryObjectReceiveStream

CAPACITY: Final = 4
"""Messages a mailbox holds before its senders wait: enough to overlap the actors, few enough to bound memory."""
INLINE_WORK: Final = 20_000
"""Elementary kernel steps (about a nanosecond each) that are cheaper done at once than handed to a thread."""


class Reply(Generic[Result]):
    """Where the answer to one request is put, once, and awaited."""

    def __init__(self) -> None:
        self._answered = anyio.Event()

    def put(self, answer: Result) -> None:
        """Give the answer; whoever waits goes on."""
        self._answer = answer
        self._answered.set()

    async def wait_answered(self) -> Result:
        """The answer, once it is there."""
        await self._answered.wait()
        return self._answer


async def run_kernel(work: int, call: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
    """Run a call of about `work` elementary steps: a small one inline, a large one on a thread, the loop left free."""
    if work <= INLINE_WORK:
        return call(*arguments)
    return await run_sync(call, *arguments)
