"""Analysts' labels: written to `feedback.jsonl` in a run's state directory, and read from there.

A run may be working with the directory. Its lock is left alone: writers take turns by a lock on the file itself.
"""

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from peerwatch.durable import fsync, sync_directory, truncate, write
from peerwatch.errors import SinkError, UsageError
from peerwatch.judging.labels import Label
from peerwatch.readable import shown
from peerwatch.storage.checkpoints import events_in
from peerwatch.storage.status import Status

FEEDBACK: Final = "feedback.jsonl"
Number = Annotated[int, msgspec.Meta(ge=1, le=2**62)]


FORM: Final = '{"seq": N, "label": "anomaly"}, or "line" for "seq", or "normal"'


class FeedbackEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One line of feedback: exactly one of `seq` and `line` says which purchase."""

    seq: Number | None = None
    line: Number | None = None
    label: Literal["anomaly", "normal"]

    def as_label(self) -> Label:
        """The entry as a label."""
        return Label(self.seq, self.line, self.label == "anomaly")


def decode_entry(line: bytes) -> FeedbackEntry:
    """Read one line.

    Raises:
        ValueError: it is none; the text says why.
    """
    try:
        entry = msgspec.json.decode(line, type=FeedbackEntry)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"expected {FORM}: {str(error).replace('`', '')}") from None
    if (entry.seq is None) == (entry.line is None):
        raise ValueError('name the purchase either by "seq" or by "line"')
    return entry


def decode_entries(content: bytes, name: str) -> list[FeedbackEntry]:
    """Read the lines of `content`, found in the file `name`; blank ones are left out.

    Raises:
        UsageError: one of them is no label, or there is none.
    """
    entries = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            try:
                entries.append(decode_entry(line))
            except ValueError as error:
                raise UsageError(f"{name}:{number}: {error}; nothing has been added") from None
    if not entries:
        raise UsageError(f"{name} holds no labels")
    return entries


def append_feedback(directory: Path, entries: list[FeedbackEntry], judged: int | None = None) -> Path:
    """Append labels to those in a state directory, all or none; returns the file.

    `judged` is the number of the last event that has been judged, where the caller knows it better than the directory.

    Raises:
        UsageError: it is no state directory, nothing so new has been judged, or the file cannot be opened.
        SinkError: the file could not be written; nothing has been added.
    """
    judged = judged_in(directory) if judged is None else judged
    newest = max((entry.seq for entry in entries if entry.seq is not None), default=0)
    if newest > judged:
        raise UsageError(
            f"the state in {shown(directory)} has come to event {judged}, and there is a label of event {newest};"
            " nothing has been added"
        )
    path = directory / FEEDBACK
    data = b"".join(msgspec.json.encode(entry) + b"\n" for entry in entries)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UsageError(f"cannot write {shown(path)}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        _append(descriptor, data)
        sync_directory(directory)
    except OSError as error:
        raise SinkError(f"cannot write {shown(path)}: {error.strerror}; nothing has been added") from None
    finally:
        os.close(descriptor)
    return path


def _append(descriptor: int, data: bytes) -> None:
    """Append whole lines in one write; a torn line that a crash has left is ended first."""
    size = os.fstat(descriptor).st_size
    torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
    rest = memoryview(b"\n" * torn + data)
    try:
        while rest:  # a disk that is full takes a part first
            rest = rest[write(descriptor, rest) :]
        fsync(descriptor)
    except OSError:
        with suppress(OSError):
            truncate(descriptor, size)
        raise


def judged_in(directory: Path) -> int:
    """The number of the last event that the run on a state directory has judged, by its checkpoint or status.

    Raises:
        UsageError: there is no state.
    """
    if not directory.is_dir():
        why = "it is a file" if directory.exists() else "it does not exist"
        raise UsageError(f"no state directory {shown(directory)}: {why}")
    events = events_in(directory)
    found = [events] if events is not None else []
    with suppress(OSError, msgspec.MsgspecError):
        found.append(msgspec.json.decode((directory / "status.json").read_bytes(), type=Status).through)
    if not found:
        raise UsageError(f"no state directory {shown(directory)}: it has no checkpoint that can be read")
    return max(found)


def read_feedback(
    path: Path, offset: int, warn: Callable[[str], None], until: int | None = None
) -> tuple[list[Label], int]:
    """The labels after `offset` bytes, up to `until`, and the offset after the last; none if there is no file yet.

    A last line without its end is left for the next time. A damaged one is passed over with a warning.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read() if until is None else file.read(until - offset)
    except FileNotFoundError:
        return [], offset
    labels = []
    whole = content[: content.rfind(b"\n") + 1]
    for line in whole.split(b"\n")[:-1]:
        try:
            labels.append(decode_entry(line).as_label())
        except ValueError as error:
            warn(f"the label at byte {offset} of {shown(path)} is damaged ({error}); it is left out")
        offset += len(line) + 1
    return labels, offset
