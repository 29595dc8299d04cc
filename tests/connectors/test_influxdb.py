"""Points of a time series: each record is one, whatever its time; InfluxDB and VictoriaMetrics read what was meant."""

import json
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from anyio.to_thread import run_sync
from http_servers import Faults, Kills, Quiet, forwarding, serving
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from servers import Influx, Victoria
from strategies import often
from system_influxdb import InfluxSystem, ask, query

from peerwatch.connectors.checks import flagged
from peerwatch.connectors.exactly_once import StoreSink
from peerwatch.connectors.http_client import LARGEST_BODY, pieces
from peerwatch.connectors.influxdb import EARLIEST, InfluxStore, Times
from peerwatch.connectors.records import (
    DECISION,
    FLAGGED,
    MOST_NOTICES,
    NOTICE,
    REJECT,
    DecisionRow,
    FlaggedPurchase,
    Kind,
    NoticeRecord,
    Record,
    encoded,
)
from peerwatch.connectors.store import EXACTLY_ONCE, StoreContext, unheard
from peerwatch.errors import SinkError, UsageError
from peerwatch.studies.generate import Recipe, generate
from peerwatch.urls import parsed

MOMENTS = st.integers(0, 3) | st.integers(-(1 << 62), 1 << 62)
PLACES = 1000
TIME = 1_497_353_581_000_000
"""2017-06-13 11:33:01."""


def context(*kinds: Kind, run: str = "r") -> StoreContext:
    """What a store is told."""
    return StoreContext(run, frozenset(kinds or {FLAGGED}), timeout=60.0)


def decision(seq: int, timestamp: int = TIME, user: str = "1") -> DecisionRow:
    """A decision, by default always of the same second."""
    return DecisionRow(
        seq, "stream", seq, user, timestamp, "1601.83", flagged=False, window_size=50, mean="29.10", sd="21.46",
        network_size=None, score=None, threshold=None, model=None, severity=None,
    )  # fmt: skip


def times_of(moments: Sequence[int], last: Sequence[int] = ()) -> list[int]:
    """The times of records."""
    times = Times(last)
    return [times.next(micros) for micros in moments]


@given(st.lists(st.tuples(MOMENTS, st.integers(1, 2500)), max_size=6), st.randoms(use_true_random=False))
def test_no_two_records_get_the_same_time(moments: list[tuple[int, int]], rng: random.Random) -> None:
    """In whatever order they come, and however many there are of one microsecond; 1,000 numbers are remembered."""
    each = [micros for micros, count in moments for _ in range(count)]
    if rng.random() < 0.5:
        rng.shuffle(each)
    times = Times()
    found = [times.next(micros) for micros in each]
    assert len({*found}) == len(found)
    assert all(-(1 << 63) + 2 <= time < (1 << 63) - 1 for time in found)
    assert len(times.last) <= PLACES
    assert times.last == sorted(times.last, reverse=True)


