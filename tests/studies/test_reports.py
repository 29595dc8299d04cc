"""Reports against a naive reference: dictionaries, sets and integers over the lines of the logs."""

import csv
import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from reference import EXACT, event_of, network_of, own_part, verdict_of
from strategies import COMMANDS, examples, logs
from support import befriend, purchase

from peerwatch.cli.main import cli
from peerwatch.network.statistics import Statistics, decimal

HEADER = b'{"D":"2", "T":"3"}\n'
DIRECTED = {False: (), True: ("--friendships", "directed")}


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


class Bought(NamedTuple):
    """A purchase of the reference: when, its number among events, by whom, and how much."""

    when: datetime
    seq: int
    user: str
    amount: int


class Naive:
    """What the lines say, event by event."""

    def __init__(self, *, directed: bool) -> None:
        self._directed = directed
        self.friends: dict[str, set[str]] = {}
        self.users: set[str] = set()
        self.bought: list[Bought] = []

    def apply(self, seq: int, event: tuple[Any, ...]) -> None:
        """Take one event."""
        kind, when, a, b = event
        self.users.add(a)
        if kind == "purchase":
            self.bought.append(Bought(when, seq, a, b))
            return
        self.users.add(b)
        for one, other in ((a, b),) if self._directed else ((a, b), (b, a)):
            friends = self.friends.setdefault(one, set())
            (friends.add if kind == "befriend" else friends.discard)(other)

    def latest(self, users: set[str], count: int) -> list[Bought]:
        """The latest purchases of some users, the newest first."""
        return sorted(each for each in self.bought if each.user in users)[::-1][:count]


def events_in(*contents: bytes) -> Iterator[tuple[Any, ...]]:
    """The events of logs, in order."""
    for content in contents:
        for line in content.split(b"\n"):
            text = own_part(line).removesuffix(b"\r")
            if text.strip(b" \t\r"):
                try:
                    yield event_of(text)
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue


def key(user: str) -> tuple[int, bytes]:
    """The order of users: by length, then by bytes."""
    return len(user.encode()), user.encode()


def table(kind: str, directory: Path, *arguments: str) -> list[dict[str, str]]:
    """The rows of a report, as CSV has them; Parquet has the same values."""
    for ending in ("csv", "parquet"):
        result = peerwatch(
            "report", kind, f"{directory}/batch", f"{directory}/stream", *arguments, "--force",
            "--output", f"{directory}/report.{ending}",
        )  # fmt: skip
        assert result.exit_code == 0, result.output
    with (directory / "report.csv").open(newline="", encoding="utf-8") as file:
        rows = [*csv.DictReader(file)]
    stored = parquet.read_table(directory / "report.parquet")
    assert [[as_csv(name, value) for name, value in row.items()] for row in stored.to_pylist()] == [
        [*row.values()] for row in rows
    ]
    assert not [*directory.glob("*.new")]
    return rows


def as_csv(name: str, value: Any) -> str:
    """A value of Parquet as CSV has it."""
    if value is None:
        return ""
    if name == "purchases" and isinstance(value, list):
        return json.dumps(
            [
                {"seq": each["seq"], "timestamp": as_csv("", each["timestamp"]), "amount": as_csv("", each["amount"])}
                for each in value
            ],
            separators=(",", ":"),
        )
    if isinstance(value, list):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S.%f}Z"
    if isinstance(value, Decimal):
        return decimal(int(value.scaleb(6, EXACT)))
    return str(value)


