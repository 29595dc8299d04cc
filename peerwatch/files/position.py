"""The position in a file where reading goes on, and the fingerprint of what is before it."""

from typing import Any, Final
from zlib import crc32

import msgspec

from peerwatch.connectors.source import StreamPosition

EDGE: Final = 1024
"""Bytes at the beginning and at the end that are always compared; all bytes are summed up only where that pays."""


class Fingerprint(msgspec.Struct, frozen=True, array_like=True):
    """The first `size` bytes of a file: CRC-32s of the first and the last 1024 of them, and of all.

    `whole` is None where they have not all been read.
    """

    size: int = 0
    head: int = 0
    tail: int = 0
    whole: int | None = 0

    @property
    def is_telling(self) -> bool:
        """Whether it is long enough that another file does not begin with the same bytes by chance."""
        return self.size >= EDGE


class Prefix:
    """Bytes of a file as they are read (or written) from its start, and their fingerprint."""

    def __init__(self) -> None:
        self.size = 0
        self.head = b""
        """The first bytes, as far as they belong to the fingerprint."""
        self.tail = b""
        """The last bytes, as far as they belong to the fingerprint."""
        self._whole = 0

    @classmethod
    def known(cls, fingerprint: Fingerprint, head: bytes, tail: bytes) -> "Prefix":
        """The prefix with this fingerprint, and with these first and last bytes."""
        prefix = cls()
        prefix.size, prefix.head, prefix.tail, prefix._whole = fingerprint.size, head, tail, fingerprint.whole or 0
        return prefix

    def add(self, data: bytes) -> None:
        """Add the next bytes."""
        if len(self.head) < EDGE:
            self.head += data[: EDGE - len(self.head)]
        self.tail = data[-EDGE:] if len(data) >= EDGE else (self.tail + data)[-EDGE:]
        self._whole = crc32(data, self._whole)
        self.size += len(data)

    def fingerprint(self) -> Fingerprint:
        """The fingerprint of what has been added so far."""
        return Fingerprint(self.size, crc32(self.head), crc32(self.tail), self._whole)


class Position(msgspec.Struct, frozen=True):
    """Where reading goes on in a log: behind `content`, of the log's file number `generation`, at line `line`.

    Device and inode are where that file was; a pipe has none of all this but the number of its line.
    """

    content: Fingerprint = Fingerprint()
    line: int = 1
    generation: int = 0
    device: int = 0
    inode: int = 0

    @property
    def offset(self) -> int:
        """The offset of the line's first byte."""
        return self.content.size


def position_of(value: Any) -> Position:
    """The position that a checkpoint holds, which may have been read from JSON; None is the beginning of the log."""
    return Position() if value is None else msgspec.convert(value, Position)


def place_of(value: Any) -> Position | StreamPosition:
    """The position in a file or in a stream that a checkpoint holds, which may have been read from JSON."""
    if isinstance(value, StreamPosition) or (isinstance(value, dict) and "after" in value):
        return msgspec.convert(value, StreamPosition)
    return position_of(value)
