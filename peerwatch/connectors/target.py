"""Where events can be sent, to be read by a run later: a topic, a stream, a file."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from anyio.to_thread import run_sync

from peerwatch.errors import SinkError, UsageError
from peerwatch.readable import path_of, shown, why_unwritable


class EventTarget(Protocol):
    """Takes events, each the bytes of one line without its line end, at least once and in order."""

    async def connect(self) -> None:
        """Connect; the topic or stream is made if it is not there.

        Raises:
            UsageError: a library is missing, or the server refuses the user or the name.
            Unavailable: it does not answer.
        """

    async def close(self) -> None:
        """Close the connection, if there is one. Never raises."""

    async def send(self, lines: Sequence[bytes]) -> None:
        """Send events. They survive a power failure when it returns.

        Raises:
            SinkError: they are refused.
            Unavailable: the server does not answer.
        """


def portions(lines: Sequence[bytes], most: int) -> Iterator[Sequence[bytes]]:
    """The lines in portions of at most so many bytes, or of one line."""
    begin = size = 0
    for place, line in enumerate(lines):
        if place > begin and size + len(line) > most:
            yield lines[begin:place]
            begin, size = place, 0
        size += len(line)
    if begin < len(lines):
        yield lines[begin:]


class FileTarget:
    """Appends lines to a file."""

    def __init__(self, path: str) -> None:
        """Name the file; nothing is opened.

        Raises:
            UsageError: the path can be none.
        """
        try:
            self._path = Path(path_of(path))
        except ValueError as error:
            raise UsageError(f"{path!r} {error}; name a file, or a URL") from None
        self._file: Any = None

    async def connect(self) -> None:
        """Open the file.

        Raises:
            UsageError: it cannot be written, or ends within a line, to which the first one would be added.
        """
        await run_sync(self._open)

    def is_at(self, path: str) -> bool:
        """Whether a path leads to the same file, by whatever name."""
        return self._path.exists() and Path(path).exists() and self._path.samefile(path)

    def _open(self) -> None:
        try:
            self._file = self._path.open("ab", buffering=0)
            if self._path.is_file() and not _ends_with_a_line(self._path):
                raise UsageError(f"{shown(self._path)} ends within a line; end the line first, or name another file")
        except OSError as error:
            raise UsageError(f"cannot write {shown(self._path)}: {why_unwritable(self._path, error)}") from None

    async def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            await run_sync(self._file.close)

    async def send(self, lines: Sequence[bytes]) -> None:
        """Append the lines.

        Raises:
            SinkError: the disk is full.
        """
        try:
            await run_sync(self._write, b"".join(line + b"\n" for line in lines))
        except OSError as error:
            raise SinkError(f"cannot write {shown(self._path)}: {error.strerror}") from None

    def _write(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:  # what is left on a full disk may be too little for all of it
            rest = rest[self._file.write(rest) :]


def _ends_with_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return True
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
