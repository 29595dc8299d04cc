"""Labelled data: seeded, with the shares asked for, and anomalies as hard to find as their descriptions say."""

import csv
import hashlib
import itertools
import json
from collections import Counter
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from peerwatch.cli.main import cli
from peerwatch.network.decoder import Decoder
from peerwatch.studies.datasets.registry import DATASETS
from peerwatch.studies.datasets.table import DatasetOrder

TABLES = [name for name in DATASETS if name != "social"]
DIGESTS = {
    "social": "21045b177da1f8b7",
    "cards": "fde8cfb135a93126",
    "traffic": "d4df10b234e2495c",
    "sensors": "39e5449dc3064739",
    "behaviour": "fbae593721f57c90",
}


def _made(name: str, **options: Any) -> list[str]:
    """The text of each file."""
    return ["".join(lines) for lines in DATASETS[name].make(DatasetOrder(**options))]


@cache
def _table(name: str, rows: int = 10_000, anomalies: float = 0.02) -> dict[str, NDArray[Any]]:
    """The columns: text as it is, numbers as floats."""
    (text,) = _made(name, rows=rows, anomalies=anomalies)
    header, *lines = csv.reader(text.splitlines())
    texts = {column: np.array(values) for column, values in zip(header, zip(*lines, strict=True), strict=True)}
    return {name: v if name in {"timestamp", "kind"} else v.astype(np.float64) for name, v in texts.items()}


@cache
def _social() -> tuple[list[dict[str, str]], list[dict[str, str]], dict[int, str]]:
    """The batch log's events, the stream log's, and the kind of each labelled place of it, from 0."""
    batch, stream, labels = ([json.loads(line) for line in text.splitlines()] for text in _made("social"))
    return batch[1:], stream, {label["line"] - 1: label["label"] for label in labels}


def _area(values: NDArray[Any], odd: NDArray[np.bool_]) -> float:
    """How likely an anomalous value is above a normal one: the area under the ROC curve."""
    _, place = np.unique(values, return_inverse=True)
    counts = np.bincount(place)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[place]
    many, few = np.count_nonzero(~odd), np.count_nonzero(odd)
    return float((rank[odd].sum() - few * (few + 1) / 2) / (many * few))


