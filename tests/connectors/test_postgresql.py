"""PostgreSQL as a sink: how one gets in, who may write, what the tables hold, and what goes wrong in one sentence."""

import base64
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest
from anyio.to_thread import run_sync
from servers import LOOPBACK, Postgres, children, installed, started
from support import purchase, running
from system_postgresql import PostgresSystem, query

from peerwatch.connectors import checks, postgresql
from peerwatch.connectors.exactly_once import StoreSink
from peerwatch.connectors.postgres_connection import password_from_file
from peerwatch.connectors.postgresql import PostgresStore
from peerwatch.connectors.records import DECISION, FLAGGED, REJECT, DecisionRow, Kind, Rejection
from peerwatch.connectors.registry import store_of
from peerwatch.connectors.store import StoreContext
from peerwatch.connectors.tables import TABLES, iso_time
from peerwatch.errors import SinkError, Unavailable, UsageError
from peerwatch.network.rejects import RejectedLine
from peerwatch.studies.generate import Recipe, generate
from peerwatch.urls import parsed

PASSWORD = "hunter2:\\ /@"  # noqa: S105
QUOTED = "hunter2%3A%5C%20%2F%40"
ALL: frozenset[Kind] = frozenset({FLAGGED, DECISION, REJECT})


class TlsPostgres(Postgres):
    """PostgreSQL that lets people in with TLS only, or with a certificate of their own; one authority signs all."""

    def prepare(self) -> None:
        """Make the cluster and the certificates. That of the server is for the address, not for `localhost`."""
        super().prepare()
        self.make_certificates(self.directory)
        data = self.directory / "data"
        settings = (
            "ssl = on\nssl_cert_file = '{0}/server.crt'\nssl_key_file = '{0}/server.key'\nssl_ca_file = '{0}/root.crt'"
        )
        with (data / "postgresql.conf").open("a") as file:
            file.write(settings.format(self.directory) + "\n")
        rules = ["hostssl all visitor all cert", "hostssl all all all trust"]
        (data / "pg_hba.conf").write_text("\n".join(rules) + "\n")

    def make_certificates(self, place: Path) -> None:
        """An authority, and what it signs for the server and for the role `visitor`."""
        common = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650"]
        self._openssl("req", "-x509", *common, "-subj", "/CN=root", "-keyout", "root.key", "-out", "root.crt")
        for name, subject, more in (
            ("server", "/CN=server", ["-addext", f"subjectAltName=IP:{LOOPBACK}"]),
            ("client", "/CN=visitor", []),
        ):
            files = ["-keyout", f"{name}.key", "-out", f"{name}.crt"]
            self._openssl(
                "req", "-x509", *common, "-subj", subject, *more, "-CA", "root.crt", "-CAkey", "root.key", *files
            )
        for name in ("server", "client"):
            (place / f"{name}.key").chmod(0o600)

    def _openssl(self, *arguments: str) -> None:
        self.run(["openssl", *arguments])

    @property
    def url(self) -> str:
        """As a user writes it."""
        return f"postgresql://postgres@{LOOPBACK}:{self.port}/postgres?sslmode=require"


class Standby(Postgres):
    """A copy of another server, which it follows."""

    def __init__(self, primary: Postgres) -> None:
        super().__init__()
        self._primary = primary

    def prepare(self) -> None:
        """Copy it."""
        place = ["-h", LOOPBACK, "-p", str(self._primary.port), "-U", "postgres"]
        self.run(
            [installed("pg_basebackup"), *place, "-D", str(self.directory / "data"), "-R", "-c", "fast", "--no-sync"]
        )


@pytest.fixture(scope="module")
def tls_postgres() -> Iterator[TlsPostgres]:
    """A server that wants TLS."""
    yield from started(TlsPostgres)


@pytest.fixture
def system(postgres: Postgres, tmp_path: Path) -> PostgresSystem:
    """A schema of the test's own."""
    system = PostgresSystem(tmp_path)
    system.server = postgres
    system.make()
    return system


