"""The service beside one run: what its routes share."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import anyio
import msgspec
from anyio.to_thread import run_sync

from peerwatch.actors.output import Outlet
from peerwatch.connectors.buffered import BufferedSink
from peerwatch.connectors.records import DECISION, NOTICE, DecisionRow, Kind, NoticeRecord, Record
from peerwatch.connectors.sink import ResumableSink
from peerwatch.errors import UsageError
from peerwatch.readable import shown
from peerwatch.replay.follow_flagged import FlaggedEvent
from peerwatch.runtime.companion import LiveRun
from peerwatch.runtime.sinks import store_sink
from peerwatch.service.decisions import DecisionStore, Notice, Query, StoredDecision, decision_of
from peerwatch.service.explaining_follower import ExplainingFollower
from peerwatch.service.explanation_store import ExplanationStore
from peerwatch.service.hub import Hub, Item
from peerwatch.service.labels import PurchaseLabels
from peerwatch.service.problems import Problem
from peerwatch.service.report import LiveStatus, live_status
from peerwatch.service.retention import Retention
from peerwatch.service.store_rows import PostgresRows, Rows, SqliteRows
from peerwatch.service.submission import Submissions
from peerwatch.service.sweeps import Sweeps
from peerwatch.service.systemd import Notifier
from peerwatch.service.workers import Workers
from peerwatch.settings.model import Layer, Settings
from peerwatch.storage.status import Status
from peerwatch.urls import is_url, parsed

STUCK_SECONDS: Final = 30.0
"""For how long nothing may be judged while something waits to be."""
RETENTION_SECONDS: Final = 60.0
"""How often what is too old is removed from the store."""
STATUS_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 1.0
"""How often a query that waits for what has just been judged looks whether the store is still there."""
EXPLAIN_SECONDS: Final = 2.0
"""How long to wait for an explanation that is about to be made, before the logs are read again for it."""
STORE: Final = "the service's decisions"


class Service:
    """Gets the run's records, keeps them where the API finds them, and tells those who listen."""

    workers: Workers
    sweeps: Sweeps
    explanations: ExplanationStore

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`directory` is where its files are: the state directory, or one that is removed at the end.

        Raises:
            UsageError: the store cannot be used.
        """
        self.settings = settings
        self.hub = Hub()
        self.status: LiveStatus | None = None
        """How the run was doing a moment ago; None before it began."""
        self.ended: str | None = None
        """How the run has ended: "finished" or "failed"; None while it goes on."""
        self.explanations_path = directory / "explanations.db"
        """Where explanations are kept: beside the decisions, if those are in an SQLite file."""
        self._directory = directory
        self._warn = warn
        self._clock = clock
        self._wall_clock = wall_clock
        self._run: LiveRun | None = None
        self._follower: ExplainingFollower | None = None
        self.has_begun = anyio.Event()
        """Set once the run has found everything that it needs."""
        self._rows: Rows
        self._store_url = settings.serve.store or f"sqlite:{directory / 'decisions.db'}"
        self._retention: Retention | None = None
        url = parsed(self._store_url)
        if url.scheme == "sqlite":
            self.explanations_path = Path(url.path).expanduser()
            self._rows = SqliteRows(self.explanations_path)
            self._retention = Retention(
                self._rows,
                keep_days=settings.serve.keep_days,
                keep_bytes=settings.serve.keep_megabytes * 1_000_000,
                drops_others=settings.serve.store is None,
            )
        elif url.scheme in {"postgres", "postgresql"}:
            self._rows = PostgresRows(url, settings.servers.timeout)
        else:
            raise UsageError(f"serve.store is {url}; expected sqlite:FILE or postgresql://user@host/database")
        self._buffer: BufferedSink | None = None
        self._complained = False
        batch = settings.input.batch
        self._batch = shown(batch) if batch is not None else None
        """The batch log, as decisions name it."""
        has_labels = settings.state.directory is not None
        self._labels = PurchaseLabels(directory, warn, self._batch) if has_labels else None
        self.submissions = Submissions(Path(settings.input.stream or "")) if self._takes_events() else None
        """Takes events; None if the log is none that is followed."""
        self.has_caught_up = False
        """Whether the logs have been read to their ends once."""
        self._judged = 0
        self._begun = 0.0
        """When the run began, or began again."""
        self._moved = clock()
        """When something was judged last, or nothing was waiting to be."""

    def _takes_events(self) -> bool:
        stream = self.settings.input.stream
        return self.settings.follow and stream is not None and not is_url(stream)

    # What the run asks of its companion

    def outlets(self, run: str) -> Sequence[Outlet[ResumableSink]]:
        """The store of decisions and notices.

        Raises:
            UsageError: it cannot be used.
        """
        kinds: frozenset[Kind] = frozenset({DECISION, NOTICE})
        own = self.settings.serve.store is None
        sink = store_sink(self._store_url, run, kinds, self.settings, self._warn, lasts=not own)
        self._buffer = BufferedSink(sink, disposable=own)
        name = STORE if own else f"{STORE} in {sink.name}"  # another place begins anew
        return [Outlet(name, self._buffer, kinds)]

    def began(self, run: LiveRun) -> None:
        """The run begins, or begins again."""
        self._run = run
        self.has_begun.set()
        self._begun = self._wall_clock()
        self._moved = self._clock()

    def heard(self, records: Sequence[Record]) -> None:
        """Tell those who listen."""
        rows = [record for record in records if isinstance(record, DecisionRow)]
        if rows:
            if self.submissions is not None:
                self.submissions.hear([row for row in rows if row.file != self._batch])
            if self._follower is not None:
                flagged = [FlaggedEvent(row.seq, row.user) for row in rows if row.flagged]
                self._follower.judged(rows[-1].seq, flagged)
            for row in rows:
                if row.flagged:
                    self.hub.publish(Item("flagged", msgspec.json.encode(decision_of(row)), row.seq))
        for record in records:
            if isinstance(record, NoticeRecord):
                notice = Notice(record.seq, record.event, record.who, record.notice, record.details)
                self.hub.publish(Item("notice", msgspec.json.encode(notice)))

    def stop(self) -> None:
        """End what clients are waiting for."""
        self.hub.close()
        if self.submissions is not None:
            self.submissions.end()

    # What routes ask

    @property
    def run(self) -> LiveRun:
        """The run.

        Raises:
            Problem: it has not begun yet.
        """
        if self._run is None:
            raise Problem(503, "the run has not begun yet", headers={"retry-after": "1"})
        return self._run

    @property
    def store(self) -> DecisionStore:
        """The decisions of the run."""
        return DecisionStore(self._rows, self.run.identity.run)

    async def decision(self, seq: int) -> StoredDecision | None:
        """The decision on one event with its label, None if there is none.

        Raises:
            Problem: the store does not answer, or the run has not begun yet.
        """
        found = await self.decisions(Query(after=seq - 1, before=seq + 1, limit=1))
        return found[0] if found else None

    async def decisions(self, query: Query) -> list[StoredDecision]:
        """Decisions with their labels; what has been judged before is among them.

        Raises:
            Problem: the store does not answer, or the run has not begun yet.
            SinkError: the store could not be written.
        """
        waits = self._buffer is not None
        while (
            waits and self._buffer is not None and self._buffer.server().away is None
        ):  # it may be away, and yet be read
            with anyio.move_on_after(SETTLE_SECONDS):
                await self._buffer.settle()
                waits = False
        return await self.labelled(await self.store.decisions(query))

    async def explanation(self, seq: int) -> bytes | None:
        """The explanation of a flagged purchase as JSON, None if it is not kept; one that is about to be is waited for.

        Raises:
            Problem: the run has not begun yet.
            RunError: explanations cannot be read.
        """
        run = self.run.identity.run
        kept = await run_sync(self.explanations.get, run, seq)
        if kept is None and self._follower is not None and self._follower.is_about_to_explain(seq):
            with anyio.move_on_after(EXPLAIN_SECONDS):
                await self._follower.attend(seq)
            kept = await run_sync(self.explanations.get, run, seq)
        return kept

    async def labelled(self, decisions: list[StoredDecision]) -> list[StoredDecision]:
        """Decisions with their labels."""
        return await self._labels.put_on(decisions) if self._labels is not None else decisions

    @property
    def labels(self) -> PurchaseLabels:
        """The labels.

        Raises:
            Problem: the run has no state directory in which they could be.
        """
        if self._labels is None:
            raise Problem(409, "labels are kept in a state directory; start the run with --state")
        return self._labels

    async def present(self) -> Status:
        """How the run is doing now."""
        return await self.run.status(running=self.ended is None)

    # What it does by itself

    async def work(self) -> None:
        """Look at the run once a second, and remove what is too old from the store, until cancelled."""
        looked = self._clock()
        cleaned, indexed = looked, False
        while True:
            if self._run is not None:
                await self._look(self._clock() - looked)
                looked = self._clock()
                try:
                    indexed = indexed or await self._rows.add_indexes()
                    if self._clock() - cleaned >= RETENTION_SECONDS:
                        await self.clean()
                        cleaned = self._clock()
                except Problem as problem:  # the run goes on, and it is tried again
                    if not self._complained:
                        told = f"{problem.detail}; the service goes on, but its store is not looked after"
                        await run_sync(self._warn, told)
                    self._complained = True
            await anyio.sleep(STATUS_SECONDS)

    def problem(self) -> tuple[str, str] | None:
        """Why it should be started anew, as a word and a sentence; None if all is well."""
        seconds = self._clock() - self._moved
        if self.ended == "failed":
            return "failed", "the run has failed; its log says why"
        if seconds > STUCK_SECONDS:
            return "stuck", f"nothing has been judged for {seconds:.0f} seconds, and something waits to be"
        return None

    async def notify(self, systemd: Notifier) -> None:
        """Tell systemd that all is well, as often as it wants to know, as long as that is so; until cancelled."""
        systemd.ready()
        while systemd.interval is not None:
            if self.problem() is None:
                systemd.alive()
            await anyio.sleep(systemd.interval)

    async def explain(self, layers: Sequence[Layer]) -> None:
        """Have every flagged purchase explained behind the run, until cancelled."""
        await self.has_begun.wait()
        self._follower = ExplainingFollower(layers, self.run.identity.run, self.explanations, self._warn)
        await self._follower.run()

    async def _look(self, seconds: float) -> None:
        status = await self.present()
        waits = status.lag_bytes or status.lag_records or status.through < status.totals["events"]
        if status.through != self._judged or not waits or self.ended is not None:
            self._moved = self._clock()
        self._judged = status.through
        self.has_caught_up |= not waits and status.caught_up > self._begun
        self.status = live_status(status, self.run, self.status, seconds, self.ended)
        self.hub.publish(Item("status", msgspec.json.encode(self.status)))

    async def clean(self) -> None:
        """Remove from the store what is not to be kept.

        Raises:
            Problem: it cannot be read or written.
        """
        if self._retention is not None:
            await self._retention.clean(self.run.identity.run, self._wall_clock())
        first = await self.decisions(Query(limit=1))
        if first:
            await run_sync(self.explanations.drop_below, self.run.identity.run, first[0].seq)
