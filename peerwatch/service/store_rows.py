"""The databases in which the run keeps decisions, as the service asks them: an SQLite file, or PostgreSQL."""

import re
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

import anyio
from anyio.to_thread import run_sync

from peerwatch.connectors.postgres_connection import PostgresClient, quoted
from peerwatch.connectors.postgresql import text_of, use_micros
from peerwatch.connectors.tables import iso_time
from peerwatch.errors import PeerwatchError, UsageError
from peerwatch.service.problems import Problem
from peerwatch.urls import ConnectorUrl

INDEXES: Final = (
    "CREATE INDEX IF NOT EXISTS peerwatch_flagged_seq ON peerwatch_decisions (run, seq) WHERE flagged",
    "CREATE INDEX IF NOT EXISTS peerwatch_user_seq ON peerwatch_decisions (run, id, seq)",
)
NO_TABLE: Final = "42P01"
"""The code of PostgreSQL's error for a table that is not there."""
LOCK_SECONDS: Final = 5.0
"""How long to wait for another writer of an SQLite file."""
QUERY_SECONDS: Final = 5.0
"""How long a query may take."""
STEPS: Final = 10_000
"""Instructions of SQLite's between two looks at the clock."""
THREADS: Final = 4
"""Queries at a time. The run has threads of its own, which requests must not use up."""


class Moment(int):
    """A time, in microseconds since 1970 UTC."""

    __slots__ = ()


class Rows(Protocol):
    """A database that can be asked."""

    at_least: ClassVar[str]
    """The condition that an amount is not below a value."""

    async def rows(self, statement: str, values: Sequence[Any]) -> list[Sequence[Any]]:
        """The rows of a query, in which `?` stands for each value; none if there is no such table yet.

        Raises:
            Problem: the database does not answer.
        """

    async def add_indexes(self) -> bool:
        """Have the questions of the API answered without reading every row; False if there are no tables yet.

        Raises:
            Problem: the database does not answer, or refuses.
        """


class SqliteRows:
    """An SQLite file, in which the run writes at the same time."""

    at_least: ClassVar[str] = "at_least(amount, ?)"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._threads = anyio.CapacityLimiter(THREADS)

    async def rows(self, statement: str, values: Sequence[Any]) -> list[Sequence[Any]]:
        """The rows of a query.

        Raises:
            Problem: the file cannot be read, or it takes too long.
        """
        return await run_sync(self.read, statement, values, limiter=self._threads)

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[Sequence[Any]]:
        """The rows of a query, asked in this thread.

        Raises:
            Problem: the file cannot be read, or it takes too long.
        """
        if not self.path.exists():
            return []
        until = time.monotonic() + QUERY_SECONDS
        try:
            with closing(
                sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", LOCK_SECONDS, uri=True)
            ) as database:
                database.create_function("at_least", 2, _at_least, deterministic=True)
                database.set_progress_handler(lambda: time.monotonic() > until, STEPS)
                given = [iso_time(value) if isinstance(value, Moment) else value for value in values]
                return database.execute(statement, given).fetchall()
        except sqlite3.Error as error:
            if "no such table" in str(error):
                return []  # nothing has been judged yet
            if "interrupted" in str(error):
                raise Problem(503, "the query takes too long; narrow it by after and before, or by user") from None
            raise _unreadable(error) from None

    async def add_indexes(self) -> bool:
        """Add them.

        Raises:
            Problem: the file cannot be written.
        """
        return await run_sync(self._add_indexes, limiter=self._threads)

    def _add_indexes(self) -> bool:
        if not self.read("SELECT name FROM sqlite_master WHERE name = 'peerwatch_decisions'"):
            return False
        for statement in INDEXES:
            self.write(statement)
        return True

    def write(self, statement: str, values: Sequence[Any] = ()) -> None:
        """Change something, in one transaction, in this thread.

        Raises:
            Problem: the file cannot be written.
        """
        try:
            with closing(sqlite3.connect(self.path, LOCK_SECONDS)) as database, database:
                database.execute(statement, values)
        except sqlite3.Error as error:
            raise Problem(503, f"the store cannot be written: {error}", headers={"retry-after": "1"}) from None


class PostgresRows:
    """A PostgreSQL database. One connection, used by one request after the other."""

    at_least: ClassVar[str] = "amount >= ?::text::numeric"

    def __init__(self, url: ConnectorUrl, timeout: float) -> None:
        """Name the database; nothing is connected yet.

        Raises:
            UsageError: the library is missing, or the URL has something that no such URL has.
        """
        self._client = PostgresClient(url, timeout)
        self._schema = url.option("schema")
        self._timeout = timeout
        self._connection: Any = None
        self._turn = anyio.Lock()

    async def rows(self, statement: str, values: Sequence[Any]) -> list[Sequence[Any]]:
        """The rows of a query.

        Raises:
            Problem: the server does not answer.
        """
        numbers = count(1)
        numbered = re.sub(r"\?", lambda _: f"${next(numbers)}", statement)
        given = [
            int(value) if isinstance(value, Moment) else text_of(value) if isinstance(value, str) else value
            for value in values
        ]
        async with self._turn:
            try:
                with anyio.fail_after(self._timeout):
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await self._connect()
                    found: list[Sequence[Any]] = await self._connection.fetch(numbered, *given)
                    return found
            except (*self._client.errors, TimeoutError, PeerwatchError) as error:
                if getattr(error, "sqlstate", None) == NO_TABLE:
                    return []  # nothing has been judged yet
                await self._close()
                known = isinstance(error, PeerwatchError)
                raise _unreadable(error if known else self._client.meaning(error, "read", UsageError)) from None

    async def _connect(self) -> Any:
        connection = await self._client.connect()
        await use_micros(connection)
        if self._schema is not None:
            await connection.execute(f"SET search_path TO {quoted(self._schema)}")
        return connection

    async def add_indexes(self) -> bool:
        """Add them.

        Raises:
            Problem: the server does not answer, or refuses.
        """
        if not await self.rows("SELECT 1 WHERE to_regclass('peerwatch_decisions') IS NOT NULL", ()):
            return False
        for statement in INDEXES:
            await self.rows(statement, ())
        return True

    async def close(self) -> None:
        """Close the connection, if there is one."""
        async with self._turn:
            await self._close()

    async def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with anyio.CancelScope(shield=True):
                await self._client.close(connection)


def _at_least(amount: str, least: str) -> bool:
    return Decimal(amount) >= Decimal(least)


def _unreadable(error: Exception) -> Problem:
    return Problem(503, f"the store cannot be read: {error}", headers={"retry-after": "1"})
