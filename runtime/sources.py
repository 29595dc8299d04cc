"""The logs as sources of whole lines."""

import os
import stat
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiofiles
import anyio
import msgspec

from peerwatch.actors.dispatcher import Block
from peerwatch.network.errors import BadEvent, SourceError, UsageError
from peerwatch.network.events import parse_object
from peerwatch.runtime.settings import Layer
from peerwatch.runtime.state import Position

CHUNK: Final = 256 * 1024
"""Bytes a read asks for: large enough that reading costs next to nothing, small enough for a batch."""
HEAD: Final = 1024
"""Bytes at a file's beginning that belong to its identity."""
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class LogFile:
    """One log that ends, opened once, so that a pipe works as well as a file. Reading begins at `position`."""

    def __init__(self, path: str, *, judged: bool, chunk: int = CHUNK, position: Position | None = None) -> None:
        self.name = "standard input" if path == "-" else path
        self.judged = judged
        self.line = position.line if position else 1
        """The number of the first line that has not been read yet."""
        self._head = b""
        self._begun = position
        self.size: int | None = None
        """Bytes there are, None for a pipe."""
        self._path = path
        self._chunk = chunk
        self._file: Any = None
        self._waits = False
        self._ahead = b""
        self._offset = position.offset if position else 0

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the log and read its beginning; it is closed with the stack.

        Raises:
            UsageError: there is no such log or it cannot be read.
        """
        if self._path != "-" and await anyio.Path(self._path).is_dir():
            raise UsageError(f"{self.name} is a directory; name the log file in it")
        try:
            opened = (
                aiofiles.open(0, "rb", buffering=0, closefd=False)
                if self._path == "-"
                else aiofiles.open(self._path, "rb", buffering=0)
            )
            self._file = await stack.enter_async_context(opened)
        except OSError as error:
            raise UsageError(f"cannot read the log {self.name}: {error.strerror}") from None
        self._status = os.fstat(self._file.fileno())
        if stat.S_ISREG(self._status.st_mode):
            self.size = self._status.st_size
            self._head = os.pread(self._file.fileno(), HEAD, 0)
            if self._begun is not None:
                self._seek(self._begun)
                return
        self._waits = stat.S_ISFIFO(self._status.st_mode) or os.isatty(self._file.fileno())
        self._ahead = await self._read()
        while self._first_line_end() < 0 and (more := await self._read()):
            self._ahead += more
        if self._ahead.startswith(BYTE_ORDER_MARK):
            self._ahead = self._ahead.removeprefix(BYTE_ORDER_MARK)
            self._offset = len(BYTE_ORDER_MARK)

    def is_at(self, path: Path) -> bool:
        """Whether the path leads to this very file."""
        return path.exists() and os.path.samestat(path.stat(), self._status)

    def take_header(self, *, needed: bool) -> Layer:
        """The settings D and T from the header line, which is then no longer among the lines.

        The header is the first line that is not blank; it is none if it names an event type or neither D nor T.

        Raises:
            UsageError: a value is impossible, or there is no header though it is `needed`.
        """
        end = self._first_line_end()
        end = end if end >= 0 else len(self._ahead)
        line = self._ahead[:end].strip()
        number = self.line + self._ahead[:end].rstrip(b"\r\n").count(b"\n")
        origin = f"{self.name}:{number}"
        try:
            fields = parse_object(line)
        except BadEvent as error:
            fields, problem = {}, str(error)
        else:
            problem = "it names neither D nor T"
        names = {"D", "T"} & fields.keys() if "event_type" not in fields else set()
        if names:
            values = {name: _parameter(fields[name], name, origin) for name in sorted(names)}
            self._ahead = self._ahead[end + 1 :]
            self._offset += end + 1
            self.line = number + 1
            return Layer(values, dict.fromkeys(values, origin))
        if not needed:
            return Layer({}, {})
        problem = "the log is empty" if not line else "the line is an event" if "event_type" in fields else problem
        raise UsageError(
            f'{origin}: no header like {{"D":"3", "T":"50"}} ({problem}); add one, or set D and T elsewhere'
        )

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The lines, as they come.

        Raises:
            SourceError: the log could not be read any further.
        """
        held = bytearray()
        chunk = self._ahead
        self._ahead = b""
        while chunk or (chunk := await self._read()):
            whole = chunk.rfind(b"\n") + 1
            held += chunk[:whole]
            if whole:
                yield self._block(bytes(held))
                held = bytearray()
            held += chunk[whole:]
            chunk = b""
        if held:
            yield self._block(bytes(held))

    def _block(self, content: bytes) -> Block:
        start, line = self._offset, self.line
        self._offset += len(content)
        self.line += content.count(b"\n")
        position = Position(
            self._offset, self.line, self._status.st_dev, self._status.st_ino, self._head, self._status.st_mtime_ns
        )
        return Block(content, start, line, position if self.size is not None else Position())

    def _seek(self, position: Position) -> None:
        """Go on where the checkpoint was taken, in the same file."""
        if self._status.st_size < self._offset or not self._head.startswith(position.head):
            raise UsageError(
                f"{self.name} is not the file that the checkpoint was taken in; bring it back, or use --reset"
            )
        os.lseek(self._file.fileno(), self._offset, os.SEEK_SET)

    async def _read(self) -> bytes:
        """The next bytes, empty at the end. A pipe is waited for without holding a thread."""
        try:
            if self._waits:
                await anyio.wait_readable(self._file.fileno())
            chunk: bytes = await self._file.read(self._chunk)
        except OSError as error:
            raise SourceError(f"cannot read {self.name} any further: {error.strerror}") from None
        return chunk

    def _first_line_end(self) -> int:
        """Where the first line that is not blank ends in what has been read ahead, or -1."""
        begin = len(self._ahead) - len(self._ahead.removeprefix(BYTE_ORDER_MARK).lstrip(b" \t\r\n"))
        return self._ahead.find(b"\n", begin)


def _parameter(raw: msgspec.Raw, name: str, origin: str) -> int:
    """A header's value: an integer, or a string of one."""
    text = bytes(raw).decode().strip('"')
    if text.isascii() and text.isdigit():
        return int(text)
    raise UsageError(f'{origin}: the header\'s "{name}" is {bytes(raw).decode()}; expected an integer like "50"')
