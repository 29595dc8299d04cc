"""The store: what is kept and for how long, and what happens when it is another's, full, gone, or on a server."""

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.to_thread import run_sync
from served import FLAGGED, LIVE, peerwatch, served, write_logs
from servers import Postgres, started
from support import purchase

from peerwatch.connectors.exactly_once import StoreSink
from peerwatch.connectors.records import DECISION, NOTICE, DecisionRow
from peerwatch.connectors.registry import store_of
from peerwatch.connectors.store import EXACTLY_ONCE, StoreContext
from peerwatch.service.decisions import DecisionStore, Query
from peerwatch.service.problems import Problem
from peerwatch.service.retention import DAY, Retention
from peerwatch.service.store_rows import Moment, SqliteRows
from peerwatch.urls import parsed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """PostgreSQL."""
    yield from started(Postgres)


def row(seq: int, user: str = "1", *, is_flagged: bool = False) -> DecisionRow:
    """A decision."""
    return DecisionRow(
        seq, "stream", seq, user, 10**15 + seq, "1601.83", is_flagged, 50, "29.10", "21.46", 3, None, None, None, None
    )  # fmt: skip


async def fill(path: Path, run: str, first: int, last: int) -> None:
    """Write decisions with these numbers as a run does; every tenth is flagged."""
    context = StoreContext(run, frozenset({DECISION, NOTICE}), EXACTLY_ONCE, 5.0, print)
    store = await run_sync(store_of, parsed(f"sqlite:{path}"), context)
    sink = StoreSink(store, delivery=EXACTLY_ONCE, give_up=60.0, warn=print)
    await store.connect()
    await sink.start()
    await sink.write([row(seq, str(seq % 100), is_flagged=seq % 10 == 0) for seq in range(first, last + 1)])
    await store.close()


def numbers(path: Path, run: str = "a") -> list[int]:
    """The numbers of a run's decisions, read with the database's own client."""
    with closing(sqlite3.connect(path)) as database:
        return [
            seq for (seq,) in database.execute("SELECT seq FROM peerwatch_decisions WHERE run = ? ORDER BY seq", (run,))
        ]


async def test_what_was_judged_too_long_ago_goes(tmp_path: Path) -> None:
    """By the clock from outside, whatever the times in the log are; the newest stays however long nothing comes."""
    path = tmp_path / "d.db"
    kept = Retention(SqliteRows(path), keep_days=10, keep_bytes=10**9, drops_others=True)
    await kept.clean("a", 0.0)  # there is nothing yet
    await fill(path, "a", 1, 6000)
    await kept.clean("a", 0.0)
    await fill(path, "a", 6001, 6100)
    await kept.clean("a", 5 * DAY)
    await kept.clean("a", 10 * DAY)
    assert len(await run_sync(numbers, path)) == 6100
    await kept.clean("a", 10 * DAY + 1)
    assert await run_sync(numbers, path) == [*range(6001, 6101)]
    await fill(path, "a", 6101, 6101)
    await kept.clean("a", 15 * DAY + 1)
    assert await run_sync(numbers, path) == [6101]
    await kept.clean("a", 3 * DAY)  # the clock was set back
    await kept.clean("a", 13 * DAY + 1)
    assert await run_sync(numbers, path) == []


async def test_what_is_too_much_goes_and_the_file_stops_growing(tmp_path: Path) -> None:
    """The oldest first, until what is used is within the limit; the room is used again."""
    path, limit = tmp_path / "d.db", 1_000_000
    rows = SqliteRows(path)
    kept = Retention(rows, keep_days=1e5, keep_bytes=limit, drops_others=True)
    sizes, last = [], 0
    for turn in range(8):
        await fill(path, "a", last + 1, last + 10_000)
        last += 10_000
        await rows.add_indexes()
        for again in range(3):
            await kept.clean("a", float(turn * 10 + again))
        found = await run_sync(numbers, path)
        assert found == [*range(found[0], last + 1)]
        assert len(found) > 2000
        sizes.append((await anyio.Path(path).stat()).st_size)
        assert await run_sync(kept._bytes) < 1.2 * limit  # noqa: SLF001
    assert sizes[-1] == sizes[2]


