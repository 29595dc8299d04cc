"""Records in a PostgreSQL database.

Each batch and its mark are written by one statement, so the server keeps both or neither.
"""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from anyio.to_thread import run_sync

from peerwatch.connectors.postgres_connection import OPTIONS, PostgresClient, quoted
from peerwatch.connectors.records import FLAGGED, REJECT, Kind, Record
from peerwatch.connectors.store import StoreContext
from peerwatch.connectors.tables import EMPTY, LINES, MARKS, RUNS, TABLES, RecordTable, SqlType, WrittenLine, row_of
from peerwatch.errors import Unavailable, UsageError
from peerwatch.network.events import MICROS, parse_micros
from peerwatch.network.statistics import decimal
from peerwatch.urls import ConnectorUrl

TYPES: Final[Mapping[SqlType, str]] = {
    SqlType.INTEGER: "bigint", SqlType.TEXT: "text", SqlType.DECIMAL: "numeric", SqlType.REAL: "double precision",
    SqlType.BOOLEAN: "boolean", SqlType.TIME: "timestamp with time zone",
}  # fmt: skip
SENT_AS: Final[Mapping[SqlType, str]] = {**TYPES, SqlType.DECIMAL: "text"}
"""The server reads the decimals' digits itself."""
ROWS: Final = 5000
"""The most records that one statement writes."""
CHARACTERS: Final = 1 << 23
"""So many characters end a statement as well, because lines may be long."""
EPOCH: Final = 946_684_800 * MICROS
"""When PostgreSQL's time begins: 2000-01-01 UTC, in microseconds since 1970."""
LOCK_SECONDS: Final = 3.0
"""How long to wait until the server has noticed that the process before this one is gone."""
SESSION: Final = """
SET statement_timeout = {timeout};
SET lock_timeout = {lock};
SET tcp_keepalives_idle = 30;
SET tcp_keepalives_interval = 10;
SET tcp_keepalives_count = 3;
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""
"""Commits are durable, and the server gives up a client whose machine is gone, so that its lock does not stay."""
LOOK: Final = """
SELECT current_setting('transaction_read_only')::boolean AS is_read_only,
    current_setting('server_encoding') AS encoding,
    coalesce($1, current_schema()) AS schema,
    coalesce(has_schema_privilege(namespace.oid, 'CREATE'), false) AS may_create,
    coalesce(has_schema_privilege(namespace.oid, 'USAGE'), false) AS may_use,
    namespace.oid IS NOT NULL AS exists
