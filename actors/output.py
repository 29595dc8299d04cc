"""Serialises results in order and hands them to the sinks."""

from typing import Final

import orjson

from peerwatch.actors.mailbox import Receive, Send
from peerwatch.actors.messages import OutputMessage, Results
from peerwatch.actors.snapshot import OutputPart, SnapshotPart, SnapshotRequest
from peerwatch.connectors.sink import Sink
from peerwatch.judging.judge import Scoring
from peerwatch.judging.severity import Level
from peerwatch.judging.verdict_hash import FlaggedVerdict, LedgerEntry, VerdictHash, encode_entry
from peerwatch.network.rejects import encode_reject


class OutputActor:
    """Writes one batch's results in one piece, and keeps the hash of all verdicts and their ledger."""

    part: Final = "output"
    """What its part of a snapshot is called."""

    def __init__(
        self,
        inbox: Receive[OutputMessage],
        flagged: Sink,
        rejects: Sink,
        ledger: Sink | None = None,
        *,
        verdicts: VerdictHash | None = None,
        written: int = 0,
        through: int = 0,
        parts: Send[SnapshotPart] | None = None,
    ) -> None:
        self._inbox = inbox
        self._flagged = flagged
        self._rejects = rejects
        self._ledger = ledger
        self._parts = parts
        self.verdicts = verdicts or VerdictHash()
        """What has been handed to the sinks so far, hashed."""
        self.written = written
        """Flagged purchases handed to the sink so far."""
        self.through = through
        """All events up to this sequence number are judged, and what they gave is written."""

    async def run(self) -> None:
        """Write until the mailbox ends."""
        with self._inbox:
            async for results in self._inbox:
                if isinstance(results, SnapshotRequest):
                    await self._send_part(results)
                else:
                    await self._write(results)
            await self._record(self.verdicts.unended())  # behind every snapshot: a later run writes it anew

    async def _send_part(self, request: SnapshotRequest) -> None:
        flagged, rejects = await self._flagged.sync(), await self._rejects.sync()
        verdicts = await self._ledger.sync() if self._ledger is not None else None
        if self._parts is not None:
            await self._parts.send(
                OutputPart(request.id, self.part, flagged, rejects, verdicts, self.written, self.verdicts.copy())
            )

    async def _write(self, results: Results) -> None:
        verdicts = [
            FlaggedVerdict(one.seq, one.line, one.statistics.mean(), one.statistics.sd()) for one in results.flagged
        ]
        if verdicts:
            pairs = zip(results.flagged, verdicts, strict=True)
            await self._flagged.write(
                b"".join(flagged_line(one.text, each.mean, each.sd, one.scoring, one.severity) for one, each in pairs)
            )
            self.written += len(verdicts)
        if results.rejected:
            await self._rejects.write(b"".join(map(encode_reject, results.rejected)))
        await self._record(self.verdicts.add(results.seq, verdicts, results.through))
        self.through = results.through

    async def _record(self, entries: list[LedgerEntry]) -> None:
        if entries and self._ledger is not None:
            await self._ledger.write(b"".join(map(encode_entry, entries)))


def flagged_line(
    text: bytes, mean: str, sd: str, scoring: Scoring | None = None, severity: Level | None = None
) -> bytes:
    """The line's own text, byte for byte, with `mean` and `sd` before its closing brace.

    A detector other than sigma adds its name, the score it gave, its threshold and, if it learns, its model's version.
    Where levels are set, one is added.
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
    return text[:brace] + fields.encode() + text[brace:] + b"\n"
