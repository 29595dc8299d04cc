"""Tables in place of the batch log: their rows count as lines would, once, whatever happens to the run."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import anyio
import pyarrow as pa
import pytest
from anyio.to_thread import run_sync
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from servers import LOOPBACK, Postgres
from support import running, wait_until
from system_postgresql import PostgresSystem

from peerwatch.cli.main import cli
from peerwatch.connectors import checks
from peerwatch.connectors.source import Block
from peerwatch.connectors.table import TableSource
from peerwatch.connectors.table_by_name import is_table, table_of
from peerwatch.errors import SourceError, UsageError
from peerwatch.network.decoder import Decoder
from peerwatch.network.events import CANONICAL, FieldNames
from peerwatch.settings.model import InputSettings
from peerwatch.storage.checkpoints import envelopes
from peerwatch.studies.generate import Recipe, generate

FIELDS: Final = ["event_type", "timestamp", "id", "amount", "id1", "id2"]
SETTINGS: Final = ("--D", "2", "--T", "20")
BOUGHT: Final = {"event_type": "purchase", "timestamp": "2017-06-13 11:33:01"}


async def opened(name: str, stack: AsyncExitStack, names: FieldNames = CANONICAL, position: Any = None) -> TableSource:
    """The table of a name, opened."""
    table = await run_sync(table_of, name, 30.0, 60.0, lambda _: None)
    source = TableSource(name, table, names=names, position=position)
    await source.open(stack)
    return source


async def blocks_of(name: str, names: FieldNames = CANONICAL, position: Any = None) -> list[Block]:
    """All blocks of a table."""
    async with AsyncExitStack() as stack:
        source = await opened(name, stack, names, position)
        async with aclosing(source.blocks()) as blocks:
            return [block async for block in blocks]


async def lines(name: str, names: FieldNames = CANONICAL) -> list[Any]:
    """The lines of a table as objects."""
    content = b"".join(block.content for block in await blocks_of(name, names))
    return [json.loads(line) for line in content.splitlines()]


async def refusal(name: str) -> str:
    """Why a table cannot be read."""
    with pytest.raises((UsageError, SourceError)) as caught:
        await blocks_of(name)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    return str(caught.value)


def peerwatch(*arguments: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> str:
    """Write a CSV file; returns its path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return str(path)


def without_places(found: Any) -> Any:
    """What JSON says, but for the files and lines that it names."""
    if isinstance(found, dict):
        return {key: without_places(value) for key, value in found.items() if key not in {"file", "line"}}
    return [without_places(each) for each in found] if isinstance(found, list) else found


class Case:
    """A generated case: its logs, the rows of its batch log, and what a run from the logs writes."""

    def __init__(self, directory: Path) -> None:
        made = generate(Recipe(users=200, batch_events=30_000, stream_events=3000, T=20, anomalies=0.05))
        self.batch, self.stream = directory / "batch_log.json", directory / "stream_log.json"
        for path, part in zip((self.batch, self.stream), made, strict=False):
            path.write_text("".join(part))
        events = [json.loads(line) for line in self.batch.read_text().splitlines()[1:]]
        self.rows = [[event.get(field) for field in FIELDS] for event in events]
        assert peerwatch("run", *SETTINGS, self.batch, self.stream, directory / "expected.json").exit_code == 0
        self.expected = (directory / "expected.json").read_bytes()
        assert self.expected.count(b"\n") > 20


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A generated case."""
    return Case(tmp_path_factory.mktemp("case"))


@pytest.fixture
def database(postgres: Postgres, tmp_path: Path) -> PostgresSystem:
    """A schema of the test's own."""
    system = PostgresSystem(tmp_path)
    system.server = postgres
    system.make()
    return system


def url_of(system: PostgresSystem, **options: str) -> str:
    """The URL of a table or query in the database; in a query, SCHEMA stands for the schema."""
    assert system.server is not None
    given = "&".join(f"{name}={quote(value.replace('SCHEMA', system.place))}" for name, value in options.items())
    return f"{system.server.url}?{given}"


@pytest.fixture(params=["csv", "parquet", "postgresql"])
def table(request: pytest.FixtureRequest, case: Case, tmp_path: Path) -> Iterator[str]:
    """The name of a table with the rows of the batch log."""
    if request.param == "csv":
        yield write_csv(tmp_path / "batch.csv", [FIELDS, *case.rows])
    elif request.param == "parquet":
        columns = [pa.array(column, pa.string()) for column in zip(*case.rows, strict=True)]
        parquet.write_table(pa.table(columns, FIELDS), tmp_path / "batch.parquet", row_group_size=5000)
        yield str(tmp_path / "batch.parquet")
    else:
        yield filled(request.getfixturevalue("database"), case)


