"""The bytes of a file, stored plain or compressed, and whether it still is the same file."""

import os
import stat
import zlib
from collections.abc import Callable
from contextlib import suppress
from errno import EBADMSG, EINVAL, EISDIR, ENODATA, ENOPKG
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from zlib import crc32

from peerwatch.files.position import EDGE, Fingerprint, Prefix
from peerwatch.files.rotated import COMPRESSED

STEP: Final = 1 << 20
"""Bytes a read asks for where all of a file is looked at."""


class StoredFile(Protocol):
    """A file's bytes, decompressed if it is compressed. All methods may raise `OSError`."""

    path: Path
    is_complete: bool
    """Whether it is certain that nobody writes to the file any more."""

    def status(self) -> os.stat_result:
        """The status of the file as it is stored."""

    def read_at(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on; fewer only at the end."""

    def holds_just(self, fingerprint: Fingerprint) -> bool:
        """Whether the file itself says that these are all its bytes."""

    def close(self) -> None:
        """Close the file."""


class PlainFile:
    """A file as it is stored, which may still grow."""

    is_complete = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = descriptor_of(path)

    def status(self) -> os.stat_result:
        """The status of the open file."""
        return os.fstat(self._descriptor)

    def read_at(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on."""
        return os.pread(self._descriptor, size, offset)

    def holds_just(self, _: Fingerprint) -> bool:
        """False: a plain file does not say what it holds."""
        return False

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


class CompressedFile:
    """A compressed file, read decompressed, best from its start to its end."""

    is_complete = True

    def __init__(self, path: Path) -> None:
        self.path = path
        decompressor = _decompressor(path)
        self._damage = decompressor.damage
        self._raw = os.fdopen(descriptor_of(path), "rb", buffering=0)
        self._file = decompressor.open(self._raw)

    def status(self) -> os.stat_result:
        """The status of the compressed file."""
        return os.fstat(self._raw.fileno())

    def read_at(self, offset: int, size: int) -> bytes:
        """At most `size` decompressed bytes from `offset` on; what is before is read as well if necessary.

        Raises:
            OSError: ENODATA if the file ends too early (it may still be being written), EBADMSG if it is damaged.
        """
        try:
            if self._file.tell() != offset and self._file.seek(offset) != offset:
                return b""  # the file ends before
            data: bytes = self._file.read(size)
        except EOFError:
            raise OSError(ENODATA, "it ends too early, as if it were still being written", str(self.path)) from None
        except self._damage as error:
            raise OSError(EBADMSG, f"it is damaged: {error}", str(self.path)) from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise OSError(EBADMSG, f"it is damaged: {error}", str(self.path)) from None
        return data

    def holds_just(self, fingerprint: Fingerprint) -> bool:
        """Whether a gzip file's end, a CRC-32 and a size, says that these are all its bytes."""
        if self.path.suffix != ".gz" or fingerprint.whole is None:
            return False
        said = os.pread(self._raw.fileno(), 8, max(0, self.status().st_size - 8))
        return said == fingerprint.whole.to_bytes(4, "little") + (fingerprint.size % 2**32).to_bytes(4, "little")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._raw.close()


def open_file(path: Path) -> StoredFile:
    """The file at a path, decompressed if its name ends like that of a compressed one.

    Raises:
        OSError: it cannot be opened or is no regular file, or what decompresses it is not installed.
    """
    return CompressedFile(path) if path.suffix in COMPRESSED else PlainFile(path)


def descriptor_of(path: Path) -> int:
    """The regular file at a path, opened to be read.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # should it be a pipe, nobody waits for it
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        code, what = (EISDIR, "it is a directory") if stat.S_ISDIR(mode) else (EINVAL, "it is not a regular file")
        raise OSError(code, what, str(path))
    return descriptor


class Decompressor(NamedTuple):
    """What opens a compressed file around an open one, and what it raises if that is damaged."""

    open: Callable[[Any], Any]
    damage: tuple[type[Exception], ...]


def _decompressor(path: Path) -> Decompressor:
    suffix = path.suffix
    if suffix == ".gz":
        import gzip  # noqa: PLC0415 (few runs meet a compressed file)

        return Decompressor(lambda raw: gzip.GzipFile(fileobj=raw), (gzip.BadGzipFile, zlib.error))
    if suffix == ".bz2":
        import bz2  # noqa: PLC0415

        return Decompressor(bz2.BZ2File, (ValueError,))
    if suffix == ".xz":
        import lzma  # noqa: PLC0415

        return Decompressor(lzma.LZMAFile, (lzma.LZMAError,))
    for name in ("compression.zstd", "backports.zstd"):  # Python has it from 3.14 on
        with suppress(ImportError):
            zstd = import_module(name)
            return Decompressor(zstd.ZstdFile, (zstd.ZstdError,))
    raise OSError(ENOPKG, "zstd is not installed: pip install 'peerwatch[zstd]'", str(path))


def prefix_of(file: StoredFile, fingerprint: Fingerprint, *, summed: bool = True) -> Prefix | None:
    """The prefix with a fingerprint, if the file begins with it.

    All of them are read and `summed` up, or only the edges are compared.

    Raises:
        OSError: the file cannot be read.
    """
    size = fingerprint.size
    if not file.is_complete and file.status().st_size < size:
        return None
    head = file.read_at(0, min(EDGE, size))
    if len(head) < min(EDGE, size) or crc32(head) != fingerprint.head:
        return None
    if fingerprint.whole is None or not (summed or file.is_complete):
        tail = file.read_at(max(0, size - EDGE), min(EDGE, size))
        found = len(tail) == min(EDGE, size) and crc32(tail) == fingerprint.tail
        return Prefix.known(fingerprint, head, tail) if found else None
    prefix = Prefix()
    prefix.add(head)
    while prefix.size < size and (data := file.read_at(prefix.size, min(STEP, size - prefix.size))):
        prefix.add(data)
    return prefix if prefix.fingerprint() == fingerprint else None