@settings(COMMANDS, max_examples=examples(40))
@given(
    batch=logs(), stream=logs(), D=st.integers(1, 3), T=st.integers(2, 6), cut=st.floats(0, 1), directed=st.booleans()
)
def test_all_users_at_a_moment_are_what_the_lines_say(
    batch: bytes, stream: bytes, D: int, T: int, cut: float, *, directed: bool
) -> None:
    """Friends, networks, windows and purchases of every user after any event, and the networks by their size."""
    events = [*events_in(batch, stream)]
    seq = round(cut * len(events))
    naive = Naive(directed=directed)
    for number, event in enumerate(events[:seq], 1):
        naive.apply(number, event)
    options = ("--D", str(D), "--T", str(T), "--at", str(seq), *DIRECTED[directed])
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "batch").write_bytes(batch)
        (directory / "stream").write_bytes(stream)
        rows = table("users", directory, *options)
        sizes = table("networks", directory, *options)
    everyone = sorted(naive.users, key=key)
    assert [row["user"] for row in rows] == everyone
    networks = {user: network_of(naive.friends, user, D) for user in everyone}
    for row in rows:
        user = row["user"]
        friends = sorted(naive.friends.get(user, set()), key=key)
        own = naive.latest({user}, T)
        window = [each.amount for each in naive.latest(networks[user], T)]
        assert (row["friends"], json.loads(row["friend_ids"])) == (str(len(friends)), friends)
        assert (row["members"], row["window_size"]) == (str(len(networks[user])), str(len(window)))
        held = [(each["seq"], each["amount"]) for each in json.loads(row["purchases"])]
        assert held == [(each.seq, decimal(each.amount)) for each in own]
        assert row["latest_amount"] == (decimal(own[0].amount) if own else "")
        stamp = own[0].when.astimezone(UTC) if own else None
        assert row["latest"] == (f"{stamp:%Y-%m-%dT%H:%M:%S.%f}Z" if stamp else "")
        statistics = Statistics.of(window)
        expected = (statistics.mean(), statistics.sd()) if window else ("", "")
        assert (row["mean"], row["sd"]) == expected
        if len(window) > 1:  # the threshold is where the reference's own verdict changes, but for the part of a cent
            cents = int(row["threshold"].replace(".", ""))
            assert verdict_of(window, (cents + 1) * 10**4, Fraction(3)) is not None
            assert verdict_of(window, cents * 10**4, Fraction(3)) is None
    by_size = sorted(everyone, key=lambda user: (-len(networks[user]), key(user)))
    assert [(row["user"], row["members"], row["friends"]) for row in sizes] == [
        (user, str(len(networks[user])), str(len(naive.friends.get(user, ())))) for user in by_size
    ]


SECONDS = st.one_of(st.none(), st.integers(0, 41))


@settings(COMMANDS, max_examples=examples(40))
@given(batch=logs(), stream=logs(), D=st.integers(1, 3), begin=SECONDS, end=SECONDS, directed=st.booleans())
def test_spending_is_the_sum_of_the_lines(
    batch: bytes, stream: bytes, D: int, begin: int | None, end: int | None, *, directed: bool
) -> None:
    """Of users and of networks, over any period, however large the amounts and however late the lines."""
    options, (since, until) = [*DIRECTED[directed]], (
        datetime(1, 1, 1, tzinfo=UTC) if begin is None else datetime(2017, 6, 13, 11, 33, begin, tzinfo=UTC),
        datetime(9999, 1, 1, tzinfo=UTC) if end is None else datetime(2017, 6, 13, 11, 33, end, tzinfo=UTC),
    )  # fmt: skip
    for option, second in (("--from", begin), ("--until", end)):
        options += [option, f"2017-06-13 11:33:{second:02}"] if second is not None else []
    everything, then, ended = Naive(directed=directed), Naive(directed=directed), False
    for number, event in enumerate(events_in(batch, stream), 1):
        ended |= event[1] >= until
        everything.apply(number, event)
        if not ended:
            then.apply(number, event)
    within = [each for each in everything.bought if since <= each.when < until]
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "batch").write_bytes(batch)
        (directory / "stream").write_bytes(stream)
        arguments = ("--D", str(D), "--T", "2", *options)
        if since >= until:
            result = peerwatch("report", "spending", f"{directory}/batch", f"{directory}/stream", *arguments)
            assert (result.exit_code, "the period is empty" in result.stderr) == (2, True)
            return
        by_user = table("spending", directory, *arguments)
        by_network = table("spending", directory, *arguments, "--by", "network")
    expected = []
    for user in {each.user for each in within}:
        own = [each.amount for each in within if each.user == user]
        expected.append((-sum(own), key(user), [user, str(len(own)), decimal(sum(own)), decimal(max(own))]))
    assert [[*row.values()] for row in by_user] == [row for *_, row in sorted(expected)]
    expected = []
    for user in everything.users:
        network = network_of(then.friends, user, D)
        bought = [each.amount for each in within if each.user in network]
        if bought:
            row = [user, str(len(network)), str(len(bought)), decimal(sum(bought))]
            expected.append((-sum(bought), key(user), row))
    assert [[*row.values()] for row in by_network] == [row for *_, row in sorted(expected)]


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a batch and a stream log; it is the working directory."""
    batch = befriend(1, 2) + befriend(2, 3) + purchase(2, "10") + purchase(3, "12") + purchase(3, "11")
    stream = purchase(1, "11", "2017-06-13 11:33:05") + purchase(1, "50", "2017-06-13 11:33:06")
    (tmp_path / "batch").write_bytes(HEADER + batch)
    (tmp_path / "stream").write_bytes(stream)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("directory")
def test_whom_to_notify_is_the_network_of_the_buyer() -> None:
    """The nearest first, with the path and how many purchases counted; of a normal purchase there is nobody."""
    result = peerwatch("report", "notify", "batch", "stream", "--line", "2", "--output", "notify.csv")
    assert result.exit_code == 0, result.output
    assert "User 1 paid 50.00 at 2017-06-13T11:33:06Z (stream:2), flagged: the 2 users" in result.stdout
    assert [*csv.reader(Path("notify.csv").read_text().splitlines())][1:] == [
        ["2", "1", "1", '["1","2"]'],
        ["3", "2", "2", '["1","2","3"]'],
    ]
    normal = peerwatch("report", "notify", "batch", "stream", "--line", "1")
    assert (normal.exit_code, normal.stdout) == (2, "")
    assert "which is normal: nobody is to be notified; peerwatch explain says why" in normal.stderr


def test_a_state_gives_what_the_logs_give(directory: Path) -> None:
    """From a run's checkpoint the same users and networks come out as by going through the logs."""
    assert peerwatch("run", "batch", "stream", "out", "--state", "state", "--quiet", "--log-user", "9").exit_code == 0
    for kind in ("users", "networks"):
        files = []
        for name, state in (("a.csv", []), ("b.csv", ["--state", "state"])):
            result = peerwatch("report", kind, "batch", "stream", "--force", "--output", name, *state)
            assert result.exit_code == 0, result.output
            files.append((directory / name).read_bytes())
        assert files[0] == files[1]
        assert files[0].count(b"\n") == 4


