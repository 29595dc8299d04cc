"""What other systems hold is read again: verdicts by `verify`, purchases by all commands that look into the past."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from click.testing import CliRunner, Result
from every_system import SINKS, SOURCES
from system_kafka import KafkaSystem, put, records
from systems import SinkSystem, SourceSystem, SqliteSystem

from peerwatch.cli.main import cli
from peerwatch.settings.model import InputSettings
from peerwatch.storage.checkpoints import envelopes
from peerwatch.studies.generate import Recipe, generate

pytestmark = pytest.mark.slow

READABLE: Final = [name for name, (kind, _) in SINKS.items() if kind.has_marks]
TOPICS: Final = ["kafka", "nats"]
"""The systems in which records of several runs lie one behind the other."""


class Logs(NamedTuple):
    """The lines of both logs, and the flagged purchases as a file has them."""

    batch: list[str]
    stream: list[str]
    flagged: list[bytes]


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Logs:
    """Logs in the working directory, `batch` and `stream`, and the output of a run over them, `out`."""
    monkeypatch.chdir(tmp_path)
    recipe = Recipe(users=100, batch_events=1000, stream_events=1000, T=20, anomalies=0.05)
    batch, stream, _ = generate(recipe)
    (tmp_path / "batch").write_text("".join(batch))
    (tmp_path / "stream").write_text("".join(stream))
    assert peerwatch("run", "batch", "stream", "out").exit_code == 0
    flagged = (tmp_path / "out").read_bytes().splitlines(keepends=True)
    assert len(flagged) > 10
    return Logs(batch, stream, flagged)


def sink_of(name: str, request: pytest.FixtureRequest, directory: Path) -> SinkSystem:
    """A sink's system, its server started."""
    kind, fixture = SINKS[name]
    system = kind(directory)
    if fixture is not None:
        system.server = request.getfixturevalue(fixture)
    system.make()
    return system


@pytest.fixture(params=READABLE)
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> SinkSystem:
    """Each system whose records can be read again."""
    return sink_of(request.param, request, tmp_path)


def source_of(name: str, request: pytest.FixtureRequest) -> SourceSystem:
    """A source's system, its server started."""
    kind, fixture = SOURCES[name]
    system = kind()
    system.server = request.getfixturevalue(fixture)
    system.make()
    return system


def sink_lines(sink: SinkSystem) -> bytes:
    """The lines of the run whose state directory is `state`, read with the system's own client."""
    newest = next(iter(envelopes(Path("state"), InputSettings())))[1]
    sink.run = newest.identity.run
    return sink.flagged()


def test_verdicts_are_compared_where_they_are(sink: SinkSystem, logs: Logs) -> None:
    """With the state directory and without; a log that has changed since is told, with the record that differs."""
    assert peerwatch("run", "batch", "stream", sink.url, "--state", "state").exit_code == 0
    for more in ([], ["--state", "state"]):
        result = peerwatch("verify", "batch", "stream", sink.url, *more)
        assert (result.exit_code, f"every one as in {sink.url}" in result.stdout) == (0, True), result.output
    half = len(logs.stream) // 2
    Path("stream").write_text("".join(logs.stream[:half]))
    assert peerwatch("run", "batch", "stream", "out").exit_code == 0
    count = len(Path("out").read_bytes().splitlines())
    result = peerwatch("verify", "batch", "stream", sink.url, "--state", "state")
    assert result.exit_code == 1
    assert f"record {count + 1} of {sink.url} should not be there; nothing more is flagged:\n  {{" in result.stdout
    Path("stream").write_text("".join([*logs.stream, logs.flagged[-1].decode()]))
    result = peerwatch("verify", "batch", "stream", sink.url)
    assert (result.exit_code, f"record {len(logs.flagged) + 1} of {sink.url} is missing" in result.stdout) == (1, True)


@pytest.mark.usefixtures("logs")
def test_a_record_that_was_changed_is_named(tmp_path: Path) -> None:
    """By its place, with the purchase that should be there."""
    system = SqliteSystem(tmp_path)
    assert peerwatch("run", "batch", "stream", system.url, "--state", "state").exit_code == 0
    with closing(sqlite3.connect(tmp_path / f"{system.place}.db", isolation_level=None)) as database:
        seqs = [seq for (seq,) in database.execute("SELECT seq FROM peerwatch_flagged ORDER BY seq")]
        database.execute("UPDATE peerwatch_flagged SET line = '{}' WHERE seq = ?", (seqs[4],))
    result = peerwatch("verify", "batch", "stream", system.url, "--state", "state")
    assert result.exit_code == 1
    assert f"record 5 of {system.url} differs; it should be event {seqs[4]:,}, stream line " in result.stdout
    assert result.stdout.endswith("and is\n  {}\n")


