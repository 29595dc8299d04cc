"""Logs as sources: whole lines, the header, and what cannot be read."""

import gzip
import os
import re
import tempfile
import threading
import tracemalloc
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import purchase

from peerwatch.connectors.source import Block
from peerwatch.errors import UsageError
from peerwatch.files.log_file import CHUNK, LogFile

EVENT = purchase(1, "1")


async def read(path: Path, chunk: int = 1 << 18, *, header: bool = False) -> list[tuple[bytes, int]]:
    """The log's blocks."""
    async with AsyncExitStack() as stack:
        log = LogFile(str(path), judged=True, chunk=chunk)
        await log.open(stack)
        if header:
            await log.read_ahead()
            log.take_header(set())
        return [(block.content, block.offset) async for block in log.blocks()]


@given(
    content=st.lists(st.sampled_from([b"\n", b"\r\n", b"a", b"bc", b"d" * 30]), max_size=40).map(b"".join),
    chunk=st.integers(1, 50),
    mark=st.booleans(),
)
def test_blocks_are_whole_lines_and_together_the_file(content: bytes, chunk: int, *, mark: bool) -> None:
    """Whatever a read returns, blocks end at line ends, follow each other without a gap, and lose no byte."""
    prefix = b"\xef\xbb\xbf" if mark else b""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "log")
        path.write_bytes(prefix + content)
        blocks = anyio.run(read, path, chunk)
    assert b"".join(block for block, _ in blocks) == content
    offset = len(prefix)
    for i, (block, begin) in enumerate(blocks):
        assert begin == offset
        offset += len(block)
        assert block.endswith(b"\n") or i == len(blocks) - 1


@given(
    lines=st.lists(st.tuples(st.sampled_from([0, 0, 1, 7, 40]), st.sampled_from([b"", b"a", b"d" * 30])), max_size=20),
    chunk=st.integers(1, 50),
)
def test_holes_are_let_go_and_offsets_stay_true(lines: list[tuple[int, bytes]], chunk: int) -> None:
    """Whatever a read returns, a block begins where its offset says; what lies between blocks is holes, all counted."""
    content = b"\n".join(b"\0" * hole + line for hole, line in lines)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "log")
        path.write_bytes(content)
        blocks = anyio.run(whole_blocks, path, chunk)
    end = line = 0
    for block in blocks:
        assert content[end : block.offset] == b"\0" * block.hole
        end = block.offset + len(block.content)
        assert content[block.offset : end] == block.content
        assert not block.content.startswith(b"\0")
        assert block.line == line + 1
        line += block.content.count(b"\n")
    assert end == len(content)


async def whole_blocks(path: Path, chunk: int) -> list[Block]:
    """The log's blocks with all that is known of them."""
    async with AsyncExitStack() as stack:
        log = LogFile(str(path), judged=True, chunk=chunk)
        await log.open(stack)
        return [block async for block in log.blocks()]


