"""Events that are copied into another system are read there by a run: as many, in their order."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from every_system import SOURCES

from peerwatch.cli.main import cli


@pytest.mark.parametrize("name", SOURCES)
def test_what_is_copied_is_judged_like_the_file(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generated into the system, judged from there, and copied back: the same bytes throughout."""
    monkeypatch.chdir(tmp_path)
    kind, fixture = SOURCES[name]
    system = kind()
    system.server = request.getfixturevalue(fixture)
    for command in (
        ["generate", ".", "--users", "300", "--batch-events", "3000", "--stream-events", "3000", "--to", system.url],
        ["run", "batch_log.json", "stream_log.json", "from_file.json", "-q"],
        ["run", "batch_log.json", system.url, "from_system.json", "-q"],
        ["copy", system.url, "copied.json"],
    ):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 0, result.output
    assert Path("from_system.json").read_bytes() == Path("from_file.json").read_bytes() != b""
    assert Path("copied.json").read_bytes() == Path("stream_log.json").read_bytes()