FROM (SELECT) AS one LEFT JOIN pg_namespace AS namespace ON namespace.nspname = coalesce($1, current_schema())
"""
TABLES_THERE: Final = """
SELECT relname AS name,
    has_table_privilege(pg_class.oid, 'SELECT') AND has_table_privilege(pg_class.oid, 'INSERT')
    AND (relname <> $2 OR has_table_privilege(pg_class.oid, 'UPDATE')) AS may_write
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = $1 AND relname = ANY ($3::text[])
"""
CREATING: Final = int.from_bytes(blake2b(b"peerwatch tables", digest_size=8).digest(), "big", signed=True)
"""The name of the lock under which tables are created: two processes that do it at once fail otherwise."""


class Statement(NamedTuple):
    """The statement that writes records of one kind, and its table's columns without the run's name."""

    text: str
    columns: list[SqlType]


class PostgresStore:
    """`postgresql://user@host:5432/database`, whose tables are made if they are not there."""

    def __init__(self, url: ConnectorUrl, context: StoreContext) -> None:
        """Read the URL; nothing is connected.

        Raises:
            UsageError: it has something that is not known, or the library is missing.
        """
        url.check_options(*OPTIONS, "schema")
        self.url = url
        self.memory: Any = None
        self._client = PostgresClient(url, context.timeout)
        self._run = context.run
        self._records = sorted(context.records)
        self._timeout = context.timeout
        self._schema = ""
        self._there: set[str] = set()
        self._statements: dict[Kind, Statement] = {}
        self._connection: Any = None

    async def connect(self) -> None:
        """Connect, and see whether records can be written.

        Raises:
            UsageError: the server refuses the user, the database or the schema, or the user may not write there.
            Unavailable: the server does not answer.
        """
        await self.close()
        self._connection = await self._client.connect()
        lock = min(LOCK_SECONDS, self._timeout / 2)
        try:
            await self._connection.execute(
                SESSION.format(timeout=round(1000 * self._timeout), lock=max(1, round(1000 * lock)))
            )
            await use_micros(self._connection)
            place = await self._connection.fetchrow(LOOK, self.url.option("schema") or None)
            tables = [MARKS, *(TABLES[kind] for kind in self._records)]
            there = await self._connection.fetch(
                TABLES_THERE, place["schema"], MARKS.name, [table.name for table in tables]
            )
        except self._client.errors as error:
            raise self._failed(error, "use") from None
        self._there = {found["name"] for found in there}
        self._check(place, [found["name"] for found in there if not found["may_write"]], len(tables))
        self._schema = quoted(place["schema"])
        self._statements = {kind: self._statement(kind) for kind in self._records}

    def _check(self, place: Any, closed: list[str], tables: int) -> None:
        url, schema = self.url, place["schema"]
        user = url.user or "the user"
        if place["encoding"] != "UTF8":
            raise UsageError(
                f"{url}: the database's encoding is {place['encoding']}, which lacks characters that lines may have;"
                " name one whose encoding is UTF8"
            )
        if not place["exists"]:
            name = schema or "public"
            raise UsageError(f"{url}: there is no schema {name}; create it (CREATE SCHEMA {name}), or name another")
        if place["is_read_only"]:
            raise UsageError(f"{url}: the server is read-only, as a standby is; name the primary")
        if not place["may_use"]:
            raise UsageError(f"{url}: {user} may not use the schema {schema}: GRANT USAGE ON SCHEMA {schema} TO {user}")
        if closed:
            rights = "SELECT, INSERT, UPDATE"
            raise UsageError(
                f"{url}: {user} may not write the table {closed[0]}: GRANT {rights} ON {schema}.{closed[0]} TO {user}"
            )
        if len(self._there) < tables and not place["may_create"]:
            raise UsageError(
                f"{url}: {user} may not create tables in the schema {schema}: GRANT CREATE ON SCHEMA {schema} TO {user}"
            )

    async def close(self) -> None:
        """Close the connection; the server lets go of the run then."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._client.close(connection)

    async def other_run(self) -> str | None:
        """The name of another run that has written here."""
        if MARKS.name not in self._there:
            return None
        rows = await self._fetch(f"SELECT run FROM {self._named(MARKS)} WHERE run <> $1 LIMIT 1", self._run)
        return rows[0]["run"] if rows else None

    async def prepare(self, *, anew: bool) -> None:  # noqa: ARG002 (rows have their run's name: all of them can stay)
        """Keep other writers of this run out, and create the tables. What other runs have written stays.

        Raises:
            UsageError: somebody else writes this run.
        """
        for kind in self._records:
            await self._lock(kind)
        missing = [table for table in (MARKS, *map(TABLES.__getitem__, self._records)) if table.name not in self._there]
        if missing:
            create = "; ".join(_creation(table, self._named(table)) for table in missing)
            await self._execute(f"BEGIN; SELECT pg_advisory_xact_lock({CREATING}); {create}; COMMIT")

    async def _lock(self, kind: Kind) -> None:
        """Lock the run's records of a kind, until the connection ends."""
        name = f"{self._schema}\n{self._run}\n{kind}".encode()
        key = int.from_bytes(blake2b(name, digest_size=8).digest(), "big", signed=True)
        try:
            await self._open.execute("SELECT pg_advisory_lock($1)", key)
        except self._client.errors as error:
            if getattr(error, "sqlstate", None) == "55P03":
                raise UsageError(
                    f"{self.url}: another peerwatch is writing the records of this run; stop that one first"
                ) from None
            raise self._failed(error, "use") from None

    async def marks(self) -> Mapping[Kind, int]:
        """The highest number of each kind of this run."""
        rows = await self._fetch(f"SELECT kind, seq FROM {self._named(MARKS)} WHERE run = $1", self._run)
        return {row["kind"]: row["seq"] for row in rows}

    async def append(self, records: Sequence[Record]) -> None:
        """Insert records, each statement with their mark.

        Raises:
            SinkError: the disk is full, or the server refuses them.
        """
        kind = records[0].kind
        statement = self._statements[kind]
        for columns in await run_sync(self._columns, records):
            await self._execute(statement.text, self._run, kind, columns[0][-1], *columns)

    async def runs(self) -> list[str]:
        """The names of the runs that have written flagged purchases.

        Raises:
            UsageError: none has ever.
        """
        self._check_there()
        rows = await self._fetch(RUNS.format(self._named(MARKS), "$1"), FLAGGED)
        return [row["run"] for row in rows]

    async def lines_after(self, run: str, seq: int) -> list[WrittenLine]:
        """The next flagged purchases of a run.

        Raises:
            UsageError: none has ever written any.
        """
        self._check_there()
        rows = await self._fetch(LINES.format(self._named(TABLES[FLAGGED]), "$1", "$2"), run, seq)
        return [WrittenLine(*row) for row in rows]

    def _check_there(self) -> None:
        if TABLES[FLAGGED].name not in self._there:
            raise UsageError(EMPTY.format(self.url))

    def _columns(self, records: Sequence[Record]) -> list[list[list[Any]]]:
        """The records as columns of values, for one statement after the other."""
        types = self._statements[records[0].kind].columns
        chunks = _chunks([self._row(record) for record in records])
        return [[[*map(SENT[type_], column)] for type_, column in zip(types, zip(*rows, strict=True), strict=True)]
                for rows in chunks]  # fmt: skip

    def _row(self, record: Record) -> list[Any]:
        """The values of a record, without the run's name, which comes first."""
        row = row_of(record, self._run)[1:]
        if record.kind == REJECT and "\0" in (row[-2] or ""):  # a text cannot have that character here
            row[-2:] = None, base64.b64encode(row[-2].encode()).decode()
        return row

    def _statement(self, kind: Kind) -> Statement:
        table = TABLES[kind]
        columns = [(name, type_) for name, type_ in table.columns.items() if name != "run"]
        arrays = ", ".join(f"${place}::{SENT_AS[type_]}[]" for place, (_, type_) in enumerate(columns, 4))
        names = ", ".join(name for name, _ in columns)
        values = ", ".join(f"{name}::{TYPES[type_]}" for name, type_ in columns)
        text = f"""
            WITH written AS (
                INSERT INTO {self._named(table)} (run, {names})
                SELECT $1::text, {values} FROM unnest({arrays}) AS new ({names})
                ON CONFLICT (run, seq) DO NOTHING
            )
            INSERT INTO {self._named(MARKS)} AS held (run, kind, seq) VALUES ($1::text, $2::text, $3::bigint)
            ON CONFLICT (run, kind) DO UPDATE SET seq = greatest(held.seq, excluded.seq)
        """
        return Statement(text, [type_ for _, type_ in columns])

    def _named(self, table: RecordTable) -> str:
        return f"{self._schema}.{table.name}"

    async def _execute(self, statement: str, *values: Any) -> None:
        try:
            await self._open.execute(statement, *values)
        except self._client.errors as error:
            raise self._failed(error, "write") from None

    async def _fetch(self, query: str, *values: Any) -> list[Any]:
        try:
            rows: list[Any] = await self._open.fetch(query, *values)
        except self._client.errors as error:
            raise self._failed(error, "use") from None
        return rows

    @property
    def _open(self) -> Any:
        if self._connection is None:
            raise Unavailable("there is no connection")
        return self._connection

    def _failed(self, error: Exception, doing: str) -> Exception:
        return self._client.meaning(error, doing)


