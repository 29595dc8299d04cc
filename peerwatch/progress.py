"""What work reports to while it goes on; only the command line knows a terminal."""

from contextlib import AbstractContextManager
from typing import Protocol


class Progress(Protocol):
    """Shows a person how far work has come, and says what they should know."""

    has_bar: bool
    """Whether a bar moves: then it wants to be moved often."""

    def progress(self, total: int | None) -> AbstractContextManager[None]:
        """Around work of `total` bytes or steps, None if unknown."""

    def moved(self, done: int, counts: str) -> None:
        """So many bytes or steps are done; `counts` says what they held."""

    def warning(self, text: str) -> None:
        """Something that a person should know."""

    def urgent(self, text: str) -> None:
        """Something that a person has to know, quiet or not."""

    def interrupted(self) -> None:
        """A signal has ended the reading."""

    def last_words(self, text: str) -> None:
        """The process ends at once, and why."""
