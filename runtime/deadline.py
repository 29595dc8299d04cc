"""The end of a process that cannot come to its end."""

import os
import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, NoReturn, Self

from peerwatch.progress import Progress

EXIT_STOPPED: Final = 1
WORDS_SECONDS: Final = 0.5
"""How long last words may take: whoever holds the terminal may be stuck."""


class Deadline:
    """Ends the process if it takes too long to come to its end, wherever it is stuck.

    A thread may be in a write that no cancellation reaches, or the event loop may not come round: so a thread of its
    own waits. Leaving the context calls it off.
    """

    def __init__(self, console: Progress) -> None:
        self._console = console
        self._left = threading.Event()
        self._begun = False

    def begin(self, seconds: float, text: str) -> None:
        """Leave the process so many seconds; after them it says `text` and ends with exit code 1."""
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._wait, args=(seconds, text), daemon=True).start()

    def end_now(self, code: int, text: str) -> NoReturn:
        """End the process, as safe as a kill."""
        words = threading.Thread(target=self._console.last_words, args=(text,), daemon=True)
        with suppress(RuntimeError):  # no room for a thread
            words.start()
            words.join(WORDS_SECONDS)
        os._exit(code)

    def _wait(self, seconds: float, text: str) -> None:
        if not self._left.wait(seconds):
            self.end_now(EXIT_STOPPED, text)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
