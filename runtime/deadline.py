"""Ends a process that does not finish in time."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, NoReturn, Self

from peerwatch.progress import Progress

EXIT_STOPPED: Final = 1
WORDS_SECONDS: Final = 0.5
"""The most seconds to spend on the last message: the terminal may be blocked."""


class Deadline:
    """Ends the process if it does not finish in time, wherever it hangs.

    A thread may be stuck in a write that cannot be cancelled, or the event loop may be blocked, so a thread of its own
    keeps the time. Leaving the context cancels the deadline.
    """

    def __init__(self, console: Progress) -> None:
        self._console = console
        self._left = threading.Event()
        self._begun = False

    def begin(self, seconds: float, text: Callable[[], str]) -> None:
        """Start the deadline. After `seconds` the process prints what `text` says then, and ends with exit code 1."""
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._wait, args=(seconds, text), daemon=True).start()

    def end_now(self, code: int, text: str) -> NoReturn:
        """Print `text` and end the process at once with exit code `code`. Files are left as a kill would leave them."""
        words = threading.Thread(target=self._console.last_words, args=(text,), daemon=True)
        with suppress(RuntimeError):  # no room for a thread
            words.start()
            words.join(WORDS_SECONDS)
        os._exit(code)

    def _wait(self, seconds: float, text: Callable[[], str]) -> None:
        if not self._left.wait(seconds):
            try:
                said = text()
            except Exception as error:  # noqa: BLE001 (whatever it is, the process ends)
                said = f"peerwatch: {type(error).__name__}: {error}"
            self.end_now(EXIT_STOPPED, said)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._left.set()