@pytest.mark.parametrize("name", [*TOPICS, "sqlite", "postgresql"])
def test_the_run_is_that_of_the_state_directory(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, logs: Logs
) -> None:
    """Two runs have written there: each is compared with its own logs; without the directory nobody can know which."""
    sink = sink_of(name, request, tmp_path)
    half = len(logs.stream) // 2
    Path("half").write_text("".join(logs.stream[:half]))
    assert peerwatch("run", "batch", "half", sink.url, "--state", "first").exit_code == 0
    assert peerwatch("run", "batch", "stream", sink.url, "--state", "second", "--force").exit_code == 0
    for stream, state, code in (("half", "first", 0), ("stream", "second", 0), ("half", "second", 1)):
        result = peerwatch("verify", "batch", stream, sink.url, "--state", state)
        assert result.exit_code == code, result.output
    result = peerwatch("verify", "batch", "stream", sink.url)
    assert (
        result.exit_code,
        result.stderr.endswith("name the state directory of the one that is meant with --state\n"),
    ) == (2, True)


@pytest.mark.parametrize("name", SOURCES)
def test_what_a_source_holds_is_read_again_by_every_command(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, logs: Logs
) -> None:
    """From a stream into a stream of the same system: the same bytes, and the same answers as from the files."""
    source, sink = source_of(name, request), sink_of(name, request, tmp_path)
    source.put([line.encode().rstrip() for line in logs.stream])
    assert peerwatch("run", "batch", source.url, sink.url, "--state", "state").exit_code == 0
    assert sink_lines(sink) == b"".join(logs.flagged)
    result = peerwatch("verify", "batch", source.url, sink.url, "--state", "state", "--audit", "1")
    assert result.exit_code == 0, result.output
    assert f"{len(logs.flagged):,}  every one as in {sink.url}" in result.stdout
    event = json.loads(logs.flagged[3])
    stem = logs.flagged[3].decode().partition(', "mean"')[0]
    seq = str(len(logs.batch) + next(place for place, line in enumerate(logs.stream) if line.startswith(stem)))
    for command in (
        ["explain", "--seq", seq],
        ["state", "--user", event["id"], "--at", seq],
        ["sweep", "--D", "1,2", "--T", "20"],
    ):
        found = [peerwatch(command[0], "batch", stream, *command[1:]) for stream in ("stream", source.url)]
        assert [one.exit_code for one in found] == [0, 0], found[1].output
        assert found[1].stdout.replace(source.url, "stream").split() == found[0].stdout.split()
        assert event["id"] in found[0].stdout or command[0] == "sweep"
    result = peerwatch("explain", "batch", source.url, "--seq", seq, "--state", "state")
    assert (result.exit_code, "FLAGGED" in result.stdout) == (0, True)


def test_a_repeated_record_counts_where_it_must_be_there_once(
    request: pytest.FixtureRequest, tmp_path: Path, logs: Logs
) -> None:
    """Delivered at least once it may come again; of a run with a state directory it may not."""
    sink = sink_of("kafka", request, tmp_path)
    assert isinstance(sink, KafkaSystem)
    assert peerwatch("run", "batch", "stream", sink.url, "--state", "state").exit_code == 0
    repeated = [message.value() for message in records(sink.address, sink.place)][-2:]
    put(sink.address, sink.place, [*repeated, b"what somebody else has written"])
    assert peerwatch("verify", "batch", "stream", sink.url).exit_code == 0
    result = peerwatch("verify", "batch", "stream", sink.url, "--state", "state")
    place = f"record {len(logs.flagged) + 1} of {sink.url}"
    assert (result.exit_code, f"{place} should not be there" in result.stdout) == (1, True)


@pytest.mark.parametrize(
    ("url", "message", "code"),
    [
        ("influx+http://127.0.0.1:1/db", "cannot be read again; judge the logs into a file and compare that", 2),
        ("https://127.0.0.1:1/hook", "cannot be read again; judge the logs into a file and compare that", 2),
        ("redis://127.0.0.1:1/key", "cannot reach redis://127.0.0.1:1/key: ", 1),
        ("sqlite:not_there.db", "no run of peerwatch has written flagged purchases there", 2),
    ],
)
@pytest.mark.usefixtures("logs")
def test_what_cannot_be_read_is_refused(url: str, message: str, code: int) -> None:
    """With the way out; nothing is made. A server that is away may come back, which exit code 1 says."""
    result = peerwatch("verify", "batch", "stream", url)
    assert (result.exit_code, message in result.stderr) == (code, True), result.output
    assert not Path("not_there.db").exists()
