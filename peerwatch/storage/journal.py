"""The journal in the state directory: what happened to a run that its logs do not show, and before which event.

That a model was ready, or an analyst's labels came, is up to the clock. Written down with the event before which it
happened, it happens there again in every restart and replay.
"""

from bisect import bisect_right, insort
from collections import defaultdict
from pathlib import Path
from typing import Final

import msgspec

from peerwatch import durable
from peerwatch.errors import SinkError, UsageError

FILE: Final = "journal.jsonl"


class JournalEntry(msgspec.Struct, frozen=True):
    """From event `seq` on, `what` is `value`: the version of the champion's model, say."""

    seq: int
    what: str
    value: int


class Journal:
    """The entries so far, and the file for new ones."""

    def __init__(self, directory: Path) -> None:
        """The journal in a state directory; one that is not there is empty.

        Raises:
            UsageError: it cannot be read, or is damaged.
        """
        self._path = directory / FILE
        entries, self._whole = _read(self._path)
        self._known: defaultdict[str, list[JournalEntry]] = defaultdict(list)
        for entry in entries:
            insort(self._known[entry.what], entry, key=_value)

    def next(self, what: str, value: int) -> JournalEntry | None:
        """The entry for `what` with the next value, None if there is none."""
        known = self._known[what]
        place = bisect_right(known, value, key=_value)
        return known[place] if place < len(known) else None

    def since(self, what: str, value: int) -> int | None:
        """The event from which on `what` has a value, None if that is not written down."""
        entry = self.next(what, value - 1)
        return entry.seq if entry is not None and entry.value == value else None

    def last(self, what: str) -> int:
        """The largest value of `what`, 0 if there is none."""
        known = self._known[what]
        return known[-1].value if known else 0

    def add(self, entry: JournalEntry) -> None:
        """Append an entry, durably.

        Raises:
            SinkError: it could not be written.
        """
        try:
            if self._whole is not None:  # a crash has left a part of a line
                durable.cut(self._path, self._whole)
                self._whole = None
            durable.append(self._path, msgspec.json.encode(entry) + b"\n")
        except OSError as error:
            raise SinkError(
                f"cannot write the journal {self._path}: {error.strerror}; fix that and run again"
            ) from None
        insort(self._known[entry.what], entry, key=_value)


def _value(entry: JournalEntry) -> int:
    return entry.value


def _read(path: Path) -> tuple[list[JournalEntry], int | None]:
    """The entries, and where they end if a part of a line follows."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], None
    except OSError as error:
        raise UsageError(f"cannot read the journal {path}: {error.strerror}") from None
    whole = content.rfind(b"\n") + 1
    entries = []
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            entries.append(msgspec.json.decode(line, type=JournalEntry))
        except msgspec.MsgspecError as error:
            raise UsageError(
                f"{path}:{number}: the journal is damaged ({error}); bring it back, or begin anew with --reset"
            ) from None
    return entries, whole if whole < len(content) else None