def filled(system: PostgresSystem, case: Case, condition: str = "true") -> str:
    """The URL of a query that gives the rows of the batch log, of which the database has a table then."""
    columns = "n bigint, event_type text, timestamp timestamptz, id bigint, amount numeric, id1 bigint, id2 bigint"
    system.query(f"CREATE TABLE batch ({columns})")
    arrays = [[row[place] for row in case.rows] for place in range(len(FIELDS))]
    system.query(
        "INSERT INTO batch SELECT n, e, t::timestamptz, i::bigint, a::numeric, i1::bigint, i2::bigint FROM"
        " unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[])"
        " WITH ORDINALITY AS r (e, t, i, a, i1, i2, n)",
        *arrays,
    )
    return url_of(system, query=f"SELECT * FROM SCHEMA.batch WHERE {condition} ORDER BY n;")  # noqa: S608


def test_the_verdicts_are_those_of_the_batch_log(table: str, case: Case, tmp_path: Path) -> None:
    """The same bytes, from each kind of table; what reads the logs again reads the table again."""
    output, state = tmp_path / "out.json", tmp_path / "state"
    result = peerwatch("run", *SETTINGS, table, case.stream, output, "--state", state)
    assert result.exit_code == 0, result.output
    assert output.read_bytes() == case.expected
    for _, envelope in envelopes(state, InputSettings()):
        begins = [mark.events for mark in envelope.facts.bookmarks if not mark.judged]
        assert begins in ([], [len(case.rows)])  # reading begins again before the table or behind it
    assert peerwatch("verify", *SETTINGS, table, case.stream, output).exit_code == 0
    (first, *_) = case.expected.splitlines()
    number = case.stream.read_bytes().splitlines().index(first.split(b', "mean"')[0] + b"}") + 1
    by_log, *others = (
        json.loads(peerwatch("explain", *SETTINGS, batch, case.stream, "--line", number, "--json", *more).stdout)
        for batch, more in ((case.batch, []), (table, []), (table, ["--state", state]))
    )
    assert by_log["verdict"] == "flagged"
    assert [without_places(each) for each in others] == [without_places(by_log)] * 2
    assert peerwatch("state", *SETTINGS, table, case.stream, "--at", 31_000, "--user", "7").exit_code == 0
    assert peerwatch("sweep", table, case.stream, "--D", "1,2", "--T", "20").exit_code == 0
    checked = peerwatch("config", "check", *SETTINGS, table, case.stream, output)
    assert "works" in checked.output.partition("\n")[0], checked
    assert peerwatch("config", "show", *SETTINGS, table, case.stream, output).exit_code == 0


