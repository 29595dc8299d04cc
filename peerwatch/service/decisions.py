"""Reads decisions from the store, which the run writes: an SQLite file, or a PostgreSQL database."""

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import anyio
import msgspec
from anyio.to_thread import run_sync

from peerwatch.connectors.postgres_connection import PostgresClient
from peerwatch.connectors.records import DECISION, DecisionRow
from peerwatch.connectors.tables import TABLES, iso_time
from peerwatch.errors import PeerwatchError, UsageError
from peerwatch.service.problems import Problem
from peerwatch.urls import ConnectorUrl

COLUMNS: Final = tuple(name for name in TABLES[DECISION].columns if name != "run")
INDEXES: Final = (
    "CREATE INDEX IF NOT EXISTS peerwatch_flagged_seq ON peerwatch_decisions (run, seq) WHERE flagged",
    "CREATE INDEX IF NOT EXISTS peerwatch_user_seq ON peerwatch_decisions (run, id, seq)",
)
NO_TABLE: Final = "42P01"
"""The code of PostgreSQL's error for a table that is not there."""
TIMEOUT_SECONDS: Final = 5.0
STEP: Final = 5000
"""Rows that are deleted at a time, so that the run's own writing never waits for long."""


class Moment(str):
    """A time as the store has it: `2017-06-13T11:33:01.000000Z`."""

    __slots__ = ()


class Decision(msgspec.Struct, frozen=True):
    """A decision as the API gives it. Amounts are text and exact; `time` is ISO 8601, UTC."""

    seq: int
    time: str
    user: str
    amount: str
    flagged: bool
    window_size: int
    mean: str | None
    sd: str | None
    network_size: int | None
    severity: str | None
    score: float | None
    threshold: float | None
    model: int | None
    file: str
    line: int
    label: Literal["anomaly", "normal"] | None = None


