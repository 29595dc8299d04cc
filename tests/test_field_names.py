"""Logs with other names for their fields: the verdicts are those of the same log with the usual ones."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples
from strategies import logs as any_logs
from support import befriend, purchase

from peerwatch.cli.main import cli
from peerwatch.network.decoder import Decoder
from peerwatch.network.events import FieldNames

NAMES = FieldNames("kind", "ts", "customer_id", "total", "from", "to")
SETTINGS = "{event_type: kind, timestamp: ts, id: customer_id, amount: total, id1: from, id2: to}"


def renamed(log: bytes, names: FieldNames = NAMES) -> bytes:
    """A log whose keys have other names; lines that are none of its own are left as they are."""
    usual = names._asdict()
    lines = []
    for line in log.split(b"\n"):
        try:
            pairs = json.loads(line, object_pairs_hook=lambda pairs: pairs)
            again = {usual.get(key, key): value for key, value in pairs}
        except (ValueError, TypeError, UnicodeDecodeError):
            lines.append(line)
        else:
            lines.append(json.dumps(again).encode())
    return b"\n".join(lines)


def test_each_event_is_the_same() -> None:
    """Columns, dense integers, large amounts; a blank line is none, a bad line is rejected with its own key."""
    log = b"\n" + befriend(1, 2) + purchase(1, "9" * 40) + purchase(3, "1.5") + b"\r\n" + befriend(1, 2, "unfriend")
    usual, foreign = Decoder().decode(log, 1), Decoder().decode(renamed(log), 1, NAMES)
    assert usual.rejected == foreign.rejected == []
    for name in ("kind", "user", "friend", "timestamp", "line"):
        assert getattr(usual.events, name).tolist() == getattr(foreign.events, name).tolist()
    assert [usual.events.amount.exact(i) for i in (1, 2)] == [foreign.events.amount.exact(i) for i in (1, 2)]
    bad = (
        Decoder().decode(renamed(purchase(1, "x") + purchase(2, "1", "never") + b'{"kind": "x"}\n'), 1, NAMES).rejected
    )
    assert ["total" in bad[0].reason, '"ts"' in bad[1].reason, '"kind"' in bad[2].reason] == [True] * 3


@given(log=any_logs(), cut=st.integers(1, 200))
@settings(max_examples=examples(60))
def test_any_log_is_read_alike(log: bytes, cut: int) -> None:
    """Hostile lines and all, read in pieces: the same lines are events."""
    decoder, line, numbers = Decoder(), 1, list[int]()
    lines = log.replace(b"event_type", b"kind").split(b"\n")
    for begin in range(0, len(lines), cut):
        piece = b"\n".join(lines[begin : begin + cut]) + b"\n" * (begin + cut < len(lines))
        numbers += decoder.decode(piece, line, FieldNames(event_type="kind")).events.line.tolist()
        line += piece.count(b"\n")
    assert numbers == Decoder().decode(log, 1).events.line.tolist()


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same logs under both names."""
    batch = befriend(1, 2) + befriend(2, 3) + purchase(2, "10") + purchase(3, "12") + purchase(3, "11")
    stream = purchase(1, "11") + purchase(1, "50") + b"no event\n" + befriend(1, 4) + purchase(1, "500")
    monkeypatch.chdir(tmp_path)
    for name, log in (("batch", batch), ("stream", stream)):
        (tmp_path / name).write_bytes(log)
        (tmp_path / f"foreign_{name}").write_bytes(renamed(log))
    (tmp_path / "c.yaml").write_text(f"D: 2\nT: 3\ninput: {{fields: {SETTINGS}}}\n")
    return tmp_path


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


