"""Too little of something: files, memory, threads. One sentence, exit code 1, nothing left behind."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support import befriend, purchase

from peerwatch import kernels
from peerwatch.cli.main import cli
from peerwatch.network.graph import FriendGraph
from peerwatch.runtime import room, supervisor

COMMAND = [sys.executable, "-m", "peerwatch"]
FILES = "peerwatch: too many files are open; allow more (ulimit -n)\n"
MEMORY = "peerwatch: there is not enough memory; allow more (ulimit -v)\n"
THREADS = "peerwatch: no more threads can be started; allow more threads or memory (ulimit -u, -v)\n"
COMMANDS = [
    ["run", "batch", "stream", "out"],
    ["run", "batch", "stream", "out", "--follow", "--idle-exit", "0", "--state", "state"],
    ["explain", "batch", "stream", "--line", "1"],
    ["sweep", "batch", "stream", "--k", "2,3"],
    ["verify", "batch", "stream", "out"],
]


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with both logs."""
    (tmp_path / "batch").write_bytes(b'{"D": 2, "T": 3}\n' + befriend(1, 2) + purchase(2, "10"))
    (tmp_path / "stream").write_bytes(purchase(1, "10") * 9)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", 0.0)
    return tmp_path


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


@pytest.mark.parametrize("arguments", COMMANDS)
@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        ("-n 5", FILES),
        ("-n 10", FILES),
        ("-n 16", FILES),
        ("-v 24000", MEMORY),
        ("-v 100000", MEMORY),
        ("-v 290000", MEMORY),
    ],
)
def test_where_there_is_no_room_a_command_does_not_begin(
    logs: Path, arguments: list[str], limit: str, sentence: str
) -> None:
    """What libraries do without it, from a traceback to a core dump, does not come to that."""
    command = ["sh", "-c", f'ulimit {limit} && exec "$@"', "sh", *COMMAND, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", sentence)
    assert sorted(path.name for path in logs.iterdir()) == ["batch", "stream"]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), MEMORY),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), MEMORY),
        (RuntimeError("can't start new thread"), THREADS),
        (OSError(errno.EMFILE, "Too many open files", "stream"), FILES),
        (OSError(errno.ENFILE, "Too many open files in system"), FILES),
    ],
)
@pytest.mark.parametrize("state", [["--state", "state"], []])
def test_what_runs_out_in_a_run_ends_it(
    logs: Path, error: Exception, sentence: str, state: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once without a state directory, else after restarts from it that bring nothing; there is no traceback."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(FriendGraph, "walk", fail)
    result = peerwatch("run", "batch", "stream", "out", "--quiet", *state)
    assert result.exit_code == 1
    assert "Traceback" not in result.stderr
    *restarts, last = result.stderr.splitlines(keepends=True)
    assert last == (sentence.replace("\n", "; 6 restarts did not help\n") if state else sentence)
    assert [("restart" in each, "traceback" in each) for each in restarts] == [(True, False)] * (6 if state else 0)
    assert logs


@pytest.mark.usefixtures("logs")
def test_a_file_that_cannot_be_opened_for_want_of_room_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1: nothing that the user has named is wrong."""

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("aiofiles.open", fail)
    result = peerwatch("run", "batch", "stream", "out")
    assert (result.exit_code, result.stderr) == (1, "peerwatch: cannot read the log batch: Too many open files\n")


@pytest.mark.usefixtures("logs")
def test_a_library_that_cannot_be_loaded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first cause of many words."""

    def fail() -> None:
        raise ImportError("\nIMPORTANT: ...") from ImportError("libx.so: failed to map segment\nmore")

    monkeypatch.setattr("peerwatch.cli.main.check_room", fail)
    result = peerwatch("status", "x")
    said = "peerwatch: cannot load a library: libx.so: failed to map segment\n"
    assert (result.exit_code, result.stderr) == (1, said)


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only errors of the kinds above become sentences."""
    monkeypatch.setattr("peerwatch.cli.main.check_room", lambda: [].__getitem__(1))
    assert isinstance(peerwatch("status", "x").exception, IndexError)
    assert room.shortage(RuntimeError("something else")) is None


def test_compiling_needs_room(logs: Path) -> None:
    """The compiler would end the process by itself, or hang: it is not begun."""
    command = ["sh", "-c", 'ulimit -v 500000 && exec "$@"', "sh", *COMMAND, "run", "batch", "stream", "out", "-q"]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(logs / "cache")}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, MEMORY)


@pytest.mark.usefixtures("logs")
def test_a_full_disk_behind_the_kernel_cache_is_told_and_leaves_nothing(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been compiled serves the run; one warning names the place, and no part of a file stays there."""
    cache = logs / "cache"
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(cache))
    told: list[tuple[str, str]] = []
    compiled = {"kernel": (b"code", b"entry")}

    def full(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        kernels.write_cache(compiled, lambda *words: told.append(words))
    assert told == [(f"{cache}/peerwatch", "No space left on device")]
    assert [*(cache / "peerwatch").iterdir()] == []
    kernels.write_cache(compiled, lambda *words: told.append(words))
    assert [*(cache / "peerwatch").iterdir()] == [kernels.cache_directory() / "kernel"]
    cache.joinpath("peerwatch").rename(logs / "gone")
    (cache / "peerwatch").write_bytes(b"a file")
    kernels.write_cache(compiled, lambda *words: told.append(words))
    assert told[1:] == [(f"{cache}/peerwatch", "File exists")]


@pytest.mark.usefixtures("logs")
def test_a_run_says_that_the_kernels_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning, with the way out; the run goes on."""
    monkeypatch.setattr(kernels, "load", lambda _, uncached: uncached("/x", "Read-only file system"))
    result = peerwatch("run", "batch", "stream", "out")
    assert result.exit_code == 0
    first, *_ = result.stderr.splitlines()
    assert first == (
        "peerwatch: cannot store the compiled kernels in /x: Read-only file system; until it can be, they are compiled"
        " at every start (XDG_CACHE_HOME names another place)"
    )
    assert peerwatch("run", "batch", "stream", "out", "--quiet").stderr == ""
