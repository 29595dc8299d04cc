"""Following a log: blocks with their places, waiting, and what wakes it."""

import os
from pathlib import Path

import anyio
import pytest
from anyio.to_thread import run_sync

from peerwatch.files.follow import FollowedLog
from peerwatch.files.tail import look_at


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
    os.utime(f"{path}.1", (0, 0))  # nobody has written to it for a while
    log = FollowedLog(str(path), beginning=beginning, idle_exit=0.0, warn=pytest.fail)
    found = [(block.content, block.caught_up) async for block in log.blocks()]
    assert found == [(b"one\n", False), (b"", False), (b"two\n", False), (b"", True)]


async def test_what_is_held_back_is_read_before_an_idle_exit(tmp_path: Path) -> None:
    """The new file waits until nobody has written to the renamed one for a second; that is no silence."""
    path = tmp_path / "log.json"
    await anyio.Path(path).write_bytes(b"one\n")
    beginning = await run_sync(look_at, path)
    await anyio.Path(path).rename(f"{path}.1")
    await anyio.Path(path).write_bytes(b"two\n")
    log = FollowedLog(str(path), beginning=beginning, idle_exit=0.0, warn=pytest.fail)
    found = [(block.content, block.caught_up) async for block in log.blocks()]
    assert [content for content, _ in found if content] == [b"one\n", b"two\n"]
    assert [caught_up for _, caught_up in found] == [False] * (len(found) - 1) + [True]


@pytest.mark.parametrize(
    ("line", "resumable", "counts"),
    [(b'{"a": 1', True, False), (b'{"a": 1', False, True), (b'{"a": 1}', True, True), (b"  ", True, True)],
)
async def test_an_unfinished_line_at_an_idle_exit(
    tmp_path: Path, line: bytes, *, resumable: bool, counts: bool
) -> None:
    """It counts, unless it is no whole JSON object and a later run is to go on there; that is told."""
    path, warnings = tmp_path / "log.json", list[str]()
    await anyio.Path(path).write_bytes(b"one\n" + line)
    beginning = await run_sync(look_at, path)
    log = FollowedLog(str(path), beginning=beginning, idle_exit=0.0, resumable=resumable, warn=warnings.append)
    blocks = [block async for block in log.blocks() if block.content]
    assert [block.content for block in blocks] == [b"one\n", *([line] if counts else [])]
    assert blocks[-1].position.offset == 4 + len(line) * counts
    told = f"{path}: the last line, 7 bytes after byte 4, is not finished; the next run reads on"
    assert warnings == ([] if counts else [told])


async def test_a_notification_wakes_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With polling switched off, a change of the file is still seen."""
    monkeypatch.setattr("peerwatch.files.follow.POLL_SECONDS", 60.0)
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
    log = FollowedLog(str(path), beginning=await run_sync(look_at, Path(path)), warn=lambda _: None)
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
