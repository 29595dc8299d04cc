"""`peerwatch rejects requeue`: appends corrected lines to a log."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Final

from peerwatch.durable import fsync
from peerwatch.errors import BadEvent, RunError, UsageError
from peerwatch.network.events import CANONICAL, FieldNames, begin_of_line, parse_event, parse_object
from peerwatch.readable import shown

LOOKS: Final = 20
LOOK_SECONDS: Final = 0.05
"""How often, and at which interval in seconds, to check whether the log's incomplete last line has been finished."""
CHUNK: Final = 1 << 16


def append_events(content: bytes, name: str, stream: Path, names: FieldNames = CANONICAL) -> int:
    """Append the lines of `content`, which come from the file `name`, to the log; return their number.

    `names` are the keys under which the log has an event's fields.

    If the log ends within a line, another writer may be about to finish it, so this waits for a short time. Nothing is
    ever appended to an incomplete line.

    Raises:
        UsageError: a line is not an event, the log cannot be opened, or it ends within a line; nothing has been
            appended.
        RunError: the log could not be written, or another writer began a line at the same moment.
    """
    events = _events(content, name, names)
    with opened_log(stream) as descriptor:
        append_lines(events, descriptor, shown(stream))
    return len(events)


@contextmanager
def opened_log(stream: Path) -> Iterator[int]:
    """A descriptor of the log, to append to and to read from.

    Raises:
        UsageError: the log cannot be opened.
        RunError: it cannot be written or read.
    """
    try:
        descriptor = os.open(stream, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"cannot append to {shown(stream)}: {error.strerror}") from None
    try:
        yield descriptor
    except OSError as error:
        raise RunError(f"cannot append to {shown(stream)}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def append_lines(lines: Sequence[bytes], descriptor: int, name: str) -> int:
    """Append lines, given without line feeds, to an opened log; return the first one's place.

    They are on the disk then.

    Raises:
        UsageError: it ends within a line; nothing has been appended.
        RunError: only a part could be written, or another writer began a line at the same moment.
        OSError: it could not be written.
    """
    begin = _append(descriptor, b"".join(line + b"\n" for line in lines), name)
    fsync(descriptor)
    return begin


def _events(content: bytes, name: str, names: FieldNames) -> Sequence[bytes]:
    """Check the lines and return those to append.

    Raises:
        UsageError: a line is not an event.
    """
    events = []
    for number, line in enumerate(content.split(b"\n"), 1):
        own = line[begin_of_line(line) :].removesuffix(b"\r")
        if own.strip():
            try:
                parse_event(own, names)
            except BadEvent as error:
                raise UsageError(f"{name}:{number}: {error}; nothing has been appended") from None
            events.append(own)
    return events


def _append(descriptor: int, lines: bytes, name: str) -> int:
    last = _last_line(descriptor)
    for _ in range(LOOKS):
        if not _is_begun(last):
            break
        sleep(LOOK_SECONDS)
        last = _last_line(descriptor)
    if _is_begun(last):
        raise UsageError(
            f"{name} ends within a line, which its writer has yet to finish; try again, or end the line with a line"
            " feed if nobody writes it any more; nothing has been appended"
        )
    data = b"\n" * bool(last) + lines
    if os.write(descriptor, data) < len(data):
        raise RunError(
            f"{name} took only a part of the lines: the disk is full; free some space and check the end of the file"
        )
    begin = os.lseek(descriptor, 0, os.SEEK_CUR) - len(data)
    if not last and begin > 0 and os.pread(descriptor, 1, begin - 1) != b"\n":
        raise RunError(
            f"{name} got the lines at byte {begin:,}, where its writer had begun a line at the same moment; check the"
            " log there"
        )
    return begin + bool(last)


def _last_line(descriptor: int) -> bytes:
    """Return the bytes after the last line feed."""
    end = os.fstat(descriptor).st_size
    parts: list[bytes] = []
    while end > 0:
        begin = max(0, end - CHUNK)
        _, feed, last = os.pread(descriptor, end - begin, begin).rpartition(b"\n")
        parts.append(last)
        if feed:
            break
        end = begin
    return b"".join(reversed(parts))


def _is_begun(line: bytes) -> bool:
    """Whether a last line is incomplete. Blank text is not, nor is valid JSON that only lacks its line feed."""
    own = line[begin_of_line(line) :].strip()
    if not own:
        return False
    try:
        parse_object(own)
    except BadEvent:
        return True
    return False
