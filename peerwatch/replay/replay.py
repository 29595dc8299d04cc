"""Reads the logs again without judging: the state as of any event, and the line of each event."""

from array import array
from bisect import bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import msgspec
import numpy as np
from anyio.to_thread import run_sync

from peerwatch.connectors.source import Block, Bookmark, StreamPosition
from peerwatch.errors import UsageError
from peerwatch.files.generation import holds
from peerwatch.files.position import Position, place_of
from peerwatch.files.tail import Beginning, look_at
from peerwatch.judging.state import State
from peerwatch.kernels import Int64s
from peerwatch.network.decoder import Decoder, Events, Rejected
from peerwatch.network.events import Kind
from peerwatch.network.history import PurchaseHistory
from peerwatch.readable import shown
from peerwatch.replay.quarantined import ReplayedState, depends_on_rules, history_of
from peerwatch.runtime.preflight import NOT_SET, AnyLog, open_logs, required, take_header
from peerwatch.settings.model import NOTHING_SET, Layer, Settings, resolve
from peerwatch.storage.checkpoints import Checkpoint, CheckpointEnvelope, Facts, envelopes, files_in, read_checkpoint
from peerwatch.urls import is_url

Place: TypeAlias = Position | StreamPosition


class Part(NamedTuple):
    """Events of one log in order, beginning with number `seq`, that were read from `file` in one block."""

    file: str
    judged: bool
    seq: int
    events: Events
    rejected: list[Rejected]
    block: Block


class Target(Protocol):
    """Selects the event to stop before."""

    def suits(self, facts: Facts) -> bool:
        """Whether a checkpoint was certainly taken before the event."""

    def place(self, part: Part) -> int | None:
        """Return the event's index in the part, None if it is not there.

        Raises:
            UsageError: the part shows that there is no such event.
        """

    def missed(self, events: int) -> UsageError | None:
        """Return the error for logs that end after `events` events; None if the end of the logs will do."""


class Where(NamedTuple):
    """The file of an event, and its line there, from 1."""

    file: str
    line: int


class LineIndex:
    """The line numbers of the events read so far, kept as stretches in which one event a line follows another."""

    def __init__(self) -> None:
        self._first, self._line = array("q"), array("q")
        """The first event of each stretch, and its line."""
        self._files: list[str] = []
        self._through, self._last_line = -1, 0

    def __len__(self) -> int:
        """The number of stretches."""
        return len(self._first)

    def add(self, part: Part) -> None:
        """Add the next part."""
        if not len(part.events):
            return
        line = part.events.line
        starts = np.flatnonzero(np.diff(line, prepend=line[0] - 2) != 1)
        if self._files and part.file == self._files[-1] and line[0] == self._last_line + 1:
            starts = starts[1:]
        self._first.extend((part.seq + starts).tolist())
        self._line.extend(line[starts].tolist())
        self._files += [part.file] * len(starts)
        self._through, self._last_line = part.seq + len(line) - 1, int(line[-1])

    def count(self, file: str, first: int, line: int, through: int) -> None:
        """Add events `first` up to `through`, which stand in as many lines from `line` on."""
        self._first.append(first)
        self._line.append(line)
        self._files.append(file)
        self._through, self._last_line = through, line + through - first

    def where(self, seq: int) -> Where | None:
        """Return the file and line of an event, None if it has not been read."""
        place = bisect_right(self._first, seq) - 1
        if place < 0 or seq > self._through:
            return None
        return Where(self._files[place], self._line[place] + seq - self._first[place])

    def forget(self, stretches: int) -> None:
        """Forget the oldest stretches."""
        del self._first[:stretches], self._line[:stretches], self._files[:stretches]


class Opened(NamedTuple):
    """Opened logs with complete settings, the checkpoint to begin at, and the logs after it."""

    settings: Settings
    D: int
    T: int
    checkpoint: Checkpoint | None
    logs: list[AnyLog]
    beginning: Beginning
    newest: CheckpointEnvelope | None
    """The facts of the state directory's newest checkpoint."""
    origins: dict[str, str]
    """The origin of each setting."""

    @property
    def bookmarks(self) -> list[Bookmark[Place]]:
        """The bookmarks at which reading can begin."""
        if self.newest is None:
            return []
        facts = self.newest.facts
        all_of_them = [*facts.bookmarks, Bookmark(facts.progress.events, facts.judged, facts.position)]
        return [mark._replace(position=place_of(mark.position)) for mark in all_of_them]


