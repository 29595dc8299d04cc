"""What a checkpoint of version 4 does not hold and later ones do: what was in the files that it tells of.

Version 4 knew a log by device, inode and first bytes, and an output by its length; later versions know files by what
they hold up to there. That is read off the files themselves. They must fit all that version 4 does know: first bytes,
lengths, numbers of lines. An output that does not fit gets a fingerprint that no file has, so that a run asks for it as
for any output that is gone; so does a place in a log that only looking back needs.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple
from zlib import crc32

import msgspec

from peerwatch.errors import UsageError
from peerwatch.files.position import EDGE, Prefix
from peerwatch.files.rotated import Rotated, look_at_file, rotated_files
from peerwatch.files.stored_file import STEP, PlainFile, StoredFile, open_file
from peerwatch.readable import shown
from peerwatch.settings.model import InputSettings

WAY_OUT: Final = "finish with the version of peerwatch that wrote it, or begin anew with --reset"
LINE_FEED: Final = b"\n"
Json = dict[str, Any]


class PositionOf4(msgspec.Struct, frozen=True):
    """A position as version 4 has it; a pipe has none."""

    offset: int = 0
    line: int = 1
    device: int = 0
    inode: int = 0
    head: bytes = b""
    modified: int = 0

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode."""
        return self.device, self.inode

    def is_in_same_file(self, other: "PositionOf4") -> bool:
        """Whether it is in the same file as another position, as far as that can be told without the file."""
        size = min(len(self.head), len(other.head))
        return self.identity == other.identity and self.head[:size] == other.head[:size]


class FactsOf4(msgspec.Struct, frozen=True):
    """Those facts of version 4 that tell of files."""

    progress: tuple[int, int, int, int, int]
    judged: bool
    position: PositionOf4
    flagged: int
    flagged_bytes: int
    rejects_bytes: int
    verdicts_bytes: int
    marks: list[tuple[int, bool, PositionOf4]]
    began: PositionOf4


class FactsFromFiles(NamedTuple):
    """The same as version 5 has it, as plain JSON."""

    position: Json
    marks: list[Any]
    seen: Json
    flagged_written: Json
    rejects_written: Json
    verdicts_written: Json | None


class CountedPrefix(NamedTuple):
    """A fingerprint of a file's first bytes as plain JSON, how many line feeds they hold, whether one ends them."""

    content: list[int | None]
    feeds: int
    ended: bool

    def is_before(self, line: int) -> bool:
        """Whether the bytes can stand before a line of this number; a header may end without a line feed."""
        return line == self.feeds + 1 or (line == self.feeds + 2 and not self.ended)


NOTHING: Final[list[int | None]] = [0, 0, 0, 0]


def facts_from_files(envelope: Json, inputs: InputSettings) -> FactsFromFiles:
    """What a checkpoint of version 4 lacks.

    Raises:
        UsageError: a log is not named, or no longer holds what the checkpoint tells of.
    """
    facts = msgspec.convert(envelope["facts"], FactsOf4)
    identity, rejected = envelope["identity"], facts.progress[3]
    if inputs.stream is None:
        raise UsageError(
            f"the state was written by an earlier version, which is read with its logs: name them, or {WAY_OUT}"
        )
    batch = [position for _, judged, position in facts.marks if not judged]
    batch += [] if facts.judged else [facts.position]
    in_batch = _places_in_batch(inputs.batch, batch)
    stream = _StreamLog(Path(inputs.stream), inputs.rotated, facts)
    marks: list[Any] = []
    for events, judged, mark in facts.marks:
        place = stream.place(mark) if judged else in_batch[mark]
        if mark.offset:
            marks.append([events, judged, place])
    ledger = identity["verdicts"]
    return FactsFromFiles(
        stream.position() if facts.judged else in_batch[facts.position],
        marks,
        stream.seen(),
        _written(identity["flagged"], facts.flagged_bytes, facts.flagged),
        _written(identity["rejects"], facts.rejects_bytes, rejected),
        _written(ledger, facts.verdicts_bytes, None) if ledger is not None else None,
    )


def _places_in_batch(path: str | None, positions: Sequence[PositionOf4]) -> dict[PositionOf4, Json]:
    found: Mapping[int, CountedPrefix] = {}
    with suppress(OSError), closing(PlainFile(Path(path or ""))) as file:
        if all(_holds(file, position) for position in positions):
            found = read_through(file, [position.offset for position in positions])
    return {position: _place(position, found.get(position.offset), 0) for position in positions}


