"""The service beside one run: what its routes share."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import anyio
import msgspec

from peerwatch.actors.output import Outlet
from peerwatch.connectors.buffered import BufferedSink
from peerwatch.connectors.records import DECISION, NOTICE, DecisionRow, Kind, NoticeRecord, Record
from peerwatch.connectors.sink import ResumableSink
from peerwatch.runtime.companion import LiveRun
from peerwatch.runtime.sinks import store_sink
from peerwatch.service.decisions import Decision, DecisionStore, Notice, PostgresRows, Rows, SqliteRows, decision_of
from peerwatch.service.hub import Hub, Item
from peerwatch.service.labels import Labels
from peerwatch.service.problems import Problem
from peerwatch.service.report import LiveStatus, live_status
from peerwatch.service.submission import Submissions
from peerwatch.settings.model import Settings
from peerwatch.storage.status import Status
from peerwatch.urls import parsed

STUCK_SECONDS: Final = 30.0
"""For how long nothing may be judged while something waits to be."""
RETENTION_SECONDS: Final = 60.0
"""How often what is too old is removed from the store."""
STATUS_SECONDS: Final = 1.0
STORE: Final = "the service's decisions"


class Service:
    """Gets the run's records, keeps them where the API finds them, and tells those who listen."""

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        warn: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
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
        self._directory = directory
        self._warn = warn
        self._clock = clock
        self._run: LiveRun | None = None
        self._rows: Rows
        self._store_url = settings.serve.store or f"sqlite:{directory / 'decisions.db'}"
        url = parsed(self._store_url)
        if url.scheme == "sqlite":
            self._rows = SqliteRows(Path(url.path))
        else:
            self._rows = PostgresRows(url, settings.servers.timeout)
        self._labels = Labels(directory, warn) if settings.state.directory is not None else None
        self.submissions = Submissions(Path(settings.input.stream or "")) if self._takes_events() else None
        """Takes events; None if the log is none that is followed."""
        self.has_caught_up = False
        """Whether the logs have been read to their ends once."""
        self._judged = 0
        self._moved = clock()
        """When something was judged last, or nothing was waiting to be."""

    def _takes_events(self) -> bool:
        path = Path(self.settings.input.stream or "")
        return self.settings.follow and path.is_file()

    # What the run asks of its companion

    def outlets(self, run: str) -> Sequence[Outlet[ResumableSink]]:
        """The store of decisions and notices.

        Raises:
            UsageError: it cannot be used.
        """
        kinds: frozenset[Kind] = frozenset({DECISION, NOTICE})
        sink = store_sink(self._store_url, run, kinds, self.settings, self._warn)
        return [Outlet(STORE, BufferedSink(sink), kinds)]

    def began(self, run: LiveRun) -> None:
        """The run begins, or begins again."""
        self._run = run
        self._moved = self._clock()

    def heard(self, records: Sequence[Record]) -> None:
        """Tell those who listen."""
        for record in records:
            if isinstance(record, DecisionRow):
                if self.submissions is not None:
                    self.submissions.hear(record)
                if record.flagged:
                    self.hub.publish(Item("flagged", msgspec.json.encode(decision_of(record)), record.seq))
            elif isinstance(record, NoticeRecord):
                notice = Notice(record.seq, record.event, record.who, record.notice, record.details)
                self.hub.publish(Item("notice", msgspec.json.encode(notice)))

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

    async def labelled(self, decisions: list[Decision]) -> list[Decision]:
        """Decisions with their labels."""
        return await self._labels.put_on(decisions) if self._labels is not None else decisions

    @property
    def labels(self) -> Labels:
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

    def stuck_for(self) -> float:
        """For how many seconds nothing has been judged though something waits to be."""
        return self._clock() - self._moved

    # What it does by itself

    async def work(self) -> None:
        """Look at the run once a second, and remove what is too old from the store, until cancelled."""
        looked = self._clock()
        cleaned, indexed = looked, False
        while True:
            if self._run is not None:
                await self._look(self._clock() - looked)
                looked = self._clock()
                if isinstance(self._rows, SqliteRows):
                    if not indexed and self._rows.path.exists():
                        await self._rows.add_indexes()
                        indexed = True
                    if self._clock() - cleaned >= RETENTION_SECONDS:
                        await self._clean(self._rows)
                        cleaned = self._clock()
            await anyio.sleep(STATUS_SECONDS)

    async def _look(self, seconds: float) -> None:
        status = await self.present()
        events = status.totals["events"]
        if events != self._judged or not status.lag_bytes or self.ended is not None:
            self._moved = self._clock()
        self._judged = events
        self.has_caught_up |= not status.lag_bytes and bool(status.checkpoint)
        self.status = live_status(status, self.run, self.status, seconds, self.ended)
        self.hub.publish(Item("status", msgspec.json.encode(self.status)))

    async def _clean(self, rows: SqliteRows) -> None:
        keep = self.settings.serve
        await rows.drop_old(self.run.identity.run, keep.keep_days, keep.keep_megabytes * 1_000_000)