class Past(NamedTuple):
    """The state before event `seq`, and the event's index `place` in `part`. At the end of the logs `part` is None.

    `state` has one shard, whose history keeps T + 1 purchases of each user. `size` counts the bytes of all logs up to
    the end of the part. The dense users below `users` were named by the events before the part.
    """

    state: State
    seq: int
    lines: LineIndex
    part: Part | None
    place: int
    unseen: frozenset[int]
    """Configured users that do not exist yet."""
    size: int
    users: int

    @property
    def found(self) -> Part:
        """The part that contains event `seq`.

        Raises:
            LookupError: the logs end before it.
        """
        if self.part is None:
            raise LookupError(self.seq)
        return self.part

    @property
    def history(self) -> PurchaseHistory:
        """The purchase history."""
        return self.state.histories[0]

    def existing(self) -> set[int]:
        """The dense users that exist: a part is decoded at once, and its ids are not in the order of its events."""
        named = _named(self.part.events[: self.place]) if self.part is not None else ()
        return {*range(self.users), *named} - self.unseen

    def name(self, user: int) -> bytes:
        """The id of a dense user."""
        arena, ends = self.state.decoder.interner.columns()
        return arena[ends[user - 1] if user else 0 : ends[user]].tobytes()

    def key(self, user: int) -> tuple[int, bytes]:
        """Return the sort key of a user. Numeric ids sort as numbers."""
        name = self.name(user)
        return len(name), name


async def open_replay(
    layers: Sequence[Layer],
    suits: Callable[[Facts], bool],
    stack: AsyncExitStack,
    *,
    fallback: Layer = NOTHING_SET,
    idle_exit: float | None = 0.0,
) -> Opened:
    """Open the logs of these settings, to read them from the newest checkpoint that `suits`, or from the beginning.

    A state directory is only read, because its run may be going on. `fallback` applies to settings that are set neither
    in the layers, nor in the state, nor in the header line. If D, T or the kind of friendships differ from the state's,
    its checkpoints are not used. A log that is followed ends when it has brought nothing new for `idle_exit` seconds,
    with None it never ends.

    Raises:
        UsageError: a setting is missing or a file cannot be read. Reading the logs raises it too if a part is missing.
    """
    layers = [Layer({"idle_exit": idle_exit}, {}), *layers]
    settings, origins = resolve(*layers)
    if settings.input.stream is None:
        raise UsageError(NOT_SET.format(key="input.stream", what="the stream log", option="STREAM"))
    await run_sync(_check_readable_again, settings)
    must = origins["state.directory"].startswith("--")  # a config may name a directory that does not exist yet
    envelope, checkpoint = await run_sync(_choose, settings, suits, must)
    beginning, built = Beginning(), NOTHING_SET
    if envelope is None and settings.follow and not is_url(settings.input.stream):
        beginning = await run_sync(look_at, Path(settings.input.stream), settings.input.rotated)
    if envelope is not None:
        beginning, known = Beginning(seen=envelope.facts.seen, again=True), envelope.identity
        built = Layer({"D": known.D, "T": known.T, "friendships": known.friendships} | known.rules, {})
        settings, _ = resolve(*layers, built)
        others = (settings.D, settings.T, settings.friendships) != (known.D, known.T, known.friendships)
        if others or depends_on_rules(settings, known):
            checkpoint = None
    logs = await open_logs(settings, checkpoint, beginning, _refuse, stack)
    begun = checkpoint is not None and checkpoint.envelope.facts.position is not None
    header = take_header(logs, resolve(*layers, built, fallback)[0], begun=begun)
    settings, origins = resolve(*layers, built, header, fallback)
    D, T = required(settings)
    return Opened(settings, D, T, checkpoint, logs, beginning, envelope, origins)


def _refuse(lost: str) -> None:
    raise UsageError(f"the logs cannot be read again: {lost}")


def _check_readable_again(settings: Settings) -> None:
    for name in (settings.input.batch, settings.input.stream):
        path = Path(name or ".")
        if name == "-" or (path.exists() and not path.is_file() and not path.is_dir()):
            raise UsageError(f"{shown(path)} cannot be read again; name a log that is a file")


