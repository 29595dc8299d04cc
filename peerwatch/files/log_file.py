"""The logs as sources of whole lines."""

import os
import stat
from collections.abc import AsyncGenerator, Callable
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

import aiofiles
import anyio
import msgspec
from anyio.to_thread import run_sync

from peerwatch.connectors.source import Block
from peerwatch.errors import BadEvent, SourceError, UsageError
from peerwatch.files.generation import found_again, without_hole
from peerwatch.files.position import Fingerprint, Position, Prefix, position_of
from peerwatch.files.stored_file import PlainFile
from peerwatch.network.decoder import line_feeds
from peerwatch.network.events import CANONICAL, FieldNames, begin_of_line, parse_object
from peerwatch.network.likeness import LOOKED_AT, looks_like
from peerwatch.readable import shown
from peerwatch.settings.model import Friendships, Layer

CHUNK: Final = 1 << 20
"""Bytes a read asks for: large enough that reading costs next to nothing, small enough for a batch."""
LONGEST_HEADER: Final = 1 << 20
"""Bytes in which a header line must have ended; what is longer is no header."""
NEW_LINE: Final = b"\n"
BLANK: Final = b" \t\r\n"
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class LogFile:
    """One log that ends, opened once, so that a pipe works as well as a file. Reading begins at `position`.

    Where a later run is to go on behind its end (`resumable`), a last line that has no line feed counts only if it is a
    whole JSON object.
    """

    def __init__(
        self,
        path: str,
        *,
        judged: bool,
        chunk: int = CHUNK,
        position: Any = None,
        resumable: bool = False,
        warn: Callable[[str], None] = lambda _: None,
        names: FieldNames = CANONICAL,
    ) -> None:
        self.name = "standard input" if path == "-" else shown(path)
        self.judged = judged
        self.names = names
        self.size: int | None = None
        """Size in bytes, None for a pipe."""
        self._path = path
        self._chunk = chunk
        self._begun = position_of(position) if position is not None else None
        self._offset = self._begun.offset if self._begun else 0
        self._line = self._begun.line if self._begun else 1
        self._ahead = bytearray()
        self._hole = 0
        """NUL bytes that have been skipped before the next block."""
        self._resumable = resumable
        self._warn = warn
        self._prefix = Prefix()
        self._file: Any = None
        self._waits = False

    @property
    def file(self) -> str:
        """The file that is being read."""
        return self.name

    async def open(self, stack: AsyncExitStack) -> None:
        """Open the log; it is closed with the stack.

        Raises:
            UsageError: there is no such log, it cannot be read, or it is not the one that `position` is in.
        """
        try:
            if self._path != "-" and await anyio.Path(self._path).is_dir():
                raise UsageError(f"{self.name} is a directory; name the log file in it")
            opened = (
                aiofiles.open(0, "rb", buffering=0, closefd=False)
                if self._path == "-"
                else aiofiles.open(self._path, "rb", buffering=0)
            )
            self._file = await stack.enter_async_context(opened)
        except OSError as error:
            raise UsageError(f"cannot read the log {self.name}: {error.strerror}") from None
        except ValueError as error:
            raise UsageError(f"cannot read the log {self.name}: {error}") from None
        self._status = os.fstat(self._file.fileno())
        mode = self._status.st_mode
        if stat.S_ISREG(mode):
            self.size = self._status.st_size
            if self._begun is not None:
                await run_sync(self._seek, self._begun)
        self._waits = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(self._file.fileno())

    async def read_ahead(self) -> None:
        """Read to the end of the first line that is not blank, where a header may stand.

        Raises:
            SourceError: the log could not be read any further.
        """
        while not self._has_first_line() and (more := await self._read()):
            self._ahead += more if self._ahead else self._skip_hole(more)

    def take_header(self, needed: AbstractSet[str]) -> Layer:
        """The settings from the header line, which is then no longer among the lines.

        The header is the first line that is not blank; it is none if it names an event type or none of D, T and
        friendships. Call `read_ahead` first.

        Raises:
            UsageError: a value is impossible, or what is `needed` is not there.
        """
        found = header_in(bytes(self._ahead), self.name, self._line)
        missing = sorted(needed - found.values.keys())
        if found.values and missing:
            raise UsageError(f'{found.origin}: the header has no "{missing[0]}"; add it, or give --{missing[0]}')
        if found.values:
            self._offset += min(found.end, len(self._ahead))
            self._line = found.line + 1
            if self._resumable:
                self._prefix.add(bytes(self._ahead[: found.end]))
            del self._ahead[: found.end]
            return Layer(found.values, dict.fromkeys(found.values, found.origin))
        if not needed:
            return Layer({}, {})
        likeness = looks_like(bytes(self._ahead[:LOOKED_AT])) if not found.is_object else None
        if likeness is not None:
            raise UsageError(f"{self.name} looks like {likeness.what}, not like a log; {likeness.way_out}")
        raise UsageError(
            f'{found.origin}: no header like {{"D":"3", "T":"50"}} ({found.problem}); add one, or set D and T elsewhere'
        )

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The lines, as they come.

        Raises:
            SourceError: the log could not be read any further.
        """
        held: list[bytes] = []
        chunk = bytes(self._ahead)
        self._ahead.clear()
        while chunk or (chunk := await self._read()):
            if not held:
                chunk = self._skip_hole(chunk)
            whole = chunk.rfind(b"\n") + 1
            if whole:
                yield self._block(b"".join([*held, chunk[:whole]]))
                held.clear()
            if rest := chunk[whole:] if held else self._skip_hole(chunk[whole:]):
                held.append(rest)
            chunk = b""
        last = b"".join(held)
        open_ended = self._resumable and self.judged and self.size is not None
        if last and open_ended and last_line_waits(last, self.name, self._offset, self._warn):
            last = b""
        if last or self._hole:
            yield self._block(last)

    def _skip_hole(self, data: bytes) -> bytes:
        """Skip a hole: the bytes at a line's start without leading NUL bytes."""
        rest, size = without_hole(data)
        if self._resumable:
            self._prefix.add(data[:size])
        self._offset += size
        self._hole += size
        return rest

    def _block(self, content: bytes) -> Block:
        if self._resumable:
            self._prefix.add(content)
        start, line = self._offset, self._line
        if start == 0 and content.startswith(BYTE_ORDER_MARK):
            content = content.removeprefix(BYTE_ORDER_MARK)
            start = len(BYTE_ORDER_MARK)
        self._offset = start + len(content)
        self._line += line_feeds(content)
        hole, self._hole = self._hole, 0
        return Block(content, start, line, self._position() if self.size is not None else Position(), hole=hole)

    def _position(self) -> Position:
        content = self._prefix.fingerprint() if self._resumable else Fingerprint(self._offset, whole=None)
        generation = self._begun.generation if self._begun is not None else 0
        return Position(content, self._line, generation, self._status.st_dev, self._status.st_ino)

    def _seek(self, position: Position) -> None:
        """Go on where the checkpoint was taken, in the same file."""
        found = found_again(PlainFile(Path(self._path)), position)
        if found is None:
            raise UsageError(
                f"{self.name} is not the file that the checkpoint was taken in, or has been changed before byte"
                f" {position.offset:,}; bring it back, add --follow if it has been rotated, or begin anew with --reset"
            )
        self._prefix = found.prefix
        found.close()
        os.lseek(self._file.fileno(), position.offset, os.SEEK_SET)

    async def _read(self) -> bytes:
        """The next bytes, empty at the end. A pipe is waited for without holding a thread."""
        try:
            if self._waits:
                await anyio.wait_readable(self._file.fileno())
            chunk: bytes = await self._file.read(self._chunk)
        except OSError as error:
            raise SourceError(f"cannot read {self.name} any further: {error.strerror}") from None
        return chunk

    def _has_first_line(self) -> bool:
        """Whether a line that is not blank is complete in what has been read ahead, or is too long for a header."""
        if len(self._ahead) > LONGEST_HEADER:
            return True
        end = self._ahead.rfind(b"\n")
        return end >= 0 and len(self._ahead[:end].removeprefix(BYTE_ORDER_MARK).strip(BLANK)) > 0


