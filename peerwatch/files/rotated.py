"""The rotated files of a path: which files are its own by their names, and in which order they were written."""

import os
import re
import stat
from collections.abc import Iterator
from glob import iglob
from heapq import merge
from itertools import accumulate
from pathlib import Path
from typing import Final, NamedTuple

COMPRESSED: Final = {".gz", ".bz2", ".xz", ".zst"}
"""Endings of files that are read decompressed."""
LONGEST_NUMBER: Final = 5
"""Digits of a number; with more it is a date or a time."""
_STAMP: Final = r"\d[\dTtZz:._+-]*|old|bak|backup|orig|prev|save"
_COMPRESSION: Final = rf"(?:{'|'.join(map(re.escape, sorted(COMPRESSED)))})?"
_DATE: Final = re.compile(r"(?:19|20)\d\d(?:$|(?:0[1-9]|1[0-2])(?:$|0[1-9]|[12]\d|3[01]))")
"""How the digits of a date begin: with a year, and with month and day unless those stand apart."""


class Rotated(NamedTuple):
    """A rotated file, as it was when its directory was listed; `modified` is in nanoseconds since 1970."""

    path: Path
    device: int
    inode: int
    size: int
    modified: int

    @property
    def identity(self) -> tuple[int, int]:
        """Device and inode of the file."""
        return self.device, self.inode

    @property
    def is_compressed(self) -> bool:
        """Whether the file is decompressed when it is read."""
        return self.path.suffix in COMPRESSED


class NameOrder(NamedTuple):
    """The scheme of a rotated file's name (a number, a date, a time, or none), and its place in that order."""

    scheme: str
    key: tuple[int, ...] = ()


class Family(NamedTuple):
    """The names of the rotated files of `name` in `directory`: with a token after it or before its extension.

    Numbers count back from the newest, or `upward` to it.
    """

    directory: Path
    name: str
    upward: bool = False

    def expression(self) -> re.Pattern[str]:
        """The pattern that their names match."""
        stem, extension = os.path.splitext(self.name)  # noqa: PTH122 (the name may end in a dot)
        token, behind = rf"[._-](?P<token>{_STAMP})", re.escape(self.name)
        before = token.replace("token", "infix") + re.escape(extension)
        return re.compile(rf"(?:{behind}(?:{token}|~)|{re.escape(stem)}{before}){_COMPRESSION}")


def rotated_files(path: Path, pattern: str | None = None) -> list[Rotated]:
    """The rotated files of a path, the oldest first, without the file at the path itself.

    They lie beside the path, or beside what it links to, and carry its name with a number, a date, a time or a word
    such as `old` behind it or before its extension: `log.json.1`, `log.json-20260131.gz`, `log-2026-01-31T10-00.json`.
    Files that the glob `pattern` matches belong to them as well. Of a file that is there both plain and compressed (it
    is just being compressed) the plain one counts.

    Numbers count back from the newest; dates and times count up. Where names give no order the time of the last write
    does.
    """
    found: dict[Path, NameOrder] = {}
    for family in _families(path):
        expression = family.expression()
        for name in _names_in(family.directory):
            if named := expression.fullmatch(name):
                token = named["token"] or named["infix"] or ""
                found.setdefault(family.directory / name, _order(token, upward=family.upward))
    for match in iglob(pattern) if pattern is not None else ():  # noqa: PTH207 (the pattern may be absolute)
        found.setdefault(Path(match), _order(_token_in(Path(match).name)))
    own, files = look_at_file(path), {}
    for place, order in found.items():
        file = look_at_file(place)
        compressed_just_now = place.suffix in COMPRESSED and place.with_suffix("") in found
        if file is not None and not compressed_just_now and not (own is not None and file.identity == own.identity):
            files[file] = order
    return _in_order(files)


def directories_of(path: Path, pattern: str | None = None) -> list[Path]:
    """The directories in which rotated files may appear."""
    found = [family.directory for family in _families(path)]
    if pattern is not None:
        found += [Path(pattern).parent, *(Path(name).parent for name in iglob(pattern))]  # noqa: PTH207
    return list(dict.fromkeys(found))


def look_at_file(path: Path) -> Rotated | None:
    """The regular file at a path, None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Rotated(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _families(path: Path) -> Iterator[Family]:
    if path.is_symlink():
        target = Path(os.path.realpath(path))
        directory = path.parent if target.parent == path.parent.resolve() else target.parent
        for extension in (target.suffix, ""):  # what a dated or numbered file would be called without date or number
            stem = target.name.removesuffix(extension) if extension else target.name
            if match := re.fullmatch(rf"(?P<stem>.+?)[._-](?P<token>{_STAMP})", stem):
                yield Family(directory, match["stem"] + extension, upward=_order(match["token"]).scheme == "number")
        yield Family(directory, target.name)
        yield Family(directory, path.name)
    yield Family(path.parent, path.name)


def _names_in(directory: Path) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208 (with objects instead of names a directory of many files is slow)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _token_in(name: str) -> str:
    """The last date or time in any name, or else the last number."""
    found: list[str] = re.findall(r"\d[\dTtZz:._+-]*", name)
    longer = [token for token in found if len(re.sub(r"\D", "", token)) > LONGEST_NUMBER]
    return (longer or found or [""])[-1]


def _order(token: str, *, upward: bool = False) -> NameOrder:
    runs = re.findall(r"\d+", token)
    if len(runs) == 1 and len(runs[0]) <= LONGEST_NUMBER:
        return NameOrder("number", (int(runs[0]) if upward else -int(runs[0]),))
    if runs and _DATE.match(runs[0]):
        year, rest = runs[0][:4], runs[0][4:]
        pairs = [rest[i : i + 2] for i in range(0, len(rest), 2)]
        return NameOrder("date", tuple(map(int, [year, *pairs, *runs[1:]])))
    if len(runs) == 1:
        return NameOrder("time", (int(runs[0]),))  # seconds since 1970, say
    return NameOrder("none")  # a word, or a date that begins with its day


def _in_order(files: dict[Rotated, NameOrder]) -> list[Rotated]:
    """Files of one scheme by their names; those of several schemes merged by the times of their last writes."""
    schemes: dict[str, list[Rotated]] = {}
    for file in sorted(files, key=lambda file: (files[file].key, file.modified, file.path.name)):
        schemes.setdefault(files[file].scheme, []).append(file)
    timed = [[*zip(_no_later_than_the_next(scheme), scheme, strict=True)] for scheme in schemes.values()]
    return [file for _, file in merge(*timed, key=lambda pair: pair[0])]


def _no_later_than_the_next(files: list[Rotated]) -> list[int]:
    """The times of files in order; a writer that still writes to an older file does not move those after it."""
    return [*accumulate((file.modified for file in reversed(files)), min)][::-1]
