"""`peerwatch verify`: judges the logs again, and compares the result with the output of a run."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from io import BytesIO
from typing import Any, Final, NamedTuple

import aiofiles
import anyio
from anyio.to_thread import run_sync

from peerwatch.actors.audit import Auditing, AuditTally
from peerwatch.actors.coordinator import Judges
from peerwatch.actors.output import Outlet
from peerwatch.connectors.records import FLAGGED, LEDGER, FlaggedPurchase, LedgerRecord, Record, encoded
from peerwatch.connectors.store import AT_LEAST_ONCE
from peerwatch.connectors.written import WrittenPurchases
from peerwatch.errors import SourceError, UsageError
from peerwatch.judging.audit import BruteForce, Difference
from peerwatch.judging.state import State
from peerwatch.judging.verdict_hash import FlaggedVerdict
from peerwatch.progress import Progress
from peerwatch.readable import shown
from peerwatch.replay.judge_again import OneDecision, live_judge_of, record_of
from peerwatch.replay.replay import Opened, open_replay
from peerwatch.runtime.decision_log import DifferenceLogger, Logger
from peerwatch.runtime.judges_from_settings import check_audit
from peerwatch.runtime.log_target import standard_error
from peerwatch.runtime.pipeline import Pipeline, Totals, task_group
from peerwatch.runtime.preflight import NOT_SET
from peerwatch.settings.model import DEFAULT, SIGMA, Layer, LogSettings, resolve
from peerwatch.storage.run_history import NEVER
from peerwatch.urls import is_url

PROGRESS_SECONDS: Final = 0.1


class Verified(NamedTuple):
    """The result of judging again. `wrong` says where OUTPUT first differs, None if it does not."""

    totals: Totals
    output: str
    wrong: str | None
    first_difference: Difference | None


class ComparingSink:
    """A sink that compares what would be written with what is there, and stores the first line that differs."""

    def __init__(self, output: str, written: WrittenPurchases | None = None) -> None:
        """Compare with a file, or with what is `written` where the output is a URL."""
        self.name = shown(output) if written is None else written.name
        self._path = output
        self._written = written
        self._file: Any = written
        self.same = 0
        """The number of lines that agree."""
        self.differs = False
        self.log = "stream"
        """The log of the purchase at which it differs."""
        self.found = b""
        """The line that differs; empty if the output ends there."""

    @property
    def place(self) -> str:
        """Where it differs, in words."""
        number = self.same + 1
        return f"{self.name}:{number}" if self._written is None else f"record {number:,} of {self.name}"

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the file, or connect; that is closed with the stack.

        Raises:
            UsageError: it cannot be read.
        """
        if self._written is not None:
            await self._written.open(stack)
            return
        try:
            self._file = await stack.enter_async_context(aiofiles.open(self._path, "rb"))
        except OSError as error:
            raise UsageError(f"cannot read the output {self.name}: {error.strerror}") from None

    async def write(self, records: Sequence[Record]) -> None:
        """Compare, up to the first difference."""
        if self.differs:
            return
        before = self.same
        await self._compare(encoded(records))
        if self.differs:
            record = records[self.same - before]
            self.log = "batch" if isinstance(record, FlaggedPurchase) and record.in_batch_log else "stream"

    async def finish(self) -> None:
        """Check that the file ends where the output ends."""
        if not self.differs and (found := await self._read(1)):
            self.differs, self.found = True, found + await self._line()

    async def sync(self) -> None:
        """Do nothing."""

    async def _compare(self, data: bytes) -> None:
        found = await self._read(len(data))
        if found == data:
            self.same += data.count(b"\n")
            return
        self.differs = True
        lines, due = BytesIO(found).readlines(), BytesIO(data).readlines()
        same = next(place for place, line in enumerate(due) if lines[place : place + 1] != [line])
        self.same += same
        self.found = lines[same] if same < len(lines) else b""
        if self.found and not self.found.endswith(b"\n"):
            self.found += await self._line()

    async def _read(self, size: int) -> bytes:
        try:
            data: bytes = await self._file.read(size)
        except OSError as error:
            raise SourceError(f"cannot read {self.name} any further: {error.strerror}") from None
        return data

    async def _line(self) -> bytes:
        line: bytes = await self._file.readline()
        return line


class FlaggedPlace:
    """A ledger sink that keeps only the flagged purchase at which the output differs."""

    def __init__(self, output: ComparingSink) -> None:
        self._output = output
        self._gone = 0
        self.verdict: FlaggedVerdict | None = None

    async def write(self, records: Sequence[Record]) -> None:
        """Look for the purchase in the next entries."""
        for record in records:
            flagged = record.entry.flagged if isinstance(record, LedgerRecord) else []
            place = self._output.same - self._gone
            if self._output.differs and 0 <= place < len(flagged):
                self.verdict = flagged[place]
            self._gone += len(flagged)

    async def sync(self) -> None:
        """Do nothing."""

    async def finish(self) -> None:
        """Do nothing."""


