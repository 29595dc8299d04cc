"""Following a log through everything that rotates logs, while running and while down."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from anyio.to_thread import run_sync
from hypothesis import given, settings
from hypothesis import strategies as st

from peerwatch.runtime.state import Position
from peerwatch.runtime.tail import Beginning, FollowedLog, Tail, look_at


class Follower:
    """Reads a path to its end whenever asked, and can be killed and started again from where it was."""

    def __init__(self, path: Path, chunk: int = 1 << 18) -> None:
        self.path = path
        self.chunk = chunk
        self.warnings: list[str] = []
        self.lines: list[bytes] = []
        self.beginning = look_at(path)
        self.position: Position = self.beginning.position
        self.start()

    def start(self) -> None:
        """Start from the last position."""
        self.tail = Tail(self.path, self.beginning, self.warnings.append, self.chunk)
        self.held = b""
        self.offset = self.position.offset

    def stop(self) -> None:
        """As a kill would: what is held of an unfinished line is forgotten."""
        self.tail.close()
        self.beginning = Beginning(self.position)

    def catch_up(self) -> list[bytes]:
        """All whole lines so far, in order."""
        while (piece := self.tail.read()) is not None:
            if piece.ended:
                self.lines += [self.held] if self.held else []
                self.held, self.offset = b"", 0
            self.held += piece.data
            *whole, self.held = self.held.split(b"\n")
            self.lines += [line + b"\n" for line in whole]
            self.offset += sum(len(line) + 1 for line in whole)
        self.position = self.tail.position(self.offset, 1)
        return self.lines


def line(number: int) -> bytes:
    """A line like no other."""
    return b"line %05d of the log\n" % number


class Log:
    """A log that is written and rotated."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self.rotated = 0
        self.clock = 10**18

    def write(self, count: int = 1) -> None:
        """Append lines."""
        with self.path.open("ab") as file:
            for _ in range(count):
                file.write(line(self.number))
                self.number += 1
        self.clock += 10**9  # rotations of a test follow each other faster than a file system's clock ticks
        os.utime(self.path, ns=(self.clock, self.clock))

    def shift(self) -> Path:
        """Make room for a rotated file."""
        for number in range(self.rotated, 0, -1):
            Path(f"{self.path}.{number}").rename(f"{self.path}.{number + 1}")
        self.rotated += 1
        return Path(f"{self.path}.1")

    def rename(self) -> None:
        """Rotate by rename and create."""
        self.path.rename(self.shift())
        self.path.touch()
        self.clock += 10**9
        os.utime(self.path, ns=(self.clock, self.clock))

    def copytruncate(self) -> None:
        """Rotate by copy and truncate."""
        shutil.copy2(self.path, self.shift())
        os.truncate(self.path, 0)
        self.clock += 10**9
        os.utime(self.path, ns=(self.clock, self.clock))

    @property
    def lines(self) -> list[bytes]:
        """All lines ever written."""
        return [line(number) for number in range(self.number)]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """A log with three lines."""
    log = Log(tmp_path / "log.json")
    log.write(3)
    return log