def test_a_run_flags_the_same_purchases(logs: Path) -> None:
    """Each as its own line, keys and all; the decision log, explain and verify follow, also without the config."""
    assert peerwatch("run", "--D", "2", "--T", "3", "batch", "stream", "out", "-q").exit_code == 0
    run = ["run", "-c", "c.yaml", "foreign_batch", "foreign_stream", "foreign_out", "--state", "state"]
    result = peerwatch(*run, "--log-level", "info", "--log-format", "json", "--log-file", "log")
    assert result.exit_code == 0, result.output
    usual = [json.loads(line) for line in (logs / "out").read_bytes().splitlines()]
    foreign = [json.loads(line) for line in (logs / "foreign_out").read_bytes().splitlines()]
    assert len(usual) == 2
    again = [{NAMES._asdict().get(key, key): value for key, value in one.items()} for one in usual]
    assert foreign == again
    decisions = [json.loads(line) for line in (logs / "log").read_text().splitlines()]
    assert [one["user"] for one in decisions if one["event"] == "decision"] == ["1", "1"]
    explained = peerwatch("explain", "foreign_batch", "foreign_stream", "--state", "state", "--seq", "7")
    assert explained.exit_code == 0, explained.output
    assert peerwatch("verify", "-c", "c.yaml", "foreign_batch", "foreign_stream", "foreign_out").exit_code == 0


@pytest.mark.usefixtures("logs")
def test_a_run_does_not_go_on_with_other_names() -> None:
    """The state was built from the fields that the config named."""
    run = ["run", "foreign_batch", "foreign_stream", "out", "--state", "state", "-q"]
    assert peerwatch(*run, "-c", "c.yaml").exit_code == 0
    result = peerwatch(*run, "--D", "2", "--T", "3")
    assert result.exit_code == 2
    assert '"input.fields" is' in result.stderr


def test_a_log_of_purchases_alone_needs_no_event_type(logs: Path) -> None:
    """`=purchase` says so; a name that is no field, and a value that is no text, are refused with what is expected."""
    (logs / "orders").write_text('{"ts": "2017-06-13 11:33:01", "customer_id": 7, "total": 3.5}\n' * 3)
    (logs / "c.yaml").write_text(
        "input: {fields: {event_type: =purchase, timestamp: ts, id: customer_id, amount: total}}\n"
    )
    result = peerwatch("run", "-c", "c.yaml", "--D", "1", "--T", "2", "orders", "out")
    assert result.exit_code == 0, result.output
    assert not (logs / "out.rejects.json").read_bytes()
    (logs / "c.yaml").write_text("input: {fields: {user: customer_id}}\n")
    result = peerwatch("run", "-c", "c.yaml", "--D", "1", "--T", "2", "orders", "out")
    assert result.exit_code == 2
    assert 'c.yaml:1: "input.fields" is' in result.stderr


def test_corrected_lines_are_fed_back_under_their_own_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the config that names the keys; without it nothing is appended. The run judges the lines then."""
    monkeypatch.chdir(tmp_path)
    stream = renamed(b"".join(purchase(user, "1") for user in range(5)))
    (tmp_path / "stream").write_bytes(stream)
    (tmp_path / "c.yaml").write_text(f"input: {{fields: {SETTINGS}}}\n")
    (tmp_path / "fixed").write_bytes(renamed(purchase(1, "900") + befriend(1, 2)))
    result = CliRunner().invoke(cli, ["rejects", "requeue", "fixed", "stream"])
    assert (result.exit_code, (tmp_path / "stream").read_bytes()) == (2, stream)
    assert 'fixed:1: "event_type" is missing' in result.stderr
    result = CliRunner().invoke(cli, ["rejects", "requeue", "fixed", "stream", "--config", "c.yaml"])
    assert (result.exit_code, result.stdout) == (0, "2 events appended to stream\n")
    result = CliRunner().invoke(cli, ["run", "stream", "out", "-c", "c.yaml", "--D", "1", "--T", "2"])
    assert result.exit_code == 0
    assert not (tmp_path / "out.rejects.json").read_bytes()
    (tmp_path / "fixed").write_bytes(purchase(1, "900"))
    result = CliRunner().invoke(cli, ["rejects", "requeue", "fixed", "stream", "--config", "c.yaml"])
    assert (result.exit_code, 'fixed:1: "kind" is missing' in result.stderr) == (2, True)
