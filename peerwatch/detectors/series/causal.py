"""Rules that go through a series value by value."""

from abc import abstractmethod
from typing import Final

import numpy as np

from peerwatch.detectors.base import Floats, Rule, Summary
from peerwatch.errors import BadInput
from peerwatch.kernels import Int64s

WINDOW: Final = 1000
"""The latest values by which a rule without a memory judges the next value of a series."""
AT_ONCE: Final = 1000
"""The number of windows that are made at once. Bounds memory to some tens of MiB."""


class Causal(Rule):
    """A rule whose `along` scores each value of a series by those before it; NaN where they are too few."""


class Sequential(Causal):
    """A rule with a memory of fixed size: what a value costs does not grow with the series."""

    @property
    @abstractmethod
    def width(self) -> int:
        """The number of floats in a memory. A new memory is all zeros."""

    def summarise(self, window: Floats) -> Summary:
        """The memory after each of m windows. Shape [m, width]."""
        memory = np.zeros((len(window), self.width))
        self._go(window, memory)
        return (memory,)

    def score_amounts(self, summary: Summary, amount: Floats) -> Floats:
        """How unusual the next amount is for each memory, or for one memory of all.

        Raises:
            BadInput: the summary is not one of these memories.
        """
        (memory,) = summary
        if memory.shape[1:] != (self.width,):
            raise BadInput(f"a memory of {self.name} has {self.width} numbers, got {list(memory.shape[1:])}")
        places = np.arange(len(amount)) if len(memory) == len(amount) else np.zeros(len(amount), np.int64)
        scores = np.zeros(len(amount))
        self._next(np.ascontiguousarray(memory).reshape(-1), places, np.ascontiguousarray(amount), scores)
        return scores

    def along(self, series: Floats) -> Floats:
        """How unusual each value is after those before it. Shape [n]."""
        scores = self._go(series[None, :], np.zeros((1, self.width)))
        scores[: self.least] = np.nan
        return scores

    @abstractmethod
    def _go(self, values: Floats, memory: Floats) -> Floats:
        """Go through m series of the same length, shape [m, n]; scores each value, shape [m * n]."""

    @abstractmethod
    def _next(self, memory: Floats, places: Int64s, amount: Floats, scores: Floats) -> None:
        """Score each amount after the memory at its place. The memories lie in a row, and stay as they are."""


def by_latest(rule: Rule, series: Floats) -> Floats:
    """Score each value of a series by the latest WINDOW before it. Shape [n]; NaN where they are too few."""
    scores = np.full(len(series), np.nan)
    with np.errstate(over="ignore", invalid="ignore"):  # what floats cannot square has no score
        for place in range(rule.least, min(WINDOW, len(series))):
            scores[place : place + 1] = rule.score_amounts(
                rule.summarise(series[None, :place]), series[place : place + 1]
            )
        if len(series) > WINDOW:
            windows = np.lib.stride_tricks.sliding_window_view(series, WINDOW)[:-1]
            for begin in range(0, len(windows), AT_ONCE):
                some = np.ascontiguousarray(windows[begin : begin + AT_ONCE])
                places = slice(WINDOW + begin, WINDOW + begin + len(some))
                scores[places] = rule.score_amounts(rule.summarise(some), series[places])
    return scores
