"""Serialises results in order and hands them to the sinks."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

import anyio
import msgspec
import orjson

from peerwatch.actors.mailbox import Receive, Send
from peerwatch.actors.messages import AuditNotices, OutputMessage, Results
from peerwatch.actors.snapshot import OutputPart, SnapshotPart, SnapshotRequest
from peerwatch.connectors.records import FlaggedPurchase, Kind, LedgerRecord, Record, Rejection
from peerwatch.connectors.server import Remote, SinkStatus, WriteTimes
from peerwatch.connectors.sink import Sink
from peerwatch.errors import SinkError
from peerwatch.judging.judge import Scoring
from peerwatch.judging.severity import Level
from peerwatch.judging.verdict_hash import FlaggedVerdict, LedgerEntry, VerdictHash

AnySink_co = TypeVar("AnySink_co", bound=Sink, covariant=True)


class Handed(msgspec.Struct):
    """What an outlet has handed to its sink: records, failed writes, and how long the others took."""

    records: int = 0
    failures: int = 0
    writes: WriteTimes = msgspec.field(default_factory=WriteTimes)


@dataclass(frozen=True)
class Outlet(Generic[AnySink_co]):
    """A sink, the name under which checkpoints keep its mark, and the kinds of records that it gets.

    It counts what it has handed to its sink, over all pipelines of a process.
    """

    name: str
    sink: AnySink_co
    records: frozenset[Kind]
    handed: Handed = field(default_factory=Handed, compare=False)

    async def write(self, records: Sequence[Record]) -> None:
        """Hand records to the sink.

        Raises:
            SinkError: they could not be written.
        """
        began = time.perf_counter()
        try:
            await self.sink.write(records)
        except SinkError:
            self.handed.failures += 1
            raise
        self.handed.writes.add(time.perf_counter() - began)
        self.handed.records += len(records)

    def status(self) -> SinkStatus:
        """What this process has done at the sink."""
        handed = self.handed
        if isinstance(self.sink, Remote):
            server = self.sink.server()
            errors = server.retries + handed.failures  # an attempt is made again only after an error
            return SinkStatus(self.name, server.records, errors, server.retries, handed.writes)
        return SinkStatus(self.name, handed.records, handed.failures, 0, handed.writes)


class OutputActor:
    """Hands the records of one batch after the other to the sinks, and keeps the hash of all verdicts."""

    part: Final = "output"
    """The name of its part of a snapshot."""

    def __init__(
        self,
        inbox: Receive[OutputMessage],
        outlets: Sequence[Outlet[Sink]],
        *,
        verdicts: VerdictHash | None = None,
        written: int = 0,
        rejected: int = 0,
        through: int = 0,
        parts: Send[SnapshotPart] | None = None,
        heard: Callable[[Sequence[Record]], None] | None = None,
        audited: Receive[AuditNotices] | None = None,
    ) -> None:
        """`heard` is called with the records of one kind once every sink has taken them.

        From `audited` comes one message for each `Results`, if a sink takes notices and there is an audit.
        """
        self._heard = heard
        self._inbox = inbox
        self._outlets = outlets
        self._parts = parts
        self._audited = audited
        self._rejected = rejected
        self.verdicts = verdicts or VerdictHash()
        """The hash of the verdicts that have been handed to the sinks so far."""
        self.written = written
        """Flagged purchases that have been handed to the sinks so far."""
        self.through = through
        """All events up to this sequence number are judged, and their results are written."""

    async def run(self) -> None:
        """Write until the mailbox ends."""
        with self._inbox, self._audited or nullcontext():
            async for message in self._inbox:
                waiting: list[Results] = []
                for each in (message, *self._arrived()):
                    if isinstance(each, SnapshotRequest):
                        await self._write(waiting)
                        waiting = []
                        await self._send_part(each)
                    else:
                        waiting.append(each)
                await self._write(waiting)
            await self._record(self.verdicts.unended())  # behind every snapshot: a later run writes it anew
            for outlet in self._outlets:
                await outlet.sink.finish()

    async def _send_part(self, request: SnapshotRequest) -> None:
        marks = {outlet.name: await outlet.sink.sync() for outlet in self._outlets}
        if self._parts is not None:
            await self._parts.send(OutputPart(request.id, self.part, marks, self.written, self.verdicts.copy()))

    def _arrived(self) -> Iterator[OutputMessage]:
        """What has arrived in the meantime: a transaction of a sink costs about the same for one record or many."""
        with suppress(anyio.WouldBlock, anyio.EndOfStream):
            while True:
                yield self._inbox.receive_nowait()

    async def _write(self, batches: Sequence[Results]) -> None:
        flagged: list[Record] = []
        entries: list[LedgerEntry] = []
        for results in batches:
            verdicts = []
            for one in results.flagged:
                each = FlaggedVerdict(one.seq, one.line, one.statistics.mean(), one.statistics.sd())
                line = flagged_line(
                    one.text, each.mean, each.sd, one.scoring, one.severity, in_batch_log=one.in_batch_log
                )
                flagged.append(FlaggedPurchase(one.seq, line, one.names, one.in_batch_log))
                verdicts.append(each)
            entries += self.verdicts.add(results.seq, verdicts, results.through)
        await self._hand_out(flagged)
        self.written += len(flagged)
        await self._hand_out([row for results in batches for row in results.decisions])
        await self._hand_out([notice for results in batches for notice in await self._notices_of(results)])
        rejected = [line for results in batches for line in results.rejected]
        await self._hand_out([Rejection(number, line) for number, line in enumerate(rejected, self._rejected + 1)])
        self._rejected += len(rejected)
        await self._record(entries)
        if batches:
            self.through = batches[-1].through

    async def _notices_of(self, results: Results) -> Sequence[Record]:
        """The notices about these events, those of the audit among them, which may come later than the results."""
        if self._audited is None:
            return results.notices
        audited = await self._audited.receive()
        return sorted([*results.notices, *audited.notices], key=lambda notice: notice.seq)

    async def _record(self, entries: list[LedgerEntry]) -> None:
        await self._hand_out([LedgerRecord(entry) for entry in entries])

    async def _hand_out(self, records: Sequence[Record]) -> None:
        """Write records of one kind to the sinks that take them, all at the same time."""
        if not records:
            return
        outlets = [outlet for outlet in self._outlets if records[0].kind in outlet.records]
        if len(outlets) == 1:
            await outlets[0].write(records)
        else:
            async with anyio.create_task_group() as tasks:
                for outlet in outlets:
                    tasks.start_soon(outlet.write, records)
        if self._heard is not None:
            self._heard(records)


def flagged_line(
    text: bytes,
    mean: str,
    sd: str,
    scoring: Scoring | None = None,
    severity: Level | None = None,
    *,
    in_batch_log: bool = False,
) -> bytes:
    """The line's own text, byte for byte, with `mean` and `sd` before its closing brace.

    A detector other than sigma adds its name, the score it gave, its threshold and, if it learns, its model's version.
    Where levels are set, one is added. A purchase of the batch log says so.
    """
    text = text.removesuffix(b"\r")
    brace = text.rindex(b"}")
    fields = f', "mean": "{mean}", "sd": "{sd}"'
    if scoring is not None:
        name = orjson.dumps(scoring.detector).decode()
        fields += f', "detector": {name}, "score": "{scoring.score:.6g}"'
        fields += f', "score_threshold": "{scoring.threshold:.6g}"'
        fields += f', "model": "{scoring.model}"' if scoring.model is not None else ""
    if severity is not None:
        fields += f', "severity": "{severity}"'
    if in_batch_log:
        fields += ', "log": "batch"'
    return text[:brace] + fields.encode() + text[brace:] + b"\n"