def test_a_hole_larger_than_memory_is_no_matter(tmp_path: Path) -> None:
    """A hole of 200 MB, at the start of the log and again behind a line, takes a few reads' room."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        for _ in range(2):
            file.seek(200_000_000, os.SEEK_CUR)
            file.write(EVENT)
    tracemalloc.start()
    try:
        blocks = anyio.run(whole_blocks, path, CHUNK)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [(block.content, block.hole) for block in blocks] == [(EVENT, 200_000_000)] * 2
    assert [block.offset for block in blocks] == [200_000_000, 400_000_000 + len(EVENT)]
    assert peak < 8 * CHUNK


async def test_a_header_behind_a_hole_is_found(tmp_path: Path) -> None:
    """NUL bytes, a byte-order mark and blank lines before it are no part of it."""
    path = tmp_path / "log"
    content = b"\0" * 3000 + b"\xef\xbb\xbf \n\0\n" + b'{"D":3, "T":50}\n' + EVENT
    await anyio.Path(path).write_bytes(content)
    async with AsyncExitStack() as stack:
        log = LogFile(str(path), judged=False, chunk=1000)
        await log.open(stack)
        await log.read_ahead()
        assert log.take_header({"D", "T"}).values == {"D": 3, "T": 50}
        (block,) = [block async for block in log.blocks()]
    assert (block.content, block.line, block.hole) == (EVENT, 4, 3000)
    assert block.offset == len(content) - len(EVENT)


@pytest.mark.parametrize(
    ("content", "values", "rest"),
    [
        (b'{"D":"3", "T":"50"}\n' + EVENT, {"D": 3, "T": 50}, EVENT),
        (b'\xef\xbb\xbf{"T":50, "D":3, "note": 1}\r\n' + EVENT, {"D": 3, "T": 50}, EVENT),
        (b'\n \n{"D":3}\n\n' + EVENT, {"D": 3}, b"\n" + EVENT),
        (b'{"D":3}', {"D": 3}, b""),
        (b'{"friendships":"directed", "T":5}\n', {"T": 5, "friendships": "directed"}, b""),
        (b'{"friendships":"mutual"}\n' + EVENT, {"friendships": "mutual"}, EVENT),
        (EVENT, {}, EVENT),
        (b"", {}, b""),
        (b"junk\n" + EVENT, {}, b"junk\n" + EVENT),
        (b'{"note":"D"}\n', {}, b'{"note":"D"}\n'),
        (EVENT.replace(b"}", b', "D": 3}'), {}, EVENT.replace(b"}", b', "D": 3}')),
    ],
)
async def test_the_header_is_the_first_line_that_sets_D_T_or_friendships(
    content: bytes, values: dict[str, int | str], rest: bytes, tmp_path: Path
) -> None:
    """An event is an event, also in the first line; the header's line is consumed."""
    path = tmp_path / "log"
    await anyio.Path(path).write_bytes(content)
    async with AsyncExitStack() as stack:
        log = LogFile(str(path), judged=False, chunk=7)
        await log.open(stack)
        await log.read_ahead()
        header = log.take_header(set())
        assert header.values == values
        blocks = [block async for block in log.blocks()]
        assert b"".join(block.content for block in blocks) == rest
        if rest:
            assert blocks[0].offset == len(content) - len(rest)
            assert content[: blocks[0].offset].count(b"\n") == blocks[0].line - 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ':1: no header like {"D":"3", "T":"50"} (the log is empty)'),
        (EVENT, ':1: no header like {"D":"3", "T":"50"} (the line is an event)'),
        (b"\njunk", ':2: no header like {"D":"3", "T":"50"} (not valid JSON: invalid character (byte 0))'),
        (b"[]", ':1: no header like {"D":"3", "T":"50"} (not a JSON object)'),
        (b'{"d": 3}', ':1: no header like {"D":"3", "T":"50"} (it names neither D nor T)'),
        (b'{"D":"three", "T":5}', ':1: the header\'s "D" is "three"; expected an integer like "50"'),
        (b'{"D":3, "T":2.5}', ':1: the header\'s "T" is 2.5; expected an integer like "50"'),
        (b'{"D":-3, "T":2}', ':1: the header\'s "D" is -3; expected an integer like "50"'),
        (b'{"D":' + b"9" * 5000 + b', "T":2}', ':1: the header\'s "D" is 9999'),
        (b'{"D":3}', ':1: the header has no "T"; add it, or give --T'),
        (b'{"friendships":"directed"}', ':1: the header has no "D"; add it, or give --D'),
        (
            b'{"D":3, "T":2, "friendships":"both"}',
            ':1: the header\'s "friendships" is "both"; expected mutual or directed',
        ),
        (b'{"D":3, "T":2, "friendships":1}', ':1: the header\'s "friendships" is 1; expected mutual or directed'),
        (
            gzip.compress(EVENT, mtime=0),
            " looks like a file compressed with gzip, not like a log; unpack it first, as with gunzip",
        ),
        (b'{\n  "D": 3,\n  "T": 5\n}\n', " looks like JSON whose objects go over several lines, not like a log; write"),
    ],
)
async def test_a_bad_header_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    """File, line, key and what was expected."""
    path = tmp_path / "log"
    await anyio.Path(path).write_bytes(content)
    async with AsyncExitStack() as stack:
        log = LogFile(str(path), judged=False)
        await log.open(stack)
        await log.read_ahead()
        with pytest.raises(UsageError, match=re.escape(f"{path}{message}")):
            log.take_header({"D", "T"})


async def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """A missing file and a directory are usage errors."""
    async with AsyncExitStack() as stack:
        with pytest.raises(UsageError, match=f"cannot read the log {tmp_path}/no: No such file or directory"):
            await LogFile(f"{tmp_path}/no", judged=True).open(stack)
        with pytest.raises(UsageError, match=f"{tmp_path} is a directory; name the log file in it"):
            await LogFile(str(tmp_path), judged=True).open(stack)


async def test_a_named_pipe_is_read_as_it_comes(tmp_path: Path) -> None:
    """What a writer has sent is a block at once; the end of the writer is the end of the log."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    proceed = threading.Event()

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            pipe.write(EVENT + EVENT[:10])
            proceed.wait()
            pipe.write(EVENT[10:] + EVENT[:-1])

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    async with AsyncExitStack() as stack:
        log = LogFile(str(path), judged=True)
        await log.open(stack)
        blocks = log.blocks()
        assert (await anext(blocks)).content == EVENT
        proceed.set()
        rest = [block.content async for block in blocks]
    writer.join()
    assert b"".join(rest) == EVENT + EVENT[:-1]
