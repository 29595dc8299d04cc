"""Writing that survives a crash: every system call that changes the state directory goes through here."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class DurableFile:
    """An unbuffered file for numpy and zipfile to write to, each of its writes one call of `write`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write all of `data`."""
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[write(self._descriptor, rest) :]
        self._size += memoryview(data).nbytes
        return memoryview(data).nbytes

    def read(self, _: int = -1) -> bytes:
        """Numpy takes for a file what could also be read."""
        raise OSError(errno.EBADF, "the file is only written")

    def flush(self) -> None:
        """Nothing is held back."""

    def tell(self) -> int:
        """Bytes written."""
        return self._size


def replace_file(path: Path, fill: Callable[[DurableFile], None]) -> None:
    """Put a new file at `path` that is there as a whole or not at all, also after a power failure.

    Raises:
        OSError: it could not be written; what was at `path` is still there.
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
    """Give a file that somebody else has written its name, when it is sure to be there after a power failure.

    Raises:
        OSError: it could not be done; what was at `path` is still there.
    """
    descriptor = os.open(new, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)
    replace(new, path)
    sync_directory(path.parent)


def append(path: Path, data: bytes) -> None:
    """Add to the end of a file, which is made if need be; afterwards it is there even after a power failure.

    Raises:
        OSError: it could not be written; a part of `data` may be there.
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
    """Make a directory, if it is not there, that is there even after a power failure.

    Raises:
        OSError: it could not be made.
    """
    path.mkdir(exist_ok=True)
    sync_directory(path.parent)


def cut(path: Path, length: int) -> None:
    """Cut a file back to `length` bytes.

    Raises:
        OSError: it could not be done.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        truncate(descriptor, length)
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make names in a directory survive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)


def write(descriptor: int, data: bytes | memoryview) -> int:
    """`os.write`."""
    return os.write(descriptor, data)


def fsync(descriptor: int) -> None:
    """`os.fsync`."""
    os.fsync(descriptor)


def truncate(descriptor: int, length: int) -> None:
    """`os.ftruncate`."""
    os.ftruncate(descriptor, length)


def replace(source: Path, target: Path) -> None:
    """`os.replace`."""
    source.replace(target)


def unlink(path: Path) -> None:
    """`os.unlink`."""
    path.unlink()
