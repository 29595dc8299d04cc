"""Selects an event by number, by line, by time, or by user and time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from peerwatch.errors import BadEvent, UsageError
from peerwatch.files.generation import holds
from peerwatch.files.position import position_of
from peerwatch.network.decoder import line_feeds
from peerwatch.network.events import Kind, parse_timestamp
from peerwatch.readable import readable
from peerwatch.replay.replay import Part, Target
from peerwatch.runtime.decision_log import moment
from peerwatch.storage.checkpoints import Facts

NEAREST = 3
"""The most nearby purchases that an error lists."""
LONGEST_SEQ: Final = 20
"""The most digits of a sequence number. Longer numbers are taken as timestamps."""


class BySeq:
    """Selects event number `seq`. With `end` the event after the last one may be selected, too."""

    def __init__(self, seq: int, *, end: bool = False) -> None:
        self._seq = seq
        self._end = end

    def suits(self, facts: Facts) -> bool:
        """Whether a checkpoint was taken before the event."""
        return facts.progress.events < self._seq

    def place(self, part: Part) -> int | None:
        """Return the event's index in the part, None if it is not there."""
        place = self._seq - part.seq
        return place if place < len(part.events) else None

    def missed(self, events: int) -> UsageError | None:
        """Return the error: the logs are too short. None if the state at their end was asked for."""
        if self._end and self._seq == events + 1:
            return None
        return UsageError(f"there is no event {self._seq - self._end:,}: the logs end with event {events:,}")


class ByLine:
    """Selects the event in line `line` of the stream log's file `file`."""

    def __init__(self, line: int, file: str) -> None:
        self._line = line
        self._file = file
        self._last = 0

    def suits(self, facts: Facts) -> bool:
        """Whether a checkpoint is in the batch log, or before the line in the same file."""
        position = position_of(facts.position)
        return not facts.judged or (position.line <= self._line and holds(Path(self._file), position))

    def place(self, part: Part) -> int | None:
        """Return the event's index in the part, None if the line is not there."""
        if not part.judged or part.file != self._file:
            return None
        block = part.block
        self._last = block.line + line_feeds(block.content) - block.content.endswith(b"\n")
        if self._line < block.line or self._line > self._last:
            return None
        found = np.flatnonzero(part.events.line == self._line)
        if len(found):
            return int(found[0])
        for rejected in part.rejected:
            if rejected.line == self._line:
                raise UsageError(f"{self._file}:{self._line} was rejected, not judged: {rejected.reason}")
        raise UsageError(f"{self._file}:{self._line} is blank; name the line of a purchase")

    def missed(self, _: int) -> UsageError:
        """Return the error: the file is too short."""
        return UsageError(f"{self._file} has no line {self._line:,}: it has {self._last:,}")


class ByTime:
    """Selects the first event later than `time` (microseconds). The state before it is the state at that time."""

    def __init__(self, time: int) -> None:
        self._time = time

    def suits(self, _: Facts) -> bool:
        """Return False: a checkpoint does not record the times of its events."""
        return False

    def place(self, part: Part) -> int | None:
        """Return the event's index in the part, None if it is not there."""
        later = np.flatnonzero(part.events.timestamp > self._time)
        return int(later[0]) if len(later) else None

    def missed(self, _: int) -> None:
        """Return None: if no event is later, the state at that time is the state at the end of the logs."""


class AtEnd:
    """Selects no event: the state is that at the end of the logs."""

    def suits(self, _: Facts) -> bool:
        """Return True: every checkpoint is before the end."""
        return True

    def place(self, _: Part) -> None:
        """Return None: the event is in no part."""

    def missed(self, _: int) -> None:
        """Return None: the end of the logs was asked for."""


def selector_of(at: str | None) -> Target:
    """Select the event before which the state is that after event number `at`, at the time `at`, or at the end.

    Raises:
        UsageError: `at` is not a timestamp.
    """
    if at is None:
        return AtEnd()
    is_seq = at.isascii() and at.isdigit() and len(at) < LONGEST_SEQ
    return BySeq(int(at) + 1, end=True) if is_seq else ByTime(time_of(at))


class ByUserAndTime:
    """Collects the purchases of one user at one time, as sequence numbers and lines."""

    def __init__(self, user: str, time: int) -> None:
        self._user = user
        self._time = time
        self._found: list[tuple[int, int, str, int]] = []

    def look(self, part: Part, user: int) -> None:
        """Collect the purchases of the dense `user` in a part."""
        events = part.events
        for place in np.flatnonzero((events.user == user) & (events.kind == Kind.PURCHASE)).tolist():
            distance = abs(int(events.timestamp[place]) - self._time)
            self._found.append((distance, part.seq + place, part.file, int(events.line[place])))

    def seq(self) -> int:
        """The sequence number of the one purchase found.

        Raises:
            UsageError: there is none, or more than one.
        """
        exact = [found for found in self._found if found[0] == 0]
        if len(exact) == 1:
            return exact[0][1]
        when = moment(self._time)
        if exact:
            raise UsageError(
                f"user {readable(self._user)} bought {len(exact)} times at {when}; name one: {_listed(exact)}"
            )
        if not self._found:
            raise UsageError(f"user {readable(self._user)} has no purchase that was judged")
        nearest = sorted(sorted(self._found)[:NEAREST], key=lambda found: found[1])
        raise UsageError(f"user {readable(self._user)} bought nothing at {when}; the nearest are {_listed(nearest)}")


def _listed(found: Sequence[tuple[int, int, str, int]]) -> str:
    return ", ".join(f"--seq {seq} ({file}:{line})" for _, seq, file, line in found)


def time_of(text: str) -> int:
    """Parse a timestamp, written as in the logs, to microseconds.

    Raises:
        UsageError: the text is not a timestamp.
    """
    try:
        return parse_timestamp({"timestamp": msgspec.Raw(msgspec.json.encode(text))})
    except (BadEvent, UnicodeEncodeError) as error:
        raise UsageError(str(error)) from None


def id_of(text: str) -> bytes:
    """Return a user's id as the bytes in the logs.

    Raises:
        UsageError: the text cannot be an id.
    """
    try:
        user = text.encode()
    except UnicodeEncodeError:
        raise UsageError("the user's id is not UTF-8") from None
    if not user:
        raise UsageError("the user's id is empty")
    return user
