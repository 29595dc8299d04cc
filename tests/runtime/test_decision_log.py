"""Decision records: which there are, and that each tells the whole truth about its decision."""

import errno
import io
import json
from datetime import UTC, datetime
from fractions import Fraction
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from reference import judge, network_of
from support import befriend, purchase

from peerwatch.cli.main import cli
from peerwatch.runtime.decision_log import Logger, moment
from peerwatch.runtime.log_target import LogTarget
from peerwatch.settings.model import LogSettings

LINES = [
    befriend(1, 2), befriend(2, 3), purchase(2, "10.00", "2017-06-13 11:00:00"), purchase(1, "7"),
    purchase(3, "12.50", "2017-06-13 11:00:02"), b"junk\n", purchase(3, "11", "2017-06-13 10:59:59"),
    purchase(1, "11.70", "2017-06-13 12:00:00"), purchase("1", "99.999999", "2017-06-13 12:00:01.5"),
    purchase("x", "5"),
]  # fmt: skip
STREAM = b"".join(LINES)


def run(tmp_path: Path, *options: str, stream: bytes = STREAM) -> tuple[Result, list[dict[str, Any]]]:
    """Run the command and read its JSON log."""
    (tmp_path / "stream").write_bytes(stream)
    files = [str(tmp_path / name) for name in ("stream", "out", "log")]
    options = ("--D", "2", "--T", "3", "--log-level", "info", "--log-format", "json", "--log-file", files[2], *options)
    result = CliRunner().invoke(cli, ["run", *files[:2], *options], catch_exceptions=False)
    records = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    return result, [record for record in records if record["event"] == "decision"]


def test_a_record_traces_the_decision(tmp_path: Path) -> None:
    """Every field of a flagged decision, checked by hand: window 11.00, 10.00, 12.50 of users 2 and 3."""
    _, (record,) = run(tmp_path)
    assert record.pop("logged_at")
    assert record == {
        "event": "decision", "level": "info", "seq": 8, "file": str(tmp_path / "stream"), "line": 9, "user": "1",
        "timestamp": "2017-06-13T12:00:01.500000Z", "amount": "99.999999", "network_size": 2, "window_size": 3,
        "mean": "11.16", "sd": "1.02", "threshold": "14.24", "verdict": "flagged", "detector": "sigma",
        "window_oldest": "2017-06-13T10:59:59.000000Z", "window_newest": "2017-06-13T11:00:02.000000Z",
        "plan": "partition", "plan_costs": {"last_hop": 8, "membership": 27, "scan": 18, "partition": 16},
    }  # fmt: skip