def _choose(
    settings: Settings,
    suits: Callable[[Facts], bool],
    must: bool,  # noqa: FBT001 (run_sync has no keywords)
) -> tuple[CheckpointEnvelope | None, Checkpoint | None]:
    """Return the envelope of any checkpoint, and the newest checkpoint that suits."""
    if settings.state.directory is None:
        return None, None
    directory, newest = Path(settings.state.directory), None
    if must and not files_in(directory):
        raise UsageError(f"no checkpoints in the state directory {directory}; name the one the run was given")
    for path, envelope in envelopes(directory, settings.input):
        newest = newest or envelope
        if suits(envelope.facts):
            try:
                return newest, read_checkpoint(path, settings.input)
            except FileNotFoundError:
                continue  # a run has removed it meanwhile
    return newest, None


async def parts(
    logs: Sequence[AnyLog], decoder: Decoder, events: int, bookmarks: Sequence[Bookmark[Place]] = ()
) -> AsyncGenerator[Part, None]:
    """Decode and yield the events after the first `events` ones, in order.

    Raises:
        UsageError: a bookmark shows that the events are numbered otherwise than before, so something is missing.
        SourceError: a log could not be read any further.
    """
    seq = events + 1
    for log in logs:
        async with aclosing(log.blocks()) as blocks:
            async for block in blocks:
                if block.content:
                    decoded = await run_sync(decoder.decode, block.content, block.line, log.names)
                    part = Part(log.file, log.judged, seq, decoded.events, decoded.rejected, block)
                    _check_numbers(part, bookmarks)
                    yield part
                    seq += len(decoded.events)


def _check_numbers(part: Part, bookmarks: Sequence[Bookmark[Place]]) -> None:
    """Check that each bookmark in the part has the same number of events before it as when it was made.

    Raises:
        UsageError: one has not.
    """
    begin, end = part.block.offset, part.block.position
    if not isinstance(end, Position):
        return  # only a file's bookmarks say at which byte they stand
    for mark in bookmarks:
        there = mark.position
        is_here = there.generation == end.generation and begin < there.offset <= end.offset
        if mark.judged == part.judged and is_here:
            before = part.seq - 1 + int(np.count_nonzero(part.events.start < there.offset - begin))
            if before != mark.events:
                raise UsageError(
                    f"{part.file}, byte {there.offset:,}: {before:,} events stand before it, but {mark.events:,} did"
                    " when the run read it; earlier lines have been changed or removed"
                )


async def past(opened: Opened, target: Target, named: Sequence[bytes] = ()) -> Past:
    """Read the logs up to the target, and return the state before it.

    Raises:
        UsageError: there is no such event.
        SourceError: a log could not be read any further.
    """
    state, events = begun_state(opened, named)
    replayed = await run_sync(_replayed, opened, state)
    lines, unseen = LineIndex(), frozenset(state.decoder.unseen)
    size = opened.checkpoint.envelope.facts.progress.bytes if opened.checkpoint is not None else 0
    users = len(state.decoder.interner)
    async with aclosing(parts(opened.logs, state.decoder, events, opened.bookmarks)) as found:
        async for part in found:
            place = target.place(part)
            lines.add(part)
            size += len(part.block.content)
            gone = part.events if place is None else part.events[:place]
            await run_sync(partial(replayed.apply, gone, part.seq, in_batch_log=not part.judged))
            if place is not None:
                await run_sync(replayed.stop, part.seq + place)
                unseen -= frozenset(_named(gone))
                return Past(state, part.seq + place, lines, part, place, unseen, size, users)
            unseen, users = frozenset(state.decoder.unseen), len(state.decoder.interner)
            events = part.seq + len(part.events) - 1
    error = target.missed(events)
    if error is not None:
        raise error
    await run_sync(replayed.stop, events + 1)
    return Past(state, events + 1, lines, None, 0, unseen, size, users)


def _replayed(opened: Opened, state: State) -> ReplayedState:
    settings = opened.settings
    history = history_of(settings, opened.D, opened.T, opened.newest) if settings.detector.quarantine else None
    return ReplayedState(state, settings, opened.origins, opened.T, history, opened.checkpoint)


def _named(events: Events) -> list[int]:
    befriended = events.friend[events.kind != Kind.PURCHASE]
    return [*events.user.tolist(), *befriended.tolist()]


