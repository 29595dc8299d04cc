"""Output files: nothing is touched before the run begins, and no byte is lost in silence."""

import os
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import pytest

from peerwatch.connectors.records import FlaggedPurchase
from peerwatch.errors import SinkError, UsageError
from peerwatch.files.file_sink import FileSink


async def test_a_started_sink_replaces_the_file(tmp_path: Path) -> None:
    """The old content goes when the run begins, not before; the mode is the user's default."""
    path = tmp_path / "out"
    await anyio.Path(path).write_bytes(b"old old old")
    async with AsyncExitStack() as stack:
        sink = FileSink(str(path))
        await sink.open(stack)
        assert await anyio.Path(path).read_bytes() == b"old old old"
        await sink.start()
        await sink.write([FlaggedPurchase(1, b"new")])
    assert await anyio.Path(path).read_bytes() == b"new"


async def test_a_run_that_never_begins_leaves_nothing(tmp_path: Path) -> None:
    """A file made by opening is removed again; one that was there stays as it was."""
    await anyio.Path(tmp_path / "old").write_bytes(b"old")
    async with AsyncExitStack() as stack:
        await FileSink(str(tmp_path / "new")).open(stack)
        await FileSink(str(tmp_path / "old")).open(stack)
    assert not await anyio.Path(tmp_path / "new").exists()
    assert await anyio.Path(tmp_path / "old").read_bytes() == b"old"


async def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    """Two runs on one output would mix their lines."""
    async with AsyncExitStack() as stack:
        first = FileSink(str(tmp_path / "out"))
        await first.open(stack)
        await first.start()
        await first.write([FlaggedPurchase(1, b"mine")])
        with pytest.raises(UsageError, match="out is being written by another peerwatch; name another file"):
            await FileSink(str(tmp_path / "out")).open(stack)
    assert await anyio.Path(tmp_path / "out").read_bytes() == b"mine"


async def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    """A directory, a missing directory: the way out is in the sentence."""
    async with AsyncExitStack() as stack:
        with pytest.raises(UsageError, match=f"cannot write {tmp_path}: it is a directory; name a file in it"):
            await FileSink(str(tmp_path)).open(stack)
        with pytest.raises(UsageError, match=f"the directory {tmp_path}/no does not exist; create it first"):
            await FileSink(f"{tmp_path}/no/out").open(stack)


async def test_a_full_disk_is_an_error() -> None:
    """/dev/full accepts nothing."""
    async with AsyncExitStack() as stack:
        sink = FileSink("/dev/full")
        await sink.open(stack)
        await sink.start()
        with pytest.raises(SinkError, match="cannot write /dev/full: No space left on device; fix that and run again"):
            await sink.write([FlaggedPurchase(1, b"x")])


async def test_a_reader_that_has_gone_is_an_error(tmp_path: Path) -> None:
    """A pipe without a reader ends the run instead of the words."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    async with AsyncExitStack() as stack:
        sink = FileSink(str(path))
        await sink.open(stack)
        await sink.start()
        os.close(reader)
        with pytest.raises(SinkError, match="its reader has gone"):
            await sink.write([FlaggedPurchase(1, b"x")])