class Notice(msgspec.Struct, frozen=True):
    """A notice as the API gives it: `event` is the number of the event behind which it was given."""

    seq: int
    event: int
    who: str
    notice: str
    details: dict[str, Any]


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which decisions are wanted: `after` and `before` bound their numbers, `since` and `until` their times."""

    flagged: bool | None = None
    after: int | None = None
    before: int | None = None
    user: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    severity: str | None = None
    newest_first: bool = False
    limit: int = 100


class Rows(Protocol):
    """A database that can be asked."""

    async def rows(self, statement: str, values: Sequence[Any]) -> list[Sequence[Any]]:
        """The rows of a query, in which `?` stands for each value.

        Raises:
            Problem: the database does not answer.
        """


class SqliteRows:
    """An SQLite file, in which the run writes at the same time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def rows(self, statement: str, values: Sequence[Any]) -> list[Sequence[Any]]:
        """The rows of a query.

        Raises:
            Problem: the file cannot be read.
        """
        return await run_sync(self._rows, statement, values)

    def _rows(self, statement: str, values: Sequence[Any]) -> list[Sequence[Any]]:
        if not self.path.exists():
            return []
        try:
            with closing(
                sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", TIMEOUT_SECONDS, uri=True)
            ) as database:
                return database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            if "no such table" in str(error):
                return []  # nothing has been judged yet
            raise Problem(503, f"the store cannot be read: {error}", headers={"retry-after": "1"}) from None

    async def add_indexes(self) -> None:
        """Have the questions of the API answered without reading every row."""
        await run_sync(self._write, [(statement, ()) for statement in INDEXES])

    async def drop_old(self, run: str, keep_days: float, keep_bytes: int) -> int | None:
        """Remove decisions that are too old or too many; returns the number of the first that is left, if any went."""
        return await run_sync(self._drop_old, run, keep_days, keep_bytes)

    def _drop_old(self, run: str, keep_days: float, keep_bytes: int) -> int | None:
        newest = self._rows("SELECT max(time) FROM peerwatch_decisions WHERE run = ?", (run,))
        if not newest or newest[0][0] is None:
            return None
        before = self._rows(
            "SELECT max(seq) FROM peerwatch_decisions WHERE run = ? AND time < strftime('%Y-%m-%dT%H:%M:%fZ', ?, ?)",
            (run, newest[0][0], f"-{keep_days} days"),
        )[0][0]
        first, last, count = self._rows(
            "SELECT min(seq), max(seq), count(*) FROM peerwatch_decisions WHERE run = ?", (run,)
        )[0]
        size = sum(file.stat().st_size for file in self.path.parent.glob(f"{self.path.name}*"))
        free = self._rows("SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size", ())[0][0]
        if size - free > keep_bytes:
            share = 1 - keep_bytes / (size - free)
            over = self._rows(
                "SELECT seq FROM peerwatch_decisions WHERE run = ? ORDER BY seq LIMIT 1 OFFSET ?",
                (run, min(count - 1, int(share * count) + 1)),
            )
            before = max(before or 0, over[0][0] - 1)
        if before is None or before < first:
            return None
        while first <= before:
            first = min(first + STEP, before + 1)
            self._write([("DELETE FROM peerwatch_decisions WHERE run = ? AND seq < ?", (run, first))])
        return int(min(before + 1, last))

    def _write(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
        if not self.path.exists():
            return
        with closing(sqlite3.connect(self.path, TIMEOUT_SECONDS)) as database, database:
            for statement, values in statements:
                database.execute(statement, values)


class PostgresRows:
    """A PostgreSQL database. One connection, used by one request after the other."""

    def __init__(self, url: ConnectorUrl, timeout: float) -> None:
        """Name the database; nothing is connected yet.

        Raises:
            UsageError: the library is missing, or the URL has something that no such URL has.
        """
        self._client = PostgresClient(url, timeout)
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
        given = [_moment(value) if isinstance(value, Moment) else value for value in values]
        async with self._turn:
            try:
                with anyio.fail_after(self._timeout):
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await self._client.connect()
                    found: list[Sequence[Any]] = await self._connection.fetch(numbered, *given)
                    return found
            except (*self._client.errors, PeerwatchError) as error:
                await self.close()
                if getattr(error, "sqlstate", None) == NO_TABLE:
                    return []  # nothing has been judged yet
                meaning = (
                    error if isinstance(error, PeerwatchError) else self._client.meaning(error, "read", UsageError)
                )
                raise Problem(503, f"the store cannot be read: {meaning}", headers={"retry-after": "1"}) from None

    async def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._client.close(connection)


class DecisionStore:
    """The decisions and notices of one run."""

    def __init__(self, rows: Rows, run: str) -> None:
        self._rows = rows
        self._run = run

    async def decisions(self, query: Query) -> list[Decision]:
        """Decisions, in the order of their numbers."""
        where = ["run = ?"]
        values: list[Any] = [self._run]
        bounds = (("seq >", query.after), ("seq <", query.before), ("id =", query.user), ("time >=", query.since),
                  ("time <=", query.until), ("severity =", query.severity))  # fmt: skip
        for condition, value in bounds:
            if value is not None:
                where.append(f"{condition} ?")
                values.append(value)
        if query.flagged is not None:
            where.append("flagged" if query.flagged else "NOT flagged")
        order = "DESC" if query.newest_first else "ASC"
        found = await self._rows.rows(
            f"SELECT {', '.join(COLUMNS)} FROM peerwatch_decisions WHERE {' AND '.join(where)}"
            f" ORDER BY seq {order} LIMIT ?",
            [*values, query.limit],
        )
        return [_decision(dict(zip(COLUMNS, row, strict=True))) for row in found]

    async def decision(self, seq: int) -> Decision | None:
        """The decision on one event, None if there is none."""
        found = await self.decisions(Query(after=seq - 1, before=seq + 1, limit=1))
        return found[0] if found else None

    async def notices(self, after: int, limit: int, kind: str | None = None) -> list[Notice]:
        """The newest notices of a kind, or of all, behind one number, in their order."""
        only, values = ("AND notice = ?", [kind]) if kind is not None else ("AND notice <> ?", ["disagreement"])
        found = await self._rows.rows(
            "SELECT seq, event, who, notice, details FROM peerwatch_notices WHERE run = ? AND seq > ?"
            f" {only} ORDER BY seq DESC LIMIT ?",
            [self._run, after, *values, limit],
        )
        return [
            Notice(seq, event, who, notice, details if isinstance(details, dict) else msgspec.json.decode(details))
            for seq, event, who, notice, details in reversed(found)
        ]


def _decision(row: dict[str, Any]) -> Decision:
    """A row of the table as a decision."""
    time = row["time"]
    return Decision(
        row["seq"],
        time if isinstance(time, str) else time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        row["id"],
        str(row["amount"]),
        bool(row["flagged"]),
        row["window_size"],
        _text(row["mean"]),
        _text(row["sd"]),
        row["network_size"],
        row["severity"],
        row["score"],
        row["score_threshold"],
        row["model"],
        row["file"],
        row["line_number"],
    )


def decision_of(row: DecisionRow) -> Decision:
    """A record as a decision."""
    return Decision(
        row.seq, iso_time(row.timestamp), row.user, row.amount, row.flagged, row.window_size, row.mean, row.sd,
        row.network_size, row.severity, row.score, row.threshold, row.model, row.file, row.line,
    )  # fmt: skip


def _moment(text: Moment) -> datetime:
    return datetime.fromisoformat(text)


def _text(value: Any) -> str | None:
    return str(value) if value is not None else None