def test_a_run_that_goes_on_does_not_read_the_table_again(table: str, case: Case, tmp_path: Path) -> None:
    """What has been read is in the checkpoint: the table may have changed by then, or be gone."""
    stream, output, state = tmp_path / "stream.json", tmp_path / "out.json", tmp_path / "state"
    whole = case.stream.read_bytes().splitlines(keepends=True)
    stream.write_bytes(b"".join(whole[:1000]))
    run = ("run", *SETTINGS, table, stream, output, "--state", state)
    assert peerwatch(*run).exit_code == 0
    Path(table).unlink(missing_ok=True)
    with stream.open("ab") as file:
        file.write(b"".join(whole[1000:]))
    result = peerwatch(*run)
    assert result.exit_code == 0, result.output
    assert output.read_bytes() == case.expected


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_ends_within_the_table_begins_it_anew(
    number: signal.Signals, database: PostgresSystem, case: Case, tmp_path: Path
) -> None:
    """No checkpoint is taken in it, however often they are due: nothing is counted twice."""
    held = "n < 25000 OR pg_advisory_lock(4711) IS NOT NULL"
    (tmp_path / "c.yaml").write_text(
        f'input: {{batch: "{filled(database, case, held)}", stream: {case.stream}}}\n'
        "output: {flagged: out.json}\n"
        "state: {directory: state, seconds: 0.0, events: 1}\n"
        "D: 2\nT: 20\n"
    )
    command = [sys.executable, "-m", "peerwatch", "run", "--config", "c.yaml"]
    blocked = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"
    with running(["psql", url_of(database), "-qAt"], stdin=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        holder.stdin.write(b"SELECT pg_advisory_lock(4711);\n")
        holder.stdin.flush()
        taken = blocked.replace("NOT granted", "granted")
        wait_until(lambda: database.query(taken)[0][0] == 1, holder)
        with running(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
            wait_until(lambda: database.query(blocked)[0][0] == 1, process)
            process.send_signal(number)
            process.wait()
    found = [envelope.facts.progress.events for _, envelope in envelopes(tmp_path / "state", InputSettings())]
    assert found == [0]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "out.json").read_bytes() == case.expected


def test_a_server_that_ends_within_the_table_ends_the_run(database: PostgresSystem, case: Case, tmp_path: Path) -> None:
    """With one sentence; nothing had been judged."""
    gone = "n < 25000 OR pg_terminate_backend(pg_backend_pid())"
    result = peerwatch("run", *SETTINGS, filled(database, case, gone), case.stream, tmp_path / "out.json")
    assert result.exit_code == 1
    said = result.stderr.splitlines()[-1]
    assert "cannot read postgresql://" in said
    assert "any further: " in said
    assert "terminating connection due to administrator command; run again to begin it anew" in said
    assert (tmp_path / "out.json").read_bytes() == b""


def test_without_D_and_T_the_sentence_says_where_to_set_them(case: Case, tmp_path: Path) -> None:
    """A table has no header line."""
    table = write_csv(tmp_path / "t.csv", [FIELDS, *case.rows[:10]])
    result = peerwatch("run", table, case.stream, tmp_path / "out.json")
    assert (result.exit_code, '"D" is not set: give --D' in result.stderr) == (2, True)


async def test_csv_rows_become_lines(tmp_path: Path) -> None:
    """Quoted fields, CRLF, a byte-order mark, blank lines, columns that nobody asked for, in any order."""
    path = tmp_path / "t.CSV"
    content = (
        '\ufeffname,amount,id, timestamp\r\n"Zo\u00eb, ""x""",16.83,"a\r\nb",2017-06-13 11:33:01\r\n\r\n'
        ",1,007,2017-06-13 11:33:01"
    )
    await run_sync(path.write_bytes, content.encode())
    assert await lines(str(path)) == [
        BOUGHT | {"id": "a\r\nb", "amount": "16.83"},
        BOUGHT | {"id": "007", "amount": "1"},
    ]


@given(rows=st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=1, max_size=5))
def test_any_texts_survive_csv(rows: list[tuple[str, str, str]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """As Python's own writer writes them; an empty one is no value."""
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    columns = ["timestamp", "id", "amount"]
    write_csv(path, [columns, *rows])
    assert anyio.run(lines, str(path)) == [
        {"event_type": "purchase"} | {name: text for name, text in zip(columns, row, strict=True) if text}
        for row in rows
    ]
    shutil.rmtree(path.parent)


async def test_rows_that_are_no_events_are_rejected_like_lines(tmp_path: Path) -> None:
    """With their own content: too many fields, too few, a stray quote, bytes that are no UTF-8, a missing value."""
    rows = [
        b"id,timestamp,amount", b"1,2017-06-13 11:33:01,1,234.50", b"1,2017-06-13 11:33:01",
        b'"1"x,2017-06-13 11:33:01,5', b"\xff,2017-06-13 11:33:01,5", b",2017-06-13 11:33:01,5", b"1,yesterday,5",
        b"1,2017-06-13 11:33:01,-5", b"1,2017-06-13 11:33:01,5",
    ]  # fmt: skip
    path = tmp_path / "t.csv"
    await run_sync(path.write_bytes, b"\n".join(rows) + b"\n")
    (block,) = await blocks_of(str(path))
    decoded = Decoder().decode(block.content, block.line)
    assert len(decoded.events) == 1
    assert [(bad.line, bad.reason.split(";")[0]) for bad in decoded.rejected] == [
        (1, "not a JSON object"),
        (2, "not a JSON object"),
        (3, "not a JSON object"),
        (4, "not UTF-8 at byte 71 of the line"),
        (5, '"id" is missing'),
        (6, '"timestamp" "yesterday" is not YYYY-MM-DD HH:MM:SS'),
        (7, '"amount" "-5" is negative'),
    ]
    assert json.loads(decoded.rejected[0].raw) == ["1", "2017-06-13 11:33:01", "1", "234.50"]
    assert b"\xff" in decoded.rejected[3].raw


async def test_any_value_of_a_purchase_survives_csv(tmp_path: Path) -> None:
    """A field of a mebibyte, an amount of 300 digits, ids of any characters."""
    ids = ["x" * (1 << 20), 'Zo\u00eb \U0001f600 ", \\ \n\t\0', "1e5"]
    rows = [[user, "2017-06-13 11:33:01", "9" * 300 + ".123456"] for user in ids]
    path = await run_sync(write_csv, tmp_path / "t.csv", [["id", "timestamp", "amount"], *rows])
    assert await lines(path) == [BOUGHT | {"id": user, "amount": rows[0][2]} for user in ids]


async def test_friendships_need_no_timestamps(tmp_path: Path) -> None:
    """They count in the order of the rows."""
    path = await run_sync(write_csv, tmp_path / "t.csv", [["id2", "id1"], ["2", "1"], ["3", "2"]])
    tie = {"event_type": "befriend", "timestamp": "1970-01-01 00:00:00"}
    assert await lines(path) == [tie | {"id1": "1", "id2": "2"}, tie | {"id1": "2", "id2": "3"}]
    rows = [["id1", "id2", "timestamp"], ["1", "2", "2017-06-13 11:33:01"], ["1", "3", ""]]
    path = await run_sync(write_csv, tmp_path / "u.csv", rows)
    assert [line["timestamp"] for line in await lines(path)] == ["2017-06-13 11:33:01", "1970-01-01 00:00:00"]


async def test_columns_may_have_other_names(tmp_path: Path) -> None:
    """Those that `input.fields` gives; the lines have them as well."""
    rows = [["customer", "at", "total"], ["1", "2017-06-13 11:33:01", "5"]]
    path = await run_sync(write_csv, tmp_path / "t.csv", rows)
    names = FieldNames("=purchase", "at", "customer", "total")
    assert await lines(path, names) == [{"customer": "1", "at": "2017-06-13 11:33:01", "total": "5"}]
    names = FieldNames("kind", "at", "customer", "total")
    assert (await lines(path, names))[0]["kind"] == "purchase"


async def test_columns_that_do_not_say_what_rows_are_are_refused(tmp_path: Path) -> None:
    """The sentence names what is there, and what is needed."""

    async def of(*columns: str) -> str:
        return await refusal(await run_sync(write_csv, tmp_path / "t.csv", [columns, ["x"] * len(columns)]))

    both = "needs the columns timestamp, id, amount for purchases, or id1, id2 for friendships; it has "
    assert both + "id, timestamp" in await of("id", "timestamp")
    assert both + "event_type, id1" in await of("event_type", "id1")
    way_out = 'add a column "event_type" that says what each row is'
    assert way_out in await of("id", "timestamp", "amount", "id1", "id2")
    assert "has more than one column id2; name the others otherwise" in await of("id2", "id1", "id2")
    empty = tmp_path / "empty.csv"
    await run_sync(empty.touch)
    assert both + "none" in await refusal(str(empty))


async def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """They are not there, are folders, or of another kind; or a quote is never closed."""
    assert "none.csv: No such file or directory" in await refusal(f"{tmp_path}/none.csv")
    assert "none.parquet: No such file or directory" in await refusal(f"{tmp_path}/none.parquet")
    await run_sync((tmp_path / "d.csv").mkdir)
    assert "d.csv: Is a directory" in await refusal(f"{tmp_path}/d.csv")
    for name in ("t.csv", "t.parquet"):
        await run_sync((tmp_path / name).write_text, 'id,timestamp,amount\n1,2,"3\n4,5,6\n')
    assert "t.csv:2: a quote is not closed up to the end of the file" in await refusal(f"{tmp_path}/t.csv")
    assert "cannot read the table" in await refusal(f"{tmp_path}/t.parquet")


def test_parquet_values_are_exact(tmp_path: Path) -> None:
    """Times of any unit and zone, decimals, integers, floating-point numbers; nanoseconds are not rounded away."""

    def column(name: str, values: Any) -> list[str | None]:
        usual = {"id": "1", "timestamp": "2017-06-13 11:33:01", "amount": "1"}
        columns = {field: [value] * len(values) for field, value in usual.items()} | {name: values}
        made = pa.table({field: pa.array(given) for field, given in columns.items()})
        path = tmp_path / "t.parquet"
        parquet.write_table(made, path)
        return [line.get(name) for line in anyio.run(lines, str(path))]

    micros = [1497353581000001, 0, None]
    assert column("timestamp", pa.array(micros, pa.timestamp("us"))) == [
        "2017-06-13 11:33:01.000001", "1970-01-01 00:00:00.000000", None,
    ]  # fmt: skip
    assert column("timestamp", pa.array([1497353581000], pa.timestamp("ms", "Europe/Berlin"))) == [
        "2017-06-13 11:33:01.000Z"
    ]
    nanos = [1497353581000001000, 1497353581000001001]
    assert column("timestamp", pa.array(nanos, pa.timestamp("ns", "UTC"))) == [
        "2017-06-13 11:33:01.000001Z", "2017-06-13 11:33:01.000001001Z",
    ]  # fmt: skip
    assert column("amount", pa.array([Decimal("9" * 30 + ".25")], pa.decimal128(38, 2))) == ["9" * 30 + ".25"]
    assert column("amount", pa.array([16.83, 0.1, 1e22])) == ["16.83", "0.1", "1e+22"]
    assert column("id", pa.array([7, 2**63 - 1])) == ["7", str(2**63 - 1)]
    assert column("id", pa.array(["a", "b"]).dictionary_encode()) == ["a", "b"]
    with pytest.raises(SourceError, match=r"cannot read the table .* any further"):
        column("id", pa.array([[1], [2]]))


async def test_values_from_a_database_are_exact(database: PostgresSystem) -> None:
    """Numbers of any size, times of any zone, texts; a NULL is missing, and what no line may have is rejected."""
    values = (
        f"(1, 'a b', timestamptz '2017-06-13 13:33:01.000001+02', {'9' * 300}.25),"
        " (2, '7', '9999-12-31 23:59:59.999999+00', 0.1), (3, NULL, 'infinity', 'NaN')"
    )
    query = f"SELECT id, timestamp, amount FROM (VALUES {values}) AS v (n, id, timestamp, amount) ORDER BY n"  # noqa: S608
    found = await lines(url_of(database, query=query))
    when = "2017-06-13 11:33:01.000001+00"
    assert found[0] == BOUGHT | {"timestamp": when, "id": "a b", "amount": "9" * 300 + ".25"}
    assert found[1]["timestamp"] == "9999-12-31 23:59:59.999999+00"
    assert found[2] == {"event_type": "purchase", "timestamp": "infinity", "amount": "NaN"}
    floats = "SELECT 7::bigint AS id, timestamp '2017-06-13 11:33:01' AS timestamp, 16.83::float8 AS amount -- remark"
    assert await lines(url_of(database, query=floats)) == [BOUGHT | {"id": "7", "amount": "16.83"}]


async def test_a_table_or_view_is_named(database: PostgresSystem) -> None:
    """With its schema, exactly as it is called."""
    await run_sync(database.query, 'CREATE TABLE "Ties" (id1 int, id2 int, "since when" date)')
    await run_sync(database.query, 'INSERT INTO "Ties" VALUES (1, 2, now()), (2, 3, now())')
    found = await lines(url_of(database, table="SCHEMA.Ties"))
    assert [(line["id1"], line["id2"]) for line in found] == [("1", "2"), ("2", "3")]


async def test_friendships_and_purchases_of_two_tables_are_read_by_one_query(database: PostgresSystem) -> None:
    """As a view, which has a name that fits into a URL."""
    query = """
        SELECT 'befriend' AS event_type, since AS timestamp, a AS id1, b AS id2, NULL AS id, NULL AS amount
        FROM friendships
        UNION ALL
        SELECT 'purchase', bought_at, NULL, NULL, customer, total
        FROM (SELECT * FROM purchases ORDER BY bought_at) AS sorted
    """
    await run_sync(database.query, "CREATE TABLE friendships (a bigint, b bigint, since timestamptz)")
    await run_sync(database.query, "CREATE TABLE purchases (customer bigint, bought_at timestamptz, total numeric)")
    await run_sync(database.query, "INSERT INTO friendships VALUES (1, 2, '2017-06-13 11:33:01+00')")
    bought = "(7, '2017-06-13 11:33:02+00', 2.50), (8, '2017-06-13 11:33:01+00', 1)"
    await run_sync(database.query, f"INSERT INTO purchases VALUES {bought}")  # noqa: S608
    await run_sync(database.query, f"CREATE VIEW start AS {query}")
    assert [list(line.values()) for line in await lines(url_of(database, table="SCHEMA.start"))] == [
        ["befriend", "2017-06-13 11:33:01+00", "1", "2"],
        ["purchase", "2017-06-13 11:33:01+00", "8", "1"],
        ["purchase", "2017-06-13 11:33:02+00", "7", "2.50"],
    ]


async def test_a_query_changes_nothing(database: PostgresSystem) -> None:
    """It runs in a transaction that may only read."""
    await run_sync(database.query, "CREATE SEQUENCE counter")
    query = "SELECT nextval('SCHEMA.counter') AS id1, 2 AS id2"
    assert "cannot execute nextval() in a read-only transaction" in await refusal(url_of(database, query=query))


async def test_a_table_that_has_been_read_is_let_go(database: PostgresSystem, tmp_path: Path) -> None:
    """A run may go on for weeks behind it, and a transaction that stays keeps the server from tidying up."""
    query = "SELECT n AS id1, n + 1 AS id2 FROM generate_series(1, 20000) AS n -- SCHEMA"
    path = await run_sync(write_csv, tmp_path / "t.csv", [["id1", "id2"], ["1", "2"]])
    ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'peerwatch' AND query LIKE $1"
    for name in (url_of(database, query=query), path):
        async with AsyncExitStack() as stack:
            source = await opened(name, stack)
            open_files = len(await run_sync(os.listdir, "/dev/fd"))
            async with aclosing(source.blocks()) as blocks:
                rows = sum([block.content.count(b"\n") async for block in blocks])
            assert rows == (1 if name == path else 20_000)
            assert len(await run_sync(os.listdir, "/dev/fd")) < open_files
    while (await run_sync(database.query, ours, f"%{database.place}%"))[0][0] > 0:
        pass  # the server notices in its own time


async def test_what_a_database_refuses_is_told(database: PostgresSystem) -> None:
    """Each in one sentence: names, syntax, and what the URL lacks."""
    assert 'relation "none" does not exist' in await refusal(url_of(database, table="none"))
    assert "syntax error" in await refusal(url_of(database, query="SELEC 1"))
    for options in ({}, {"table": "x", "query": "SELECT 1"}):
        assert "name what to read: a table with ?table=NAME, or a query" in await refusal(url_of(database, **options))
    assert "it has a" in await refusal(url_of(database, query="SELECT 1 AS a"))
    nobody = f"postgresql://postgres:hunter2@{LOOPBACK}:1/postgres?table=x"
    assert "cannot reach postgresql://postgres:***@" in await refusal(nobody)
    server = f"postgresql://postgres:hunter2@{LOOPBACK}:{database.server.port}" if database.server else ""
    assert "there is no option 'schema'" in await refusal(f"{server}/postgres?schema=x&table=y")


async def test_blocks_are_whole_and_only_the_end_is_a_position(tmp_path: Path) -> None:
    """They are numbered like lines; behind the end nothing is read, and the table is not looked for."""
    rows = [[number, number + 1] for number in range(20_000)]
    every: list[list[Any]] = [["id1", "id2"], *rows]
    path = await run_sync(write_csv, tmp_path / "t.csv", every)
    found = await blocks_of(path)
    assert len(found) == 3
    assert [block.position for block in found[:-1]] == [None, None]

    async def source(position: Any, stack: AsyncExitStack) -> TableSource:
        return await opened(path, stack, position=position)

    await checks.check_source_holds_whole_lines(source, b"".join(block.content for block in found))
    await run_sync(Path(path).unlink)
    assert await blocks_of(path, position=json.loads('{"rows": 20000}')) == []


def test_names_of_tables() -> None:
    """By their endings, or their scheme."""
    tables = ["a.csv", "x/b.PARQUET", "postgresql://h/d?table=x", "postgres://h/d"]
    logs = ["a.json", "-", "csv", "kafka://h/topic.csv", "sqlite:a.csv"]
    assert [name for name in [*tables, *logs] if is_table(name)] == tables


def test_without_pyarrow_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is needed for Parquet alone."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="Parquet needs pyarrow; install it"):
        table_of("a.parquet", 1.0, 1.0, lambda _: None)
    table_of("a.csv", 1.0, 1.0, lambda _: None)
