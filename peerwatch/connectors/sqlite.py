"""Records in an SQLite database: tables that are there without any server.

Each batch and its mark are one transaction, in a write-ahead log that is synchronised to the disk.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from anyio.to_thread import run_sync

from peerwatch.connectors.records import FLAGGED, Kind, Record
from peerwatch.connectors.store import StoreContext
from peerwatch.connectors.tables import EMPTY, LINES, MARKS, RUNS, TABLES, SqlType, WrittenLine, iso_time, row_of
from peerwatch.errors import SinkError, Unavailable, UsageError
from peerwatch.readable import path_of, why_unwritable
from peerwatch.urls import ConnectorUrl

TYPES: Final[Mapping[SqlType, str]] = {
    SqlType.INTEGER: "INTEGER", SqlType.TEXT: "TEXT", SqlType.DECIMAL: "TEXT", SqlType.REAL: "REAL",
    SqlType.BOOLEAN: "INTEGER", SqlType.TIME: "TEXT",
}  # fmt: skip
"""Decimals are text, because SQLite has none of 300 digits; so are times, in ISO 8601."""

ROWS: Final = 500
"""Rows a statement. With one a row, the thread would hand the interpreter's lock to the event loop and back for each.
SQLite takes 32,766 values a statement."""


class SqliteStore:
    """`sqlite:verdicts.db`: a database in a file, made if it is not there."""

    def __init__(self, url: ConnectorUrl, context: StoreContext) -> None:
        """Name the file; nothing is opened.

        Raises:
            UsageError: the path is empty or a directory's.
        """
        url.check_options()
        self.url = url
        self.memory: Any = None
        self._run = context.run
        self._records = sorted(context.records)
        self._timeout = context.timeout
        self._connection: sqlite3.Connection | None = None
        try:
            self._path = Path(path_of(url.path))
        except ValueError as error:
            raise UsageError(f"{url}: the path {error}; name a file, as in sqlite:verdicts.db") from None

    async def connect(self) -> None:
        """Open the database, if it is there.

        Raises:
            UsageError: it cannot be opened, or is no database.
        """
        await run_sync(self._connect)

    def _connect(self) -> None:
        if self._path.is_dir() or not self._path.parent.is_dir():
            raise UsageError(f"cannot use {self.url}: {why_unwritable(self._path, OSError())}")
        if self._path.exists():
            self._open()

    def _open(self) -> None:
        try:
            self._connection = sqlite3.connect(
                self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.Error as error:
            raise UsageError(f"cannot use {self.url}: {error}") from None

    async def close(self) -> None:
        """Close the database."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                await run_sync(connection.close)

    async def other_run(self) -> str | None:
        """The name of another run that has written here."""
        if self._connection is None:
            return None
        rows = await run_sync(self._query, "SELECT name FROM sqlite_master WHERE name = ?", (MARKS.name,))
        if rows:
            rows = await run_sync(self._query, f"SELECT run FROM {MARKS.name} WHERE run <> ? LIMIT 1", (self._run,))
        return rows[0][0] if rows else None

    async def prepare(self, *, anew: bool) -> None:  # noqa: ARG002 (rows have their run's name: all of them can stay)
        """Create the tables. What other runs have written stays."""
        await run_sync(self._prepare)

    def _prepare(self) -> None:
        if self._connection is None:
            self._open()
        self._query("PRAGMA journal_mode=WAL")
        with self._transaction() as connection:
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {MARKS.name} (run TEXT, kind TEXT, seq INTEGER, PRIMARY KEY (run, kind))"
            )
            for kind in self._records:
                connection.execute(TABLES[kind].create(TYPES))

    async def marks(self) -> Mapping[Kind, int]:
        """The highest number of each kind of this run."""
        return dict(await run_sync(self._query, f"SELECT kind, seq FROM {MARKS.name} WHERE run = ?", (self._run,)))

    async def append(self, records: Sequence[Record]) -> None:
        """Insert records and their mark in one transaction.

        Raises:
            SinkError: the disk is full, or the database refuses them.
        """
        await run_sync(self._append, records)

    async def runs(self) -> list[str]:
        """The names of the runs that have written flagged purchases.

        Raises:
            UsageError: none has ever.
        """
        await self._check_there()
        return [run for (run,) in await run_sync(self._query, RUNS.format(MARKS.name, "?"), (FLAGGED,))]

    async def lines_after(self, run: str, seq: int) -> list[WrittenLine]:
        """The next flagged purchases of a run.

        Raises:
            UsageError: none has ever written any.
        """
        await self._check_there()
        rows = await run_sync(self._query, LINES.format(TABLES[FLAGGED].name, "?", "?"), (run, seq))
        return [WrittenLine(*row) for row in rows]

    async def _check_there(self) -> None:
        names = "SELECT name FROM sqlite_master WHERE name = ?"
        if self._connection is None or not await run_sync(self._query, names, (TABLES[FLAGGED].name,)):
            raise UsageError(EMPTY.format(self.url))

    def _append(self, records: Sequence[Record]) -> None:
        kind = records[0].kind
        table = TABLES[kind]
        types = table.columns.values()
        rows = [
            [iso_time(value) if type_ is SqlType.TIME else value for type_, value in zip(types, row, strict=True)]
            for row in (row_of(record, self._run) for record in records)
        ]
        places = ", ".join("?" * len(table.columns))
        marks = f"INSERT OR REPLACE INTO {MARKS.name} (run, kind, seq) VALUES (?, ?, ?)"
        with self._transaction() as connection:
            for begin in range(0, len(rows), ROWS):
                part = rows[begin : begin + ROWS]
                connection.execute(
                    f"INSERT OR IGNORE INTO {table.name} ({', '.join(table.columns)})"
                    f" VALUES {', '.join([f'({places})'] * len(part))}",
                    [value for row in part for value in row],
                )
            connection.execute(marks, (self._run, kind, records[-1].seq))

    def _query(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        try:
            return self._opened.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._failed(error) from None

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._opened
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._failed(error) from None

    @property
    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise Unavailable("the database is not open")
        return self._connection

    def _failed(self, error: sqlite3.Error) -> Exception:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            return Unavailable(str(error))
        return SinkError(f"cannot write {self.url}: {error}; fix that and run again")