def begun_state(opened: Opened, named: Sequence[bytes] = ()) -> tuple[State, int]:
    """Return the state that reading begins with, and the number of events before it. It keeps T + 1 purchases."""
    D, T, checkpoint, directed = opened.D, opened.T + 1, opened.checkpoint, opened.settings.directed
    if checkpoint is None:
        quarantine = opened.settings.detector.quarantine
        return State.fresh(D, T, 1, list(named), directed=directed, quarantine=quarantine), 0
    facts = checkpoint.envelope.facts
    state = State.restored(D, T, 1, list(named), checkpoint.arrays, facts, directed=directed)
    return state, facts.progress.events


async def places_of(
    opened: Opened, seqs: Int64s, lines: LineIndex, earlier: dict[int, LineIndex] | None = None
) -> dict[int, Where]:
    """Return the file and line of events. Those not in `lines` are looked up between the nearest bookmarks.

    With `earlier` a stretch between two bookmarks is looked through once, and the lines in it are kept there.

    Raises:
        UsageError: the logs are not those that the state directory was built from.
        SourceError: a log could not be read any further.
    """
    found = {seq: where for seq in seqs.tolist() if (where := lines.where(seq)) is not None}
    missing = sorted(set(seqs.tolist()) - found.keys())
    while missing:
        mark = next((mark for mark in reversed(opened.bookmarks) if mark.events < missing[0]), None)
        behind = next((mark for mark in opened.bookmarks if mark.events >= missing[0]), None)
        through = behind.events if behind is not None else missing[-1]
        here = [seq for seq in missing if seq <= through]
        missing = missing[len(here) :]
        begun = mark.events if mark is not None else 0
        known = (earlier or {}).get(begun)
        if known is None or known.where(here[-1]) is None:
            last = here[-1] if earlier is None else through
            known = await run_sync(_counted, opened, mark, behind) or await _read(opened, mark, last)
        if earlier is not None:
            earlier[begun] = known
        for seq in here:
            where = known.where(seq)
            if where is None:
                raise UsageError(
                    f"event {seq:,} is not in the logs; they are not those that the state in"
                    f" {opened.settings.state.directory} was built from"
                )
            found[seq] = where
    return found


def _counted(opened: Opened, mark: Bookmark[Place] | None, behind: Bookmark[Place] | None) -> LineIndex | None:
    """Return the places of the events between two bookmarks, if every line there is an event; otherwise None."""
    if mark is None or behind is None or mark.judged != behind.judged:
        return None
    begin, end, settings = mark.position, behind.position, opened.settings
    if not isinstance(begin, Position) or not isinstance(end, Position):
        return None
    path = (settings.input.stream if mark.judged else settings.input.batch) or ""
    same = begin.generation == end.generation and holds(Path(path), end)
    if not same or end.line - begin.line != behind.events - mark.events:
        return None
    lines = LineIndex()
    lines.count(shown(path), mark.events + 1, begin.line, behind.events)
    return lines


async def _read(opened: Opened, mark: Bookmark[Place] | None, through: int) -> LineIndex:
    """Return the places of events after a bookmark, at least through one event, by reading the log from there."""
    lines = LineIndex()
    async with AsyncExitStack() as stack:
        logs = await _open_at(opened, mark, stack)
        begun = mark.events if mark is not None else 0
        async with aclosing(parts(logs, Decoder(), begun, opened.bookmarks)) as read:
            async for part in read:
                lines.add(part)
                if part.seq + len(part.events) > through:
                    break
    return lines


async def reopened(opened: Opened, checkpoint: Checkpoint | None, stack: AsyncExitStack) -> list[AnyLog]:
    """Open the logs again, after a checkpoint or from their beginning.

    Raises:
        UsageError: one of them cannot be read any more.
    """
    logs = await open_logs(opened.settings, checkpoint, opened.beginning, _refuse, stack)
    take_header(logs, opened.settings, begun=checkpoint is not None and checkpoint.envelope.facts.position is not None)
    return logs


async def _open_at(opened: Opened, mark: Bookmark[Place] | None, stack: AsyncExitStack) -> list[AnyLog]:
    """Open the logs at a bookmark, or from their beginning."""
    if opened.newest is not None and mark is not None:
        facts = msgspec.structs.replace(opened.newest.facts, judged=mark.judged, position=mark.position)
        there = Checkpoint({}, msgspec.structs.replace(opened.newest, facts=facts))
        return await reopened(opened, there, stack)
    return await reopened(opened, None, stack)
