"""A detector that never comes to an end: what a worker is doing when it is killed."""

from pathlib import Path
from threading import Event
from typing import Any, ClassVar

import numpy as np

from peerwatch.detectors.base import Floats, Rule, Summary, Verdicts


class Stubborn(Rule):
    """Writes a file when it is asked, and never answers; with `talks` it prints and answers."""

    name: ClassVar[str] = "stubborn"
    threshold = 0.0

    def __init__(self, *, note: str = "", talks: bool = False) -> None:
        self.note = note
        self.talks = talks

    def summarise(self, window: Floats) -> Summary:
        """Nothing."""
        return (window[:, 0],)

    def score_amounts(self, summary: Summary, amount: Floats) -> Floats:  # noqa: ARG002
        """Nothing."""
        return np.zeros(len(amount))

    def look_back(self, X: Any) -> Verdicts:
        """Say that it has begun, and wait for ever."""
        if self.talks:
            print('{"type": "answered", "result": "a lie"}', flush=True)
            return super().look_back(X)
        Path(self.note).touch()
        Event().wait()
        raise AssertionError
