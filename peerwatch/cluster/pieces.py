"""Arrays cut into pieces, because a message has a most and a state has none."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from peerwatch.judging.state import Arrays

PIECE: Final = 16 << 20
"""The most bytes of arrays in one message."""


class ArrayPiece(msgspec.Struct, frozen=True, array_like=True):
    """Bytes of an array, behind those of the pieces before it: the array's name, its dtype, and its size in bytes."""

    name: str
    kind: str
    size: int
    content: bytes


def pieces_of(arrays: Arrays) -> Iterator[tuple[list[ArrayPiece], bool]]:
    """Arrays of one dimension, as much at a time as a message may hold, and whether that is the rest."""
    found: list[ArrayPiece] = []
    room = PIECE
    for name, array in arrays.items():
        raw = np.ascontiguousarray(array).view(np.uint8)
        begin = 0
        while True:
            content = raw[begin : begin + room].tobytes()
            found.append(ArrayPiece(name, array.dtype.str, len(raw), content))
            begin, room = begin + len(content), room - len(content)
            if begin == len(raw):
                break
            yield found, False
            found, room = [], PIECE
    yield found, True


class ArraysInPieces:
    """Arrays, as far as their pieces have come."""

    def __init__(self) -> None:
        self._raw: dict[str, NDArray[np.uint8]] = {}
        self._kinds: dict[str, str] = {}
        self._filled: dict[str, int] = {}

    def add(self, pieces: Sequence[ArrayPiece]) -> None:
        """Add the next pieces."""
        for name, kind, size, content in map(msgspec.structs.astuple, pieces):
            if name not in self._raw:
                self._raw[name], self._kinds[name], self._filled[name] = np.empty(size, np.uint8), kind, 0
            begin = self._filled[name]
            self._filled[name] = begin + len(content)
            self._raw[name][begin : self._filled[name]] = np.frombuffer(content, np.uint8)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of them, once all pieces are there. They can be written to."""
        return {name: raw.view(self._kinds[name]) for name, raw in self._raw.items()}
