"""`peerwatch demo` as a newcomer starts it: in a pipe, on a terminal, and what it tells them to type."""

import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import running

from peerwatch.cli.main import cli

EXPLAINS_FOR_EVER = """
import anyio.lowlevel
from peerwatch.cli import main as cli
from peerwatch.replay import explain
async def explained(*_, **__):
    print("explaining", flush=True)
    while True:
        await anyio.lowlevel.checkpoint()  # always at work: a signal is never missed just before a wait
explain.explained = explained
cli.main()
"""
COMMAND = [sys.executable, "-m", "peerwatch", "demo"]
PROMPT = b"Press Enter to go on. "
STEPS = 6


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory; temporary files go into another one beside it."""
    for name in ("here", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    return tmp_path / "here"


def left_behind(folder: Path) -> list[str]:
    """What is in the current directory and where temporary files go."""
    return [path.name for place in (folder, folder.parent / "temporary") for path in place.iterdir()]


def shown(*arguments: str) -> str:
    """What the demo prints into a pipe; it ends with exit code 0."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=True).stdout


def lines_to_type(text: str) -> list[str]:
    """The command lines that are shown."""
    return re.findall(r"^\$ (.+)$", text, re.MULTILINE)


def typed(line: str) -> str:
    """What a command line prints that a newcomer types in the current directory."""
    words = shlex.split(line)
    if words[0] != "peerwatch":
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout
    result = CliRunner().invoke(cli, words[1:])
    assert result.exit_code == 0, f"{line}\n{result.output}"
    return result.stdout


@contextmanager
def on_a_terminal(*arguments: str) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """The demo on a terminal: its process, and the descriptor of who sits there."""
    person, terminal = pty.openpty()
    try:
        with running([*COMMAND, *arguments], stdin=terminal, stdout=terminal, stderr=terminal) as process:
            os.close(terminal)
            yield process, person
    finally:
        os.close(person)


def read(person: int, until: bytes = b"") -> bytes:
    """What the terminal shows up to these bytes; up to its end if there are none."""
    text = b""
    while not until or until not in text:
        try:
            part = os.read(person, 1 << 16)
        except OSError:  # Linux: nobody has the terminal open
            part = b""
        if not part:
            assert not until, text
            break
        text += part
    return text


def test_every_command_that_is_shown_prints_the_same_when_it_is_typed() -> None:
    """In an empty folder, one after the other; those that are named for later run, too."""
    text = shown()
    now, _, later = text.partition("What next?\n")
    assert len(re.findall(r"^\d\. ", now, re.MULTILINE)) == STEPS
    for line in lines_to_type(now):
        assert f"$ {line}\n{typed(line)}" in now
    commands = [shlex.split(line)[1] for line in lines_to_type(now) if line.startswith("peerwatch")]
    assert commands == ["generate", "run", "explain", "state", "sweep"]
    again, *others = lines_to_type(later)
    for path in Path("demo").iterdir():
        path.unlink()
    assert typed(again).startswith(now)
    for line in others:
        typed(line + " --idle-exit 0" * ("--follow" in line))
    assert Path("why.png").exists()


def test_the_explained_decision_has_something_to_tell() -> None:
    """It is flagged, and two friendships would each have changed that; the sweep has settings with better precision."""
    text = shown()
    assert "verdict    FLAGGED by sigma with D=2 T=12 k=3" in text
    assert text.count("without the friendship of") == 2
    precision = [float(line.split()[7]) for line in text.splitlines() if re.match(r"\d +\d+ +\d .*%", line)]
    (current,) = [float(line.split()[7]) for line in text.splitlines() if line.endswith("  current")]
    assert max(precision) > 4 * current


def test_nothing_is_left_behind(folder: Path) -> None:
    """Neither in the current directory nor where temporary files go."""
    shown()
    assert left_behind(folder) == []


def test_the_files_are_kept_where_the_user_says(folder: Path) -> None:
    """The commands name that directory, quoted for the shell if need be."""
    text = shown("--directory", "my demo")
    assert left_behind(folder) == ["my demo"]
    kept = {path.name: path.read_bytes() for path in (folder / "my demo").iterdir()}
    assert {"batch_log.json", "stream_log.json", "labels.json", "flagged_purchases.json"} <= set(kept)
    assert "are not kept" not in text
    (run,) = [line for line in lines_to_type(text) if line.startswith("peerwatch run") and "--follow" not in line]
    typed(run)
    assert {path.name: path.read_bytes() for path in (folder / "my demo").iterdir()} == kept


def test_files_of_the_user_are_not_touched(folder: Path) -> None:
    """A directory with something in it, or a file of that name, is refused with exit code 2."""
    (folder / "full").mkdir()
    for path in (folder / "full" / "batch_log.json", folder / "file"):
        path.write_bytes(b"mine")
    for name in ("full", "file"):
        result = subprocess.run([*COMMAND, "--directory", name], capture_output=True, text=True, check=False)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr == f"peerwatch: {name} already exists and is not an empty directory; name another one\n"
    assert sorted(left_behind(folder)) == ["file", "full"]
    assert (folder / "full" / "batch_log.json").read_bytes() == b"mine"


def test_on_a_terminal_it_waits_for_enter() -> None:
    """After each step; the next one is shown only then."""
    with on_a_terminal() as (process, person):
        for number in range(1, STEPS + 1):
            text = read(person, PROMPT)
            assert re.findall(rb"(\d)\. ", b"".join(re.findall(rb"\x1b\[1m.*", text))) == [b"%d" % number]
            os.write(person, b"\n")
        assert b"What next?" in read(person)
        assert process.wait() == 0


def test_it_need_not_wait() -> None:
    """With --no-pause a terminal shows all of it at once."""
    with on_a_terminal("--no-pause") as (process, person):
        text = read(person)
        assert b"What next?" in text
        assert PROMPT not in text
        assert process.wait() == 0


@pytest.mark.parametrize("key", ["Ctrl-C", "Ctrl-D"])
def test_it_ends_cleanly_when_it_is_told_to(folder: Path, key: str) -> None:
    """Ctrl-C, or Ctrl-D instead of Enter: one sentence, exit code 130, no file left behind."""
    with on_a_terminal() as (process, person):
        read(person, PROMPT)
        assert left_behind(folder) != []
        if key == "Ctrl-C":
            process.send_signal(signal.SIGINT)
        else:
            os.write(person, b"\x04")
        assert read(person).split() == b"peerwatch: the demo was ended".split()
        assert process.wait() == 130
    assert left_behind(folder) == []


def test_ctrl_c_ends_a_step_at_work(folder: Path) -> None:
    """While a command runs it is no different: one sentence, exit code 130, no file left behind."""
    command = [sys.executable, "-c", EXPLAINS_FOR_EVER, "demo"]
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"explaining\n" in process.stdout
        process.send_signal(signal.SIGINT)
        assert process.stderr.read().endswith(b"\npeerwatch: the demo was ended\n")
        assert process.wait() == 130
    assert left_behind(folder) == []