async def verified(layers: Sequence[Layer], console: Progress) -> Verified:
    """Judge the logs from their beginning, and compare the result with the output named in the settings.

    Raises:
        UsageError: something is missing or cannot be read.
        RunError: a log or the output could not be read any further.
    """
    async with AsyncExitStack() as stack:
        settings, _ = resolve(*layers)
        if settings.output.flagged is None:
            raise UsageError(NOT_SET.format(key="output.flagged", what="the output", option="OUTPUT"))
        opened = await open_replay(layers, lambda _: False, stack)
        share = _audit_share(opened)
        live = await run_sync(live_judge_of, opened, await run_sync(record_of, opened))
        output = ComparingSink(settings.output.flagged, _written(opened, console))
        await output.open(stack)
        ledger, tally = FlaggedPlace(output), AuditTally()
        alarm = DifferenceLogger(Logger(LogSettings(), standard_error())).write
        directed, quarantine = opened.settings.directed, opened.settings.detector.quarantine
        state = State.fresh(opened.D, opened.T, settings.shards, directed=directed, quarantine=quarantine)
        pipeline = Pipeline(
            state,
            Judges(live),
            decisions=OneDecision(NEVER),
            outlets=[
                Outlet("flagged", output, frozenset({FLAGGED})),
                Outlet("ledger", ledger, frozenset({LEDGER})),
            ],
            walkers=settings.walkers,
            judge_batch=opened.settings.judge_batch,
            auditing=Auditing(_brute_force(opened), share, alarm, tally) if share else None,
        )
        sizes = [log.size for log in opened.logs]
        with console.progress(None if None in sizes else sum(size or 0 for size in sizes)):
            async with task_group() as watchers:
                watchers.start_soon(_show, pipeline, console)
                totals = await pipeline.run(opened.logs)
                watchers.cancel_scope.cancel()
        return Verified(totals, output.name, _wrong(output, ledger.verdict), tally.first)


def _brute_force(opened: Opened) -> BruteForce:
    detector, directed = opened.settings.detector, opened.settings.directed
    return BruteForce(opened.D, opened.T, detector.exact_k(), directed=directed, quarantine=detector.quarantine)


def _written(opened: Opened, console: Progress) -> WrittenPurchases | None:
    """The output if it is a URL: what the run of the state directory has written there."""
    settings, newest = opened.settings, opened.newest
    url = settings.output.flagged or ""
    if not is_url(url):
        return None
    run = newest.identity.run if newest is not None else None
    repeats = run is None or settings.output.delivery == AT_LEAST_ONCE
    return WrittenPurchases(url, run, settings.servers, console.urgent, repeats=repeats)


def _audit_share(opened: Opened) -> float:
    """Return the share of decisions to recompute. Only decisions by sigma can be.

    Raises:
        UsageError: the user has asked for an audit of another detector.
    """
    if opened.settings.detector.name != SIGMA and opened.origins["audit"] == DEFAULT:
        return 0.0
    check_audit(opened.settings, opened.origins)
    return opened.settings.audit


async def _show(pipeline: Pipeline, console: Progress) -> None:
    while True:
        totals = pipeline.statistics()
        console.moved(totals.progress.bytes, totals.shown())
        await anyio.sleep(PROGRESS_SECONDS)


def _wrong(output: ComparingSink, verdict: FlaggedVerdict | None) -> str | None:
    """Return the sentence about the first difference: what is in the file, and what it should be."""
    if not output.differs:
        return None
    where = output.place
    found = output.found.rstrip(b"\n").decode(errors="backslashreplace") or "(a blank line)"
    if verdict is None:
        return f"{where} should not be there; nothing more is flagged:\n  {found}"
    due = f"event {verdict.seq:,}, {output.log} line {verdict.line:,}, with mean {verdict.mean} and sd {verdict.sd}"
    if not output.found:
        return f"{where} is missing; it should be {due}"
    return f"{where} differs; it should be {due}, and is\n  {found}"


def as_text(found: Verified) -> str:
    """Format the result as text."""
    totals = found.totals
    rows = [("judged", f"{totals.decisions:,}", f"decisions again, hash {totals.verdicts}")]
    if totals.recomputed:
        same = f"{totals.differences:,} of them differ" if totals.differences else "all the same"
        rows.append(("audit", f"{totals.recomputed:,}", f"decisions recomputed by brute force, {same}"))
    rows.append(("flagged", f"{totals.flagged:,}", f"every one as in {found.output}" if found.wrong is None else ""))
    width = max(len(count) for _, count, _ in rows)
    text = "\n".join(f"{what:<10}{count:>{width}}  {more}".rstrip() for what, count, more in rows)
    return text if found.wrong is None else f"{text}\n{found.wrong}"