async def test_what_other_runs_have_left_goes_first(tmp_path: Path) -> None:
    """At once where the file is the service's own, otherwise when the room is needed."""
    path = tmp_path / "d.db"
    for run in ("a", "b"):
        await fill(path, run, 1, 1000)
    await Retention(SqliteRows(path), keep_days=1, keep_bytes=10**9, drops_others=False).clean("b", 0.0)
    assert len(await run_sync(numbers, path, "a")) == 1000
    limit = 3 * (await anyio.Path(path).stat()).st_size // 4
    await Retention(SqliteRows(path), keep_days=1, keep_bytes=limit, drops_others=False).clean("b", 0.0)
    assert len(await run_sync(numbers, path, "a")) == 0
    assert len(await run_sync(numbers, path, "b")) == 1000
    await Retention(SqliteRows(path), keep_days=1, keep_bytes=10**9, drops_others=True).clean("c", 0.0)
    assert len(await run_sync(numbers, path, "b")) == 1000  # the new run has judged nothing yet
    await fill(path, "c", 1, 1)
    await Retention(SqliteRows(path), keep_days=1, keep_bytes=10**9, drops_others=True).clean("c", 0.0)
    assert len(await run_sync(numbers, path, "b")) == 0


async def test_questions_are_answered_by_an_index(tmp_path: Path) -> None:
    """None of those that the page asks reads every row or sorts."""
    path = tmp_path / "d.db"
    assert not await SqliteRows(path).add_indexes()
    await fill(path, "a", 1, 2000)
    rows = SqliteRows(path)
    assert await rows.add_indexes()
    store = DecisionStore(rows, "a")
    queries = {
        "peerwatch_flagged_seq": [
            Query(flagged=True), Query(flagged=True, newest_first=True), Query(flagged=True, after=500, limit=1000),
            Query(severity="critical"), Query(flagged=True, min_amount="5"),
        ],
        "peerwatch_user_seq": [Query(user="7"), Query(user="7", newest_first=True, before=500)],
        "sqlite_autoindex_peerwatch_decisions_1": [
            Query(), Query(newest_first=True), Query(after=4, before=6, limit=1),
        ],
    }  # fmt: skip
    for index, asked in queries.items():
        for query in asked:
            statement, values = store.statement(query)
            plan = " ".join(str(step[3]) for step in await rows.rows(f"EXPLAIN QUERY PLAN {statement}", values))
            assert index in plan, (query, plan)
            assert "SCAN" not in plan, plan
            assert "TEMP B-TREE" not in plan, plan


