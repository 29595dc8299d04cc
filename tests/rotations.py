"""A log that is written, rotated in many ways and tampered with, and a follower that can be killed: for tests."""

import bz2
import gzip
import lzma
import os
import re
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final

from peerwatch.files.position import Position
from peerwatch.files.seen import Seen
from peerwatch.files.tail import Beginning, Tail, look_at

ZSTD: Final = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
COMPRESS: Final[dict[str, Callable[[bytes], bytes]]] = {
    ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress,
    ".zst": lambda data: ZSTD.compress(data, options={ZSTD.CompressionParameter.checksum_flag: 1}),  # as zstd does
}  # fmt: skip


NUMBERED: Final = re.compile(r"json\.\d{1,5}(\.[a-z]+\d?)?$")


def decompressed(path: Path) -> bytes:
    """What a file holds, plain or compressed."""
    expand: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress, ".zst": ZSTD.decompress,
    }  # fmt: skip
    return expand.get(path.suffix, bytes)(path.read_bytes())


def line(number: int) -> bytes:
    """A line like no other."""
    return b"line %05d of the log\n" % number


class Follower:
    """Reads a path to its end whenever asked, and can be killed and started again from its last checkpoint."""

    def __init__(self, path: Path, chunk: int = 1 << 18, rotated: str | None = None) -> None:
        self.path = path
        self.chunk = chunk
        self.rotated = rotated
        self.warnings: list[str] = []
        self.lines: list[bytes] = []
        self.holes = 0
        self.kept: tuple[Position, Seen, int] = (Position(), look_at(path, rotated).seen, 0)
        self.start()

    def start(self) -> None:
        """Start from the last checkpoint."""
        position, seen, count = self.kept
        del self.lines[count:]
        beginning = Beginning(position, seen)
        self.tail = Tail(self.path, beginning, self.warnings.append, rotated=self.rotated, chunk=self.chunk, quiet=0.0)

    def checkpoint(self) -> None:
        """Remember how far it has come."""
        self.kept = self.tail.position(), self.tail.seen(), len(self.lines)

    def stop(self) -> None:
        """As a kill would: what came behind the last checkpoint is forgotten."""
        self.tail.close()

    def restart(self) -> None:
        """Killed and started again."""
        self.stop()
        self.start()

    def step(self) -> bool:
        """Read once; whether there was anything."""
        lines = self.tail.read()
        self.holes += lines.hole if lines is not None else 0
        if lines is not None and lines.content:
            self.lines += lines.content.splitlines(keepends=True)
        return lines is not None

    def catch_up(self) -> list[bytes]:
        """All lines so far, in order, behind a checkpoint there."""
        while self.step():
            pass
        self.checkpoint()
        return self.lines


class Log:
    """A log that is written and rotated: by `scheme` the rotated files are named, in the directory of what is written.

    With a `link` the path is a symbolic link to a dated file, in a directory of its own if that is asked for.
    """

    def __init__(self, path: Path, scheme: str = "number", link: str = "no") -> None:
        self.path = path
        self.scheme = scheme
        self.link = link
        self.number = 0
        self.clock = 10**18
        self.tick = 0
        self.rotated: list[Path] = []
        """Of all rotations so far the files, the newest first."""
        self.lines: list[bytes] = []
        """What is to be read, in order."""
        if link == "no":
            path.touch()
        else:
            self._point_to_new()

    @property
    def real(self) -> Path:
        """The file that is written."""
        return Path(os.path.realpath(self.path))

    def write(self, count: int = 1) -> None:
        """Append lines."""
        new = [line(number) for number in range(self.number, self.number + count)]
        self.number += count
        self.lines += new
        with self.path.open("ab") as file:
            file.writelines(new)
        self.touch(self.path)

    def touch(self, path: Path) -> None:
        """Give a file the time of the clock, which may be set back or forth but moves on with each write."""
        self.clock += 10**9  # rotations of a test follow each other faster than a file system's clock ticks
        os.utime(path, ns=(self.clock, self.clock))

    def rename(self) -> None:
        """Rotate by rename and create; a link is pointed to a new file."""
        if self.link != "no":
            self.rotated.insert(0, self.real)
            self._point_to_new()
            return
        rotated = self._next_name()
        self.path.rename(rotated)
        self.rotated.insert(0, rotated)
        self.path.touch()
        self.touch(self.path)

    def copytruncate(self) -> None:
        """Rotate by copy and truncate."""
        rotated = self._next_name()
        shutil.copy2(self.real, rotated)
        self.rotated.insert(0, rotated)
        os.truncate(self.path, 0)
        self.touch(self.path)

    def compress(self, place: int, ending: str) -> None:
        """Compress one of the rotated files, if it is still plain."""
        if not self.rotated:
            return
        plain = self.rotated[place % len(self.rotated)]
        if plain.suffix not in COMPRESS:
            compressed = plain.with_name(plain.name + ending)
            compressed.write_bytes(COMPRESS[ending](plain.read_bytes()))
            shutil.copystat(plain, compressed)
            plain.unlink()
            self.rotated[place % len(self.rotated)] = compressed

    def move_all(self) -> None:
        """Give all files other inodes, as a restore or a move to another volume does."""
        for path in (self.real, *self.rotated):
            copy = path.with_name("copy")
            shutil.copy2(path, copy)
            copy.replace(path)

    def replace_by_copy(self) -> None:
        """Put a copy of the written file into its place."""
        copy = self.real.with_name("copy")
        shutil.copy2(self.real, copy)
        copy.replace(self.real)

    def edit(self) -> None:
        """Change something in the lines that are there, as an editor does: the result is another log."""
        lines = self.real.read_bytes().splitlines(keepends=True)
        lines[len(lines) // 2] = b"edited %05d\n" % self.number
        self.number += 1
        edited = self.real.with_name("copy")
        edited.write_bytes(b"".join(lines))
        edited.replace(self.real)
        self.touch(self.path)
        self.lines += lines

    def _next_name(self) -> Path:
        """A name for a rotated file; older ones may be renamed for it."""
        self.tick += 1
        directory, name = self.real.parent, self.path.name
        stem, extension = self.path.stem, self.path.suffix
        stamp = f"2026-01-{1 + self.tick // 24:02d}T{self.tick % 24:02d}-00-00.000"
        if self.scheme == "date":
            return directory / f"{name}-202601{1 + self.tick // 24:02d}{self.tick % 24:02d}"
        if self.scheme == "infix":
            return directory / f"{stem}-{stamp}{extension}"
        if self.scheme == "seconds":
            return directory / f"{name}.{1_770_000_000 + self.tick}"
        if self.scheme == "elsewhere":
            (directory / "old").mkdir(exist_ok=True)
            return directory / "old" / f"{self.tick:03d}-was-{202601010000 + self.tick}"
        numbered = [place for place, old in enumerate(self.rotated) if NUMBERED.search(old.name)]
        for number, place in reversed([*enumerate(numbered, 2)]):
            old = self.rotated[place]
            ending = old.suffix if old.suffix in COMPRESS else ""
            self.rotated[place] = old.rename(directory / f"{name}.{number}{ending}")
        return directory / f"{name}.1"

    def _point_to_new(self) -> None:
        self.tick += 1
        directory = self.path.parent / "there" if self.link == "elsewhere" else self.path.parent
        directory.mkdir(exist_ok=True)
        stem, extension = self.path.stem, self.path.suffix
        new = directory / f"{stem}-202601{1 + self.tick // 24:02d}{self.tick % 24:02d}{extension}"
        new.touch()
        self.touch(new)
        link = self.path.with_name("link")
        link.symlink_to(new)
        link.replace(self.path)
