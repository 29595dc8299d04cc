"""Rows with times, as a regular series: gaps are found and filled, disorder is refused."""

from typing import Any, Final, NamedTuple

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.errors import BadInput
from peerwatch.kernels import Int64s

SLACK: Final = 0.25
"""How far the distance of two rows may be from a whole number of steps, as a share of a step: months differ."""


class TimeGrid(NamedTuple):
    """The places of n rows in a regular series, shape [n], its step (microseconds), and the `last` row's time."""

    places: Int64s
    step: int
    last: int

    @classmethod
    def of(cls, times: Int64s) -> "TimeGrid":
        """The grid of rows at `times` (microseconds), whose step is the commonest distance of two rows.

        Raises:
            BadInput: the rows are not in order of time, not at regular times, or more are missing than there are.
        """
        if len(times) < 2:
            return cls(np.zeros(len(times), np.int64), 0, int(times[-1]) if len(times) else 0)
        distances = np.diff(times)
        if (distances <= 0).any():
            row = int(np.argmax(distances <= 0)) + 2
            raise BadInput(f"row {row} is not later than the row before it; sort the rows by their time")
        lengths, counts = np.unique(distances, return_counts=True)
        step = int(lengths[np.argmax(counts)])
        places = np.concatenate([[0], np.cumsum(_steps(distances, step, first=2))])
        if places[-1] + 1 > 2 * len(times):
            raise BadInput(
                f"of {places[-1] + 1:,} rows at regular times {places[-1] + 1 - len(times):,} are missing; a season"
                " cannot be found in so few"
            )
        return cls(places, step, int(times[-1]))

    @property
    def length(self) -> int:
        """The rows of the regular series."""
        return int(self.places[-1]) + 1 if len(self.places) else 0

    def filled(self, columns: Floats, period: int) -> Floats:
        """The regular series of the rows' columns, shape [length, columns].

        A missing row is the mean of those one period before and after it, or what lies between its neighbours.
        """
        if self.length == len(columns):
            return columns
        series = np.full((self.length, columns.shape[1]), np.nan)
        series[self.places] = columns
        missing = np.setdiff1d(np.arange(self.length), self.places)
        around = np.stack([_at(series, missing - period), _at(series, missing + period)])
        known = ~np.isnan(around)
        between = np.column_stack([np.interp(missing, self.places, column) for column in columns.T])
        mean = np.where(known, around, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        series[missing] = np.where(known.any(axis=0), mean, between)
        return series

    def after(self, times: Int64s) -> Int64s:
        """How many steps after the last row each of some later rows lies, shape [n].

        Raises:
            BadInput: they are not later, not in order, or not at regular times.
        """
        return np.cumsum(_steps(np.diff(times, prepend=self.last), self.step, first=1))


def times_of(X: Any) -> Int64s | None:
    """The times of a table's rows, in microseconds: those of an index of times, as pandas has it; None without one."""
    index = getattr(X, "index", None)
    if index is None or callable(index):
        return None
    times = np.asarray(getattr(index, "values", index))
    if times.dtype.kind != "M":
        return None
    if np.isnat(times).any():
        raise BadInput(f"row {int(np.argmax(np.isnat(times))) + 1} has no time")
    return times.astype("datetime64[us]").astype(np.int64)


def _steps(distances: Int64s, step: int, *, first: int) -> Int64s:
    """The distances of rows in whole steps; the first of them ends at row number `first`."""
    if not step:
        raise BadInput("a single row has no distance to the next one; fit it on more")
    steps = np.rint(distances / step).astype(np.int64)
    wrong = (steps < 1) | (np.abs(distances / step - steps) > SLACK)
    if wrong.any():
        place = int(np.argmax(wrong))
        raise BadInput(
            f"row {place + first} comes {distances[place] / step:.4g} steps of {step / 1e6:g} s after the row before"
            " it; expected regular times"
        )
    return steps


def _at(series: Floats, places: Int64s) -> Floats:
    """Rows of the series, NaN outside it."""
    inside = (places >= 0) & (places < len(series))
    found = np.full((len(places), series.shape[1]), np.nan)
    found[inside] = series[places[inside]]
    return found