@pytest.fixture
def role(postgres: Postgres) -> Iterator[str]:
    """A role that needs the password."""
    name, rules = f"r{secrets.token_hex(6)}", postgres.directory / "data" / "pg_hba.conf"
    before = rules.read_text()
    quoted = PASSWORD.replace("'", "''")
    query(postgres, f"CREATE ROLE {name} LOGIN PASSWORD '{quoted}'")
    rules.write_text(f"host all {name} all scram-sha-256\n{before}")
    query(postgres, "SELECT pg_reload_conf()")
    while gets_in_without_password(postgres, name):
        pass
    yield name
    rules.write_text(before)


def gets_in_without_password(postgres: Postgres, name: str) -> bool:
    """Whether the server has not read its rules yet."""
    url = f"postgresql://{name}@{LOOPBACK}:{postgres.port}/postgres"
    try:
        anyio.run(lambda: asyncpg.connect(url, password="wrong", ssl=False))  # noqa: S106
    except asyncpg.InvalidPasswordError:
        return False
    return True


def store(url: str, run: str = "a", kinds: frozenset[Kind] = ALL, timeout: float = 30.0) -> PostgresStore:
    """The store of a URL."""
    made = store_of(parsed(url), StoreContext(run, kinds, timeout=timeout))
    assert isinstance(made, PostgresStore)
    return made


@asynccontextmanager
async def connected(url: str, run: str = "a", kinds: frozenset[Kind] = ALL) -> AsyncIterator[PostgresStore]:
    """The store of a URL, connected."""
    made = await run_sync(store, url, run, kinds)
    try:
        await made.connect()
        yield made
    finally:
        await made.close()


def decision(seq: int, user: str, timestamp: int, amount: str, **more: Any) -> DecisionRow:
    """A decision; what is not given is missing."""
    missing = dict.fromkeys(("mean", "sd", "network_size", "score", "threshold", "model", "severity"))
    fields: dict[str, Any] = {"file": "log", "line": 6, "flagged": True, "window_size": 0} | missing | more
    return DecisionRow(seq=seq, user=user, timestamp=timestamp, amount=amount, **fields)


async def refusal(url: str) -> str:
    """Why a store that the URL names cannot be connected. It never shows the password."""
    with pytest.raises(UsageError) as caught:
        async with connected(url):
            pass
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


