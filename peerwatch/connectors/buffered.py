"""A sink behind a buffer: who writes does not wait for it, until the buffer is full or a mark is asked for."""

from collections import deque
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import anyio

from peerwatch.connectors.records import Record
from peerwatch.connectors.sink import ResumableSink
from peerwatch.errors import PeerwatchError

CAPACITY: Final = 10_000
"""Records that may wait."""


class BufferedSink:
    """Hands records on in a task of its own. An error is raised by the next call."""

    def __init__(self, sink: ResumableSink, capacity: int = CAPACITY) -> None:
        self.name = sink.name
        self._sink = sink
        self._capacity = capacity
        self._waiting: deque[Sequence[Record]] = deque()
        self._count = 0
        self._changed = anyio.Event()
        self._failed: PeerwatchError | None = None

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the sink, and begin to hand on; that ends with the stack.

        Raises:
            UsageError: it cannot be written.
        """
        await self._sink.open(stack)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        tasks.start_soon(self._hand_on)

    async def check_new(self) -> None:
        """See that a run which begins anew loses nothing here."""
        await self._sink.check_new()

    async def has_more(self, mark: Any) -> bool:
        """Whether something is behind a mark."""
        return await self._sink.has_more(mark)

    async def start(self, mark: Any = None, *, force: bool = False) -> None:
        """Go on behind a mark, or begin anew; what still waits is written before."""
        await self._settle()
        await self._sink.start(mark, force=force)

    async def look(self) -> None:
        """See whether it is still what it was."""
        self._raise_failure()
        await self._sink.look()

    async def write(self, records: Sequence[Record]) -> None:
        """Take records; waits only if too many have been taken that are not written yet.

        Raises:
            SinkError: some could not be written.
        """
        self._raise_failure()
        while self._count and self._count + len(records) > self._capacity:
            await self._wait()
        self._waiting.append(records)
        self._count += len(records)
        self._change()

    async def sync(self) -> Any:
        """Have everything written, and return the sink's mark."""
        await self._settle()
        return await self._sink.sync()

    async def finish(self) -> None:
        """Have everything written, and complete it."""
        await self._settle()
        await self._sink.finish()

    async def _settle(self) -> None:
        while self._count:
            await self._wait()
        self._raise_failure()

    async def _wait(self) -> None:
        await self._changed.wait()
        self._raise_failure()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise self._failed

    async def _hand_on(self) -> None:
        while True:
            while not self._waiting:
                await self._changed.wait()
            batches = [self._waiting.popleft()]
            while self._waiting and self._waiting[0][0].kind == batches[0][0].kind:
                batches.append(self._waiting.popleft())
            records = [record for batch in batches for record in batch]
            try:
                await self._sink.write(records)
            except PeerwatchError as error:
                self._failed = error
                self._change()
                return
            self._count -= len(records)
            self._change()
