"""Explains flagged purchases while a run goes on: its logs are read again behind it, and the state is kept.

So an explanation costs what it takes to explain from the state, not the way from the last checkpoint. The state has one
shard and judges nothing.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Final

import msgspec
from anyio.to_thread import run_sync

from peerwatch.errors import BadInput, RunError, UsageError
from peerwatch.judging.engine import apply
from peerwatch.replay.event_selectors import BySeq
from peerwatch.replay.explain import Again, ExplanationRecord, check_judged, explained_from
from peerwatch.replay.judge_again import judged_alone
from peerwatch.replay.replay import LineIndex, Opened, Part, Past, begun_state, open_replay, parts
from peerwatch.settings.model import SIGMA, Layer

MOST_STRETCHES: Final = 1 << 20
"""The most stretches of lines that are remembered, in about 24 bytes each; older ones are looked up in the logs."""


class FlaggedEvent(msgspec.Struct, frozen=True, array_like=True):
    """A flagged purchase to be explained. Its buyer shows whether the right event has been found."""

    seq: int
    user: str


class JudgedThrough(msgspec.Struct, frozen=True, tag="judged"):
    """Every event up to `through` has been judged; `flagged` are the purchases to explain since the last message."""

    through: int
    flagged: list[FlaggedEvent]


Judged = Callable[[], Awaitable[JudgedThrough]]
Take = Callable[[int, ExplanationRecord], Awaitable[None]]


async def follow_flagged(layers: Sequence[Layer], run: str, first: int, judged: Judged, take: Take) -> None:
    """Explain flagged purchases from event `first` on, as `judged` names them, and hand each explanation to `take`.

    Reading begins at the newest checkpoint before `first`, or at the beginning of the logs, and goes no further than
    has been judged. Ends with the logs, which never end if they are followed.

    Raises:
        BadInput: the decisions depend on earlier ones; they can only be made again by judging everything.
        UsageError: the logs cannot be read again.
        RunError: the state directory or the logs are not those of this run, or a log could not be read any further.
    """
    async with AsyncExitStack() as stack:
        opened = await open_replay(layers, BySeq(first).suits, stack, idle_exit=None)
        if opened.newest is not None and opened.newest.identity.run != run:
            raise RunError(f"the state directory {opened.settings.state.directory} holds another run")
        if opened.settings.detector.quarantine:
            raise BadInput("with quarantine a window depends on all that has been flagged, and on labels")
        again: Again = None
        if opened.settings.detector.name != SIGMA:
            again = await run_sync(judged_alone, opened)
            if again is None:
                raise BadInput(f"{opened.settings.detector.name} decides by what it has learned or adapted to so far")
        follower = _Follower(opened, again, judged, take)
        async with aclosing(parts(opened.logs, follower.state.decoder, follower.begun, opened.bookmarks)) as found:
            async for part in found:
                await follower.go_through(part)


class _Follower:
    def __init__(self, opened: Opened, again: Again, judged: Judged, take: Take) -> None:
        self.state, self.begun = begun_state(opened)
        self._opened, self._again, self._judged, self._take = opened, again, judged, take
        self._through = 0
        self._flagged: deque[FlaggedEvent] = deque()
        self._lines = LineIndex()
        self._earlier: dict[int, LineIndex] = {}

    async def go_through(self, part: Part) -> None:
        """Apply the events of a part as far as they have been judged, wait for more, and stop at flagged purchases."""
        self._lines.add(part)
        if len(self._lines) > MOST_STRETCHES:
            self._lines.forget(len(self._lines) // 2)
        gone = 0
        while gone < len(part.events):
            while self._through < part.seq + gone:
                message = await self._judged()
                self._through = max(self._through, message.through)
                self._flagged.extend(message.flagged)
            end = min(len(part.events), self._through - part.seq + 1)
            while self._flagged and self._flagged[0].seq < part.seq + end:
                flagged = self._flagged.popleft()
                place = flagged.seq - part.seq
                if place < gone:
                    raise RunError(f"event {flagged.seq:,} has been passed already")
                await self._apply(part, gone, place)
                gone = place
                await self._explain(flagged, part, place)
            await self._apply(part, gone, end)
            gone = end

    async def _apply(self, part: Part, begin: int, end: int) -> None:
        if begin < end:
            await run_sync(apply, self.state, part.events[begin:end], part.seq + begin)

    async def _explain(self, flagged: FlaggedEvent, part: Part, place: int) -> None:
        then = Past(self.state, flagged.seq, self._lines, part, place, frozenset(), 0, len(self.state.decoder.interner))
        try:
            check_judged(self._opened, then)
        except UsageError as error:
            raise RunError(f"the place in the logs is lost: {error}") from None
        record = await explained_from(self._opened, then, self._again, self._earlier)
        if record.user != flagged.user or record.verdict != "flagged":
            raise RunError(
                f"the place in the logs is lost: event {flagged.seq:,} is another purchase than the flagged one"
            )
        await self._take(flagged.seq, record)
