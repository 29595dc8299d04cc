"""The protocol by which long-running work reports progress. Only `peerwatch.cli` writes to a terminal."""

from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """Reports progress and warnings to the user."""

    has_bar: bool
    """Whether a progress bar is shown, which should be moved often."""

    def progress(self, total: int | None) -> AbstractContextManager[None]:
        """Return a context to do the work in; `total` is its size in bytes or steps, None if unknown."""

    def moved(self, done: int, counts: str) -> None:
        """Report that `done` bytes or steps are done; `counts` is a text shown beside them."""

    def warning(self, text: str) -> None:
        """Show a warning, unless the user wants no messages."""

    def urgent(self, text: str) -> None:
        """Show a warning even if the user wants no other messages."""

    def interrupted(self) -> None:
        """Report that a signal has stopped the reading."""

    def last_words(self, text: str) -> None:
        """Show why the process ends at once."""
