"""Analysts' labels as a run reads them, and the event before which each was read."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from peerwatch.errors import RunError
from peerwatch.judging.labels import Label
from peerwatch.storage.feedback import FEEDBACK, read_feedback
from peerwatch.storage.journal import Journal, JournalEntry

HEARD: Final = "feedback"


class LabelFeed:
    """The labels in a state directory; how far they have been read is counted in bytes."""

    def __init__(self, directory: Path, journal: Journal, warn: Callable[[str], None]) -> None:
        self._path = directory / FEEDBACK
        self._journal = journal
        self._warn = warn
        self._size = 0
        self.look()

    def look(self) -> None:
        """See whether there are more labels."""
        try:
            self._size = self._path.stat().st_size
        except OSError:
            self._size = 0

    def since(self, heard: int) -> int | None:
        """The event before which the labels after `heard` bytes were read, None if that is not written down."""
        entry = self._journal.next(HEARD, heard)
        return entry.seq if entry is not None else None

    def has_more(self, heard: int) -> bool:
        """Whether there were more labels when last looked."""
        return self._size > heard

    def hear(self, seq: int, heard: int) -> tuple[list[Label], int]:
        """The labels after `heard` bytes, and where they end; the journal notes that they were read before event `seq`.

        Raises:
            RunError: the labels cannot be read, or some that were heard before are gone.
            SinkError: it could not be written down.
        """
        entry = self._journal.next(HEARD, heard)
        try:
            labels, through = read_feedback(self._path, heard, self._warn, entry.value if entry is not None else None)
        except OSError as error:
            raise RunError(f"cannot read the labels in {self._path}: {error.strerror}") from None
        if entry is not None:
            if through != entry.value:
                raise RunError(
                    f"labels that were read before event {entry.seq:,} are not in {self._path} any more; bring them"
                    " back, or begin anew with --reset"
                )
            return labels, through
        if through == heard:
            self._size = heard  # a line that is still being written
        else:
            self._journal.add(JournalEntry(seq, HEARD, through))
        return labels, through
