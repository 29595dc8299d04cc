"""Every source and sink here keeps what `connectors/checks.py` says all of them promise."""

import os
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from peerwatch.connectors import checks
from peerwatch.connectors.records import Record, encoded
from peerwatch.connectors.source import Block, Source
from peerwatch.files.file_sink import FileSink
from peerwatch.files.follow import FollowedLog
from peerwatch.files.log_file import LogFile
from peerwatch.files.position import position_of
from peerwatch.files.tail import Beginning
from peerwatch.network.events import CANONICAL

CONTENT = b"".join(b'{"line": %d, "filled up": "%s"}\n' % (number, b"x" * (7 * number % 50)) for number in range(24))
CHUNKS = (1, 40, 500, 1 << 20)


async def finished_file(path: Path, chunk: int, position: Any, stack: AsyncExitStack) -> Source:
    """A file that is read to its end."""
    log = LogFile(str(path), judged=True, chunk=chunk, position=position, resumable=True)
    await log.open(stack)
    return log


async def followed_file(path: Path, chunk: int, position: Any, stack: AsyncExitStack) -> Source:  # noqa: ARG001
    """A file that is followed, until nothing comes."""
    beginning = Beginning(position_of(position))
    return FollowedLog(str(path), beginning=beginning, idle_exit=0.0, resumable=True, warn=print, chunk=chunk)


async def pipe(path: Path, chunk: int, position: Any, stack: AsyncExitStack) -> Source:
    """A pipe, which cannot be resumed."""
    assert position is None
    reading, writing = os.pipe()

    def fill() -> None:
        with os.fdopen(writing, "wb") as end:
            end.write(path.read_bytes())

    thread = threading.Thread(target=fill)
    thread.start()
    stack.push_async_callback(partial(anyio.to_thread.run_sync, thread.join))
    stack.callback(os.close, reading)
    log = LogFile(f"/dev/fd/{reading}", judged=True, chunk=chunk)
    await log.open(stack)
    return log


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("source", [finished_file, followed_file, pipe])
async def test_sources_hold_whole_lines(tmp_path: Path, source: Callable[..., Any], chunk: int) -> None:
    """However little is read at once."""
    path = tmp_path / "log"
    await anyio.Path(path).write_bytes(CONTENT)
    await checks.check_source_holds_whole_lines(partial(source, path, chunk), CONTENT)


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("source", [finished_file, followed_file])
async def test_sources_resume(tmp_path: Path, source: Callable[..., Any], chunk: int) -> None:
    """From behind each block."""
    path = tmp_path / "log"
    await anyio.Path(path).write_bytes(CONTENT)
    await checks.check_source_resumes(partial(source, path, chunk), CONTENT)


class OneFile:
    """The output file, opened by one run after the other."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def open(self, stack: AsyncExitStack) -> FileSink:
        """As a run does."""
        sink = FileSink(str(self.path))
        await sink.open(stack)
        return sink

    def begin_run(self) -> None:
        """A file does not know runs."""

    async def read(self) -> bytes:
        """What is in the file."""
        return await anyio.Path(self.path).read_bytes()


@pytest.mark.parametrize(
    "check",
    [
        checks.check_sink_keeps_what_is_written,
        checks.check_sink_resumes,
        checks.check_sink_begins_anew,
        checks.check_sink_takes_any_purchase,
        checks.check_sink_goes_on_anywhere,
    ],
)
async def test_the_output_file_is_a_sink(tmp_path: Path, check: Callable[..., Any]) -> None:
    """Each promise."""
    await check(OneFile(tmp_path / "out"))


class Forgetful:
    """A sink that appends, whatever it is told."""

    def __init__(self) -> None:
        self.data = b""

    async def open(self, stack: AsyncExitStack) -> Any:  # noqa: ARG002
        """There is nothing to open."""
        return self

    async def has_more(self, mark: int) -> bool:
        """Whether more has been appended."""
        return len(self.data) > mark

    async def start(self, mark: Any = None, *, force: bool = False) -> None:
        """Cut nothing back."""

    async def write(self, records: Sequence[Record]) -> None:
        """Append."""
        self.data += encoded(records)

    async def sync(self) -> int:
        """How much there is."""
        return len(self.data)

    def begin_run(self) -> None:
        """It does not care."""

    async def read(self) -> bytes:
        """All of it."""
        return self.data


async def repeating(position: Any, stack: AsyncExitStack) -> Source:  # noqa: ARG001
    """A source that begins again wherever it is opened, and cuts its lines."""

    class Repeating:
        name, judged, names = "repeating", True, CANONICAL

        async def blocks(self) -> AsyncGenerator[Block, None]:
            for begin in range(0, len(CONTENT), 30):
                yield Block(CONTENT[begin : begin + 30], begin, 1, begin)

    return Repeating()


async def test_a_promise_that_is_not_kept_is_named() -> None:
    """The checks find a source that repeats, one that cuts lines, and a sink that writes twice."""
    with pytest.raises(AssertionError, match="this is not so: a block"):
        await checks.check_source_holds_whole_lines(repeating, CONTENT)
    with pytest.raises(AssertionError, match="this is not so: it goes on behind its position"):
        await checks.check_source_resumes(repeating, CONTENT)
    with pytest.raises(AssertionError, match="is there once"):
        await checks.check_sink_resumes(Forgetful())
    with pytest.raises(AssertionError, match="a new run begins with nothing"):
        await checks.check_sink_begins_anew(Forgetful())