@settings(max_examples=400)
@given(
    steps=st.lists(st.sampled_from(["write", "write", "much", "rename", "copy", "read", "read", "kill"]), max_size=25),
    chunk=st.sampled_from([7, 64, 1 << 18]),
)
def test_every_line_is_read_once_and_in_order(
    steps: list[str], chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Writes, rotations by both methods and kills in any order: no line is lost, repeated or out of place."""
    log = Log(tmp_path_factory.mktemp("tail") / "log.json")
    log.write()
    follower = Follower(log.path, chunk)
    for step in steps:
        if step == "write":
            log.write()
        elif step == "much":
            log.write(100)
        elif step == "rename":
            log.write()  # a file that stays empty is no generation
            log.rename()
        elif step == "copy":
            log.write()
            log.copytruncate()
        elif step == "read":
            assert follower.catch_up() == log.lines
        else:
            follower.catch_up()
            follower.stop()
            follower.start()
    log.write()
    assert follower.catch_up() == log.lines
    assert follower.warnings == []
    follower.stop()


@pytest.mark.parametrize("method", [Log.rename, Log.copytruncate])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_rotations_while_down_are_caught_up(log: Log, method: Callable[[Log], None], times: int) -> None:
    """The unread files are found among the siblings, in order."""
    follower = Follower(log.path)
    follower.catch_up()
    follower.stop()
    for _ in range(times):
        log.write(2)
        method(log)
    log.write(2)
    follower.start()
    assert follower.catch_up() == log.lines
    assert follower.warnings == []
    follower.stop()


def test_the_file_may_come_later(tmp_path: Path) -> None:
    """Nothing there is nothing new; what is rotated before the first look is read too."""
    log = Log(tmp_path / "log.json")
    follower = Follower(log.path)
    assert follower.catch_up() == []
    log.clock = follower.position.modified
    log.write()
    log.rename()
    log.write()
    assert follower.catch_up() == log.lines
    follower.stop()


def test_a_reused_inode_is_a_new_file(log: Log) -> None:
    """Deleted and made anew while down, with the same inode and more bytes than had been read: read from 0, said so."""
    follower = Follower(log.path)
    follower.catch_up()
    follower.stop()
    content = b"another file whose first bytes differ\n" * 20
    with log.path.open("r+b") as file:  # the surest way to the same inode
        file.truncate(0)
        file.write(content)
    follower.lines.clear()
    follower.start()
    assert b"".join(follower.catch_up()) == content
    assert len(follower.warnings) == 1
    assert "what stood behind byte 66 is lost" in follower.warnings[0]
    follower.stop()


def test_a_truncation_without_a_copy_is_logged(log: Log) -> None:
    """Copytruncate's loss window: there is nothing to read the rest from, and the log says so."""
    follower = Follower(log.path)
    follower.catch_up()
    os.truncate(log.path, 0)
    log.write()
    assert follower.catch_up() == log.lines
    assert len(follower.warnings) == 1
    assert "was emptied in place; lines behind byte 66, if any were there, are lost" in follower.warnings[0]
    follower.stop()


def test_a_deleted_file_that_comes_back(log: Log) -> None:
    """While the path is empty the old file is read on; then the new one is read from its start."""
    follower = Follower(log.path)
    follower.catch_up()
    with log.path.open("ab") as still_open:
        log.path.unlink()
        assert follower.catch_up() == log.lines
        still_open.write(line(log.number))
        log.number += 1
    assert follower.catch_up() == log.lines
    log.write(2)
    assert follower.catch_up() == log.lines
    follower.stop()


def test_the_old_file_is_read_on_until_the_new_one_has_something(log: Log) -> None:
    """A writer may go on in the renamed file until it opens the new one."""
    follower = Follower(log.path)
    follower.catch_up()
    with log.path.open("ab") as still_open:
        log.rename()
        assert follower.catch_up() == log.lines
        still_open.write(line(log.number))
        log.number += 1
    assert follower.catch_up() == log.lines
    log.write()
    assert follower.catch_up() == log.lines
    follower.stop()


def test_the_last_line_of_a_rotated_file_needs_no_line_feed(log: Log) -> None:
    """It is finished, so the line is; and an unfinished line of the live file waits."""
    follower = Follower(log.path)
    with log.path.open("ab") as file:
        file.write(b"cut off")
    assert follower.catch_up() == log.lines
    log.rename()
    with log.path.open("ab") as file:
        file.write(b"new\n")
    assert follower.catch_up() == [*log.lines, b"cut off", b"new\n"]
    follower.stop()


def test_compressed_and_foreign_siblings_are_left_alone(log: Log) -> None:
    """Only the path's own rotated files are its generations."""
    follower = Follower(log.path)
    follower.catch_up()
    for name in ("log.json.9.gz", "log.jsonl", "other.json.1", "log.json.d/x", "log.json.flagged", "log.json.bak"):
        (log.path.parent / name).parent.mkdir(exist_ok=True)
        (log.path.parent / name).write_bytes(b"not mine\n")
    log.rename()
    log.write()
    assert follower.catch_up() == log.lines
    follower.stop()


async def test_blocks_carry_their_places_through_a_rotation(tmp_path: Path) -> None:
    """Offsets and line numbers count from each file's start; a byte-order mark is no part of the first line."""
    path = tmp_path / "log.json"
    await anyio.Path(path).write_bytes(b"\xef\xbb\xbfone\ntwo\nthree")
    log = FollowedLog(str(path), beginning=await run_sync(look_at, path), idle_exit=0.0, warn=pytest.fail)
    blocks = log.blocks()
    first = await anext(blocks)
    assert (first.content, first.offset, first.line) == (b"one\ntwo\n", 3, 1)
    assert (first.position.offset, first.position.line) == (11, 3)
    await anyio.Path(path).rename(f"{path}.1")
    await anyio.Path(path).write_bytes(b"four\n")
    rest = [block async for block in blocks if block.content]
    assert [(block.content, block.offset, block.line) for block in rest] == [(b"three", 11, 3), (b"four\n", 0, 1)]
    assert [(block.position.offset, block.position.line) for block in rest] == [(0, 1), (5, 2)]


async def test_the_end_of_a_rotated_file_is_not_the_end_of_the_log(tmp_path: Path) -> None:
    """What stands in the files behind it was there, too, and an earlier run may have read it."""
    path = tmp_path / "log.json"
    await anyio.Path(path).write_bytes(b"one\n")
    beginning = await run_sync(look_at, path)
    await anyio.Path(path).rename(f"{path}.1")
    await anyio.Path(path).write_bytes(b"two\n")
    log = FollowedLog(str(path), beginning=beginning, idle_exit=0.0, warn=pytest.fail)
    found = [(block.content, block.caught_up) async for block in log.blocks()]
    assert found == [(b"one\n", False), (b"", False), (b"two\n", False), (b"", True)]


@pytest.mark.parametrize("resumable", [True, False])
async def test_an_unfinished_line_at_an_idle_exit(tmp_path: Path, *, resumable: bool) -> None:
    """It counts, unless a later run is to go on there."""
    path = tmp_path / "log.json"
    await anyio.Path(path).write_bytes(b"one\ntwo")
    log = FollowedLog(
        str(path), beginning=await run_sync(look_at, path), idle_exit=0.0, resumable=resumable, warn=pytest.fail
    )
    contents = [block.content async for block in log.blocks() if block.content]
    assert contents == ([b"one\n"] if resumable else [b"one\n", b"two"])


async def test_a_notification_wakes_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With polling switched off, a change of the file is still seen."""
    monkeypatch.setattr("peerwatch.runtime.tail.POLL_SECONDS", 60.0)
    path = tmp_path / "log.json"
    await anyio.Path(path).write_bytes(b"")
    log = FollowedLog(str(path), beginning=await run_sync(look_at, path), warn=pytest.fail)
    blocks = log.blocks()
    async with anyio.create_task_group() as tasks:

        async def write_often() -> None:
            while True:  # until the watching has begun and sees one
                async with await anyio.open_file(path, "ab") as file:
                    await file.write(b"line\n")
                await anyio.sleep(0.05)

        assert (await anext(blocks)).content == b""
        tasks.start_soon(write_often)
        assert (await anext(blocks)).content.startswith(b"line\n")
        tasks.cancel_scope.cancel()
    await blocks.aclose()


@pytest.mark.parametrize("rotation", ["create", "copytruncate", "symlink"])
async def test_a_rotation_is_seen_while_writes_go_on(tmp_path: Path, rotation: str) -> None:
    """The new file is read though every notification is about a write, and none comes about a rotation."""
    directory = anyio.Path(tmp_path / "logs")
    await directory.mkdir()
    path = directory / "log.json"
    await path.write_bytes(b"old\n")
    followed = path
    if rotation == "symlink":
        followed = anyio.Path(tmp_path / "link.json")
        await followed.symlink_to(path)
    log = FollowedLog(str(followed), beginning=await run_sync(look_at, Path(followed)), warn=pytest.fail)
    blocks = log.blocks()
    read = b""
    async with anyio.create_task_group() as tasks:

        async def rotate_and_write() -> None:
            while not read.endswith(b"old\n"):  # noqa: ASYNC110 (the reader sets no event)
                await anyio.sleep(0.01)
            if rotation == "create":
                await path.rename(f"{path}.1")
                await path.touch()
            elif rotation == "copytruncate":
                await anyio.Path(f"{path}.1").write_bytes(await path.read_bytes())
                await path.write_bytes(b"")
            await anyio.sleep(0.05)
            while True:
                async with await anyio.open_file(path, "ab") as file:
                    await file.write(b"new\n")
                await anyio.sleep(0.02)

        tasks.start_soon(rotate_and_write)
        async for block in blocks:
            read += block.content
            if read.count(b"new\n") > 3:
                break
        tasks.cancel_scope.cancel()
    await blocks.aclose()
    assert read.startswith(b"old\nnew\nnew\n")


async def test_a_directory_may_come_and_go(tmp_path: Path) -> None:
    """A log in a directory that is not there yet, or is removed and made anew, is found."""
    directory = anyio.Path(tmp_path / "logs")
    path = directory / "log.json"
    log = FollowedLog(str(path), beginning=await run_sync(look_at, Path(path)), warn=pytest.fail)
    blocks = log.blocks()

    async def following_lines() -> bytes:
        return await anext(block.content async for block in blocks if block.content)

    for line in (b"one\n", b"two\n"):
        assert (await anext(blocks)).content == b""
        await directory.mkdir()
        await path.write_bytes(line)
        assert await following_lines() == line
        await path.unlink()
        await directory.rmdir()
    await blocks.aclose()


def test_a_missing_log_at_a_resume_may_come_back(log: Log) -> None:
    """Moved away and back (a mount, say): nothing is read twice."""
    follower = Follower(log.path)
    follower.catch_up()
    follower.stop()
    away = log.path.with_name("away")
    log.path.rename(away)
    follower.start()
    assert follower.catch_up() == log.lines
    away.rename(log.path)
    log.write()
    assert follower.catch_up() == log.lines
    assert follower.warnings == []
    follower.stop()


def test_a_resume_at_the_start_of_a_file_that_is_rotated_by_then(log: Log) -> None:
    """A checkpoint between two generations does not lose the second."""
    follower = Follower(log.path)
    log.rename()
    log.write()
    log.rename()
    log.write()
    pieces = []
    while not (piece := follower.tail.read()).ended:  # type: ignore[union-attr]
        pieces.append(piece)
    follower.lines = b"".join(piece.data for piece in pieces if piece).splitlines(keepends=True)
    follower.position = follower.tail.position(0, 1)
    follower.stop()
    follower.start()
    assert follower.catch_up() == log.lines
    follower.stop()


def test_an_emptied_log_is_said_once(log: Log) -> None:
    """With an old rotated file beside it and nothing new, the warning is not repeated at every poll."""
    log.rename()
    log.write()
    follower = Follower(log.path)
    follower.catch_up()
    os.truncate(log.path, 0)
    for _ in range(3):
        follower.catch_up()
    log.write()
    for _ in range(3):
        follower.catch_up()
    assert len(follower.warnings) == 1
    follower.stop()


def test_an_old_file_that_is_still_written_is_not_the_logs(log: Log) -> None:
    """A start on a new, empty log leaves alone what its writer still puts into the rotated one."""
    log.rename()
    follower = Follower(log.path)
    assert follower.catch_up() == []
    with Path(f"{log.path}.1").open("ab") as file:
        file.write(b"late\n")
    with log.path.open("ab") as file:
        file.write(b"new\n")
    assert follower.catch_up() == [b"new\n"]
    follower.stop()


def test_a_short_beginning_is_no_identity(tmp_path: Path) -> None:
    """What had been read when the first line was half written does not take another file for this one."""
    path = tmp_path / "log.json"
    path.write_bytes(b"{")
    follower = Follower(path)
    follower.catch_up()
    path.write_bytes(b'{"a": 1}\n')
    assert follower.catch_up() == [b'{"a": 1}\n']
    follower.stop()
    follower.start()
    shutil.copy2(path, f"{path}.1")
    path.write_bytes(b'{"b": 22222}\n')
    assert follower.catch_up() == [b'{"a": 1}\n', b'{"b": 22222}\n']
    follower.stop()


def test_a_pipe_is_not_touched(tmp_path: Path) -> None:
    """Looking at a named pipe neither waits for its writer nor opens it."""
    os.mkfifo(tmp_path / "pipe")
    assert look_at(tmp_path / "pipe") == Beginning(Position())