def _creation(table: RecordTable, named: str) -> str:
    if table is MARKS:
        return f"CREATE TABLE IF NOT EXISTS {named} (run text, kind text, seq bigint NOT NULL, PRIMARY KEY (run, kind))"
    return table._replace(name=named).create(TYPES)


def _chunks(rows: Sequence[list[Any]]) -> Iterator[list[list[Any]]]:
    """Rows, as many at a time as one statement takes."""
    chunk: list[list[Any]] = []
    size = 0
    for row in rows:
        chunk.append(row)
        size += sum(len(value) for value in row if isinstance(value, str))
        if len(chunk) == ROWS or size > CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


async def use_micros(connection: Any) -> None:
    """Have times be microseconds since 1970 UTC on a connection: the library's own have no year 0 and no year 10000."""
    await connection.set_type_codec(
        "timestamptz", schema="pg_catalog", encoder=_server_time, decoder=_micros, format="tuple"
    )


def text_of(value: str | None) -> str | None:
    """A text as it is sent: U+0000, which texts cannot have here, is written as JSON writes it."""
    return value.replace("\0", "\\u0000") if value is not None else None


def _digits(value: str | None) -> str | None:
    """A decimal number as it is sent: without an exponent, which the server reads up to a limit of its own."""
    return decimal(parse_micros(value)) if value is not None and "e" in value.lower() else value


def _server_time(micros: int) -> tuple[int]:
    return (micros - EPOCH,)


def _micros(server_time: tuple[int]) -> int:
    return server_time[0] + EPOCH


def _as_it_is(value: Any) -> Any:
    return value


SENT: Final[Mapping[SqlType, Callable[[Any], Any]]] = {
    SqlType.INTEGER: _as_it_is, SqlType.TEXT: text_of, SqlType.DECIMAL: _digits, SqlType.REAL: _as_it_is,
    SqlType.BOOLEAN: _as_it_is, SqlType.TIME: _as_it_is,
}  # fmt: skip
"""How the values of each type are sent."""
