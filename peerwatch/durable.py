"""Writes that survive a crash. Every system call that changes the state directory is made here."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class DurableFile:
    """An unbuffered file for numpy and zipfile, which writes everything through `write`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data` and return its length in bytes."""
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[write(self._descriptor, rest) :]
        self._size += memoryview(data).nbytes
        return memoryview(data).nbytes

    def read(self, _: int = -1) -> bytes:
        """Raise OSError: the file is only written. Numpy accepts only objects with this method as files."""
        raise OSError(errno.EBADF, "the file is only written")

    def flush(self) -> None:
        """Do nothing: the file is unbuffered."""

    def tell(self) -> int:
        """The number of bytes written."""
        return self._size


def replace_file(path: Path, fill: Callable[[DurableFile], None]) -> None:
    """Write a new file at `path` atomically. It survives a power failure once this returns.

    Raises:
        OSError: the file could not be written; an older file at `path` is unchanged.
    """
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        try:
            fill(DurableFile(descriptor))
            fsync(descriptor)
        finally:
            os.close(descriptor)
        replace(temporary, path)
    except OSError:
        with suppress(OSError):
            unlink(temporary)
        raise
    sync_directory(path.parent)


def put_in_place(new: Path, path: Path) -> None:
    """Rename the finished file `new` to `path`, once its content is on disk. The name survives a power failure.

    Raises:
        OSError: the file could not be renamed; an older file at `path` is unchanged.
    """
    descriptor = os.open(new, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)
    replace(new, path)
    sync_directory(path.parent)


def append(path: Path, data: bytes) -> None:
    """Append to a file, creating it if needed. The data survives a power failure once this returns.

    Raises:
        OSError: the data could not be written; a part of it may be in the file.
    """
    made = not path.exists()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        DurableFile(descriptor).write(data)
        fsync(descriptor)
    finally:
        os.close(descriptor)
    if made:
        sync_directory(path.parent)


def make_directory(path: Path) -> None:
    """Create a directory if it does not exist. It survives a power failure once this returns.

    Raises:
        OSError: the directory could not be created.
    """
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def cut(path: Path, length: int) -> None:
    """Truncate a file to `length` bytes.

    Raises:
        OSError: the file could not be truncated.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        truncate(descriptor, length)
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Write a directory's entries to disk, so that they survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)


def write(descriptor: int, data: bytes | memoryview) -> int:
    """Call `os.write`."""
    return os.write(descriptor, data)


def fsync(descriptor: int) -> None:
    """Call `os.fsync`."""
    os.fsync(descriptor)


def truncate(descriptor: int, length: int) -> None:
    """Call `os.ftruncate`."""
    os.ftruncate(descriptor, length)


def replace(source: Path, target: Path) -> None:
    """Call `os.replace`."""
    source.replace(target)


def unlink(path: Path) -> None:
    """Call `os.unlink`."""
    path.unlink()
