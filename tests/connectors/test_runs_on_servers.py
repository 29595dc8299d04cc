"""Runs whose logs and outputs are in other systems: explained, looked at and swept like any other."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result
from servers import Redis

from peerwatch.cli.main import cli

SECRET = "Tr0ub4dor&3"  # noqa: S105 (of the test alone)
QUOTED = "Tr0ub4dor%263"
COUNTS = ("--users", "200", "--batch-events", "2000", "--stream-events", "2000", "--T", "20")


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


def records(client: "redis.Redis", key: str) -> list[dict[str, Any]]:
    """The records in a stream."""
    entries: Any = client.xrange(key)
    return [json.loads(fields[b"record"]) for _, fields in entries]


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["redis.Redis"]:
    """A Redis of its own with a password, whose stream `purchases` holds the stream log; the logs lie beside it."""
    missing = Redis.missing()
    if missing is not None and not os.environ.get("PEERWATCH_REQUIRE_SERVERS"):
        pytest.skip(missing)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_PASSWORD", SECRET)
    assert peerwatch("generate", ".", *COUNTS).exit_code == 0
    with Redis() as server, redis.Redis(port=server.port, protocol=2) as client:
        client.config_set("requirepass", SECRET)
        client.auth(SECRET)
        for line in (tmp_path / "stream_log.json").read_bytes().splitlines():
            client.xadd("purchases", {"event": line})
        place = f"127.0.0.1:{server.port}"
        (tmp_path / "c.yaml").write_text(
            f'input: {{batch: batch_log.json, stream: "redis://:${{REDIS_PASSWORD}}@{place}/purchases"}}\n'
            f'output: {{flagged: "redis://:${{REDIS_PASSWORD}}@{place}/flagged"}}\n'
            "sinks:\n"
            f'  - {{to: "redis://:${{REDIS_PASSWORD}}@{place}/all", records: [decisions, rejects]}}\n'
            "  - {to: again.json}\n"
            "state: {directory: state}\n"
        )
        yield client


def test_a_run_from_a_stream_into_a_stream(client: "redis.Redis", tmp_path: Path) -> None:
    """The same bytes as from file to file, in both sinks; once more nothing is added; what reads again reads there."""
    assert peerwatch("run", "batch_log.json", "stream_log.json", "out.json").exit_code == 0
    expected = (tmp_path / "out.json").read_bytes()
    for _ in range(2):
        result = peerwatch("run", "-c", "c.yaml")
        assert result.exit_code == 0, result.output
        found = records(client, "flagged")
        assert (
            "".join(f"{one['line']}\n" for one in found).encode() == expected == (tmp_path / "again.json").read_bytes()
        )
    decisions = records(client, "all:decisions")
    assert [one["seq"] for one in decisions if one["flagged"]] == [one["seq"] for one in found]
    assert len(decisions) > 1500
    status = peerwatch("status", "state").output
    assert "purchases answers; 0 messages wait to be read" in status
    assert peerwatch("config", "check", "-c", "c.yaml").exit_code == 0
    seq = str(found[3]["seq"])
    assert "FLAGGED" in peerwatch("explain", "-c", "c.yaml", "--seq", seq).output
    by_file = peerwatch("state", "batch_log.json", "stream_log.json", "--user", "7", "--at", seq)
    assert (
        peerwatch("state", "-c", "c.yaml", "--user", "7", "--at", seq).output.split("purchases")[0]
        == (by_file.output.split("purchases")[0])
    )
    assert "1 hop" not in peerwatch("sweep", "-c", "c.yaml", "--D", "1,2", "--T", "20").output
    result = peerwatch("verify", "-c", "c.yaml")
    assert (result.exit_code, "every one as in redis://" in result.stdout) == (0, True), result.output


def test_a_password_is_seen_nowhere(client: "redis.Redis", tmp_path: Path) -> None:
    """Neither from the environment nor in the URL itself: not in output, logs, status, state or in a refusal."""
    place = client.connection_pool.connection_kwargs["port"]
    literal = f"redis://:{QUOTED}@127.0.0.1:{place}/literal"
    told = [peerwatch("run", "-c", "c.yaml", "--log-level", "debug", "--log-file", "log")]
    told += [peerwatch("run", "batch_log.json", "stream_log.json", literal, "--state", "s2", "--log-file", "log2")]
    assert [one.exit_code for one in told] == [0, 0], told[-1].output
    assert "its password is in the URL" in (tmp_path / "log2").read_text()
    told += [peerwatch("status", name) for name in ("state", "s2")]
    told += [peerwatch("config", what, "batch_log.json", "stream_log.json", literal) for what in ("show", "check")]
    told += [peerwatch("config", "show", "-c", "c.yaml")]
    (tmp_path / "bad.yaml").write_text(f'sinks: [{{to: "{literal}", records: [all]}}]\n')
    told += [peerwatch("config", "show", "-c", "bad.yaml"), peerwatch("copy", "stream_log.json", literal)]
    told += [peerwatch("run", "batch_log.json", "stream_log.json", literal)]
    (tmp_path / "bad.yaml").unlink()
    wrong = literal.replace(QUOTED, f"{QUOTED}x")
    told += [peerwatch("run", "batch_log.json", "stream_log.json", wrong)]
    assert [one.exit_code for one in told[-4:]] == [2, 0, 2, 2]
    (tmp_path / "c.yaml").rename(tmp_path.parent / "c.yaml")
    for text in [one.output for one in told]:
        assert SECRET not in text
        assert QUOTED not in text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8
    for path in files:
        content = path.read_bytes()
        assert SECRET.encode() not in content, path
        assert QUOTED.encode() not in content, path
