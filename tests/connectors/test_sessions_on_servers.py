"""Session logs in other systems: judged from there, and into them, like a file."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from every_system import SINKS, SOURCES
from system_postgresql import PostgresSystem
from system_redis import RedisSystem

from peerwatch.cli.main import cli

pytestmark = pytest.mark.slow

FOLLOW = ("sessions", "follow", "m.skops")
UNTIL_THE_END = ("--state", "state", "--idle-exit", "0")


def peerwatch(*arguments: str) -> None:
    """Run the command in this process; it must succeed."""
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model, a log of sessions, and what is flagged in it, file to file."""
    directory = tmp_path_factory.mktemp("sessions")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        peerwatch("sessions", "generate", "train.csv", "--rows", "600", "--anomalies", "0.4")
        peerwatch("sessions", "train", "train.csv", "--label", "label", "--set", "max_iter=20", "--save", "m.skops")
        peerwatch("sessions", "generate", "log.json", "--rows", "300", "--anomalies", "0.2", "--seed", "3")
        peerwatch(*FOLLOW, "log.json", "flagged.json", "--idle-exit", "0")
    assert (directory / "flagged.json").read_bytes()
    return directory


@pytest.mark.parametrize("name", SOURCES)
def test_sessions_are_judged_from_a_system_like_from_a_file(
    name: str, trained: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two portions with a restart between them: the bytes of one go from the file."""
    kind, fixture = SOURCES[name]
    system = kind()
    system.server = request.getfixturevalue(fixture)
    system.make()
    (tmp_path / "m.skops").symlink_to(trained / "m.skops")
    monkeypatch.chdir(tmp_path)
    lines = (trained / "log.json").read_bytes().splitlines()
    for portion in (lines[:170], lines[170:]):
        system.put(portion)
        peerwatch(*FOLLOW, system.url, "flagged.json", *UNTIL_THE_END)
    assert Path("flagged.json").read_bytes() == (trained / "flagged.json").read_bytes()


@pytest.mark.parametrize("name", ["postgresql", "redis"])
def test_flagged_sessions_reach_a_system_once(
    name: str, trained: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each with the line that a file gets, in its order, also when the command is run once more."""
    kind, fixture = SINKS[name]
    assert fixture is not None
    system = kind(tmp_path)
    system.server = request.getfixturevalue(fixture)
    system.make()
    for file in ("m.skops", "log.json"):
        (tmp_path / file).symlink_to(trained / file)
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        peerwatch(*FOLLOW, "log.json", system.url, *UNTIL_THE_END)
    if isinstance(system, PostgresSystem):
        found = [row[0] for row in system.query("SELECT line FROM peerwatch_sessions ORDER BY seq")]
    elif isinstance(system, RedisSystem):
        found = [message["line"] for message in system.messages()]
    assert "".join(f"{line}\n" for line in found).encode() == (trained / "flagged.json").read_bytes()