def last_line_waits(line: bytes, file: str, offset: int, warn: Callable[[str], None]) -> bool:
    """Whether a last line without a line feed, at byte `offset` of the file, is unfinished."""
    if not line.strip():
        return False
    try:
        parse_object(line[begin_of_line(line) :])
    except BadEvent:
        warn(
            f"{file}: the last line, {len(line):,} bytes after byte {offset:,}, is not finished; the next run reads on"
        )
        return True
    return False


def _parameter(raw: msgspec.Raw, name: str, origin: str) -> int:
    """The value of D or T in a header: an integer, or a string that holds one."""
    text = bytes(raw).decode().strip('"')
    if text.isascii() and text.isdigit() and len(text) < 20:
        return int(text)
    written = bytes(raw).decode()[:40]
    raise UsageError(f'{origin}: the header\'s "{name}" is {written}; expected an integer like "50"')


def _friendships(raw: msgspec.Raw, origin: str) -> str:
    """The kind of friendships in a header."""
    kinds = get_args(Friendships)
    written = bytes(raw).decode()
    if written.strip('"') not in kinds:
        raise UsageError(f'{origin}: the header\'s "friendships" is {written[:40]}; expected {" or ".join(kinds)}')
    return written.strip('"')


class Header(NamedTuple):
    """The first line of a log that is not blank, and the settings in it if it is a header.

    `origin` names file and line, `end` is the offset behind the line; `problem` says why it is no header, and
    `is_object` whether it is a JSON object at all.
    """

    values: dict[str, Any]
    origin: str
    line: int
    end: int
    problem: str
    is_object: bool


def header_in(text: bytes, name: str, first_line: int = 1) -> Header:
    """Look for a header at the start of a log's text: it names D, T or friendships, and no event type.

    Raises:
        UsageError: a value is not possible.
    """
    begin = begin_of_line(text)
    while begin < len(text) and text[begin] in BLANK:
        begin = begin_of_line(text, begin + 1)
    end = text.find(b"\n", begin) + 1 or len(text)
    line = first_line + text.count(NEW_LINE, 0, begin)
    origin, own = f"{name}:{line}", text[begin:end].strip()
    try:
        fields, problem = parse_object(own), "it names neither D nor T"
    except BadEvent as error:
        problem = str(error) if own else "the log is empty"
        return Header({}, origin, line, end, problem, is_object=False)
    if "event_type" in fields:
        return Header({}, origin, line, end, "the line is an event", is_object=True)
    values: dict[str, Any] = {key: _parameter(fields[key], key, origin) for key in sorted({"D", "T"} & fields.keys())}
    if "friendships" in fields:
        values["friendships"] = _friendships(fields["friendships"], origin)
    return Header(values, origin, line, end, problem, is_object=bool(fields))