@given(st.lists(st.integers(-5, 5), max_size=PLACES))
def test_a_record_keeps_its_microsecond(moments: list[int]) -> None:
    """While there is a place in it: always, if there are no more than 1,000 records, in any order."""
    assert [time // PLACES for time in times_of(moments)] == moments


@given(st.lists(st.integers(-5, 5), max_size=PLACES))
def test_in_a_log_that_is_in_order_the_nth_of_a_microsecond_gets_n_nanoseconds(moments: list[int]) -> None:
    """The first gets none."""
    moments.sort()
    assert times_of(moments) == [
        micros * PLACES + moments[:place].count(micros) for place, micros in enumerate(moments)
    ]


def test_more_records_of_a_second_than_nanoseconds_of_a_microsecond_move_on() -> None:
    """Only as far as they must; the next second is not touched. A time that is too far away stands at the edge."""
    assert times_of([0] * 2500 + [1_000_000]) == [*range(2500), 1_000_000_000]
    assert times_of([-(1 << 62)]) == [EARLIEST * PLACES]


@given(st.lists(MOMENTS, max_size=50), st.integers(0, 50))
def test_going_on_gives_the_same_times_again(moments: list[int], place: int) -> None:
    """From what is remembered at any place, kept as JSON."""
    before = Times()
    for micros in moments[:place]:
        before.next(micros)
    kept = msgspec.json.decode(msgspec.json.encode(before.last))
    assert times_of(moments)[place:] == times_of(moments[place:], kept)


@given(st.lists(st.integers(1, LARGEST_BODY + 1), max_size=30), st.integers(1, 10))
def test_requests_are_bounded(sizes: list[int], count: int) -> None:
    """In records and bytes, but for a record that is too large on its own; none is left out, and all are in order."""
    parts = [bytes(size) for size in sizes]
    cuts = [*pieces(parts, count)]
    assert [place for begin, end in cuts for place in range(begin, end)] == [*range(len(parts))]
    assert all(0 < end - begin <= count for begin, end in cuts)
    assert all(sum(sizes[begin:end]) <= LARGEST_BODY or end - begin == 1 for begin, end in cuts)


def write(
    url: str, run: str, *batches: Sequence[Record], kinds: Sequence[Kind] = (FLAGGED,), mark: Any = None
) -> list[Any]:
    """Write batches as a process does that begins behind a mark; returns the mark behind each, as JSON has it."""

    async def process() -> list[Any]:
        store = await run_sync(InfluxStore, parsed(url), context(*kinds, run=run))
        sink = StoreSink(store, delivery=EXACTLY_ONCE, give_up=60.0, warn=unheard)
        marks = []
        async with AsyncExitStack() as stack:
            await sink.open(stack)
            await sink.start(mark)
            for batch in batches:
                await sink.write(batch)
                marks.append(json.loads(msgspec.json.encode(await sink.sync())))
        return marks

    return anyio.run(process)


def test_records_of_one_second_are_all_there_after_any_number_of_deaths(influx: Influx, tmp_path: Path) -> None:
    """Also late ones; cut into batches in other ways, gone on with from older checkpoints: each is there once."""
    rng = random.Random(1)
    system = InfluxSystem(tmp_path)
    system.server = influx
    records = [decision(seq, TIME + rng.choice([0, 0, 0, 1, 2, 1_000_000])) for seq in range(1, 3001)]
    marks: list[tuple[int, Any]] = [(0, None)]
    for _ in range(12):
        place, mark = rng.choice(marks[-3:])
        cuts = [place, *sorted(rng.sample(range(place + 1, len(records) + 1), min(4, len(records) - place)))]
        batches = [records[begin:end] for begin, end in pairwise(cuts)]
        found = write(system.url, system.run, *batches, kinds=[DECISION], mark=mark)
        marks += zip(cuts[1:], found, strict=True)
    place, mark = marks[-1]
    write(system.url, system.run, [*records[place:], decision(3001)], kinds=[DECISION], mark=mark)
    rows = query(influx.port, system.database, f"SELECT seq FROM peerwatch_decisions WHERE run = '{system.run}'")  # noqa: S608
    assert sorted(row["seq"] for row in rows) == [*range(1, 3002)]
    held = {row["seq"]: row["time"] // 1000 for row in rows}
    assert max(held[record.seq] - record.timestamp for record in records) == 2


def test_what_a_point_holds(influx: Influx, tmp_path: Path) -> None:
    """Numbers for charts, tags to group by, and the record itself, exact."""
    system = InfluxSystem(tmp_path)
    system.server = influx
    line = (
        b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01.5", "id": "7", "amount": "' + b"9" * 400 + b'.10",'
        b' "mean": "29.10", "sd": "21.46", "detector": "mad", "score": "5.25", "score_threshold": "3.5", "model": "4",'
        b' "severity": "critical"}\n'
    )
    write(system.url, system.run, [FlaggedPurchase(12, line)], [decision(13)], kinds=[FLAGGED, DECISION])
    found = query(influx.port, system.database, f"SELECT * FROM peerwatch_flagged WHERE run = '{system.run}'")  # noqa: S608
    present = {name: value for name, value in found[0].items() if value is not None}
    assert present == {
        "time": 1_497_353_581_500_000_000, "run": system.run, "detector": "mad", "severity": "critical", "seq": 12,
        "id": "7", "mean": 29.1, "sd": 21.46, "score": 5.25, "score_threshold": 3.5, "model": 4,
        "line": line.decode().rstrip("\n"),
    }  # fmt: skip
    found = query(influx.port, system.database, f"SELECT * FROM peerwatch_decisions WHERE run = '{system.run}'")  # noqa: S608
    present = {name: value for name, value in found[0].items() if value is not None}
    assert present == {
        "time": 1_497_353_581_000_000_000, "run": system.run, "seq": 13, "file": "stream", "line_number": 13,
        "id": "1", "amount": 1601.83, "flagged": False, "window_size": 50, "mean": 29.1, "sd": 21.46,
        "line": decision(13).encode().decode().rstrip("\n"),
    }  # fmt: skip


TEXTS = st.text(st.sampled_from("ab ,=\\\"'\n\r\t\0#{}") | st.characters(exclude_categories=["Cs"]), max_size=12)
AWKWARD = [
    "",
    "\\",
    "a\\",
    "\\\\ ",
    "\\,",
    "\\=\\",
    'a"b',
    "\n",
    "a\nb=1 2",
    "# a",
    "n",
    "\\n",
    "i,j=k l",
    '"',
    "é\u2028",
]


def awkward(test: Callable[..., Any]) -> Callable[..., Any]:
    """Texts that the protocol's own characters are in, always tried."""
    for text in AWKWARD:
        test = example(texts=[(text, text)])(test)
    return test


def judged(seq: int, user: str, detector: str) -> FlaggedPurchase:
    """A flagged purchase whose texts are these."""
    own = json.loads(flagged(seq, user).line)
    own |= {"detector": detector, "score": "5.25", "score_threshold": "3.5"}
    return FlaggedPurchase(seq, msgspec.json.encode(own) + b"\n")


@awkward
@given(texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_influxdb_reads_any_text_as_it_was(influx: Influx, tmp_path: Path, texts: list[tuple[str, str]]) -> None:
    """In tags and fields, but for line feeds, and backslashes in a tag."""
    system = InfluxSystem(tmp_path)
    system.server = influx
    records = [judged(seq, *each) for seq, each in enumerate(texts, 1)]
    write(system.url, system.run, records)
    rows = query(influx.port, system.database, f"SELECT * FROM peerwatch_flagged WHERE run = '{system.run}'")  # noqa: S608
    rows.sort(key=lambda row: row["seq"])
    assert [row["line"].encode() + b"\n" for row in rows] == [record.line for record in records]
    assert [row["id"] for row in rows] == [user.replace("\n", "\\n") for user, _ in texts]
    assert [row["detector"] or "" for row in rows] == [as_tag(detector) for _, detector in texts]
    assert all(row["amount"] == 1601.83 for row in rows)


@awkward
@given(texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_victoriametrics_reads_any_text_as_it_was(
    victoria: Victoria, tmp_path: Path, texts: list[tuple[str, str]]
) -> None:
    """It keeps tags and numbers; no text that a field has disturbs them."""
    system = InfluxSystem(tmp_path)
    system.server = victoria
    records = [judged(seq, *each) for seq, each in enumerate(texts, 1)]
    write(system.url, system.run, records)
    found = [
        (seq, labels.get("detector", "")) for labels, seq in exported(victoria, "peerwatch_flagged_seq", system.run)
    ]
    assert sorted(found) == [(seq, as_tag(detector)) for seq, (_, detector) in enumerate(texts, 1)]


def as_tag(text: str) -> str:
    """A text, as a tag can hold it."""
    return text.replace("\n", " ").replace("\\", "/")


def exported(victoria: Victoria, name: str, run: str) -> list[tuple[dict[str, str], float]]:
    """The samples of a run that VictoriaMetrics holds, with their labels."""
    ask(victoria.port, "GET", "/internal/force_flush")
    found = ask(victoria.port, "GET", "/api/v1/export", **{"match[]": f'{name}{{run="{run}"}}'})
    series = [json.loads(line) for line in found.splitlines()]
    return [(each["metric"], value) for each in series for value in each["values"]]


def test_victoriametrics_takes_version_2_of_the_protocol(victoria: Victoria, tmp_path: Path) -> None:
    """With organisation, bucket and token. Records of one microsecond are samples of their own."""
    system = InfluxSystem(tmp_path)
    records = [flagged(seq, timestamp="2017-06-13 11:33:01") for seq in range(1, 51)]
    write(f"influx+http://127.0.0.1:{victoria.port}?org=o&bucket=b&token=secret", system.run, records)
    found = exported(victoria, "peerwatch_flagged_seq", system.run)
    assert sorted(seq for _, seq in found) == [*range(1, 51)]


async def test_victoriametrics_does_not_keep_the_promise(victoria: Victoria, tmp_path: Path) -> None:
    """So it is said, once."""
    system = InfluxSystem(tmp_path)
    system.server = victoria
    async with AsyncExitStack() as stack:
        await (await system.open(stack)).start()
    assert [warning.partition(" is ")[2].partition(",")[0] for warning in system.warnings] == ["VictoriaMetrics"]


def test_answers_that_are_lost_do_no_harm(influx: Influx, tmp_path: Path) -> None:
    """One request in ten fails before it is done, one in ten after: each record is there once."""
    system = InfluxSystem(tmp_path)
    system.server = influx
    records = [flagged(seq, timestamp="2017-06-13 11:33:01") for seq in range(1, 101)]
    faults = Faults(seed=4)
    with serving(forwarding(influx.port, faults)) as port:
        write(f"influx+http://127.0.0.1:{port}/{system.database}", system.run, *([record] for record in records))
    assert faults.count > 10
    assert system.flagged() == encoded(records)


def database_of(influx: Influx, *statements: str) -> str:
    """A database of its own, prepared by statements."""
    name = f"d{random.SystemRandom().randrange(1 << 60)}"
    for statement in (f"CREATE DATABASE {name}", *statements):
        query(influx.port, name, statement.format(name=name))
    return name


def test_a_batch_of_several_requests_is_all_there(influx: Influx, tmp_path: Path) -> None:
    """It is larger than one request may be."""
    system = InfluxSystem(tmp_path)
    system.server = influx
    records = [flagged(seq, user=str(seq % 10) * 300_000) for seq in range(1, 9)]
    write(system.url, system.run, records)
    assert system.flagged() == encoded(records)


def test_a_point_that_is_refused_is_named(influx: Influx) -> None:
    """Among many, by its number, with what the database says."""
    name = database_of(influx)
    ask(influx.port, "POST", "/write", f'peerwatch_flagged score="text" {TIME * 1000}', db=name)
    message = (
        rf"/{name} refuses flagged purchase number 1,003: 400 .*partial write: field type conflict: .*score.*"
        r"; fix that and run again"
    )
    records = [flagged(1), flagged(2), judged(1003, "a", "mad"), judged(1004, "a", "mad")]
    with pytest.raises(SinkError, match=message):
        write(f"influx+http://127.0.0.1:{influx.port}/{name}", "r", records)
    rows = query(influx.port, name, "SELECT seq FROM peerwatch_flagged WHERE run = 'r'")
    assert {1, 2} <= {row["seq"] for row in rows}


def test_a_time_that_is_not_kept_is_told(influx: Influx) -> None:
    """A retention policy drops old points: the run ends, rather than losing verdicts in silence."""
    name = database_of(influx, 'ALTER RETENTION POLICY "autogen" ON {name} DURATION 1h SHARD DURATION 1h')
    with pytest.raises(SinkError, match=r"refuses flagged purchase number 5: 400 .*points beyond retention policy"):
        write(f"influx+http://127.0.0.1:{influx.port}/{name}", "r", [flagged(5), flagged(6)])


def test_a_database_that_is_missing_is_a_usage_error(influx: Influx) -> None:
    """The sentence names it and the way out."""
    with pytest.raises(UsageError, match=r"/nosuch: 404 .*not found.*; create the database, or correct the URL"):
        write(f"influx+http://127.0.0.1:{influx.port}/nosuch", "r", [flagged(1)])


class Strict(Quiet):
    """A server that wants a token or a password."""

    authorizations = ("Token s3cret-t0ken", "Basic YW5uOnMzY3JldC10MGtlbg==")

    def do_POST(self) -> None:
        """Answer, and repeat what was wrong."""
        self.body()
        given = self.headers.get("Authorization", "none")
        self.answer(204 if given in self.authorizations else 401, f"I do not know {given}".encode())


@pytest.mark.parametrize(
    "place",
    [
        "ann:s3cret-t0ken@{host}/database",
        "ann:${{KEPT}}@{host}/database",
        "{host}/database?token=s3cret-t0ken",
        "{host}?org=o&bucket=b&token=s3cret-t0ken",
        "{host}?bucket=b&token=${{KEPT}}",
        ":s3cret-t0ken@{host}?bucket=b",
    ],
)
def test_passwords_and_tokens_are_sent(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they are given; a wrong one is a usage error, in which no secret stands."""
    monkeypatch.setenv("KEPT", "s3cret-t0ken")
    with serving(Strict) as port:
        url = f"influx+http://{place.format(host=f'127.0.0.1:{port}')}"
        write(url, "r", [flagged(1)])
        monkeypatch.setattr(Strict, "authorizations", ())
        with pytest.raises(UsageError, match=r"the server refuses the user, password or token: 401 I do not") as raised:
            write(url, "r", [flagged(1)])
        assert "s3cret-t0ken" not in str(raised.value)


def test_a_server_that_is_no_influxdb_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of success that InfluxDB does not give is none; what does not take points is told at once."""
    monkeypatch.setattr(Quiet, "status", 200)
    with serving(Quiet) as port:
        with pytest.raises(SinkError, match="refuses flagged purchase number 1: 200"):
            write(f"influx+http://127.0.0.1:{port}/database", "r", [flagged(1)])
        monkeypatch.setattr(Quiet, "status", 302)
        with pytest.raises(UsageError, match="it takes no points, and answers 302; is it InfluxDB"):
            write(f"influx+http://127.0.0.1:{port}/database", "r", [flagged(1)])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("influx+http://host", "name the database, as in"),
        ("influx+http://host?org=o", "name the database, as in"),
        ("influx+http://host/db?bucket=b", "names a database and a bucket"),
        ("influx+http://a:b@host/db?token=t", "has a password and a token"),
        ("influx+http://host/db?precision=ns", "there is no option 'precision'"),
        ("influx+http:///db", "the host is missing"),
        ("influx+http://host/db?token=a%0Db%0Acdefgh", "the token has characters that tokens do not have"),
        ("influx+http://:%C3%A9tudes@host?bucket=b", "the token has characters that tokens do not have"),
        ("influx+http://host/db?token=${NOT_THERE}", "NOT_THERE is not set"),
    ],
)
def test_what_is_wrong_with_a_url_is_said(url: str, message: str) -> None:
    """Before anything is connected."""
    with pytest.raises(UsageError, match=message):
        InfluxStore(parsed(url), context())


def test_a_line_that_is_too_long_for_victoriametrics_is_named(victoria: Victoria, tmp_path: Path) -> None:
    """It takes 256 KiB, if nobody sets another limit: the run ends with what it says, and those before are there."""
    system = InfluxSystem(tmp_path)
    system.server = victoria
    records = [flagged(1), flagged(2, user="x" * 600_000), flagged(3)]
    with pytest.raises(SinkError, match=r"refuses flagged purchase number 2: 400 .*too long line: more than 262144"):
        write(system.url, system.run, records)
    assert {seq for _, seq in exported(victoria, "peerwatch_flagged_seq", system.run)} == {1}
    write(system.url, system.run, [flagged(1), flagged(2, user="x" * 100_000), flagged(3)])
    assert {seq for _, seq in exported(victoria, "peerwatch_flagged_seq", system.run)} == {1, 2, 3}


def notice(seq: int, timestamp: int = TIME) -> NoticeRecord:
    """A notice of drift, about the purchase whose number this is."""
    return NoticeRecord(MOST_NOTICES * seq, seq, "champion", "drift", {"score": 1.5, "text": 'a "b"'}, timestamp)


def test_notices_are_points_at_the_time_of_their_purchase(influx: Influx, tmp_path: Path) -> None:
    """With tags to group by; those of one microsecond are all there, and none is there twice after a repeat."""
    system = InfluxSystem(tmp_path)
    system.server = influx
    records = [notice(7), notice(8), notice(9, TIME + 1_000_000)]
    for _ in range(2):
        write(system.url, system.run, records, kinds=[NOTICE, FLAGGED])
    rows = query(influx.port, system.database, f"SELECT * FROM peerwatch_notices WHERE run = '{system.run}'")  # noqa: S608
    nanoseconds = TIME * 1000
    assert [row["time"] for row in rows] == [nanoseconds, nanoseconds + 1, nanoseconds + 1_000_000_000]
    assert [(row["seq"], row["event"], row["who"], row["notice"]) for row in rows] == [
        (MOST_NOTICES * seq, seq, "champion", "drift") for seq in (7, 8, 9)
    ]
    assert [f"{row['line']}\n".encode() for row in rows] == [record.encode() for record in records]
    assert json.loads(rows[0]["details"]) == records[0].details


def test_rejected_lines_have_no_time() -> None:
    """So they cannot be points: the sentence names the way out."""
    with pytest.raises(UsageError, match=r"kind reject have no time of their own.*; send them to another sink"):
        InfluxStore(parsed("influx+http://host/db"), context(FLAGGED, REJECT))


def test_a_run_that_is_killed_writes_each_point_once(influx: Influx, tmp_path: Path) -> None:
    """The real command, killed with SIGKILL before and after requests are processed: what is there is the file's bytes.

    Purchases and all decisions go to one database; timestamps have whole seconds, so times must be told apart.
    """
    batch, stream, _ = generate(Recipe(users=300, batch_events=3000, stream_events=3000, seed=5))
    (tmp_path / "batch.json").write_text("".join(batch))
    (tmp_path / "stream.json").write_text("".join(stream))
    name = database_of(influx)
    places = [(2, "after"), (3, "before"), (6, "after"), (9, "before"), (12, "after"), (13, "after"), (14, "before")]
    kills = Kills(places[: often(3, 7)])
    command = [sys.executable, "-m", "peerwatch", "run", "--quiet", "batch.json", "stream.json"]
    with serving(forwarding(influx.port, kills)) as port:
        url = f"influx+http://127.0.0.1:{port}/{name}"
        (tmp_path / "config.yaml").write_text(
            f"state: {{directory: state, seconds: 0.01, events: 100}}\nsinks: [{{to: '{url}', records: [decisions]}}]\n"
        )
        kills.run([*command, url, "--config", "config.yaml"], tmp_path)
    assert kills.count == often(3, 7)
    kills.run([*command, "expected.json"], tmp_path)
    expected = (tmp_path / "expected.json").read_bytes()
    rows = query(influx.port, name, "SELECT seq, line, run FROM peerwatch_flagged")
    assert "".join(f"{row['line']}\n" for row in sorted(rows, key=lambda row: row["seq"])).encode() == expected != b""
    assert len({row["run"] for row in rows}) == 1
    decisions = sorted(
        query(influx.port, name, "SELECT seq, flagged FROM peerwatch_decisions"), key=lambda row: row["seq"]
    )
    assert len(decisions) == len({row["seq"] for row in decisions}) == sum('"purchase"' in line for line in stream)
    assert [row["seq"] for row in decisions if row["flagged"]] == sorted(row["seq"] for row in rows)
