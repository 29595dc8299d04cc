"""A sink behind a buffer: who writes does not wait for it, until the buffer is full or a mark is asked for."""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import anyio

from peerwatch.connectors.records import Record
from peerwatch.connectors.server import Remote, ServerStatus
from peerwatch.connectors.sink import ResumableSink

CAPACITY: Final = 10_000
"""Records that may wait."""
GATHER_SECONDS: Final = 0.05
"""The pause before what waits is handed on: a transaction costs about the same for one record or many."""


class BufferedSink:
    """Hands records on in a task of its own. An error is raised by the next call, and by all until `start`.

    Nobody misses what a `disposable` sink has lost: it may hold anything when a run begins or goes on.
    """

    def __init__(
        self,
        sink: ResumableSink,
        *,
        capacity: int = CAPACITY,
        gather: float = GATHER_SECONDS,
        disposable: bool = False,
    ) -> None:
        self.name = sink.name
        self._sink = sink
        self._capacity = capacity
        self._gather = gather
        self._disposable = disposable
        self._waiting: deque[Sequence[Record]] = deque()
        self._count = 0
        self._wanted = 0
        """How many wait for something to have been written."""
        self._changed = anyio.Event()
        self._urged = anyio.Event()
        self._failed: Exception | None = None

    def server(self) -> ServerStatus:
        """How it is with the server, if there is one."""
        return self._sink.server() if isinstance(self._sink, Remote) else ServerStatus(self.name, None)

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the sink, and begin to hand on; that ends with the stack.

        Raises:
            UsageError: it cannot be written.
        """
        await self._sink.open(stack)
        await stack.enter_async_context(self._handing_on())

    @asynccontextmanager
    async def _handing_on(self) -> AsyncIterator[None]:
        failed: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._hand_on)
            try:
                yield
            except Exception as error:  # noqa: BLE001 (the group would put it into one of its own)
                failed = error
            tasks.cancel_scope.cancel()
        if failed is not None:
            raise failed

    async def check_new(self) -> None:
        """See that a run which begins anew loses nothing here."""
        if not self._disposable:
            await self._sink.check_new()

    async def has_more(self, mark: Any) -> bool:
        """Whether something is behind a mark."""
        return await self._sink.has_more(mark)

    async def start(self, mark: Any = None, *, force: bool = False) -> None:
        """Go on behind a mark, or begin anew; what still waits is written before, unless that has failed."""
        while self._count and self._failed is None:
            await self._wait()
        self._failed = None
        await self._sink.start(mark, force=force or self._disposable)

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
            self._raise_failure()
        self._waiting.append(records)
        self._count += len(records)
        if self._count >= self._capacity // 2:
            self._urged.set()
        self._change()

    async def sync(self) -> Any:
        """Have everything written, and return the sink's mark.

        Raises:
            SinkError: something could not be written.
        """
        await self.settle()
        return await self._sink.sync()

    async def finish(self) -> None:
        """Have everything written, and complete it.

        Raises:
            SinkError: something could not be written.
        """
        await self.settle()
        await self._sink.finish()

    async def settle(self) -> None:
        """Have everything written that has been taken.

        Raises:
            SinkError: something could not be written.
        """
        self._raise_failure()
        while self._count:
            await self._wait()
            self._raise_failure()

    async def _wait(self) -> None:
        """Wait for a change, with nothing gathered meanwhile."""
        self._wanted += 1
        self._urged.set()
        try:
            await self._changed.wait()
        finally:
            self._wanted -= 1

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
            if not self._wanted and self._count < self._capacity // 2:
                self._urged = anyio.Event()
                with anyio.move_on_after(self._gather):
                    await self._urged.wait()
            batches = [self._waiting.popleft()]
            while self._waiting and self._waiting[0][0].kind == batches[0][0].kind:
                batches.append(self._waiting.popleft())
            records = [record for batch in batches for record in batch]
            try:
                await self._sink.write(records)
            except Exception as error:  # noqa: BLE001 (whoever calls next gets it)
                self._failed = error
                self._waiting.clear()
                self._count = 0
            else:
                self._count -= len(records)
            self._change()
