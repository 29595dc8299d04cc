"""A sink in somebody else's system, in which each record is there once.

Verdicts are deterministic and numbered. So records are written first and the checkpoint is taken after; a run that goes
on asks the system which record it holds last, judges again from the checkpoint, and skips what is there.
"""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, TypeVar

import anyio
import msgspec

from peerwatch.connectors.records import Kind, Record
from peerwatch.connectors.server import ServerStatus
from peerwatch.connectors.store import EXACTLY_ONCE, FIRST_PAUSE, LONGEST_PAUSE, Store, jittered
from peerwatch.errors import SinkError, Unavailable, Unreachable, UsageError
from peerwatch.settings.model import Delivery

Result = TypeVar("Result")
STOP_SECONDS: Final = 3.0
"""How long a server that is away is waited for once the run has been told to stop."""


class StoreMark(msgspec.Struct, frozen=True):
    """The number of the last record of each kind that had been sent, and what the store itself remembers."""

    sent: dict[Kind, int] = {}
    memory: Any = None


class StoreSink:
    """Records in a store, each once: see the module. A server that is away is waited for."""

    def __init__(
        self,
        store: Store,
        *,
        delivery: Delivery,
        give_up: float,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wait `give_up` seconds for a server that is away before the run ends."""
        self.name = str(store.url)
        self._store = store
        self._delivery = delivery
        self._give_up = give_up
        self._warn = warn
        self._clock = clock
        self._held: dict[Kind, int] = {}
        """The highest number of each kind that is there already: what is not above it is skipped."""
        self._sent: dict[Kind, int] = {}
        self._confirmed: dict[Kind, int] = {}
        """The highest number of each kind that was there when this process wrote last."""
        self.away: str | None = None
        """Why the server does not answer at present, None if it does."""
        self.retries = 0
        self.written = 0
        self._request: anyio.CancelScope | None = None
        """What is being done, however often it takes; None if nothing is."""
        self._until = math.inf
        """When that must be done, by the event loop's clock."""

    def server(self) -> ServerStatus:
        """How it is with the server."""
        return ServerStatus(self.name, self.away, self.written, self.retries)

    async def open(self, stack: AsyncExitStack) -> None:
        """Connect; the connection is closed with the stack.

        Raises:
            UsageError: the server does not answer, or refuses.
        """
        stack.push_async_callback(self._close)
        try:
            await self._store.connect()
        except Unavailable as error:
            raise Unreachable.server(self.name, error) from None

    async def check_new(self) -> None:
        """See that no other run's records are there.

        Raises:
            UsageError: there are some.
        """
        other = await self._persistently(self._store.other_run)
        if other is not None:
            raise UsageError(
                f"{self.name} holds the records of another run ({other}); name another place, go on with the state"
                " directory of that run, or add --force"
            )

    async def has_more(self, mark: Any) -> bool:
        """Whether more is there than had been sent, which somebody may have read."""
        known = msgspec.convert(mark, StoreMark)
        self._store.memory = known.memory
        held = await self._persistently(self._store.marks)
        return held is None or any(seq > known.sent.get(kind, 0) for kind, seq in held.items())

    async def start(self, mark: Any = None, *, force: bool = False) -> None:
        """Go on behind a mark, or begin anew.

        Raises:
            UsageError: less is there than had been sent: it was wiped, or restored from a backup.
        """
        known = msgspec.convert(mark, StoreMark | None)
        self._store.memory = known.memory if known is not None else None
        await self._persistently(lambda: self._store.prepare(anew=known is None))
        self._sent = dict(known.sent) if known is not None else {}
        held = await self._persistently(self._store.marks) if self._delivery == EXACTLY_ONCE else None
        self._held = dict(held or {})
        if held is None or known is None:
            return
        if force:
            self._sent = {kind: min(seq, self._held.get(kind, 0)) for kind, seq in known.sent.items()}
            return
        for kind, seq in known.sent.items():
            if self._held.get(kind, 0) < seq:
                raise UsageError(
                    f"{self.name} holds the records of this run up to number {self._held.get(kind, 0):,}, but those up"
                    f" to {seq:,} had been written when the checkpoint was taken: it was emptied or restored; bring"
                    " them back, add --force to go on without them, or begin anew with --reset"
                )

    async def write(self, records: Sequence[Record]) -> None:
        """Send records of one kind, and wait until they are durable.

        Raises:
            SinkError: they are refused, or the server has been away for too long.
        """
        kind = records[0].kind
        await self._persistently(lambda: self._append(kind, records))
        self._sent[kind] = max(self._sent.get(kind, 0), records[-1].seq)
        self._confirmed[kind] = records[-1].seq

    async def _append(self, kind: Kind, records: Sequence[Record]) -> None:
        above = self._held.get(kind, 0)
        new = [record for record in records if record.seq > above] if records[0].seq <= above else records
        if new:
            await self._store.append(new)
            self.written += len(new)

    async def sync(self) -> StoreMark:
        """How far it has been sent; all of that is durable."""
        return StoreMark(dict(self._sent), self._store.memory)

    async def look(self) -> None:
        """A server is looked at when something is to be written."""

    async def finish(self) -> None:
        """Everything has been written."""

    def stop(self, seconds: float) -> None:
        """The run has been told to stop: a server that is away is not waited for as long as one that is slow."""
        self._until = anyio.current_time() + seconds
        if self.away is not None:
            self._hurry()
        if self._request is not None:
            self._request.deadline = self._until

    def _hurry(self) -> None:
        self._until = min(self._until, anyio.current_time() + STOP_SECONDS)

    @property
    def is_waiting(self) -> bool:
        """Whether the server has not answered yet."""
        return self._request is not None

    async def _persistently(self, action: Callable[[], Awaitable[Result]]) -> Result:
        """Do something, however often the server fails meanwhile.

        Raises:
            SinkError: it has been away for too long.
        """
        self._request = anyio.CancelScope(deadline=self._until)
        try:
            with self._request:
                return await self._repeatedly(action)
        finally:
            self._request = None
        raise SinkError(
            f"{self.name} does not answer{f': {self.away}' if self.away is not None else ''}; the run was told to stop,"
            " and waits no longer; start it and run again"
        )

    async def _repeatedly(self, action: Callable[[], Awaitable[Result]]) -> Result:
        began, pause = self._clock(), FIRST_PAUSE
        connected = True
        while True:
            try:
                if not connected:
                    await self._store.connect()
                    await self._store.prepare(anew=False)
                    if self._delivery == EXACTLY_ONCE:
                        self._look_at(await self._store.marks())
                    connected = True
                result = await action()
            except (Unavailable, UsageError) as error:
                if isinstance(error, UsageError) and connected:
                    raise
                progressed = isinstance(error, Unavailable) and error.progressed
                if progressed:  # it works, if badly
                    began, pause = self._clock(), FIRST_PAUSE
                if self._clock() - began >= self._give_up:
                    raise SinkError(
                        f"{self.name} has been away for {self._give_up:g} seconds: {error}; start it and run again"
                    ) from None
                if not progressed:
                    if self.away is None:
                        self._warn(f"{self.name} does not answer: {error}; waiting for it")
                    self.away = str(error)
                    if self._until < math.inf and self._request is not None:
                        self._hurry()
                        self._request.deadline = self._until
                connected = False
                self.retries += 1
                await self._store.close()
                asked = error.retry_after if isinstance(error, Unavailable) else 0.0
                asked = min(asked, began + self._give_up - self._clock())
                await anyio.sleep(max(asked, jittered(pause)))
                pause = min(LONGEST_PAUSE, 2 * pause)
                continue
            if self.away is not None:
                self._warn(f"{self.name} answers again")
                self.away = None
            return result

    def _look_at(self, marks: Mapping[Kind, int] | None) -> None:
        """Take over what a server holds that has been away: perhaps only an answer was lost, perhaps records.

        Raises:
            SinkError: it has lost records, as a standby may have that was behind when it became the primary.
        """
        if marks is None:
            return
        for kind, seq in self._confirmed.items():
            if marks.get(kind, 0) < seq:
                raise SinkError(
                    f"{self.name} has lost records while it was away: it holds those up to number"
                    f" {marks.get(kind, 0):,}, and had confirmed those up to {seq:,}; run again, and what was written"
                    " after the last checkpoint is written anew"
                )
        self._held |= marks

    async def _close(self) -> None:
        with anyio.CancelScope(shield=True) as self._request:
            await self._store.close()
        self._request = None
