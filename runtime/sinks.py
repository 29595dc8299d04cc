"""The sinks of one run."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import msgspec

from peerwatch.actors.output import Outlet
from peerwatch.connectors.file_sink import FileSink
from peerwatch.connectors.parquet import DecisionsFile
from peerwatch.connectors.records import DECISION, FLAGGED, LEDGER, REJECT
from peerwatch.connectors.sink import ResumableSink
from peerwatch.errors import BadEvent
from peerwatch.judging.verdict_hash import decode_entry, is_provisional
from peerwatch.network.events import parse_object
from peerwatch.network.rejects import decode_reject
from peerwatch.progress import Progress
from peerwatch.runtime.preflight import Outputs
from peerwatch.runtime.unkept import UnkeptRejects


class Sinks:
    """All sinks of one run, opened and started together."""

    def __init__(self, outlets: list[Outlet[ResumableSink]]) -> None:
        self.outlets = outlets

    async def open(self, stack: AsyncExitStack, *, check_new: bool) -> None:
        """Open them; they are closed with the stack. Nothing that they hold is touched before `start`.

        Raises:
            UsageError: one cannot be written, or, with `check_new`, something in it would be lost.
        """
        for outlet in self.outlets:
            await outlet.sink.open(stack)
            if check_new:
                await outlet.sink.check_new()

    async def has_more(self, marks: Mapping[str, Any]) -> bool:
        """Whether flagged purchases are behind a checkpoint's marks, which somebody may have read."""
        for outlet in self.outlets:
            if FLAGGED in outlet.records and await outlet.sink.has_more(marks[outlet.name]):
                return True
        return False

    async def start(self, marks: Mapping[str, Any] | None, *, force: bool) -> None:
        """Go on behind a checkpoint's marks, or begin anew.

        Raises:
            UsageError: what had been written is not there.
        """
        for outlet in self.outlets:
            await outlet.sink.start(marks[outlet.name] if marks is not None else None, force=force)

    async def marks(self) -> dict[str, Any]:
        """How far each has been written, made durable."""
        return {outlet.name: await outlet.sink.sync() for outlet in self.outlets}

    async def look(self) -> None:
        """Check whether a file has been moved away, deleted or truncated, and reopen it.

        Raises:
            SinkError: a file is gone and no new one can be made.
        """
        for outlet in self.outlets:
            await outlet.sink.look()


def sinks_of(paths: Outputs, warn: Callable[[str], None], console: Progress, *, strict: bool, parts: bool) -> Sinks:
    """The sinks that the settings name. With `parts` decisions go into a folder, a file a checkpoint.

    Raises:
        UsageError: a library is missing.
    """
    outlets: list[Outlet[ResumableSink]] = [
        Outlet("flagged", FileSink(paths.flagged, warn, is_own=is_flagged_line), frozenset({FLAGGED})),
        Outlet(
            "rejects",
            FileSink(paths.rejects, warn, is_own=is_reject_line)
            if paths.rejects is not None
            else UnkeptRejects(console, strict=strict),
            frozenset({REJECT}),
        ),
    ]
    if paths.verdicts is not None:
        ledger = FileSink(paths.verdicts, warn, is_own=is_ledger_line, is_provisional=is_provisional)
        outlets.append(Outlet("verdicts", ledger, frozenset({LEDGER})))
    if paths.decisions is not None:
        outlets.append(Outlet("decisions", DecisionsFile(paths.decisions, parts=parts), frozenset({DECISION})))
    return Sinks(outlets)


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
