"""Going through the logs again without judging: the state as of any event, and where each event stands."""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import numpy as np
from anyio.to_thread import run_sync

from peerwatch.actors.dispatcher import Block
from peerwatch.network.decoder import Decoder, Events, Rejected
from peerwatch.network.errors import UsageError
from peerwatch.network.events import Kind
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.kernels import Int64s
from peerwatch.runtime.checkpoints import Checkpoint, Envelope, envelopes, read_checkpoint
from peerwatch.runtime.names import shown
from peerwatch.runtime.opening import NOT_SET, AnyLog, open_logs, required, take_header
from peerwatch.runtime.settings import NOTHING_SET, Layer, Settings, resolve
from peerwatch.runtime.state import Facts, State
from peerwatch.runtime.tail import Beginning, look_at


class Part(NamedTuple):
    """Events of one log in order, the first of them number `seq`, as they were read from `file` in one block."""

    file: str
    judged: bool
    seq: int
    events: Events
    rejected: list[Rejected]
    block: Block


class Target(Protocol):
    """The event to stop before."""

    def suits(self, facts: Facts) -> bool:
        """Whether a checkpoint was surely taken before it."""

    def place(self, part: Part) -> int | None:
        """Its place among the part's events, None if it is not there.

        Raises:
            UsageError: the part shows that there is no such event.
        """

    def missed(self, events: int) -> UsageError | None:
        """What is wrong if the logs end behind `events` events without it; None if that is their end as well."""


class Where(NamedTuple):
    """Where an event stands: its file, and its line there, from 1."""

    file: str
    line: int


class Lines:
    """Where events stand that have been read, 4 bytes each."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._files: list[str] = []
        self._lines: list[np.ndarray[tuple[int], np.dtype[np.int32]]] = []

    def add(self, part: Part) -> None:
        """The next part."""
        if len(part.events):
            self._first.append(part.seq)
            self._files.append(part.file)
            self._lines.append(part.events.line.astype(np.int32))

    def where(self, seq: int) -> Where | None:
        """Where an event stands, None if it has not been read."""
        place = bisect_right(self._first, seq) - 1
        if place < 0 or seq - self._first[place] >= len(self._lines[place]):
            return None
        return Where(self._files[place], int(self._lines[place][seq - self._first[place]]))


class Opened(NamedTuple):
    """Logs to be gone through: the settings in full, the checkpoint to begin at, the logs behind it."""

    settings: Settings
    D: int
    T: int
    checkpoint: Checkpoint | None
    logs: list[AnyLog]


class Past(NamedTuple):
    """Everything as of the moment before event `seq`, of which `place` is the place in `part`; both may be missing.

    `state` has one shard, whose history keeps one purchase of each user more than a window needs.
    """

    state: State
    seq: int
    lines: Lines
    part: Part | None
    place: int

    @property
    def found(self) -> Part:
        """The part in which event `seq` is, at `place`.

        Raises:
            LookupError: the logs end before it.
        """
        if self.part is None:
            raise LookupError(self.seq)
        return self.part

    @property
    def history(self) -> PurchaseHistory:
        """The purchases."""
        return self.state.histories[0]

    def name(self, user: int) -> bytes:
        """The id of a dense user."""
        arena, ends = self.state.decoder.interner.columns()
        return arena[ends[user - 1] if user else 0 : ends[user]].tobytes()

    def key(self, user: int) -> tuple[int, bytes]:
        """What users are ordered by, so that numbers come in their order."""
        name = self.name(user)
        return len(name), name


async def open_replay(
    layers: Sequence[Layer],
    suits: Callable[[Facts], bool],
    warn: Callable[[str], None],
    stack: AsyncExitStack,
    *,
    fallback: Layer = NOTHING_SET,
) -> Opened:
    """Open the logs that settings name to read them again, from the newest checkpoint that `suits`, or all of them.

    A state directory is only looked at: it may be that of a run that is going on. What neither the layers nor the
    header nor that state set, `fallback` does.

    Raises:
        UsageError: something is missing, cannot be read, or is not what the state directory was built with.
    """
    settings, origins = resolve(*layers)
    if settings.input.stream is None:
        raise UsageError(NOT_SET.format(key="input.stream", what="the stream log", option="STREAM"))
    await run_sync(_check_readable_again, settings)
    settings = msgspec.structs.replace(settings, idle_exit=0.0)
    envelope, checkpoint = await run_sync(_choose, settings, suits)
    beginning = await run_sync(look_at, Path(settings.input.stream or ""))
    if envelope is not None:
        beginning = Beginning(envelope.facts.began)
    logs = await open_logs(settings, checkpoint, beginning, warn, stack)
    known = envelope.identity if envelope is not None else None
    begun = checkpoint is not None and checkpoint.envelope.facts.position.offset > 0
    header = take_header(logs, resolve(*layers, fallback)[0], begun=begun)
    if known is not None:
        for key, before, now in (("D", known.D, settings.D), ("T", known.T, settings.T)):
            if now not in {None, before}:
                raise UsageError(
                    f'{origins[key]}: "{key}" is {now}, but the state in {settings.state.directory} was built with'
                    f" {before}; leave --{key} out, or leave the state directory out and go through the whole logs"
                )
    built = {"D": known.D, "T": known.T, "detector.k": known.k} if known is not None else {}
    settings, _ = resolve(*layers, header, Layer(built, {}), fallback)
    D, T = required(settings)
    return Opened(settings, D, T, checkpoint, logs)


def _check_readable_again(settings: Settings) -> None:
    for name in (settings.input.batch, settings.input.stream):
        path = Path(name or ".")
        if name == "-" or (path.exists() and not path.is_file() and not path.is_dir()):
            raise UsageError(f"{shown(path)} cannot be read again; name a log that is a file")


def _choose(settings: Settings, suits: Callable[[Facts], bool]) -> tuple[Envelope | None, Checkpoint | None]:
    """Any checkpoint's envelope, for what all of them have in common, and the newest checkpoint that suits."""
    if settings.state.directory is None:
        return None, None
    newest: Envelope | None = None
    for path, envelope in envelopes(Path(settings.state.directory)):
        newest = newest or envelope
        if suits(envelope.facts):
            try:
                return newest, read_checkpoint(path)
            except FileNotFoundError:
                continue  # a run that is going on has let go of it
    return newest, None


