"""Feeding corrected lines back."""

import os
from pathlib import Path

from peerwatch.network.errors import BadEvent, RunError, UsageError
from peerwatch.network.events import parse_event
from peerwatch.runtime.names import shown


def append_events(content: bytes, name: str, stream: Path) -> int:
    """Append the lines of `content`, found in the file `name`, to the log; returns how many there are.

    Raises:
        UsageError: a line is not an event, or the log cannot be opened; nothing has been appended.
        RunError: the log could not be written.
    """
    lines = [line.removesuffix(b"\r") for line in content.split(b"\n")]
    events = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    for number, line in events:
        try:
            parse_event(line)
        except BadEvent as error:
            raise UsageError(f"{name}:{number}: {error}; nothing has been appended") from None
    try:
        descriptor = os.open(stream, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"cannot append to {shown(stream)}: {error.strerror}") from None
    try:
        size = os.fstat(descriptor).st_size
        unfinished = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        data = b"\n" * unfinished + b"".join(line + b"\n" for _, line in events)
        if os.write(descriptor, data) < len(data):
            raise RunError(
                f"{shown(stream)} took only a part of the lines: the disk is full; free it and look at its end"
            )
    except OSError as error:
        raise RunError(f"cannot append to {shown(stream)}: {error.strerror}") from None
    finally:
        os.close(descriptor)
    return len(events)