def _peerwatch(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, [*map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("name", DATASETS)
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    """On every machine, so that results can be compared; another seed gives others."""
    text = "".join(_made(name, rows=500, anomalies=0.1))
    assert hashlib.sha256(text.encode("ascii")).hexdigest()[:16] == DIGESTS[name]
    assert "".join(_made(name, rows=500, anomalies=0.1, seed=2)) != text


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(("rows", "anomalies"), [(100, 0.04), (1234, 0.5), (10_000, 0.02), (700, 0.0)])
def test_a_table_has_the_rows_and_the_share_that_were_asked_for(name: str, rows: int, anomalies: float) -> None:
    """In time order, each value a finite number of its column's decimals, and as many rows of each kind as can be."""
    (text,) = _made(name, rows=rows, anomalies=anomalies)
    header, *lines = csv.reader(text.splitlines())
    columns = DATASETS[name].columns
    assert header == ["timestamp", *(column.name for column in columns), "label", "kind"]
    assert len(lines) == rows
    stamps = [datetime.fromisoformat(line[0]) for line in lines]
    assert stamps == sorted(stamps)
    assert stamps[0].isoformat() >= "2024-01-01T00:00:00+00:00"
    values = np.array([line[1:-2] for line in lines]).astype(np.float64)
    assert np.isfinite(values).all()
    for column, text in zip(columns, lines[0][1:-2], strict=True):
        assert len(text.partition(".")[2]) == column.decimals
    assert {line[-2] == "1" for line in lines if line[-1]} <= {True}
    assert {line[-2] == "0" for line in lines if not line[-1]} <= {True}
    counts = Counter(line[-1] for line in lines if line[-1])
    assert counts.total() == round(rows * anomalies)
    if anomalies:
        assert set(counts) == set(DATASETS[name].kinds)
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize(("rows", "anomalies"), [(100, 0.04), (100, 0.5), (1234, 0.5), (10_000, 0.02), (700, 0.0)])
def test_social_has_the_events_and_the_share_that_were_asked_for(rows: int, anomalies: float) -> None:
    """Every line of both logs is an event, in time order; every label names a purchase of its user, of every kind."""
    batch, stream, labels = (text.splitlines(keepends=True) for text in _made("social", rows=rows, anomalies=anomalies))
    assert (len(batch), len(stream)) == (2 * rows + 1, rows)
    assert Decoder().decode("".join([*batch[1:], *stream]).encode(), 1).rejected == []
    events = [json.loads(line) for line in stream]
    stamps = [json.loads(line)["timestamp"] for line in [*batch[1:], *stream]]
    assert stamps == sorted(stamps)
    named = [json.loads(label) for label in labels]
    assert len({label["line"] for label in named}) == len(named) == round(rows * anomalies)
    for label in named:
        assert events[label["line"] - 1]["event_type"] == "purchase"
        assert events[label["line"] - 1]["id"] == label["id"]
    if anomalies:
        assert {label["label"] for label in named} == set(DATASETS["social"].kinds)


def test_a_sweep_takes_the_labels_and_finds_what_the_rule_is_for(tmp_path: Path) -> None:
    """Nearly all sudden spenders, but not even half of the rings, the climbs and the takeovers."""
    assert _peerwatch("datasets", "make", "social", tmp_path) == (
        0,
        "".join(f"{tmp_path}/{name}\n" for name in ("batch_log.json", "stream_log.json", "labels.json")),
        "",
    )
    logs = (tmp_path / "batch_log.json", tmp_path / "stream_log.json")
    found = _peerwatch("sweep", *logs, "--labels", tmp_path / "labels.json", "--output", tmp_path / "flagged", "--json")
    assert json.loads(found[1])["labelled"] == 200
    flagged = Counter((tmp_path / "flagged" / "D2-T50-k3.json").read_text().splitlines())
    recall = Counter[str]()
    lines = (tmp_path / "stream_log.json").read_text().splitlines()
    cut = Counter(line.partition(', "mean": ')[0] for line in flagged)
    for place, kind in _social()[2].items():
        recall[kind] += lines[place].removesuffix("}") in cut
    assert recall["sudden spender"] >= 40
    assert all(5 <= recall[kind] <= 25 for kind in ("slow climb", "collusive ring", "account takeover"))


def test_frauds_in_the_network_are_what_they_are_called() -> None:
    """Spenders spend at once, climbs climb for weeks, rings are cliques, takeovers follow a change of friends."""
    batch, stream, labels = _social()
    purchases: dict[str, list[float]] = {}
    for event in batch:
        if event["event_type"] == "purchase":
            purchases.setdefault(event["id"], []).append(float(event["amount"]))
    usual = {user: float(np.median(amounts)) for user, amounts in purchases.items()}
    times = {place: datetime.fromisoformat(stream[place]["timestamp"]).timestamp() for place in labels}

    factors = [float(stream[p]["amount"]) / usual[stream[p]["id"]] for p in labels if labels[p] == "sudden spender"]
    assert 20 < np.median(factors) < 40

    climbs: dict[str, list[int]] = {}
    for place in labels:
        if labels[place] == "slow climb":
            climbs.setdefault(stream[place]["id"], []).append(place)
    for places in climbs.values():
        amounts = [float(stream[place]["amount"]) for place in places]
        assert np.mean(np.diff(amounts) > 0) > 0.6
        assert amounts[-1] > 4 * amounts[0]
        assert 17 * 86_400 < times[places[-1]] - times[places[0]] < 36 * 86_400

    ring = {stream[place]["id"] for place in labels if labels[place] == "collusive ring"}
    made = [event for event in stream if event["event_type"] == "befriend"]
    inside = Counter(user for e in made if {e["id1"], e["id2"]} <= ring for user in (e["id1"], e["id2"]))
    assert all(inside[user] >= 3 for user in ring)

    taken = {stream[place]["id"] for place in labels if labels[place] == "account takeover"}
    for user in taken:
        first = next(p for p in labels if labels[p] == "account takeover" and stream[p]["id"] == user)
        changes = [event for event in stream[:first][-60:] if event.get("id1") == user]
        assert Counter(event["event_type"] for event in changes)["befriend"] >= 2


AREAS = [
    ("cards", "unusual amount", "amount", 0.95, 1.0),
    ("cards", "unusual amount", "gap_minutes", 0.4, 0.6),
    ("cards", "unusual time", "hour", 0.0, 0.25),
    ("cards", "unusual time", "amount", 0.35, 0.65),
    ("cards", "unusual place", "km_from_last", 0.95, 1.0),
    ("cards", "unusual place", "amount", 0.4, 0.65),
    ("cards", "card testing", "amount", 0.0, 0.1),
    ("cards", "card testing", "gap_minutes", 0.0, 0.15),
    ("traffic", "ddos", "packets_in", 0.7, 0.95),
    ("traffic", "ddos", "unanswered", 0.9, 1.0),
    ("traffic", "port scan", "ports", 0.95, 1.0),
    ("traffic", "port scan", "bytes_in", 0.3, 0.7),
    ("traffic", "exfiltration", "bytes_out", 0.8, 0.98),
    ("traffic", "exfiltration", "flows", 0.35, 0.65),
    ("sensors", "overheating", "temperature", 0.75, 1.0),
    ("sensors", "pressure leak", "pressure", 0.0, 0.4),
    ("sensors", "bearing wear", "vibration", 0.75, 0.98),
    ("sensors", "stuck sensor", "temperature", 0.3, 0.7),
    ("behaviour", "bot", "pause_spread", 0.0, 0.1),
    ("behaviour", "bot", "requests", 0.75, 0.95),
    ("behaviour", "brute force", "failed_logins", 0.95, 1.0),
    ("behaviour", "unusual access", "new_resources", 0.85, 1.0),
    ("behaviour", "unusual access", "requests", 0.4, 0.65),
]


@pytest.mark.parametrize(("name", "kind", "column", "low", "high"), AREAS)
def test_each_kind_shows_where_it_should(name: str, kind: str, column: str, low: float, high: float) -> None:
    """The area under the ROC curve of one column, for one kind against the normal rows: 0.5 shows nothing."""
    table = _table(name)
    those = (table["kind"] == "") | (table["kind"] == kind)
    assert low <= _area(table[column][those], (table["kind"] == kind)[those]) <= high


@pytest.mark.parametrize("name", TABLES)
def test_no_threshold_finds_everything(name: str) -> None:
    """No column, upwards or downwards, comes near to telling all anomalies from the normal rows."""
    table = _table(name)
    for column in {*table} - {"timestamp", "label", "kind"}:
        assert 0.1 < _area(table[column], table["label"] == 1) < 0.9, column


def test_a_flood_has_several_times_the_packets_for_a_while() -> None:
    """The median is at least twice the normal one; the rows of a flood follow each other on one server."""
    table = _table("traffic")
    flood, normal = table["kind"] == "ddos", table["kind"] == ""
    assert np.median(table["packets_in"][flood]) > 2 * np.median(table["packets_in"][normal])
    times = _times(table)
    runs = [_runs(times[flood & (table["id"] == server)], 300) for server in np.unique(table["id"])]
    assert 2 <= np.median(np.concatenate(runs)) <= 12


def test_nobody_travels_as_fast_as_a_stolen_card() -> None:
    """A purchase at an unusual place is hundreds of kilometres an hour from the last; few normal ones are."""
    table = _table("cards")
    speed = table["km_from_last"] / np.maximum(1, table["gap_minutes"]) * 60
    assert np.quantile(speed[table["kind"] == "unusual place"], 0.1) > 300
    assert np.mean(speed[table["kind"] == ""] > 300) < 0.02


def test_a_stuck_sensor_does_not_move() -> None:
    """It repeats its temperature, which a normal pump does once in some dozens of readings."""
    table = _table("sensors")
    same = {"stuck sensor": [False], "": [False]}
    for pump in np.unique(table["id"]):
        kinds, heat = table["kind"][table["id"] == pump], table["temperature"][table["id"] == pump]
        for place, (before, after) in enumerate(itertools.pairwise(kinds)):
            if before == after and before in same:
                same[before].append(heat[place] == heat[place + 1])
    assert all(same["stuck sensor"][1:])
    assert np.mean(same[""]) < 0.05


def test_people_sleep_at_night_and_rest_at_weekends() -> None:
    """Purchases by card are rare from midnight to six; traffic on a Sunday is below a Monday's."""
    cards, traffic = _table("cards"), _table("traffic")
    assert np.mean(cards["hour"][cards["kind"] == ""] < 6) < 0.15
    days = (_times(traffic) - _times(traffic)[0]) // 86_400
    assert traffic["flows"][days == 6].mean() < 0.8 * traffic["flows"][days == 0].mean()


def _times(table: dict[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Seconds since 1970."""
    return np.array([int(datetime.fromisoformat(text).timestamp()) for text in table["timestamp"]])


def _runs(times: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """The lengths of runs of moments that are one step apart."""
    return np.diff(np.concatenate(([0], np.flatnonzero(np.diff(times) != step) + 1, [len(times)])))


def test_the_list_names_every_data_set_and_kind() -> None:
    """So that nobody needs to look for them elsewhere."""
    code, out, _ = _peerwatch("datasets", "list")
    lines = out.splitlines()
    assert code == 0
    for line, (name, found) in zip(lines, DATASETS.items(), strict=True):
        assert line.startswith(f"{name} ")
        assert found.about in line
        assert line.endswith("  " + ", ".join(found.kinds))


def test_the_page_tells_every_column_and_kind() -> None:
    """With the unit, in the section of its data set."""
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    for name, found in DATASETS.items():
        section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert f"| {name} | {found.about} | {', '.join(found.kinds)} |" in page
        assert all(f"- *{kind}*: " in section for kind in found.kinds)
        rows = [[cell.strip() for cell in line.split("|")] for line in section.splitlines() if line.count("|") == 4]
        told = {column: row[2] for row in rows for column in row[1].split(", ")}
        assert {column.name: column.unit for column in found.columns if column.name != "id"}.items() <= told.items()


def test_a_table_is_written_once(tmp_path: Path) -> None:
    """As NAME.csv and nothing else, and not a second time without --force."""
    directory = tmp_path / "new" / "data"
    make = ("datasets", "make", "cards", directory, "--rows", "300", "--seed", "3")
    assert _peerwatch(*make) == (0, f"{directory}/cards.csv\n", "")
    assert [path.name for path in directory.iterdir()] == ["cards.csv"]
    assert (directory / "cards.csv").read_text() == _made("cards", rows=300, seed=3)[0]
    code, _, err = _peerwatch(*make)
    assert (code, err) == (
        2, f"peerwatch: {directory}/cards.csv already exists; name another directory or add --force\n",
    )  # fmt: skip
    assert _peerwatch(*make, "--force")[0] == 0


def test_an_order_that_cannot_be_met_is_refused(tmp_path: Path) -> None:
    """With the way out, and before anything is made."""
    for arguments, sentence in (
        (("card", tmp_path / "d"), "there is no data set card; there are social, cards, traffic, sensors, behaviour"),
        (
            ("cards", tmp_path / "d", "--rows", "100"),
            "--anomalies 0.02 of --rows 100 is 2, too few for 4 kinds; raise one of them, or set --anomalies 0",
        ),
    ):
        assert _peerwatch("datasets", "make", *arguments) == (2, "", f"peerwatch: {sentence}\n")
        assert not (tmp_path / "d").exists()
    (tmp_path / "file").touch()
    assert _peerwatch("datasets", "make", "cards", tmp_path / "file") == (
        2, "", f"peerwatch: cannot make the directory {tmp_path}/file: File exists\n",
    )  # fmt: skip


TABLE = """\
timestamp,id,speed,weight,label,kind
2024-01-01T00:00:00Z,1,1,-5,0,
2024-01-01T12:00:00Z,2,3,2.5,0,

2024-01-02T00:00:00Z,1,8,0,0,
2024-01-03T00:00:00Z,1,90000,1,1,crash
"""


def test_the_statistics_of_a_table(tmp_path: Path) -> None:
    """Counted by hand: sd is the population's, ids are no measure, empty lines no rows."""
    (tmp_path / "t.csv").write_text(TABLE)
    code, out, _ = _peerwatch("datasets", "stats", tmp_path / "t.csv", "--json")
    found = json.loads(out)
    assert code == 0
    sd = found["columns"]["speed"]["normal"].pop("sd")
    assert sd == pytest.approx((26 / 3) ** 0.5)
    assert found["columns"].pop("weight")["normal"]["median"] == 0
    assert found == {
        "rows": 4,
        "begin": "2024-01-01T00:00:00Z",
        "end": "2024-01-03T00:00:00Z",
        "share": 0.25,
        "anomalous": {"crash": 1},
        "columns": {
            "speed": {
                "normal": {"rows": 3, "min": 1.0, "median": 3.0, "mean": 4.0, "max": 8.0},
                "anomalous": {"rows": 1, "min": 9e4, "median": 9e4, "mean": 9e4, "sd": 0.0, "max": 9e4},
            },
        },
    }
    assert _peerwatch("datasets", "stats", tmp_path / "t.csv")[1] == (
        "rows                         4\n"
        "anomalous                    1   25.00%\n"
        "  crash                      1   25.00%\n"
        "from 2024-01-01 00:00:00 to 2024-01-03 00:00:00, 2.0 days\n"
        "\n"
        "column  rows of       min  median      mean      sd     max\n"
        "speed   normal          1       3         4  2.9439       8\n"
        "        anomalous  90,000  90,000    90,000       0  90,000\n"
        "weight  normal         -5       0  -0.83333   3.118     2.5\n"
        "        anomalous       1       1         1       0       1\n"
    )


def test_without_anomalies_their_spread_is_empty(tmp_path: Path) -> None:
    """Null in JSON, a dash in the text."""
    (tmp_path / "t.csv").write_text("".join(TABLE.splitlines(keepends=True)[:3]))
    found = json.loads(_peerwatch("datasets", "stats", tmp_path / "t.csv", "--json")[1])
    assert (found["anomalous"], found["columns"]["speed"]["anomalous"]) == ({}, None)
    assert _peerwatch("datasets", "stats", tmp_path / "t.csv")[1].splitlines()[-1].split() == ["anomalous", *"-----"]


def test_the_statistics_of_logs(tmp_path: Path) -> None:
    """Rows are the stream log's lines, the column is the amount; kinds come from the labels."""
    (tmp_path / "stream_log.json").write_text(
        '{"event_type":"purchase", "timestamp":"2024-01-01 00:00:00", "id": "1", "amount": "2.50"}\n\n'
        '{"event_type":"befriend", "timestamp":"2024-01-01 06:00:00", "id1": "1", "id2": "2"}\n'
        '{"event_type":"purchase", "timestamp":"2024-01-02 00:00:00", "id": "2", "amount": "80"}\n'
    )
    (tmp_path / "labels.json").write_text('{"line": 4, "id": "2", "label": "slow climb"}\n')
    found = json.loads(_peerwatch("datasets", "stats", tmp_path, "--json")[1])
    assert (found["rows"], found["anomalous"], found["end"]) == (3, {"slow climb": 1}, "2024-01-02T00:00:00Z")
    amounts = found["columns"]["amount"]
    assert [amounts[part]["max"] for part in ("normal", "anomalous")] == [2.5, 80]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", " is empty; expected a table as `peerwatch datasets make` writes it"),
        ("timestamp,a,label,kind\n", " has no rows"),
        ("time,a,label\n1,2,0\n", ":1: no column timestamp, kind; there are time, a, label"),
        ("timestamp,a,label,kind\n2024-01-01,1,0\n", ":2: 3 values, but the header names 4 columns"),
        ("timestamp,a,label,kind\n2024-01-01,x1,0,\n", ":2: column a is 'x1'; expected a number"),
        ("timestamp,a,label,kind\n2024-01-01,1,0,\n2024-01-01,nan,0,\n", ":3: column a is 'nan'; expected a number"),
        ("timestamp,a,label,kind\n2024-01-01,1,2,\n", ":2: column label is '2'; expected 0 or 1"),
        (
            "timestamp,a,label,kind\nnow,1,0,\n",
            ":2: column timestamp is 'now'; expected a date and time like 2024-01-01T00:00:00Z",
        ),
        ("timestamp,a,label,kind\n2024-01-01,\xff,0,\n", " is not text in UTF-8"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    """Naming the file, and where there is one, the line and the column."""
    path = tmp_path / "t.csv"
    path.write_bytes(content.encode("latin-1"))
    assert _peerwatch("datasets", "stats", path) == (2, "", f"peerwatch: {path}{sentence}\n")


def test_logs_that_are_none_are_refused(tmp_path: Path) -> None:
    """A file or directory that is not there, a directory of something else, a bad line in the stream or the labels."""
    none = tmp_path / "none.csv"
    assert _peerwatch("datasets", "stats", none)[2] == f"peerwatch: cannot read {none}: No such file or directory\n"
    assert _peerwatch("datasets", "stats", tmp_path)[2] == (
        f"peerwatch: no stream_log.json and no labels.json in the directory {tmp_path}; name a table (FILE.csv), or a"
        " directory that `peerwatch datasets make social` wrote\n"
    )
    (tmp_path / "stream_log.json").write_text('\n{"event_type":"sale"}\n')
    (tmp_path / "labels.json").write_text('{"line": 1, "label": "a"}\n{"line": 2}\n')
    assert _peerwatch("datasets", "stats", tmp_path)[2] == (
        f"peerwatch: {tmp_path}/labels.json:2: no label;"
        ' expected an object like {"line": 188, "label": "slow climb"}\n'
    )
    (tmp_path / "labels.json").write_text("")
    assert _peerwatch("datasets", "stats", tmp_path)[2].startswith(
        f'peerwatch: {tmp_path}/stream_log.json:2: unknown "event_type" "sale"'
    )
    (tmp_path / "stream_log.json").write_text(
        '{"event_type":"befriend", "timestamp":"2024-01-01 06:00:00", "id1": "1", "id2": "2"}\n'
    )
    for line in (1, 2):
        (tmp_path / "labels.json").write_text(f'{{"line": {line}, "label": "slow climb"}}')
        assert _peerwatch("datasets", "stats", tmp_path)[2] == (
            f"peerwatch: {tmp_path}/labels.json names line {line} of stream_log.json, which is not a purchase\n"
        )