class _StreamLog:
    """The stream log's files in the order in which version 4 read them, and which of them it had read."""

    def __init__(self, path: Path, pattern: str | None, facts: FactsOf4) -> None:
        """Find the file that the position is in, and those before it since the beginning."""
        self._path = path
        self._facts = facts
        own = look_at_file(path) if str(path) != "-" else None
        self._by_name = rotated_files(path, pattern) if str(path) != "-" else []
        self._files = [*sorted(self._by_name, key=lambda file: file.modified), *([own] if own is not None else [])]
        self._read: list[Rotated | PositionOf4] = []
        """The log's files that were read to their ends; of those that are gone, a position in them."""
        self._found: dict[PositionOf4, int | None] = {}
        self._numbers: dict[int, int] = {}
        self._gone: dict[PositionOf4, int] = {}
        self._contents: dict[int, Mapping[int, CountedPrefix]] = {}
        self._here = self._place_here()
        self._number_files()

    def position(self) -> Json:
        """The position in it, where it is being judged.

        Raises:
            UsageError: what stood before it is not what it was.
        """
        position = self._facts.position
        if not position.offset:
            return _json_of(NOTHING, 1, len(self._read), (0, 0))
        place = self.place(position)
        if place["content"][-1] is None:
            raise self._changed(position)
        return place

    def place(self, position: PositionOf4) -> Json:
        """Any position in it."""
        number = self._find(position)
        if number is None:
            return _place(position, None, self._gone.get(position, 0))
        if number not in self._contents:
            marks = [mark for _, judged, mark in self._facts.marks if judged]
            offsets = [mark.offset for mark in (*marks, self._facts.position) if self._find(mark) == number]
            with closing(self._open(self._files[number])) as file:
                self._contents[number] = read_through(file, offsets)
        counted, device_and_inode = self._contents[number].get(position.offset), self._files[number].identity
        return _place(position, counted, self._numbers.get(number, len(self._read)), device_and_inode)

    def seen(self) -> Json:
        """The files that are not to be read again, or not at all."""
        files: list[list[Any]] = []
        ours = {file.identity for file in self._read if isinstance(file, Rotated)}
        for file in self._older():
            if file.identity not in ours:
                content = self._through(file, edges=True).content
                files.append([content, *file.identity, file.size, file.modified, 0, 0])
        for number, known in enumerate(self._read):
            if isinstance(known, Rotated):
                end = self._through(known)
                files.append([end.content, *known.identity, known.size, known.modified, end.feeds + 1, number])
            else:
                content = _unknown(known.offset or len(known.head) or 1, known.head)
                files.append([content, 0, 0, content[0], 0, known.line, number])
        return {"files": files, "lost": {"pieces": 0, "bytes": 0}}

    def _place_here(self) -> int:
        """Which file is to be read next."""
        facts = self._facts
        here = facts.position if facts.judged else facts.began
        if not here.head:
            return self._first_newer(here)
        found = self._find(here)
        if found is None:
            raise self._changed(here)
        return found

    def _first_newer(self, position: PositionOf4) -> int:
        """Where the log begins if nothing stood at the path then: with what has been written since."""
        for number, file in enumerate(self._files):
            newer = file.modified > position.modified or file.identity == position.identity
            if newer or file.path == self._path:
                return number
        return len(self._files)

    def _number_files(self) -> None:
        """Count the files of the log from its beginning; a place that was marked in one that is gone counts as one."""
        began = self._facts.began
        first = self._find(began) if began.head else self._first_newer(began)
        if first is None:
            self._read.append(began)
        behind = first or 0
        for _, judged, mark in self._facts.marks:
            if not judged:
                continue
            number = self._find(mark)
            if number is not None and behind <= number <= self._here:
                behind = self._count(behind, number + 1)
            elif number is None and mark.offset:
                last = self._read[-1] if self._read else None
                if not (isinstance(last, PositionOf4) and last.is_in_same_file(mark)):
                    self._read.append(mark)
                self._gone[mark] = len(self._read) - 1
        self._count(behind, self._here)

    def _count(self, begin: int, end: int) -> int:
        for number in range(begin, min(end, self._here)):
            self._numbers[number] = len(self._read)
            self._read.append(self._files[number])
        return max(begin, min(end, self._here))

    def _older(self) -> Iterable[Rotated]:
        """The rotated files that come before the one that is read next, by their times or by their names."""
        here = self._files[self._here] if self._here < len(self._files) else None
        named = self._by_name[: self._by_name.index(here)] if here in self._by_name else self._by_name
        return [file for file in self._by_name if file in self._files[: self._here] or (file in named and file != here)]

    def _find(self, position: PositionOf4) -> int | None:
        """The file that a position is in: the same file, or one that begins with the same bytes."""
        if position not in self._found:
            self._found[position] = self._look_for(position) if position.head else None
        return self._found[position]

    def _look_for(self, position: PositionOf4) -> int | None:
        found = [number for number, file in enumerate(self._files) if self._file_holds(file, position)]
        same = [number for number in found if self._files[number].identity == position.identity]
        rotated = [number for number in found if self._files[number].path != self._path]
        telling = found if len(position.head) >= min(EDGE, position.offset) else []
        return next(iter([*same[:1], *rotated[-1:], *telling[-1:]]), None)

    def _file_holds(self, file: Rotated, position: PositionOf4) -> bool:
        with suppress(OSError), closing(self._open(file)) as opened:
            return _holds(opened, position)
        return False

    def _open(self, file: Rotated) -> StoredFile:
        return PlainFile(file.path) if file.path == self._path else open_file(file.path)

    def _through(self, file: Rotated, *, edges: bool = False) -> CountedPrefix:
        """All of a file, or what version 5 looks at of one that is none of the log's: its edges as it is stored."""
        try:
            if not edges:
                with closing(self._open(file)) as opened:
                    return read_through(opened, None)[-1]
            with closing(PlainFile(file.path)) as plain:
                size = min(EDGE, file.size)
                head, tail = plain.read_at(0, size), plain.read_at(file.size - size, size)
                return CountedPrefix([file.size, crc32(head), crc32(tail), None], 0, ended=False)
        except OSError:
            return CountedPrefix(NOTHING, 0, ended=False)

    def _changed(self, position: PositionOf4) -> UsageError:
        known = max(position.offset, len(position.head))
        return UsageError(
            f"{shown(self._path)}: neither the file there nor a rotated one still begins with the {known:,} bytes that"
            " were there when the checkpoint was taken, which an earlier version has written; bring the log back,"
            f" {WAY_OUT}"
        )


