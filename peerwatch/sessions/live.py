"""A session log judged as it grows: one JSON object a line in, flagged sessions out, each once through any restart.

Verdicts depend on the lines alone, however they are divided into blocks. A checkpoint holds the place in the log, what
is remembered of users, and how far the sinks had been made durable; a run that goes on begins there, and what it writes
again is cut off, skipped or replaced by the sink.
"""

import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import anyio
import msgspec
import numpy as np
from anyio.to_thread import run_sync

from peerwatch.connectors.records import FlaggedSession, Record, Rejection
from peerwatch.connectors.sink import ResumableSink
from peerwatch.connectors.source import Block
from peerwatch.durable import replace_file
from peerwatch.errors import BadEvent, SinkError, UsageError
from peerwatch.files.seen import Seen
from peerwatch.network.events import parse_object
from peerwatch.network.rejects import RejectedLine
from peerwatch.readable import shown, why_damaged
from peerwatch.sessions.columns import SessionTable, from_objects, sessions_of
from peerwatch.sessions.own_past import WIDTH, PastSessions
from peerwatch.sessions.predictor import SessionModel
from peerwatch.storage.checkpoints import DAMAGE, FilePlace

LIVE_VERSION: Final = 1
CHECKPOINT: Final = "sessions.npz"
CHECKPOINT_SECONDS: Final = 10.0
"""The time between two checkpoints at least, as each holds what is remembered of all users."""
ADDED: Final = ("probability", "confidence", "reasons")
"""The keys that a flagged session's line gets; a line that has them already has them replaced."""


class LiveIdentity(msgspec.Struct, frozen=True):
    """The run that a checkpoint belongs to: another model, log or output would change verdicts or lose some."""

    model: str
    log: FilePlace
    output: FilePlace


class LiveFacts(msgspec.Struct, frozen=True):
    """A checkpoint besides the arrays: the place in the log, what has been counted, and the marks of the sinks."""

    version: int
    run: str
    identity: LiveIdentity
    position: Any
    seen: Seen
    sessions: int
    flagged: int
    rejected: int
    marks: dict[str, Any]
    users: list[str]


class LiveSource(Protocol):
    """What is read from: a followed log or a stream."""

    name: str

    def blocks(self) -> AsyncGenerator[Block, None]:
        """The lines, as they come."""


class LiveSinks(NamedTuple):
    """Where flagged sessions go, and lines that are no sessions (None: they are only counted)."""

    flagged: ResumableSink
    rejects: ResumableSink | None

    def named(self) -> Iterator[tuple[str, ResumableSink]]:
        """Each with its name."""
        yield "flagged", self.flagged
        if self.rejects is not None:
            yield "rejects", self.rejects

    async def open(self, stack: AsyncExitStack) -> None:
        """Open them; they are closed with the stack."""
        for _, sink in self.named():
            await sink.open(stack)

    async def start(self, facts: LiveFacts | None, *, force: bool) -> None:
        """Go on as of a checkpoint, or begin anew.

        Raises:
            UsageError: what had been written is not there, or something would be lost.
        """
        for name, sink in self.named():
            if facts is None and not force:
                await sink.check_new()
            await sink.start(facts.marks.get(name) if facts is not None else None, force=force)


class LiveState:
    """The checkpoint in a state directory."""

    def __init__(self, directory: Path, identity: LiveIdentity, run: str) -> None:
        self._path = directory / CHECKPOINT
        self.identity = identity
        self.run = run

    def read(self) -> tuple[LiveFacts, PastSessions] | None:
        """The checkpoint; None if there is none.

        Raises:
            UsageError: it is damaged, of another version, or of another run.
        """
        if not self._path.exists():
            return None
        way_out = "begin anew with --reset"
        try:
            with np.load(self._path, allow_pickle=False) as archive:
                raw, rows = archive["facts"].tobytes(), archive["rows"]
            if (version := msgspec.json.decode(raw)["version"]) != LIVE_VERSION:
                raise UsageError(f"{shown(self._path)} is of format version {version}; {way_out}")
            facts = msgspec.json.decode(raw, type=LiveFacts)
        except DAMAGE as error:
            raise UsageError(f"{shown(self._path)} is damaged ({why_damaged(error)}); {way_out}") from None
        known, here = facts.identity, self.identity
        if known.model != here.model:
            raise UsageError(f"{shown(self._path)} belongs to another model; name that one, or {way_out}")
        for what, then, now in (("log", known.log, here.log), ("output", known.output, here.output)):
            if not then.is_same(now):
                raise UsageError(
                    f"{shown(self._path)} belongs to the {what} {then.absolute}; name that one, or {way_out}"
                )
        if rows.shape != (len(facts.users), WIDTH):
            raise UsageError(f"{shown(self._path)} is damaged (its arrays do not fit); {way_out}")
        self.run = facts.run
        return facts, PastSessions.of(facts.users, rows)

    def write(self, facts: LiveFacts, rows: Any) -> None:
        """Replace the checkpoint.

        Raises:
            SinkError: it cannot be written; the one before is still there.
        """
        held = np.frombuffer(msgspec.json.encode(facts), np.uint8)
        try:
            replace_file(self._path, lambda file: np.savez(file, facts=held, rows=rows))
        except OSError as error:
            raise SinkError(f"cannot write {shown(self._path)}: {error.strerror}; fix that and run again") from None

    def reset(self) -> None:
        """Forget the checkpoint."""
        self._path.unlink(missing_ok=True)