async def test_a_second_writer_of_a_run_is_kept_out(system: PostgresSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told so, and can write when the first one has gone; a writer of another run is none."""
    monkeypatch.setattr(postgresql, "LOCK_SECONDS", 0.1)  # the first one does not let go meanwhile
    async with connected(system.url) as first:
        await first.prepare(anew=True)
        async with connected(system.url, "b") as other:
            await other.prepare(anew=True)
        async with connected(system.url) as second:
            with pytest.raises(UsageError, match="another peerwatch is writing the records of this run; stop that one"):
                await second.prepare(anew=False)
    async with connected(system.url) as second:
        await second.prepare(anew=False)


async def test_two_sinks_of_one_run_may_share_a_database(system: PostgresSystem) -> None:
    """Each has kinds of its own, and a mark of its own."""
    async with connected(system.url, kinds=frozenset({FLAGGED})) as one:
        await one.prepare(anew=True)
        async with connected(system.url, kinds=frozenset({REJECT})) as two:
            await two.prepare(anew=True)
            await one.append([checks.flagged(7)])
            await two.append([Rejection(2, RejectedLine("log", 3, 4, "why", b"x"))])
            assert await one.marks() == await two.marks() == {FLAGGED: 7, REJECT: 2}


async def test_many_runs_may_begin_at_once(system: PostgresSystem) -> None:
    """All of them find no tables, and one creates them."""

    async def begin(run: str) -> None:
        async with connected(system.url, run) as begun:
            await begun.prepare(anew=True)
            await begun.append([checks.HELD])

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(begin, f"run-{number}")
    rows = await run_sync(system.query, "SELECT count(*) FROM peerwatch_flagged")
    assert rows[0][0] == 8


async def test_flagged_purchases_are_exact_in_their_columns(system: PostgresSystem) -> None:
    """Amounts are numbers of any size, times are exact to the microsecond, also outside of the years 1 to 9999."""
    records = [
        checks.flagged(1, user="a\0b", amount="9" * 300 + ".123456"),
        checks.flagged(2, amount="0e99999999999", timestamp="0001-01-01 00:00:00+23:59"),
        checks.flagged(3, amount="25.e-1", timestamp="9999-12-31 23:59:59.999999-23:59"),
        checks.flagged(4, amount="1E+307", timestamp="2017-06-13 11:33:01.000001"),
    ]
    async with connected(system.url) as opened:
        await opened.prepare(anew=True)
        await opened.append(records)
    rows = await run_sync(
        system.query, "SELECT seq, id, amount, sd, extract(epoch FROM time) AS time FROM peerwatch_flagged ORDER BY seq"
    )
    assert [row["seq"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["id"] == "a\\u0000b"
    assert [row["amount"] for row in rows] == [Decimal("9" * 300 + ".123456"), 0, Decimal("2.5"), 10**307]
    assert {row["sd"] for row in rows} == {Decimal("21.46")}
    assert [row["time"] * 10**6 for row in rows[1:]] == [-62135683140000000, 253402387139999999, 1497353581000001]


async def test_decisions_and_rejects_are_exact_in_their_columns(system: PostgresSystem) -> None:
    """An empty window has no mean; bytes that are no text, or have a NUL among them, are kept as Base64."""
    decisions = [
        decision(5, "Zo\u00eb", 1497353581000001, "1.5", window_size=50, mean="29.10", sd="21.46", network_size=7),
        decision(8, "2", 0, "9" * 309, score=float("inf"), model=2, severity="critical"),
    ]
    rejects = [
        Rejection(1, RejectedLine("log", 1, 0, "why", "caf\u00e9".encode())),
        Rejection(2, RejectedLine("log", 2, 9, "why", b"\xff")),
        Rejection(3, RejectedLine("log", 3, 11, "why", b"a\0b")),
    ]
    async with connected(system.url) as opened:
        await opened.prepare(anew=True)
        await opened.append(decisions)
        await opened.append(rejects)
    rows = await run_sync(system.query, "SELECT * FROM peerwatch_decisions ORDER BY seq")
    when = datetime(2017, 6, 13, 11, 33, 1, 1, tzinfo=UTC)
    base = {"run": "a", "file": "log", "line_number": 6, "flagged": True}
    missing = dict.fromkeys(("mean", "sd", "network_size", "score", "score_threshold", "model", "severity"))
    assert [dict(row) for row in rows] == [
        base | missing | {"seq": 5, "time": when, "id": "Zo\u00eb", "amount": Decimal("1.5"), "window_size": 50,
         "mean": Decimal("29.10"), "sd": Decimal("21.46"), "network_size": 7},
        base | missing | {"seq": 8, "time": datetime(1970, 1, 1, tzinfo=UTC), "id": "2", "amount": Decimal("9" * 309),
         "window_size": 0, "score": float("inf"), "model": 2, "severity": "critical"},
    ]  # fmt: skip
    rows = await run_sync(system.query, "SELECT raw, raw_base64 FROM peerwatch_rejects ORDER BY seq")
    assert [tuple(row) for row in rows] == [("caf\u00e9", None), (None, "/w=="), (None, "YQBi")]


async def test_many_records_are_written_in_several_statements(system: PostgresSystem) -> None:
    """So that none takes longer than the server may take for one answer."""
    records = [checks.flagged(number) for number in range(1, 12_001)]
    records += [checks.flagged(number, user="x" * (1 << 20)) for number in range(12_001, 12_021)]
    async with connected(system.url) as opened:
        await opened.prepare(anew=True)
        await opened.append(
            [*records, *(checks.flagged(number, user="x" * (1 << 20)) for number in range(12_001, 12_021))]
        )
        assert await opened.marks() == {FLAGGED: 12_020}
    rows = await run_sync(system.query, "SELECT count(*), max(seq), count(DISTINCT xmin::text) FROM peerwatch_flagged")
    assert rows[0][:2] == (12_020, 12_020)
    assert rows[0][2] >= 5


async def test_a_password_lets_in(
    postgres: Postgres, role: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the URL, the environment, and the password file: the first of these that is there counts."""
    place = f"{LOOPBACK}:{postgres.port}/postgres"
    bare = f"postgresql://{role}@{place}"
    await run_sync(query, postgres, f"GRANT CREATE ON SCHEMA public TO {role}")
    file = tmp_path / "pgpass"
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert "give the password as ${NAME} in the URL, in PGPASSWORD, or in ~/.pgpass" in await refusal(bare)
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    mine = f"{LOOPBACK}:{postgres.port}:*:{role}:{escaped}"
    await run_sync(file.write_text, f"# comment\nother:*:*:*:wrong\n{mine}\n*:*:*:*:wrong\n")
    file.chmod(0o644)
    assert f"{file} is not read, because others may read it too: chmod 600" in await refusal(bare)
    file.chmod(0o600)
    async with connected(bare):
        pass
    monkeypatch.setenv("PGPASSWORD", "wrong")
    assert "password authentication failed" in await refusal(bare)
    async with connected(f"postgresql://{role}:{QUOTED}@{place}"):
        pass
    monkeypatch.setenv("SECRET", PASSWORD)
    async with connected(f"postgresql://{role}:${{SECRET}}@{place}"):
        pass
    assert "***" in await refusal(f"postgresql://{role}:hunter2wrong@{place}")


@pytest.mark.parametrize(
    ("line", "password"),
    [
        ("db:5432:shop:clerk:secret", "secret"),
        ("*:*:*:*:secret", "secret"),
        ("db:5432:shop:clerk:a\\:b\\\\c", "a:b\\c"),
        ("db:5432:shop:clerk:", ""),
        ("db:5433:shop:clerk:secret", None),
        ("d*:5432:shop:clerk:secret", None),
        ("\\*:5432:shop:clerk:secret", None),
        ("db:5432:shop", None),
        ("#db:5432:shop:clerk:secret", None),
        ("", None),
    ],
)
def test_the_password_file_is_read_as_psql_reads_it(
    line: str, password: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fields are compared whole, `*` stands for anything, a backslash takes the sense from a character."""
    file = tmp_path / "pgpass"
    file.write_text(f"elsewhere:*:*:*:no\n{line}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    assert password_from_file(("db", "5432", "shop", "clerk")) == (password, "")


async def test_names_come_from_the_environment_where_the_url_has_none(
    system: PostgresSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for psql: host, port, user and database."""
    assert system.server is not None
    for name, value in (("HOST", LOOPBACK), ("PORT", str(system.server.port)), ("USER", "postgres")):
        monkeypatch.setenv(f"PG{name}", value)
    async with connected(f"postgresql:///?schema={system.place}") as opened:
        await opened.prepare(anew=True)
    async with connected(f"postgres:///postgres?schema={system.place}&host={LOOPBACK}") as opened:
        assert await opened.other_run() is None


async def test_tls_is_used_and_checked_as_it_is_asked_for(tls_postgres: TlsPostgres, tmp_path: Path) -> None:
    """The modes of libpq: what is verified, and what each refusal says."""
    port, files = tls_postgres.port, tls_postgres.directory
    address = f"postgresql://postgres@{LOOPBACK}:{port}/postgres?sslmode="
    name = f"postgresql://postgres@localhost:{port}/postgres?sslmode="
    root = f"&sslrootcert={files}/root.crt"
    for good in (
        f"{address}prefer",
        f"{address}require",
        f"{address}require{root}",
        f"{address}verify-ca{root}",
        f"{address}verify-full{root}",
        f"{name}verify-ca{root}",
    ):
        async with connected(good) as opened:
            rows = await opened._fetch("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")  # noqa: SLF001
            assert rows[0]["ssl"]
    assert "no pg_hba.conf entry" in await refusal(f"{address}disable")
    assert "needs the certificate of the server's authority" in await refusal(f"{address}verify-full")
    assert "its certificate is not trusted (Hostname mismatch" in await refusal(f"{name}verify-full{root}")
    other = tmp_path / "other.crt"
    await run_sync(shutil.copy, files / "client.crt", other)
    assert "its certificate is not trusted" in await refusal(f"{address}verify-ca&sslrootcert={other}")
    assert "its certificate is not trusted" in await refusal(f"{address}require&sslrootcert={other}")
    assert "there is no such file" in await refusal(f"{address}verify-full&sslrootcert={tmp_path}/none")
    assert "expected one of disable, prefer, require" in await refusal(f"{address}always")


async def test_a_client_certificate_lets_in(tls_postgres: TlsPostgres) -> None:
    """Where the server asks for one; without it the refusal says so."""
    with suppress(asyncpg.DuplicateObjectError):
        async with connected(f"{tls_postgres.url}") as opened:
            await opened._execute("CREATE ROLE visitor LOGIN")  # noqa: SLF001
            await opened._execute("GRANT CREATE ON SCHEMA public TO visitor")  # noqa: SLF001
    files = tls_postgres.directory
    url = f"postgresql://visitor@{LOOPBACK}:{tls_postgres.port}/postgres?sslmode=require"
    async with connected(f"{url}&sslcert={files}/client.crt&sslkey={files}/client.key") as opened:
        await opened.prepare(anew=True)
    assert "certificate" in await refusal(url)
    assert "cannot use the files for TLS" in await refusal(f"{url}&sslcert={files}/root.crt&sslkey={files}/client.key")
    locked = ["-in", "client.key", "-out", "locked.key", "-passout", "pass:secret"]
    await run_sync(tls_postgres.run, ["openssl", "pkey", "-aes256", *locked])
    assert "cannot use the files for TLS" in await refusal(
        f"{url}&sslcert={files}/client.crt&sslkey={files}/locked.key"
    )


async def test_a_server_without_tls_is_told_apart(system: PostgresSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default it is connected to without; where TLS is required, the sentence says what to do."""
    monkeypatch.setenv("PGSSLMODE", "sometimes")
    assert "PGSSLMODE is 'sometimes'; expected one of" in await refusal(system.url)
    monkeypatch.delenv("PGSSLMODE")
    async with connected(system.url):
        pass
    assert "the server has no TLS; set it up there, or choose sslmode=prefer" in await refusal(
        f"{system.url}&sslmode=require"
    )


async def test_what_is_missing_is_named(postgres: Postgres, system: PostgresSystem) -> None:
    """A database, a schema, an option: each with the way out."""
    server = f"postgresql://postgres:hunter2@{LOOPBACK}:{postgres.port}"
    assert 'database "none" does not exist; create it, or name another' in await refusal(f"{server}/none")
    assert "there is no schema none; create it (CREATE SCHEMA none)" in await refusal(f"{server}/postgres?schema=none")
    assert "there is no option 'table'" in await refusal(f"{server}/postgres?table=x")
    assert "write %23 where a # is meant" in await refusal(f"{server}/postgres#x")
    assert system.place


async def test_a_password_among_the_options_is_refused_and_not_shown(postgres: Postgres) -> None:
    """It belongs before the host, where it is hidden."""
    text = await refusal(f"postgresql://postgres@{LOOPBACK}:{postgres.port}/postgres?password=hunter2")
    assert "there is no option 'password'" in text


async def test_missing_permissions_are_named(postgres: Postgres, system: PostgresSystem) -> None:
    """The sentence has the statement that gives them; whoever may only use tables that are there can do so."""
    name = f"r{secrets.token_hex(6)}"
    await run_sync(query, postgres, f"CREATE ROLE {name} LOGIN")
    url = f"postgresql://{name}@{LOOPBACK}:{postgres.port}/postgres?schema={system.place}"
    usage = f"GRANT USAGE ON SCHEMA {system.place} TO {name}"
    assert usage in await refusal(url)
    await run_sync(query, postgres, usage)
    assert f"GRANT CREATE ON SCHEMA {system.place} TO {name}" in await refusal(url)
    async with connected(system.url) as owner:
        await owner.prepare(anew=True)
    assert f"{name} may not write the table peerwatch_" in await refusal(url)
    for table in ("marks", "flagged", "decisions", "rejects"):
        grant = f"GRANT SELECT, INSERT, UPDATE ON {system.place}.peerwatch_{table} TO {name}"
        await run_sync(query, postgres, grant)
    async with connected(url) as opened:
        await opened.prepare(anew=True)
        await opened.append([checks.HELD])
        await run_sync(query, postgres, f"REVOKE INSERT ON {system.place}.peerwatch_flagged FROM {name}")
        with pytest.raises(
            SinkError, match=f"permission denied for table peerwatch_flagged; grant {name} that and run"
        ):
            await opened.append([checks.BEHIND])


async def test_a_standby_is_refused(postgres: Postgres) -> None:
    """It can be read, and nothing can be written to it."""
    standby = await run_sync(Standby, postgres)
    await run_sync(standby.__enter__)
    try:
        assert "the server is read-only, as a standby is; name the primary" in await refusal(standby.url)
    finally:
        await run_sync(standby.__exit__)


async def test_a_database_that_lacks_characters_is_refused(postgres: Postgres) -> None:
    """Lines are UTF-8: a database in another encoding would refuse some for good."""
    name = f"d{secrets.token_hex(6)}"
    await run_sync(query, postgres, f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'")
    text = await refusal(f"postgresql://postgres@{LOOPBACK}:{postgres.port}/{name}")
    assert "the database's encoding is LATIN1, which lacks characters" in text


async def test_a_full_disk_ends_the_run(system: PostgresSystem) -> None:
    """The server says so with its code for it, here from a trigger; when there is room, the run goes on."""
    run = system.run
    async with connected(system.url, run) as opened:
        await opened.prepare(anew=True)
        await opened.append([checks.HELD])
        when = "full_disk BEFORE INSERT ON peerwatch_flagged"
        raising = "BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END"
        await run_sync(system.query, f"CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $${raising}$$")
        await run_sync(system.query, f"CREATE TRIGGER {when} EXECUTE FUNCTION full_disk()")
        with pytest.raises(SinkError, match=r"its disk is full \(could not extend file\); make room and run again"):
            await opened.append([checks.BEHIND])
        assert await opened.marks() == {FLAGGED: 1}
        await run_sync(system.query, "DROP TRIGGER full_disk ON peerwatch_flagged")
        await opened.append([checks.BEHIND])
    assert await system.read() == checks.HELD.encode() + checks.BEHIND.encode()


async def test_a_row_that_the_table_refuses_ends_the_run(system: PostgresSystem) -> None:
    """Somebody has added a rule of his own: nothing is dropped in silence."""
    async with connected(system.url) as opened:
        await opened.prepare(anew=True)
        await run_sync(system.query, "CREATE UNIQUE INDEX ON peerwatch_flagged (id)")
        await opened.append([checks.HELD])
        with pytest.raises(SinkError, match=r"violates unique constraint .*; fix that and run again"):
            await opened.append([checks.BEHIND])
        assert await opened.marks() == {FLAGGED: 1}


async def test_commits_are_durable_whatever_the_server_is_set_to(postgres: Postgres, system: PostgresSystem) -> None:
    """A role for which commits are not waited for has them waited for here."""
    name = f"r{secrets.token_hex(6)}"
    await run_sync(query, postgres, f"CREATE ROLE {name} LOGIN SUPERUSER")
    await run_sync(query, postgres, f"ALTER ROLE {name} SET synchronous_commit = off")
    url = f"postgresql://{name}@{LOOPBACK}:{postgres.port}/postgres?schema={system.place}"
    async with connected(url) as opened:
        assert await opened._fetch("SHOW synchronous_commit") == [("on",)]  # noqa: SLF001


async def test_a_server_that_does_not_answer_is_waited_for(system: PostgresSystem) -> None:
    """Stopped in the middle: an answer that takes too long is none, and when the server goes on, so does the run."""
    server = system.server
    assert server is not None

    async def told(sink: StoreSink) -> None:
        while sink.away is None:  # noqa: ASYNC110 (the sink sets it)
            await anyio.sleep(0.01)

    async with AsyncExitStack() as stack:
        made = await run_sync(store, system.url, system.run, ALL, 3.0)
        sink = StoreSink(made, delivery="exactly-once", give_up=600.0, warn=system.warnings.append)
        await sink.open(stack)
        await sink.start()
        await sink.write([checks.HELD])
        stopped = [server.pid, *await run_sync(children, server.pid)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(sink.write, [checks.BEHIND])
                await told(sink)
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
    assert "no answer in time; waiting for it" in system.warnings[0]
    assert await system.read() == checks.HELD.encode() + checks.BEHIND.encode()


class Proxy:
    """A TCP proxy before a server, which can swallow its answers and cut its connections."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.swallows = False
        self._open: list[anyio.abc.SocketStream] = []

    async def serve(self, *, task_status: anyio.abc.TaskStatus[int]) -> None:
        """Serve until cancelled; tells the port."""
        listener = await anyio.create_tcp_listener(local_host=LOOPBACK)
        task_status.started(listener.extra(anyio.abc.SocketAttribute.local_port))  # noqa: S610 (no database)
        async with listener:
            await listener.serve(self._serve)

    async def _serve(self, client: anyio.abc.SocketStream) -> None:
        async with client, await anyio.connect_tcp(LOOPBACK, self._port) as server, anyio.create_task_group() as tasks:
            self._open += [client, server]
            tasks.start_soon(self._pass_on, client, server, False)  # noqa: FBT003
            await self._pass_on(server, client, True)  # noqa: FBT003
            tasks.cancel_scope.cancel()

    async def _pass_on(self, one: anyio.abc.SocketStream, other: anyio.abc.SocketStream, answers: bool) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                data = await one.receive()
                if not (answers and self.swallows):
                    await other.send(data)
            return

    async def cut(self) -> None:
        """End all connections, with what has been swallowed."""
        self.swallows = False
        for stream in self._open:
            await stream.aclose()
        self._open.clear()


async def test_what_was_committed_without_an_answer_is_there_once(system: PostgresSystem) -> None:
    """The connection is lost between the commit and its answer: the mark says that the record is there."""
    assert system.server is not None
    proxy = Proxy(system.server.port)

    async def committed() -> None:
        count = "SELECT count(*) FROM peerwatch_flagged WHERE run = $1"
        while (await run_sync(system.query, count, system.run))[0][0] < 2:
            pass

    async with anyio.create_task_group() as tasks:
        port = await tasks.start(proxy.serve)
        url = f"postgresql://postgres@{LOOPBACK}:{port}/postgres?schema={system.place}"
        async with AsyncExitStack() as stack:
            made = await run_sync(store, url, system.run)
            sink = StoreSink(made, delivery="exactly-once", give_up=600.0, warn=system.warnings.append)
            await sink.open(stack)
            await sink.start()
            await sink.write([checks.HELD])
            proxy.swallows = True
            async with anyio.create_task_group() as writing:
                writing.start_soon(sink.write, [checks.BEHIND])
                await committed()
                await proxy.cut()
            assert sink.written == 1
            assert sink.retries >= 1
            await sink.write([checks.flagged(3)])
        tasks.cancel_scope.cancel()
    assert await system.read() == b"".join(checks.flagged(number).encode() for number in (1, 2, 3))


async def test_a_server_that_has_lost_records_meanwhile_ends_the_run(system: PostgresSystem) -> None:
    """As after a failover to a standby that was behind. A run that goes on from its checkpoint writes them anew."""
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start()
        await sink.write([checks.HELD])
        mark = await sink.sync()
        await sink.write([checks.BEHIND])
        await run_sync(system.query, "DELETE FROM peerwatch_flagged WHERE seq = 2")
        await run_sync(system.query, "UPDATE peerwatch_marks SET seq = 1")
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'peerwatch'"
        await run_sync(system.query, ended)
        with pytest.raises(SinkError, match=r"has lost records while it was away: it holds those up to number 1, and"):
            await sink.write([checks.flagged(3)])
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start(mark)
        await sink.write([checks.BEHIND, checks.flagged(3)])
    assert await system.read() == b"".join(checks.flagged(number).encode() for number in (1, 2, 3))


async def test_without_the_library_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is needed by nobody else."""
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(UsageError, match=r"needs asyncpg; install it: pip install 'peerwatch\[postgres\]'"):
        await run_sync(store, "postgresql://host/database")


async def test_an_unknown_host_is_unavailable() -> None:
    """It may be known again in a moment."""
    made = await run_sync(store, "postgresql://postgres@nowhere.invalid/postgres")
    with pytest.raises(Unavailable):
        await made.connect()


def test_nothing_is_loaded_for_files() -> None:
    """A run from file to file loads no database library."""
    code = "import sys, peerwatch.runtime.runner; sys.exit('asyncpg' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_with_all_kinds_of_records(system: PostgresSystem, tmp_path: Path) -> None:
    """The real command, killed in the middle: the rows are those of a database in a file, column by column."""
    lines = generate(Recipe(users=300, batch_events=3000, stream_events=6000, anomalies=0.05))
    batch, stream = ("".join(part).encode() for part in lines[:2])
    (tmp_path / "batch_log.json").write_bytes(batch)
    place = stream.index(b"\n", len(stream) // 2) + 1
    odd = b"x\0y\n\xff\n" + purchase("a\\u0000b", "1e307", "0001-01-01 00:00:00+23:59")
    (tmp_path / "stream_log.json").write_bytes(stream[:place] + odd + stream[place:])
    (tmp_path / "c.yaml").write_text(
        "input: {batch: batch_log.json, stream: stream_log.json}\n"
        "output: {flagged: flagged.json}\n"
        "sinks:\n"
        f'  - {{to: "{system.url}", records: [decisions, rejects, flagged]}}\n'
        '  - {to: "sqlite:all.db", records: [decisions, rejects, flagged]}\n'
        "state: {directory: state, seconds: 0.0, events: 500}\n"
    )
    command = [sys.executable, "-m", "peerwatch", "run", "--config", "c.yaml"]

    def has_begun() -> bool:
        with suppress(asyncpg.UndefinedTableError):
            return bool(system.query("SELECT count(*) FROM peerwatch_decisions")[0][0])
        return False

    with running(command, cwd=tmp_path) as process:
        while not has_begun() and process.poll() is None:
            pass
        process.kill()
    subprocess.run(command, cwd=tmp_path, check=True)
    with closing(sqlite3.connect(tmp_path / "all.db")) as database:
        database.row_factory = sqlite3.Row
        micros = "(extract(epoch FROM time) * 1000000)::bigint AS time"  # the client knows no year 0
        for kind in (FLAGGED, DECISION, REJECT):
            table, names = TABLES[kind].name, list(TABLES[kind].columns)
            expected = [dict(row) for row in database.execute(f"SELECT * FROM {table} ORDER BY seq")]  # noqa: S608
            columns = ", ".join(micros if name == "time" else name for name in names)
            found = system.query(f"SELECT {columns} FROM {table} ORDER BY seq")  # noqa: S608
            assert [as_in_sqlite(dict(row)) for row in found] == expected
            assert len(found) >= (2 if kind == REJECT else 100)
    kept = "".join(f"{row['line']}\n" for row in system.query("SELECT line FROM peerwatch_flagged ORDER BY seq"))
    assert kept.encode() == (tmp_path / "flagged.json").read_bytes()


def as_in_sqlite(row: dict[str, Any]) -> dict[str, Any]:
    """A row as SQLite has it: decimals and times as text, and texts that PostgreSQL cannot have."""
    for name in ("amount", "mean", "sd"):
        if row.get(name) is not None:
            row[name] = str(row[name])
    if "time" in row:
        row["time"] = iso_time(row["time"])
    if row.get("raw_base64") == base64.b64encode(b"x\0y").decode():
        row |= {"raw": "x\0y", "raw_base64": None}
    if "id" in row:
        row["id"] = row["id"].replace("\\u0000", "\0")
    return row