def read_through(file: StoredFile, offsets: Sequence[int] | None) -> Mapping[int, CountedPrefix]:
    """What a file holds up to each of some offsets that it reaches, or (under -1) up to its end."""
    found: dict[int, CountedPrefix] = {}
    prefix, feeds = Prefix(), 0
    for offset in sorted({*offsets}) if offsets is not None else (None,):
        while offset is None or prefix.size < offset:
            size = STEP if offset is None else min(STEP, offset - prefix.size)
            data = file.read_at(prefix.size, size)
            if not data:
                break
            prefix.add(data)
            feeds += data.count(LINE_FEED)
        if offset is None or prefix.size == offset:
            fingerprint = prefix.fingerprint()
            content = [fingerprint.size, fingerprint.head, fingerprint.tail, fingerprint.whole]
            found[-1 if offset is None else offset] = CountedPrefix(content, feeds, prefix.tail.endswith(LINE_FEED))
    return found


def _holds(file: StoredFile, position: PositionOf4) -> bool:
    """Whether a file begins as that which a position is in, and goes on up to there."""
    head, last = position.head, position.offset - 1
    return file.read_at(0, len(head)) == head and (last < 0 or len(file.read_at(last, 1)) == 1)


def _place(
    position: PositionOf4, counted: CountedPrefix | None, generation: int, identity: tuple[int, int] | None = None
) -> Json:
    fits = counted is not None and counted.is_before(position.line)
    content = counted.content if counted is not None and fits else _unknown(position.offset, position.head)
    return _json_of(content, position.line, generation, identity or position.identity)


def _json_of(content: list[int | None], line: int, generation: int, identity: tuple[int, int]) -> Json:
    device, inode = identity
    return {"content": content, "line": line, "generation": generation, "device": device, "inode": inode}


def _unknown(size: int, head: bytes) -> list[int | None]:
    """A fingerprint of bytes that cannot be read any more, but for the first: no file fits it."""
    return [size, crc32(head[: min(EDGE, size)]), 0, None] if size else NOTHING


def _written(path: str, size: int, lines: int | None) -> Json:
    """How far an output had been written, if it holds so many lines up to there."""
    content: list[int | None] = [size, 0, 0, None]
    device, inode = 0, 0
    with suppress(OSError), closing(PlainFile(Path(path))) as file:
        status, counted = file.status(), read_through(file, [size]).get(size)
        device, inode = status.st_dev, status.st_ino
        if counted is not None and (not size or counted.ended) and lines in {None, counted.feeds}:
            content[1:3] = counted.content[1:3]
    beside = [list(file.identity) for file in rotated_files(Path(path))] if not size else []
    return {"content": content, "device": device, "inode": inode, "beside": beside}
