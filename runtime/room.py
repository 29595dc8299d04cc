"""Whether the machine has room for what peerwatch needs, and what is said where it has not."""

import errno
import mmap
import os
from contextlib import ExitStack
from typing import Final

from peerwatch.errors import RunError

FILES: Final = 24
"""Open files that any command gets along with."""
BYTES: Final = 288 << 20
THREAD_BYTES: Final = 8 << 20
"""Address space that libraries take at least, and each of the threads that they start, one a core."""
SHORT: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""What system calls fail with if there is too little of something."""


def check_room() -> None:
    """See that there is room to begin with: libraries that run out of it at the start end the process as they like.

    Raises:
        RunError: there is none.
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
    """What is said of an error that comes from too little room; None of any other."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "there is not enough memory; allow more (ulimit -v)"
    if isinstance(error, OSError) and error.errno in SHORT:
        return "too many files are open; allow more (ulimit -n)"
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "no more threads can be started; allow more threads or memory (ulimit -u, -v)"
    return None