class SessionJudge:
    """Judges the lines of one log, in order: the synchronous part, a plain object."""

    def __init__(self, model: SessionModel, past: PastSessions | None = None) -> None:
        self._model = model
        self.past = past if past is not None else PastSessions(dict(model.past.by_user))
        self.sessions = 0
        self.flagged = 0
        self.rejected = 0

    def judge(self, block: Block, name: str) -> list[Record]:
        """The flagged sessions of a block, and its lines that are no sessions."""
        lines, objects, rejected = [], [], list[tuple[int, RejectedLine]]()
        offset = block.offset
        for number, line in enumerate(re.findall(rb"[^\n]*\n|[^\n]+", block.content), block.line):
            if line.strip():
                try:
                    parse_object(line.strip())
                    objects.append(msgspec.json.decode(line))
                    lines.append((number, offset, line))
                except (BadEvent, msgspec.MsgspecError) as error:
                    rejected.append((number, RejectedLine(name, number, offset, str(error), line)))
            offset += len(line)
        raw = from_objects(objects, name)
        table = sessions_of(raw, self._model.schema, unique=False)
        for bad in table.bad:
            number, offset, line = lines[bad.line - 1]
            rejected.append((number, RejectedLine(name, number, offset, bad.reason, line)))
        before, records = self.sessions, list[Record]()
        for rows in pieces(table, self.past):
            scores, later = self._model.followed(table.taken(rows), self.past)
            self.past.add(later)
            for place, result in zip(rows.tolist(), scores.results(), strict=True):
                if result["is_anomaly"]:
                    line = lines[table.lines[place] - 1][2]
                    added = {key: result[key] for key in ADDED}
                    text = msgspec.json.encode(msgspec.json.decode(line) | added) + b"\n"
                    records.append(
                        FlaggedSession(
                            before + place + 1, result["session_id"], str(table.user[place]), result["probability"],
                            result["confidence"], result["reasons"], text,
                        )
                    )  # fmt: skip
        self.sessions += len(table)
        self.flagged += len(records)
        records += [
            Rejection(seq, line) for seq, (_, line) in enumerate(sorted(rejected, key=_number), self.rejected + 1)
        ]
        self.rejected += len(rejected)
        return records


def _number(rejected: tuple[int, RejectedLine]) -> int:
    return rejected[0]


def pieces(table: SessionTable, past: PastSessions) -> Iterator[Any]:
    """The rows in portions that may be judged at once: what is later than a row of its user must not be known to it."""
    latest: dict[str, float] = {}
    begin, alone = 0, False
    for row, (user, moment) in enumerate(zip(table.user.tolist(), table.seconds.tolist(), strict=True)):
        if not table.has_time or not user or np.isnan(moment):
            continue
        if user not in latest:
            rows = past.by_user.get(user)
            latest[user] = float(rows[-1, -1]) if rows is not None else -np.inf
        is_late = moment < latest[user]
        if (is_late or alone) and row > begin:
            yield np.arange(begin, row)
            begin = row
        alone = is_late
        latest[user] = max(latest[user], moment)
    if begin < len(table):
        yield np.arange(begin, len(table))


class SessionRun:
    """Reads a source and writes to sinks until it ends or is stopped."""

    def __init__(
        self,
        model: SessionModel,
        source: LiveSource,
        sinks: LiveSinks,
        state: LiveState | None,
        resumed: tuple[LiveFacts, PastSessions] | None,
        *,
        seen: Callable[[], Seen] = Seen,
        every: float = CHECKPOINT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`resumed` is the checkpoint that the source was opened behind; `seen` are the files it knows by now."""
        self.judge = SessionJudge(model, resumed[1] if resumed is not None else None)
        self._source = source
        self._sinks = sinks
        self._state = state
        self._seen = seen
        self._every = every
        self._clock = clock
        self._position: Any = None
        self._reading = anyio.CancelScope()
        self._stopped = False
        if resumed is not None:
            facts = resumed[0]
            self.judge.sessions, self.judge.flagged, self.judge.rejected = facts.sessions, facts.flagged, facts.rejected
            self._position = facts.position

    def stop(self) -> None:
        """Read no more; what has been read is still judged and written."""
        self._stopped = True
        self._reading.cancel()

    async def run(self) -> None:
        """Judge until the source ends.

        Raises:
            SourceError: it cannot be read any further.
            SinkError: a sink cannot be written.
        """
        taken, is_new = self._clock(), False
        async with aclosing(self._source.blocks()) as blocks:
            while not self._stopped:
                block = None
                self._reading = anyio.CancelScope()
                with self._reading:
                    block = await anext(blocks, None)
                if block is None:
                    break
                if block.content:
                    await self._write(await run_sync(self.judge.judge, block, self._source.name))
                    is_new = True
                self._position = block.position
                if is_new and self._clock() - taken >= self._every:
                    await self._checkpoint()
                    taken, is_new = self._clock(), False
                for _, sink in self._sinks.named():
                    await sink.look()
        await self._checkpoint()
        for _, sink in self._sinks.named():
            await sink.finish()

    async def _write(self, records: list[Record]) -> None:
        flagged = [record for record in records if isinstance(record, FlaggedSession)]
        rejected = [record for record in records if isinstance(record, Rejection)]
        if flagged:
            await self._sinks.flagged.write(flagged)
        if rejected and self._sinks.rejects is not None:
            await self._sinks.rejects.write(rejected)

    async def _checkpoint(self) -> None:
        if self._state is None:
            return
        marks = {name: msgspec.to_builtins(await sink.sync()) for name, sink in self._sinks.named()}
        users, rows = self.judge.past.columns()
        facts = LiveFacts(
            LIVE_VERSION, self._state.run, self._state.identity, self._position, self._seen(), self.judge.sessions,
            self.judge.flagged, self.judge.rejected, marks, users,
        )  # fmt: skip
        await run_sync(self._state.write, facts, rows)


def model_digest(path: Path) -> str:
    """What tells a model file from another."""
    return sha256(path.read_bytes()).hexdigest()