async def parts(logs: Sequence[AnyLog], decoder: Decoder, events: int) -> AsyncGenerator[Part, None]:
    """The logs' events behind the first `events`, decoded, in order."""
    seq = events + 1
    for log in logs:
        async with aclosing(log.blocks()) as blocks:
            async for block in blocks:
                if block.content:
                    decoded = await run_sync(decoder.decode, block.content, block.line)
                    yield Part(log.file, log.judged, seq, decoded.events, decoded.rejected, block)
                    seq += len(decoded.events)


async def past(opened: Opened, target: Target, named: Sequence[bytes] = ()) -> Past:
    """Go through the logs up to the target.

    Raises:
        UsageError: there is no such event.
        SourceError: a log could not be read any further.
    """
    state, events = _begun(opened, named)
    lines = Lines()
    async with aclosing(parts(opened.logs, state.decoder, events)) as found:
        async for part in found:
            place = target.place(part)
            lines.add(part)
            gone = part.events if place is None else part.events[:place]
            await run_sync(apply, state, gone, part.seq)
            if place is not None:
                return Past(state, part.seq + place, lines, part, place)
            events = part.seq + len(part.events) - 1
    error = target.missed(events)
    if error is not None:
        raise error
    return Past(state, events + 1, lines, None, 0)


def _begun(opened: Opened, named: Sequence[bytes]) -> tuple[State, int]:
    D, T, checkpoint = opened.D, opened.T + 1, opened.checkpoint
    if checkpoint is None:
        return State.fresh(D, T, 1, list(named)), 0
    facts = checkpoint.envelope.facts
    return State.restored(D, T, 1, list(named), checkpoint.arrays, facts), facts.progress.events


def apply(state: State, events: Events, seq: int) -> None:
    """Let events, the first of them number `seq`, change the state; none of them is judged."""
    graph, history = state.graph, state.histories[0]
    users = len(state.decoder.interner)
    graph.reserve(users)
    graph.walk(events.kind, events.user, events.friend, events.timestamp, seq, 0, 0)
    append(history, events, seq, users)
    history.low = seq + len(events)
    history.settle()


def append(history: PurchaseHistory, events: Events, seq: int, users: int) -> None:
    """Give a history the purchases among events, the first of them number `seq`, of `users` users."""
    history.reserve(users)
    bought = np.flatnonzero(events.kind == Kind.PURCHASE)
    through = seq + len(events) - 1
    history.append(seq + bought, events.user[bought], events.timestamp[bought], events.amount[bought], through)


async def places_of(
    layers: Sequence[Layer], seqs: Int64s, lines: Lines, warn: Callable[[str], None]
) -> dict[int, Where]:
    """Where events stand: those that `lines` does not know are looked for in the logs."""
    found = {seq: where for seq in seqs.tolist() if (where := lines.where(seq)) is not None}
    missing = sorted(set(seqs.tolist()) - found.keys())
    if not missing:
        return found
    async with AsyncExitStack() as stack:
        opened = await open_replay(layers, lambda facts: facts.progress.events < missing[0], warn, stack)
        begun = opened.checkpoint.envelope.facts.progress.events if opened.checkpoint is not None else 0
        earlier = Lines()
        async with aclosing(parts(opened.logs, Decoder(), begun)) as read:
            async for part in read:
                earlier.add(part)
                if part.seq + len(part.events) > missing[-1]:
                    break
    return found | {seq: where for seq in missing if (where := earlier.where(seq)) is not None}