def test_what_quarantine_keeps_out_is_not_there(directory: Path) -> None:
    """The users are as the run has them, from its checkpoint as from the logs: without the flagged purchase."""
    (directory / "c.yaml").write_text("detector: {quarantine: true}\n")
    config = ("--config", "c.yaml")
    assert peerwatch("run", "batch", "stream", "out", "--state", "state", "--quiet", *config).exit_code == 0
    assert (directory / "out").read_bytes().count(b"\n") == 1
    for state in ((), ("--state", "state")):
        result = peerwatch("report", "users", "batch", "stream", "--force", "--output", "a.csv", *config, *state)
        assert result.exit_code == 0, result.output
        with (directory / "a.csv").open(newline="", encoding="utf-8") as file:
            rows = {row["user"]: row for row in csv.DictReader(file)}
        assert [each["amount"] for each in json.loads(rows["1"]["purchases"])] == ["11.00"]
        assert rows["2"]["window_size"] == "3"


@pytest.mark.usefixtures("directory")
def test_a_person_reads_the_first_rows() -> None:
    """Numbers are grouped, lists are shortened, and what is left out is counted."""
    text = peerwatch("report", "spending", "batch", "stream", "--top", "2").stdout
    assert text.splitlines() == [
        "3 users bought something", "", "user  purchases  spent  largest", "1             2  61.00    50.00",
        "3             2  23.00    12.00", "... and 1 more; --output FILE.csv writes all",
    ]  # fmt: skip
    text = peerwatch("report", "users", "batch", "stream").stdout
    assert text.splitlines()[0] == "3 users as of event 7, with the window of a purchase made now (D=2 T=3)"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("networks --output x.txt", "x.txt: a report's name ends in .csv or .parquet"),
        ("networks --output there.csv", "there.csv is there already; name another file, or add --force"),
        ("networks --output none/x.csv", "cannot write none/x.csv: the directory none does not exist; create it first"),
        ("users --at 9", "there is no event 9: the logs end with event 7"),
        ("spending --from x", '"timestamp"'),
        ("notify", "name one decision: --seq N, --line N, or --user ID with --at TIME"),
    ],
)
def test_mistakes_are_told_in_a_sentence(directory: Path, arguments: str, sentence: str) -> None:
    """Exit code 2, nothing written."""
    (directory / "there.csv").write_text("precious")
    kind, *options = arguments.split()
    result = peerwatch("report", kind, "batch", "stream", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert (directory / "there.csv").read_text() == "precious"
