"""Checks that the machine has enough memory, threads and open files, and explains errors that mean it has not."""

import errno
import mmap
import os
from contextlib import ExitStack
from typing import Final

from peerwatch.errors import RunError

FILES: Final = 24
"""Open files that every command can do with."""
BYTES: Final = 288 << 20
THREAD_BYTES: Final = 8 << 20
"""Bytes of address space that the libraries need at least, and bytes for each thread they start, one for each core."""
SHORT: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Error numbers of system calls that fail for lack of memory or open files."""


def check_room() -> None:
    """Check that a command can start: a library that runs out of memory at its start ends the process.

    Raises:
        RunError: there is too little memory, or there are too few open files.
    """
    try:
        with ExitStack() as stack:
            for _ in range(FILES):
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            size = BYTES + THREAD_BYTES * (os.cpu_count() or 1)
            mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
    except OSError as error:
        raise RunError(shortage(error) or str(error)) from None


def shortage(error: BaseException) -> str | None:
    """Explain an error caused by too little memory, too few threads or open files; None for any other error."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "there is not enough memory; allow more (ulimit -v)"
    if isinstance(error, OSError) and error.errno in SHORT:
        return "too many files are open; allow more (ulimit -n)"
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "no more threads can be started; allow more threads or memory (ulimit -u, -v)"
    return None
