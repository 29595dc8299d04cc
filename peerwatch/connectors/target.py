"""Where events can be sent, to be read by a run later: a topic, a stream, a file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from anyio.to_thread import run_sync

from peerwatch.errors import SinkError, UsageError
from peerwatch.readable import path_of, why_unwritable


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
            UsageError: it cannot be written.
        """
        await run_sync(self._open)

    def _open(self) -> None:
        try:
            self._file = self._path.open("ab", buffering=0)
        except OSError as error:
            raise UsageError(f"cannot write {self._path}: {why_unwritable(self._path, error)}") from None

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
            await run_sync(self._file.write, b"".join(line + b"\n" for line in lines))
        except OSError as error:
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from None
