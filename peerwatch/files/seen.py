"""The files of a followed log that are not to be read: those read to their ends, and those that are not its own."""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Final, NamedTuple, TypeAlias
from zlib import crc32

import msgspec

from peerwatch.files.generation import SUMMED
from peerwatch.files.position import EDGE, Fingerprint
from peerwatch.files.rotated import Rotated
from peerwatch.files.stored_file import STEP, PlainFile, StoredFile, open_file, prefix_of

MOST: Final = 10_000
"""Files that are remembered; the oldest are forgotten first."""


class SeenFile(msgspec.Struct, frozen=True, array_like=True):
    """What a file held, and where that was: device, inode, size and time of the last write as it was stored.

    `line` is the number behind its last line if it has been read to its end, as the log's file number `generation`; 0
    if it is none of the log's. Of a file that could not be read, or was empty, there is no content.
    """

    content: Fingerprint
    device: int
    inode: int
    size: int
    modified: int
    line: int = 0
    generation: int = 0

    @property
    def is_finished(self) -> bool:
        """Whether the file has been read to its end."""
        return self.line > 0

    @property
    def place(self) -> tuple[int, int]:
        """Device and inode of the file."""
        return self.device, self.inode


class Lost(msgspec.Struct, frozen=True):
    """How many pieces of a log are, or may be, lost unread, and how many bytes of them are known."""

    pieces: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        """The losses as a sentence."""
        pieces = "1 piece" if self.pieces == 1 else f"{self.pieces:,} pieces"
        return f"{pieces} of the stream log, at least {self.bytes:,} bytes; each is in the log"


class Seen(msgspec.Struct, frozen=True):
    """The remembered files, as a checkpoint holds them, and what has been lost so far."""

    files: tuple[SeenFile, ...] = ()
    lost: Lost = Lost()


class Known(NamedTuple):
    """A file that has been found again, and how many bytes have been added since it was read to its end."""

    file: SeenFile
    late: int = 0


Key: TypeAlias = tuple[Fingerprint, tuple[int, int] | None]


class SeenFiles:
    """Recognises a file by its content, whatever its name, inode and time are now, also compressed."""

    def __init__(self, files: Iterable[SeenFile] = ()) -> None:
        self._files: dict[Key, SeenFile] = {}
        self._places: dict[tuple[int, int], SeenFile] = {}
        self._heads: dict[int, list[SeenFile]] = {}
        self._all: tuple[SeenFile, ...] | None = None
        for file in files:
            self.add(file)

    def all(self) -> tuple[SeenFile, ...]:
        """All remembered files, the oldest first."""
        if self._all is None:
            self._all = tuple(self._files.values())
        return self._all

    def add(self, file: SeenFile) -> None:
        """Remember a file, or where it is now."""
        self._all = None
        self._forget(_key(file))
        self._files[_key(file)] = self._places[file.place] = file
        self._heads.setdefault(file.content.head, []).append(file)
        if len(self._files) > MOST:
            self._forget(next(iter(self._files)))

    def has_place(self, rotated: Rotated) -> bool:
        """Whether a file was seen at this one's device and inode."""
        return rotated.identity in self._places

    def was_unreadable(self, rotated: Rotated) -> bool:
        """Whether this file could not be read when it was seen first."""
        there = self._places.get(rotated.identity)
        return there is not None and not there.content.size

    def find(self, rotated: Rotated) -> Known | None:
        """The remembered file that this file is, None if it is not known.

        Raises:
            OSError: that cannot be told because it cannot be read.
        """
        there = self._places.get(rotated.identity)
        if there is not None and (there.size, there.modified) == (rotated.size, rotated.modified):
            known: Known | None = Known(there)
        else:
            known = self._find_content(rotated, there)
            if known is not None:
                self._forget(_key(known.file))
                self.add(moved(known.file, rotated))
        return known

    def _find_content(self, rotated: Rotated, there: SeenFile | None) -> Known | None:
        try:
            stored = PlainFile(rotated.path)
        except PermissionError:
            if there is None or there.content.size:
                raise
            return Known(there)  # it could not be read when it was first seen either
        with closing(stored):
            if (known := self._match(stored, rotated)) or not rotated.is_compressed:
                return known
        with closing(open_file(rotated.path)) as file:
            return self._match(file, rotated)

    def _match(self, file: StoredFile, rotated: Rotated) -> Known | None:
        head = file.read_at(0, EDGE)
        for seen in self._candidates(head):
            content, same_place = seen.content, seen.place == rotated.identity
            if seen.is_finished and file.holds_just(content):
                return Known(seen)
            if prefix_of(file, content, summed=not same_place or content.size <= SUMMED) is None:
                continue
            more = _more(file, content.size)
            if content.is_telling or same_place or not more:
                told = seen.size - content.size if same_place and not file.is_complete else 0
                return Known(seen, max(0, more - told) if seen.is_finished else 0)
        return None

    def _candidates(self, head: bytes) -> Iterator[SeenFile]:
        """The files that begin like this; those that have been read to their ends first."""
        sizes = {EDGE, *(file.content.size for file in self._files.values() if 0 < file.content.size < EDGE)}
        found = [file for size in sizes if size <= len(head) for file in self._heads.get(crc32(head[:size]), ())]
        yield from sorted(found, key=lambda file: (not file.is_finished, -file.content.size))

    def _forget(self, key: Key) -> None:
        file = self._files.pop(key, None)
        if file is not None:
            self._heads[file.content.head].remove(file)
            if not self._heads[file.content.head]:
                del self._heads[file.content.head]
            if self._places.get(file.place) is file:
                del self._places[file.place]


def not_ours(rotated: Rotated) -> SeenFile:
    """An entry for a file, as it is now, that is not part of the log."""
    place = (rotated.device, rotated.inode, rotated.size, rotated.modified)
    try:
        with closing(PlainFile(rotated.path)) as file:
            size = rotated.size
            head, tail = file.read_at(0, min(EDGE, size)), file.read_at(max(0, size - EDGE), min(EDGE, size))
    except OSError:
        return SeenFile(Fingerprint(), *place)
    return SeenFile(Fingerprint(size, crc32(head), crc32(tail), None), *place)


def moved(file: SeenFile, rotated: Rotated) -> SeenFile:
    """The same file at its present place."""
    device, inode = rotated.identity
    return msgspec.structs.replace(
        file, device=device, inode=inode, size=rotated.size, modified=rotated.modified
    )  # fmt: skip


def _key(file: SeenFile) -> Key:
    """The key of a remembered file: its content if it has been read, otherwise also its place."""
    return file.content, None if file.is_finished else file.place


def _more(file: StoredFile, offset: int) -> int:
    """The number of bytes after `offset`."""
    if not file.is_complete:
        return max(0, file.status().st_size - offset)
    begin = offset
    while data := file.read_at(offset, STEP):
        offset += len(data)
    return offset - begin
