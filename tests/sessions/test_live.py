"""A session log judged as it grows: the same bytes in one go, in any blocks, and through any crash."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, aclosing, closing
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from anyio.to_thread import run_sync
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from peerwatch.cli.main import cli
from peerwatch.connectors.records import Record, Rejection, encoded
from peerwatch.connectors.source import Block
from peerwatch.errors import UsageError
from peerwatch.files.file_sink import FileSink
from peerwatch.sessions.benchmark import LabelledSessions
from peerwatch.sessions.live import LiveIdentity, LiveSinks, LiveState, SessionJudge, SessionRun
from peerwatch.sessions.predictor import SessionModel
from peerwatch.storage.checkpoints import FilePlace


@pytest.fixture(scope="module")
def lines(test: LabelledSessions) -> list[bytes]:
    """The sessions as lines, two late ones and three lines that are none among them."""
    columns = test.raw.columns
    rows = [msgspec.json.encode({name: values[row] for name, values in columns.items()}) for row in range(150)]
    rows[70], rows[20] = rows[20], rows[70]
    return [b"no session", *rows[:100], b'{"click_events": "many"}', b"", *rows[100:], b"[1]"]


class Lines:
    """A source of lines in blocks of given sizes, which dies behind one of them."""

    name = "log"

    def __init__(
        self, lines: Sequence[bytes], sizes: Sequence[int], begin: int = 0, die_after: int | None = None
    ) -> None:
        self._lines, self._sizes, self._begin, self._die_after = lines, sizes, begin, die_after

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The lines; the position is the number of those before."""
        at, number = self._begin, 0
        while at < len(self._lines):
            part = self._lines[at : at + self._sizes[number % len(self._sizes)]]
            number += 1
            offset = sum(len(line) + 1 for line in self._lines[:at])
            yield Block(b"\n".join(part) + b"\n", offset, at + 1, at + len(part))
            at += len(part)
            if number == self._die_after:
                raise ConnectionAbortedError


def in_one_go(model: SessionModel, lines: Sequence[bytes]) -> list[Record]:
    """The records of all lines as one block."""
    return SessionJudge(model).judge(Block(b"\n".join(lines) + b"\n", 0, 1, None), "log")


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6))
@settings(max_examples=examples(20))
def test_verdicts_do_not_depend_on_the_blocks(model: SessionModel, lines: list[bytes], sizes: list[int]) -> None:
    """Flagged lines and rejected ones, byte by byte."""
    judge, found = SessionJudge(model), list[Record]()

    async def read() -> None:
        async with aclosing(Lines(lines, sizes).blocks()) as blocks:
            async for block in blocks:
                found.extend(judge.judge(block, "log"))

    anyio.run(read)
    expected = in_one_go(model, lines)
    for rejected in (False, True):
        of_kind = [[one for one in each if isinstance(one, Rejection) == rejected] for each in (found, expected)]
        assert encoded(of_kind[0]) == encoded(of_kind[1])
        assert [one.seq for one in of_kind[0]] == [one.seq for one in of_kind[1]]
    assert (judge.sessions, judge.rejected) == (150, 3)


