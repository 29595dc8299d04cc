"""A run that is told to stop while a server is away: it ends in time, says why, and nothing is lost."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from every_system import SINKS, SOURCES
from servers import Server, children
from strategies import often
from support import running, wait_until

from peerwatch.settings.model import InputSettings
from peerwatch.storage.checkpoints import envelopes
from peerwatch.studies.generate import Recipe, generate
from peerwatch.urls import parsed

pytestmark = pytest.mark.slow

HASTY: Final = """
from peerwatch.cli.main import main
from peerwatch.connectors import exactly_once
from peerwatch.runtime import stopping, supervisor
stopping.STOP_SECONDS = supervisor.STOP_SECONDS = 4.0
exactly_once.STOP_SECONDS = 0.5
main()
"""
"""peerwatch, with less time for a stop than it takes otherwise."""
COMMAND: Final = [sys.executable, "-c", HASTY, "run", "--quiet"]
SERVED: Final = [name for name in SINKS if name not in {"sqlite", "webhook-batch"}]
"""A webhook is one, however many records a request has."""


@contextmanager
def killed(server: Server) -> Iterator[None]:
    """The server is dead meanwhile: nobody listens."""
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """The server does nothing meanwhile: the system accepts connections for it, and nobody answers."""
    processes = [server.pid, *children(server.pid)]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with suppress(ProcessLookupError):  # one of those that PostgreSQL starts for a connection
                os.kill(process, signal.SIGCONT)


AWAY: Final[dict[str, Callable[[Server], Any]]] = {"killed": killed, "frozen": frozen}
FEWER: Final = [("kafka", "killed"), ("postgresql", "killed"), ("redis", "killed"), ("redis", "frozen")]


def ways(names: Iterable[str]) -> list[tuple[str, str]]:
    """Every system, away in every way; with fewer examples only some of them, as each takes seconds."""
    every = [(name, away) for name in names for away in AWAY]
    return every if often(0, 1) else [way for way in every if way in FEWER]


def status_of(directory: Path) -> dict[str, Any]:
    """The status of a run; nothing yet if it has just begun."""
    with suppress(FileNotFoundError):
        return dict(msgspec.json.decode((directory / "state" / "status.json").read_bytes()))
    return {}


def server_of(directory: Path) -> dict[str, Any]:
    """What the status says of the one server of a run; nothing yet if it is not there."""
    servers = status_of(directory).get("servers")
    return dict(servers[0]) if servers else {}


def stopped(process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    """Stop a run, however long that takes: its exit code, and what it said."""
    process.send_signal(signal.SIGTERM)
    code = process.wait()
    assert process.stderr is not None
    return code, process.stderr.read().decode()


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with both logs and what is flagged."""
    directory = tmp_path_factory.mktemp("logs")
    batch, stream, _ = generate(Recipe(users=100, batch_events=1000, stream_events=2000, T=20, anomalies=0.05))
    (directory / "batch.json").write_text("".join(batch))
    (directory / "whole.json").write_text("".join(stream))
    subprocess.run([*COMMAND, "batch.json", "whole.json", "expected.json"], cwd=directory, check=True)
    return directory


@pytest.fixture
def lines(logs: Path, tmp_path: Path) -> list[bytes]:
    """The stream log; the batch log, and what is flagged, are in the test's directory."""
    shutil.copytree(logs, tmp_path, dirs_exist_ok=True)
    return (logs / "whole.json").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(("name", "away"), ways(SERVED))
def test_a_sink_whose_server_is_away(
    name: str, away: str, request: pytest.FixtureRequest, tmp_path: Path, lines: list[bytes]
) -> None:
    """The run does not wait for it, and ends with a sentence that names it; the next run writes what is missing."""
    kind, fixture = SINKS[name]
    assert fixture is not None
    system = kind(tmp_path)
    server: Server = request.getfixturevalue(fixture)
    system.server = server
    system.make()
    half = len(lines) // 2
    (tmp_path / "live.json").write_bytes(b"".join(lines[:half]))
    command = [*COMMAND, "batch.json", "live.json", system.url, "--state", "state"]
    with running([*command, "--follow"], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        wait_until(lambda: server_of(tmp_path).get("records", 0) > 0, process)
        wait_until(lambda: status_of(tmp_path)["caught_up"] > 0, process)
        before = status_of(tmp_path)["totals"]["events"]
        with AWAY[away](server):
            with (tmp_path / "live.json").open("ab") as live:
                live.write(b"".join(lines[half:]))
            if away == "killed":
                wait_until(lambda: server_of(tmp_path)["away"] is not None, process)
            else:
                wait_until(lambda: status_of(tmp_path)["totals"]["events"] > before, process)
            code, said = stopped(process)
    last = said.splitlines()[-1]
    assert (code, str(parsed(system.url)) in last, "does not answer" in last) == (1, True, True), said
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    system.run = next(envelopes(tmp_path / "state", InputSettings()))[1].identity.run
    assert system.flagged() == (tmp_path / "expected.json").read_bytes()


@pytest.mark.parametrize(("name", "away"), ways(SOURCES))
def test_a_source_whose_server_is_away(
    name: str, away: str, request: pytest.FixtureRequest, tmp_path: Path, lines: list[bytes]
) -> None:
    """What has been read is judged, written and remembered: the run ends as it does with a server, and goes on."""
    kind, fixture = SOURCES[name]
    system = kind()
    server: Server = request.getfixturevalue(fixture)
    system.server = server
    system.make()
    half = len(lines) // 2
    system.put([line.rstrip() for line in lines[:half]])
    command = [*COMMAND, "batch.json", system.url, "out.json", "--state", "state"]
    with running([*command, "--follow"], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        wait_until(lambda: server_of(tmp_path).get("waiting") == 0, process)
        with AWAY[away](server):
            if away == "killed":
                wait_until(lambda: server_of(tmp_path)["away"] is not None, process)
            code, said = stopped(process)
    assert code == 0, said
    system.put([line.rstrip() for line in lines[half:]])
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out.json").read_bytes() == (tmp_path / "expected.json").read_bytes()