async def test_a_query_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps neither the client waiting nor the run."""
    path = tmp_path / "d.db"
    await fill(path, "a", 1, 20_000)
    monkeypatch.setattr("peerwatch.service.store_rows.QUERY_SECONDS", 0.0)
    with pytest.raises(Problem, match="takes too long"):
        await DecisionStore(SqliteRows(path), "a").decisions(Query(since=Moment(10**17)))


def test_a_store_that_is_damaged_is_told_and_the_run_goes_on(tmp_path: Path) -> None:
    """A query is answered with 503 while the file is not a database any more; what is judged is still written."""
    (tmp_path / "d.db").write_bytes(b"x" * 5000)
    rows = SqliteRows(tmp_path / "d.db")
    with pytest.raises(Problem, match="the store cannot be read: file is not a database"):
        rows.read("SELECT 1 FROM peerwatch_decisions")
    with pytest.raises(Problem, match="the store cannot be written"):
        rows.write("DELETE FROM peerwatch_decisions")


def test_each_decision_is_there_once_after_kills(tmp_path: Path) -> None:
    """Whenever the process dies: as many as are judged, and what they say is what one uninterrupted run says."""
    write_logs(tmp_path, 0)
    lines = [FLAGGED if i % 7 == 6 else purchase(1 + i % 3, str(9 + i % 4)) for i in range(4000)]
    with (tmp_path / "stream").open("ab", buffering=0) as log:
        for begin in range(0, 4000, 1000):
            with served(tmp_path, *LIVE) as service:
                service.until((tmp_path / "state" / "decisions.db").exists)
                log.write(b"".join(lines[begin : begin + 1000]))
                service.until(lambda: (tmp_path / "out").stat().st_size > 30 * begin / 7)  # noqa: B023
                service.kill()
    with served(tmp_path) as service:
        service.until_ready()
        found = service.decisions()
        assert service.stop() == 0
    (tmp_path / "again").mkdir()
    for name in ("batch", "stream"):
        shutil.copy(tmp_path / name, tmp_path / "again")
    with served(tmp_path / "again") as service:
        service.until_ready()
        assert service.decisions() == found
        assert service.stop() == 0
    assert len(found) == 4000


def run(directory: Path) -> "subprocess.CompletedProcess[str]":
    """A run without a service, to the present end of the log."""
    return peerwatch(directory, "run", *LIVE, "--idle-exit", "0")


def test_a_run_goes_on_with_and_without_a_service(tmp_path: Path) -> None:
    """On the same state directory, in any order; the store has what was judged while there was one."""
    write_logs(tmp_path, 6)
    assert run(tmp_path).returncode == 0
    with served(tmp_path) as service, (tmp_path / "stream").open("ab", buffering=0) as log:
        service.until_ready()
        assert service.decisions() == []
        log.write(FLAGGED * 2)
        service.until(lambda: len(service.decisions()) == 2)
        assert service.stop() == 0
        log.write(purchase(1, "9"))
        assert run(tmp_path).returncode == 0
    with served(tmp_path, *LIVE, command="run") as service, (tmp_path / "stream").open("ab", buffering=0) as log:
        service.until_ready()
        log.write(purchase(1, "9"))
        service.until(lambda: len(service.decisions()) == 3)
        assert [one["line"] for one in service.decisions()] == [7, 8, 10]
        assert service.stop() == 0
    (tmp_path / "state" / "decisions.db").unlink()  # its own store may go
    with served(tmp_path) as service:
        service.until_ready()
        assert service.decisions() == []
        assert service.stop() == 0


def test_a_run_that_begins_anew_does_not_show_the_old_one(tmp_path: Path) -> None:
    """--reset needs no --force for the service's own store; another store that holds another run's rows does."""
    write_logs(tmp_path, 12)
    with served(tmp_path) as service:
        service.until_ready()
        before = service.get("/status")["run"]
        assert service.stop() == 0
    with served(tmp_path, *LIVE, "--reset") as service:
        service.until_ready()
        assert service.get("/status")["run"] != before
        assert len(service.decisions()) == 12
        assert service.stop() == 0
    (tmp_path / "c.yaml").write_text("serve: {store: 'sqlite:other.db'}\n")
    with served(tmp_path, "-c", "c.yaml", *LIVE) as service:  # another place begins with what is judged from now on
        service.until_ready()
        assert service.decisions() == []
        (answer,) = service.submit(FLAGGED).json()["events"]
        assert [one["seq"] for one in service.decisions()] == [answer["seq"]]
        assert service.stop() == 0
    refused = peerwatch(tmp_path, "serve", "-c", "c.yaml", *LIVE, "--reset", "--serve", "127.0.0.1:0")
    assert refused.returncode == 2
    assert "other.db holds the records of another run" in refused.stderr
    with served(tmp_path, "-c", "c.yaml", *LIVE, "--reset", "--force") as service:
        service.until_ready()
        assert len(service.decisions()) == 13
        assert service.stop() == 0
    with closing(sqlite3.connect(tmp_path / "other.db", isolation_level=None)) as database:
        database.execute("DELETE FROM peerwatch_marks")
    refused = peerwatch(tmp_path, "serve", "-c", "c.yaml", *LIVE, "--serve", "127.0.0.1:0")
    assert refused.returncode == 2
    assert "it was emptied or restored" in refused.stderr


def test_a_store_that_is_none_is_refused(tmp_path: Path) -> None:
    """With a sentence that names the setting and what is expected."""
    write_logs(tmp_path, 1)
    for store, code in (
        ("redis://127.0.0.1/x", 2),
        ("decisions.db", 2),
        ("sqlite:nowhere/d.db", 2),
        ("sqlite:", 2),
        ("postgresql://127.0.0.1:1/x", 1),  # it is away, and may come
    ):
        (tmp_path / "c.yaml").write_text(f"serve: {{store: '{store}'}}\n")
        command = ("-c", "c.yaml", *LIVE, "--serve", "127.0.0.1:0")
        refused = peerwatch(tmp_path, "serve", *command)
        assert refused.returncode == code, store
        assert len(refused.stderr.splitlines()) <= 2, refused.stderr
        assert store in refused.stderr, refused.stderr


def test_postgresql_as_the_store(postgres: Postgres, tmp_path: Path) -> None:
    """Everything that is asked of it has the same answer as from a file; while it is away the service says so."""
    write_logs(tmp_path, 60)
    (tmp_path / "c.yaml").write_text(f"serve: {{store: '{postgres.url}'}}\nservers: {{timeout: 5}}\n")
    with (tmp_path / "stream").open("ab") as log:
        log.write(purchase("a\\u0000b", "1e3", "0001-01-01 00:00:00+23:59"))
        log.write(purchase("it's", "9" * 200 + ".5", "9999-12-31 23:59:59-23:59"))
    with served(tmp_path) as service:
        service.until_ready()
        queries: list[dict[str, Any]] = [
            {}, {"flagged": "true"}, {"user": "1", "order": "desc"}, {"min_amount": "11"}, {"min_amount": "9" * 150},
            {"since": "2017-06-13 11:33:01", "until": "2018-01-01 00:00:00"}, {"severity": "critical"},
            {"user": "it's"},
        ]  # fmt: skip
        expected = [service.get("/decisions", limit=50, **query) for query in queries]
        assert service.stop() == 0
    with served(tmp_path, "-c", "c.yaml", *LIVE[:-1], "other", "--force") as service:
        service.until_ready()
        found = [service.get("/decisions", limit=50, **query) for query in queries]
        assert json.dumps(found).replace("\\\\u0000", "\\u0000") == json.dumps(expected)
        assert len(service.get("/decisions", user="a\0b")["decisions"]) == 1
        assert service.get("/notices") == {"notices": []}
        seq = found[0]["decisions"][0]["seq"]
        assert service.get(f"/decisions/{seq}")["seq"] == seq
        postgres.kill()
        away = service.http.get("/decisions")
        assert (away.status_code, away.headers["retry-after"]) == (503, "1")
        assert "the store cannot be read" in away.json()["detail"]
        postgres.start()
        service.until(lambda: service.http.get("/decisions").status_code == 200)
        (answer,) = service.submit(FLAGGED).json()["events"]
        service.until(lambda: service.http.get(f"/decisions/{answer['seq']}").status_code == 200)
        assert service.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="it mounts a small file system")
def test_a_store_on_a_full_disk_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    """Nothing is swallowed: exit code 1, the sentence, and after room was made each decision is there once."""
    write_logs(tmp_path, 60)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        (tmp_path / "c.yaml").write_text("serve: {store: 'sqlite:disk/d.db'}\n")
        with served(tmp_path, "-c", "c.yaml", *LIVE) as service, (tmp_path / "stream").open("ab") as log:
            service.until_ready()
            log.write(purchase(1, "9") * 20_000)
            log.flush()
            assert service.process.wait(120) == 1
            assert "cannot write sqlite:disk/d.db: database or disk is full" in service.said()
            assert "Traceback" not in service.said()
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        with served(tmp_path, "-c", "c.yaml", *LIVE) as service:
            service.until_ready()
            assert [one["line"] for one in service.decisions()] == [*range(1, 20_061)]
            assert service.stop() == 0
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
