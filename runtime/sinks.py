"""The sinks of one run."""

from typing import Any, NamedTuple

import msgspec

from peerwatch.connectors.file_sink import FileSink
from peerwatch.connectors.parquet import DecisionsFile
from peerwatch.errors import BadEvent
from peerwatch.judging.verdict_hash import decode_entry
from peerwatch.network.events import parse_object
from peerwatch.network.rejects import decode_reject
from peerwatch.runtime.unkept import UnkeptRejects


class Sinks(NamedTuple):
    """The files that a run writes."""

    flagged: FileSink
    rejects: FileSink | UnkeptRejects
    ledger: FileSink | None
    decisions: DecisionsFile | None = None

    async def look(self) -> None:
        """Check whether a file has been moved away, deleted or truncated, and reopen it.

        Raises:
            SinkError: a file is gone and no new one can be made.
        """
        for sink in (self.flagged, self.rejects, self.ledger):
            if sink is not None:
                await sink.look()

    async def written(self) -> dict[str, Any]:
        """The position of each sink before anything has been judged, as a checkpoint stores it."""
        flagged, rejects, ledger, decisions = self
        return {
            "flagged_written": await flagged.written(),
            "rejects_written": await rejects.written(),
            "verdicts_written": await ledger.written() if ledger is not None else None,
            "decisions_written": 0 if decisions is not None else None,
        }


def is_flagged_line(line: bytes) -> bool:
    """Whether a file that begins with `line` may hold flagged purchases. True for an empty file."""
    try:
        return not line or {"event_type", "mean", "sd"} <= parse_object(line.rstrip(b"\n")).keys()
    except BadEvent:
        return False


def is_reject_line(line: bytes) -> bool:
    """Whether a file that begins with `line` may hold rejected lines. True for an empty file."""
    try:
        return not line or bool(decode_reject(line))
    except BadEvent:
        return False


def is_ledger_line(line: bytes) -> bool:
    """Whether a file that begins with `line` may be a ledger. True for an empty file."""
    try:
        return not line or bool(decode_entry(line))
    except msgspec.MsgspecError:
        return False
