"""`peerwatch copy`, and `peerwatch generate --to`: events are sent where a run can read them."""

from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner, Result
from support import befriend, purchase

from peerwatch.cli.main import cli
from peerwatch.runtime import copying

LINES = [purchase(number, "1") for number in range(2500)]


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_events_are_sent_as_they_are(directory: Path) -> None:
    """Without the header line, blank lines and carriage returns; what is no event is sent as well."""
    lines = [*LINES, b"no event\n", befriend(1, 2)]
    (directory / "log").write_bytes(b'{"D":"1", "T":"2"}\n\n' + b"\r\n".join(line.strip() for line in lines))
    (directory / "there").write_bytes(b"before\n")
    result = peerwatch("copy", "log", "there")
    assert (result.exit_code, result.output) == (0, "2,502 events sent\n")
    assert (directory / "there").read_bytes() == b"before\n" + b"".join(lines)


async def test_a_rate_is_kept(directory: Path) -> None:
    """By a clock from outside: at 100 a second no event is sent before its time, and none much later."""
    await anyio.Path(directory / "log").write_bytes(b"".join(LINES[:300]))
    now, seen = [0.0], list[tuple[float, int]]()

    async def sleep(seconds: float) -> None:
        seen.append((now[0], (await anyio.Path(directory / "there").read_bytes()).count(b"\n")))
        now[0] += seconds

    assert await copying.copy("log", "there", rate=100, warn=print, clock=lambda: now[0], sleep=sleep) == 300
    assert all(count in {int(when * 100) + 1, int(when * 100) + 2, int(when * 100)} for when, count in seen)
    assert now[0] == pytest.approx(2.99, abs=0.02)


def test_what_cannot_be_used_is_named(directory: Path) -> None:
    """No such log, a directory, an unknown scheme, an empty name, the log itself, a target that ends within a line."""
    (directory / "log").write_bytes(LINES[0])
    (directory / "link").hardlink_to(directory / "log")
    (directory / "torn").write_bytes(LINES[0] + LINES[0][:20])
    for arguments, message in (
        (("no", "there"), "cannot read the log no: No such file or directory"),
        ((".", "there"), ". is a directory; name the log file in it"),
        (("log", "no/there"), "cannot write no/there: the directory no does not exist; create it first"),
        (("log", "gopher://h/x"), "gopher://h/x: there is no target for gopher; known are "),
        (("gopher://u:secret@h/x", "there"), "gopher://u:***@h/x: there is no source for gopher; known are "),
        (("log", ""), "'' is empty; name a file, or a URL"),
        (("log", "./log"), "./log is named for the source and for the target; name two"),
        (("log", "link"), "link is named for the source and for the target; name two"),
        (("redis://u:secret@h/x", "redis://u:secret@h/x"), "redis://u:***@h/x is named for the source and for the"),
        (("log", "torn"), "torn ends within a line; end the line first, or name another file"),
    ):
        result = peerwatch("copy", *arguments)
        assert result.exit_code == 2, result.output
        assert result.stderr.startswith(f"peerwatch: {message}"), result.stderr
    assert (directory / "log").read_bytes() == LINES[0]
    assert (directory / "torn").read_bytes() == LINES[0] + LINES[0][:20]


def test_what_is_generated_can_be_sent_at_once(directory: Path) -> None:
    """The stream log; a rate alone says not where to."""
    counts = ("--users", "50", "--batch-events", "300", "--stream-events", "200")
    result = peerwatch("generate", "demo", *counts, "--to", "there")
    assert result.exit_code == 0, result.output
    assert (directory / "there").read_bytes() == (directory / "demo" / "stream_log.json").read_bytes()
    result = peerwatch("generate", "other", *counts, "--rate", "5")
    assert (result.exit_code, result.stderr) == (
        2,
        "peerwatch: --rate is how fast events are sent; name where with --to\n",
    )
    assert not (directory / "other").exists()
