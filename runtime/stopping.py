"""The signals of a run: the first one stops it, the second ends the process, SIGHUP looks after its files."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

import anyio

from peerwatch.runtime.deadline import Deadline

STOP_SECONDS: Final = 10.0
"""How long a run may take to finish after a signal, or after it has failed."""
ENDED: Final = "Ended at once: the output stops where it was."
CLOSING_SECONDS: Final = 2.0
"""How much of that is kept for what is to be done when a server has not answered."""
OVERDUE: Final = "peerwatch: the stop was not done in {:g} seconds, because {}; the output stops where it was"
STUCK: Final = "an output is not read, a disk does not answer or a thread is still at work"


class StopSignals:
    """Waits for SIGINT and SIGTERM, and, where a log is followed, for SIGHUP."""

    def __init__(self, deadline: Deadline, *, hangup: bool, silent: Callable[[], Sequence[str]] = tuple) -> None:
        """Handle SIGHUP as well if `hangup`; `silent` tells which servers are being waited for."""
        self._deadline = deadline
        self._silent = silent
        self._handles_hangup = hangup
        self._stop = anyio.Event()
        self._hangup = anyio.Event()
        self.interrupted_by: signal.Signals | None = None
        """The first signal, if one has come."""

    async def wait(self) -> None:
        """Wait for a signal to stop."""
        await self._stop.wait()

    async def wait_for_hangup(self, seconds: float) -> None:
        """Wait for SIGHUP, but no longer than so many seconds."""
        with anyio.move_on_after(seconds):
            await self._hangup.wait()
        self._hangup = anyio.Event()

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handle the signals within the context.

        The handlers run in the main thread whatever that is doing, so that an event loop that is stuck is no hindrance.
        """
        loop = asyncio.get_running_loop()

        def stop(number: int, _: FrameType | None) -> None:
            if self.interrupted_by is not None:
                self._deadline.end_now(128 + number, ENDED)
            self.interrupted_by = signal.Signals(number)
            self._deadline.begin(STOP_SECONDS, self._overdue)
            loop.call_soon_threadsafe(self._stop.set)

        def look(*_: object) -> None:
            loop.call_soon_threadsafe(self._look)

        handlers: dict[int, Any] = {signal.SIGINT: stop, signal.SIGTERM: stop}
        if self._handles_hangup:
            handlers[signal.SIGHUP] = look
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _overdue(self) -> str:
        silent = self._silent()
        why = f"{' and '.join(silent)} {'does' if len(silent) == 1 else 'do'} not answer" if silent else STUCK
        return OVERDUE.format(STOP_SECONDS, why)

    def _look(self) -> None:
        self._hangup.set()