@given(deaths=st.lists(st.integers(1, 6), max_size=5), sizes=st.lists(st.integers(5, 40), min_size=1, max_size=4))
@settings(max_examples=examples(25))
def test_a_run_that_dies_goes_on_as_if_nothing_had_happened(
    model: SessionModel,
    lines: list[bytes],
    deaths: list[int],
    sizes: list[int],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Each death is behind some blocks, with records written after the last checkpoint; nothing is lost or doubled."""
    directory = tmp_path_factory.mktemp("live")
    identity = LiveIdentity("m", FilePlace("log", "log"), FilePlace("out", "out"))

    async def run(die_after: int | None) -> None:
        async with AsyncExitStack() as stack:
            state = LiveState(directory, identity, "run")
            resumed = await run_sync(state.read)
            sinks = LiveSinks(FileSink(str(directory / "out")), FileSink(str(directory / "rejects")))
            await sinks.open(stack)
            await sinks.start(resumed[0] if resumed is not None else None, force=resumed is None)
            source = Lines(lines, sizes, resumed[0].position if resumed is not None else 0, die_after)
            ticks = iter(range(10_000))
            await SessionRun(model, source, sinks, state, resumed, every=3, clock=lambda: next(ticks)).run()

    for death in deaths:
        try:
            anyio.run(run, death)
        except ConnectionAbortedError:
            continue
    anyio.run(run, None)
    expected = in_one_go(model, lines)
    assert (directory / "out").read_bytes() == encoded([one for one in expected if not isinstance(one, Rejection)])
    assert (directory / "rejects").read_bytes() == encoded([one for one in expected if isinstance(one, Rejection)])


def test_a_stop_writes_what_has_been_read(model: SessionModel, lines: list[bytes], tmp_path: Path) -> None:
    """And the next run goes on there."""

    class Endless(Lines):
        async def blocks(self) -> AsyncGenerator[Block, None]:
            """The lines, then nothing more."""
            async for block in super().blocks():
                yield block
            runs[-1].stop()
            await anyio.sleep_forever()

    runs: list[SessionRun] = []

    async def run() -> None:
        async with AsyncExitStack() as stack:
            sinks = LiveSinks(FileSink(str(tmp_path / "out")), None)
            await sinks.open(stack)
            await sinks.start(None, force=False)
            state = LiveState(tmp_path, LiveIdentity("m", FilePlace("l", "l"), FilePlace("o", "o")), "r")
            runs.append(SessionRun(model, Endless(lines, [50]), sinks, state, None))
            await runs[-1].run()
            resumed = await run_sync(state.read)
            assert resumed is not None
            assert resumed[0].position == len(lines)

    anyio.run(run)
    expected = [one for one in in_one_go(model, lines) if not isinstance(one, Rejection)]
    assert (tmp_path / "out").read_bytes() == encoded(expected)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """Another model, log or output, another version, or damage: with the way out."""
    here = LiveIdentity("m", FilePlace("l", "l"), FilePlace("o", "o"))
    state = LiveState(tmp_path, here, "r")

    async def write() -> None:
        sinks = LiveSinks(FileSink(str(tmp_path / "out")), None)
        async with AsyncExitStack() as stack:
            await sinks.open(stack)
            await sinks.start(None, force=False)
            await SessionRun(SessionModelWithoutUsers(), Lines([], [1]), sinks, state, None).run()  # type: ignore[arg-type]

    anyio.run(write)
    assert state.read() is not None
    for other, why in (
        (LiveIdentity("n", here.log, here.output), "another model"),
        (LiveIdentity("m", FilePlace("x", "x"), here.output), "belongs to the log l"),
        (LiveIdentity("m", here.log, FilePlace("x", "x")), "belongs to the output o"),
    ):
        with pytest.raises(UsageError, match=f"{why}.*--reset"):
            LiveState(tmp_path, other, "r").read()
    (tmp_path / "sessions.npz").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"damaged.*--reset"):
        state.read()
    state.reset()
    assert state.read() is None


class SessionModelWithoutUsers:
    """A model that nothing is asked of."""

    class past:  # noqa: N801 (an attribute)
        """Nobody is remembered."""

        by_user: dict[str, Any] = {}  # noqa: RUF012 (never changed)


def test_the_command_goes_on_after_sigkill(
    saved: Path, lines: list[bytes], model: SessionModel, tmp_path: Path
) -> None:
    """Killed once it has judged half of the log, run again on the whole: the bytes of one go, also in SQLite."""
    log, out, state = tmp_path / "log.json", tmp_path / "out.json", tmp_path / "state"
    log.write_bytes(b"\n".join(lines[:80]) + b"\n")
    command = [
        sys.executable,
        "-m",
        "peerwatch",
        "sessions",
        "follow",
        str(saved),
        str(log),
        str(out),
        "--state",
        str(state),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        while not (out.exists() and out.stat().st_size):
            assert process.poll() is None, process.stderr and process.stderr.read()
        process.send_signal(signal.SIGKILL)
    with log.open("ab") as file:
        file.write(b"\n".join(lines[80:]) + b"\n")
    result = CliRunner().invoke(cli, [*command[3:], "--idle-exit", "0"])
    assert result.exit_code == 0, result.output
    expected = in_one_go(model, lines)
    assert out.read_bytes() == encoded([one for one in expected if not isinstance(one, Rejection)])
    rejected = [json.loads(line)["line"] for line in out.with_name("out.json.rejects.json").read_bytes().splitlines()]
    assert rejected == [1, 102, 154]
    database = [*command[3:-3], f"sqlite:{tmp_path}/flagged.db", "--state", str(tmp_path / "other"), "--idle-exit", "0"]
    result = CliRunner().invoke(cli, database)
    assert result.exit_code == 0, result.output
    with closing(sqlite3.connect(tmp_path / "flagged.db")) as opened:
        found = opened.execute("SELECT seq, line FROM peerwatch_sessions ORDER BY seq").fetchall()
    flagged = [one for one in expected if not isinstance(one, Rejection)]
    assert found == [(one.seq, one.encode().decode().rstrip("\n")) for one in flagged]
