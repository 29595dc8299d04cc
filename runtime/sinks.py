"""The sinks of one run."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec

from peerwatch.actors.output import Outlet
from peerwatch.connectors.records import DECISION, FLAGGED, LEDGER, NOTICE, REJECT, Kind
from peerwatch.connectors.server import RemoteSink
from peerwatch.connectors.sink import ResumableSink
from peerwatch.errors import BadEvent, UsageError
from peerwatch.files.file_sink import FileSink
from peerwatch.judging.verdict_hash import decode_entry, is_provisional
from peerwatch.network.events import parse_object
from peerwatch.network.rejects import decode_reject
from peerwatch.progress import Progress
from peerwatch.readable import path_of, shown
from peerwatch.runtime.preflight import Outputs, sink_name
from peerwatch.runtime.unkept import UnkeptRejects
from peerwatch.settings.model import Delivery, Settings
from peerwatch.urls import is_url, parsed


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
            if outlet.name in marks and FLAGGED in outlet.records and await outlet.sink.has_more(marks[outlet.name]):
                return True
        return False

    async def start(self, marks: Mapping[str, Any] | None, *, force: bool) -> None:
        """Go on behind a checkpoint's marks, or begin anew.

        Raises:
            UsageError: what had been written is not there.
        """
        for outlet in self.outlets:
            # one that a companion has added since the checkpoint begins anew
            await outlet.sink.start(marks.get(outlet.name) if marks is not None else None, force=force)

    async def marks(self) -> dict[str, Any]:
        """How far each has been written, made durable."""
        return {outlet.name: await outlet.sink.sync() for outlet in self.outlets}

    def stop(self, seconds: float) -> None:
        """The run has been told to stop: servers have so many seconds to take what is to be written."""
        for outlet in self.outlets:
            if isinstance(outlet.sink, RemoteSink):
                outlet.sink.stop(seconds)

    async def look(self) -> None:
        """Check whether a file has been moved away, deleted or truncated, and reopen it.

        Raises:
            SinkError: a file is gone and no new one can be made.
        """
        for outlet in self.outlets:
            await outlet.sink.look()


class SinkMaker:
    """Makes sinks for one run: from a path a file, from a URL a store."""

    def __init__(self, settings: Settings, run: str, warn: Callable[[str], None], console: Progress) -> None:
        self._settings = settings
        self._run = run
        self._warn = warn
        self._console = console
        self._keeps_state = settings.state.directory is not None

    def sinks(self, paths: Outputs) -> Sinks:
        """The sinks that the settings name.

        Raises:
            UsageError: a library is missing, a URL is malformed, or a sink cannot deliver as it is asked to.
        """
        outlets = [self._outlet("flagged", paths.flagged, (FLAGGED,))]
        if paths.rejects is not None:
            outlets.append(self._outlet("rejects", paths.rejects, (REJECT,)))
        elif not any("rejects" in sink.records for sink in self._settings.sinks):
            unkept = UnkeptRejects(self._console, strict=self._settings.strict)
            outlets.append(Outlet("rejects", unkept, frozenset({REJECT})))
        if paths.verdicts is not None:
            outlets.append(self._outlet("verdicts", paths.verdicts, (LEDGER,)))
        if paths.decisions is not None:
            outlets.append(self._outlet("decisions", paths.decisions, (DECISION,)))
        for sink in self._settings.sinks:
            kinds = tuple(KINDS[name] for name in sink.records)
            outlets.append(self._outlet(sink_name(sink), sink.to, kinds, sink.delivery))
        return Sinks(outlets)

    def _outlet(
        self, name: str, to: str, kinds: tuple[Kind, ...], delivery: Delivery | None = None
    ) -> Outlet[ResumableSink]:
        records = frozenset(kinds)
        if is_url(to):
            sink = store_sink(to, self._run, records, self._settings, self._warn, delivery)
            return Outlet(name, sink, records)
        if len(records) != 1:
            raise UsageError(f"{shown(to)}: a file takes records of one kind; name a file for each")
        if kinds[0] == DECISION and (name == "decisions" or to.endswith(".parquet")):
            from peerwatch.connectors.parquet_decisions import DecisionsFile  # noqa: PLC0415 (likewise)

            parts = self._settings.follow or self._keeps_state
            return Outlet(name, DecisionsFile(to, parts=parts), records)
        lines = LINES[kinds[0]]
        return Outlet(name, FileSink(path_of(to), self._warn, is_own=lines[0], is_provisional=lines[1]), records)


def store_sink(
    to: str,
    run: str,
    records: frozenset[Kind],
    settings: Settings,
    warn: Callable[[str], None],
    delivery: Delivery | None = None,
    *,
    lasts: bool = True,
) -> ResumableSink:
    """The sink in the system that a URL names; one that does not last goes with the run.

    Raises:
        UsageError: a library is missing, the URL is malformed, or it cannot deliver as it is asked to.
    """
    from peerwatch.connectors.exactly_once import StoreSink  # noqa: PLC0415 (a run over files starts without)
    from peerwatch.connectors.registry import store_of  # noqa: PLC0415 (likewise)
    from peerwatch.connectors.store import AT_LEAST_ONCE, EXACTLY_ONCE, StoreContext  # noqa: PLC0415 (likewise)

    url, servers, keeps_state = parsed(to), settings.servers, settings.state.directory is not None
    asked = delivery or settings.output.delivery
    if asked == EXACTLY_ONCE and not keeps_state:
        raise UsageError(f"{url}: exactly-once delivery needs a state directory; add --state, or set at-least-once")
    delivered = asked or (EXACTLY_ONCE if keeps_state else AT_LEAST_ONCE)
    context = StoreContext(run, records, delivered, servers.timeout, warn)
    store = store_of(url, context)
    if not keeps_state and lasts:
        warn(f"{url} gets each record at least once; with --state it gets each exactly once")
    if url.has_literal_password:
        warn(f"{url}: its password is in the URL; keep it in the environment, as ${{NAME}} in its place")
    return StoreSink(store, delivery=delivered, give_up=servers.give_up, warn=warn)


def _none(_: bytes) -> bool:
    return False


def is_flagged_line(line: bytes) -> bool:
    """Whether a file that begins with `line` may hold flagged purchases. True for an empty file."""
    try:
        return not line or {"mean", "sd"} <= parse_object(line.rstrip(b"\n")).keys()
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


def is_decision_line(line: bytes) -> bool:
    """Whether a line is a decision; an empty file is as good."""
    try:
        return not line or {"seq", "flagged", "window_size"} <= parse_object(line.rstrip(b"\n")).keys()
    except BadEvent:
        return False


def is_notice_line(line: bytes) -> bool:
    """Whether a line is a notice; an empty file is as good."""
    try:
        return not line or {"event", "who", "notice"} <= parse_object(line.rstrip(b"\n")).keys()
    except BadEvent:
        return False


KINDS: Final[Mapping[str, Kind]] = {"flagged": FLAGGED, "decisions": DECISION, "rejects": REJECT, "notices": NOTICE}
"""The kind of record by its name in the settings."""
LINES: Final[Mapping[Kind, tuple[Callable[[bytes], bool], Callable[[bytes], bool]]]] = {
    FLAGGED: (is_flagged_line, _none),
    REJECT: (is_reject_line, _none),
    DECISION: (is_decision_line, _none),
    NOTICE: (is_notice_line, _none),
    LEDGER: (is_ledger_line, is_provisional),
}
"""For each kind of record, what tells its lines from others, and the lines that a later run writes anew."""