def test_all_decisions_agree_with_a_recomputation(tmp_path: Path) -> None:
    """With decisions: all there is one record for every stream purchase, right in every number."""
    rng = np.random.default_rng(5)
    lines = []
    for i in range(400):
        a, b = rng.choice(9, 2, replace=False)
        lines.append(
            befriend(a, b, "befriend" if rng.random() < 0.6 else "unfriend")
            if rng.random() < 0.2
            else purchase(a, f"{rng.integers(0, 3000) / 100:.2f}", f"2017-06-13 11:{rng.integers(0, 3)}0:{i % 60:02}")
        )
    stream = b"".join(lines)
    _, records = run(tmp_path, "--decisions", "all", stream=stream)
    flagged = (tmp_path / "out").read_bytes()
    assert flagged == judge(None, stream, 2, 3).flagged
    events = [json.loads(line) for line in lines]
    judged = [i for i, event in enumerate(events) if event["event_type"] == "purchase"]
    assert [record["seq"] - 1 for record in records] == judged
    assert sum(record["verdict"] == "flagged" for record in records) == flagged.count(b"\n")
    friends: dict[str, set[str]] = {}
    bought: list[tuple[str, int, str, int]] = []
    by_seq = {record["seq"]: record for record in records}
    for i, event in enumerate(events):
        if event["event_type"] == "purchase":
            record, network = by_seq[i + 1], network_of(friends, event["id"], 2)
            window = sorted(p for p in bought if p[2] in network)[-3:]
            assert (record["network_size"], record["window_size"], record["line"]) == (len(network), len(window), i + 1)
            assert record["window_oldest"] == (stamp(window[0][0]) if window else None)
            assert record["window_newest"] == (stamp(window[-1][0]) if window else None)
            if window:
                n, S, Q = len(window), sum(p[3] for p in window), sum(p[3] ** 2 for p in window)
                V = n * Q - S * S
                hundredths = [S // n // 10**4, isqrt(V) // n // 10**4, (S + isqrt(9 * V)) // n // 10**4]
                assert [record["mean"], record["sd"], record["threshold"]] == [f"{h / 100:.2f}" for h in hundredths]
            else:
                assert record["mean"] is record["sd"] is record["threshold"] is None
            bought.append((event["timestamp"], i, event["id"], int(Fraction(event["amount"]) * 10**6)))
        elif event["event_type"] == "befriend":
            friends.setdefault(event["id1"], set()).add(event["id2"])
            friends.setdefault(event["id2"], set()).add(event["id1"])
        else:
            friends.get(event["id1"], set()).discard(event["id2"])
            friends.get(event["id2"], set()).discard(event["id1"])


def stamp(text: str) -> str:
    """As a record writes it."""
    return f"{text.replace(' ', 'T')}.000000Z"


@pytest.mark.parametrize(
    ("options", "seqs"),
    [
        ((), [8]),
        (("--decisions", "none"), []),
        (("--decisions", "none", "--log-user", "1", "--log-sample", "1"), []),
        (("--decisions", "all"), [3, 4, 5, 6, 7, 8, 9]),
        (("--log-user", "3"), [5, 6, 8]),
        (("--log-user", "3", "--log-user", "x", "--log-user", "nobody"), [5, 6, 8, 9]),
        (("--log-sample", "1"), [3, 4, 5, 6, 7, 8, 9]),
        (("--log-level", "warning", "--decisions", "all"), []),
    ],
)
def test_the_settings_choose_which_decisions_are_logged(
    options: tuple[str, ...], seqs: list[int], tmp_path: Path
) -> None:
    """Flagged ones, all, none, and in addition named users and a sample; below info nothing."""
    _, records = run(tmp_path, *options)
    assert [record["seq"] for record in records] == seqs


def test_naming_a_user_changes_no_verdict(tmp_path: Path) -> None:
    """A user that only the config names does not exist."""
    plain, _ = run(tmp_path)
    named, _ = run(tmp_path, "--log-user", "ghost", "--log-user", "3")
    for result in (plain, named):
        assert "users, 2 friendships" in result.stderr
        assert (tmp_path / "out").read_bytes() == judge(None, STREAM, 2, 3).flagged
    assert plain.stderr.splitlines()[4:] == named.stderr.splitlines()[4:]


def test_the_console_form_is_readable(tmp_path: Path) -> None:
    """One line a decision on standard error, without colour where there is no terminal."""
    (tmp_path / "stream").write_bytes(STREAM)
    result = CliRunner().invoke(
        cli, ["run", "--D", "2", "--T", "3", "--log-level", "info", str(tmp_path / "stream"), str(tmp_path / "out")]
    )
    (line,) = [line for line in result.stderr.splitlines() if "verdict=" in line]
    assert "user=1" in line
    assert "verdict=flagged" in line
    assert "\x1b" not in line


def test_moments_outside_of_datetime_have_a_text() -> None:
    """A zone may push the first year's timestamps out of what datetime can hold."""
    assert moment(0) == "1970-01-01T00:00:00.000000Z"
    assert moment(None) is None
    first = int((datetime(1, 1, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds())
    assert moment(first * 10**6 - 1) == "0000-12-31T23:59:59.999999Z"


def test_a_log_file_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    """Said before anything is written."""
    (tmp_path / "stream").write_bytes(STREAM)
    files = [str(tmp_path / "stream"), str(tmp_path / "out")]
    result = CliRunner().invoke(cli, ["run", *files, "--D", "1", "--T", "2", "--log-file", str(tmp_path)])
    assert result.exit_code == 2
    assert result.stderr == f"peerwatch: cannot write the log file {tmp_path}: it is a directory; name a file in it\n"
    assert not (tmp_path / "out").exists()


def test_a_log_on_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    """It is told once that records are lost, which file it is, and at the end how many; everything is judged."""
    (tmp_path / "stream").write_bytes(STREAM)
    files = [str(tmp_path / "stream"), str(tmp_path / "out")]
    options = ["--D", "2", "--T", "3", "--log-level", "info", "--decisions", "all", "--log-file", "/dev/full"]
    result = CliRunner().invoke(cli, ["run", *files, *options, "--quiet"])
    assert result.exit_code == 0
    assert (tmp_path / "out").read_bytes() == judge(None, STREAM, 2, 3).flagged
    first, last = result.stderr.splitlines()
    assert first == (
        "peerwatch: cannot write the log /dev/full: No space left on device; the run goes on, and records are lost"
    )
    assert last == "peerwatch: the log /dev/full could not be written: 9 records were lost"


class Disk(io.BytesIO):
    """Has `room` for so many bytes."""

    room = 10**9

    def write(self, data: Any) -> int:
        """As much as there is room for."""
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = super().write(data[: self.room])
        self.room -= written
        return written


def test_a_record_that_is_torn_spoils_no_other(tmp_path: Path) -> None:
    """What a full disk has taken a part of is ended before the next record, once there is room again."""
    disk, told = Disk(), list[str]()
    target = LogTarget(disk, "log", told.append)
    target.msg("one")
    disk.room = 2
    target.msg("two two")
    target.msg(b"three")
    disk.room = 10**9
    target.msg(b"four")
    target.msg(b"five")
    assert disk.getvalue() == b"one\ntw\nfour\nfive\n"
    target.tell_lost()
    assert target.lost == 2
    assert told == [
        "cannot write the log log: No space left on device; the run goes on, and records are lost",
        "the log log could not be written: 2 records were lost",
    ]
    assert tmp_path


def test_the_status_tells_of_lost_records(tmp_path: Path) -> None:
    """And a log that is whole is no matter."""
    (tmp_path / "stream").write_bytes(STREAM)
    files = [str(tmp_path / "stream"), str(tmp_path / "out"), "--state", str(tmp_path / "state")]
    options = ["--D", "2", "--T", "3", "--log-level", "info", "--log-file"]
    for log, lost in (("/dev/full", 2), (str(tmp_path / "log"), 0)):
        assert CliRunner().invoke(cli, ["run", *files, *options, log, "--reset"]).exit_code == 0
        said = CliRunner().invoke(cli, ["status", str(tmp_path / "state")]).stdout
        assert ("records could not be written" in said) == bool(lost)
        found = json.loads(CliRunner().invoke(cli, ["status", str(tmp_path / "state"), "--json"]).stdout)
        assert found["unlogged"] == lost


@pytest.mark.parametrize(
    ("is_terminal", "name", "environment", "colored"),
    [
        (True, "standard error", {}, True),
        (False, "standard error", {}, False),
        (True, "standard error", {"NO_COLOR": "1"}, False),
        (True, "standard error", {"NO_COLOR": ""}, True),
        (False, "standard error", {"FORCE_COLOR": "1"}, True),
        (False, "log", {"FORCE_COLOR": "1"}, False),
        (True, "standard error", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ],
)
def test_colours_are_those_that_are_wanted(
    is_terminal: bool, name: str, environment: dict[str, str], colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, unless NO_COLOR is set; FORCE_COLOR wants them on standard error, and never in a file."""
    for variable in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    file = io.BytesIO()
    target = LogTarget(file, name, print)
    target.is_terminal = is_terminal
    logger = Logger(LogSettings(), target)
    logger.warning("something", key="value")
    assert (b"\x1b[" in file.getvalue()) == colored
