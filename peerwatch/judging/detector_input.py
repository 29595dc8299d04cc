"""The input of detectors: windows and context as floats, in time order."""

from typing import Final, NamedTuple

import numpy as np

from peerwatch.detectors.base import Context, Floats
from peerwatch.judging.judge import Case
from peerwatch.kernels import Int64s
from peerwatch.network.order_in_time import sort_in_time
from peerwatch.network.windows import Windows

SECOND: Final = 10**6
"""Microseconds in a second."""
HOUR: Final = 3600 * SECOND
DAY: Final = 24 * HOUR


class DetectorInput(NamedTuple):
    """The arguments of `Detector.judge`, for q purchases.

    Window i is `window[offsets[i]:offsets[i + 1]]`; amounts are in units of the log.
    """

    offsets: Int64s
    window: Floats
    amount: Floats
    context: Context | None

    def part(self, begin: int, end: int) -> "DetectorInput":
        """Return the input for the purchases from `begin` up to, not including, `end`."""
        offsets, window = _cut(self.offsets, self.window, begin, end)
        context = self.context
        if context is not None:
            own_offsets, own = _cut(context.own_offsets, context.own, begin, end)
            since, hour, members = context.since[begin:end], context.hour[begin:end], context.members[begin:end]
            context = Context(own_offsets, own, since, hour, members)
        return DetectorInput(offsets, window, self.amount[begin:end], context)


def _cut(offsets: Int64s, column: Floats, begin: int, end: int) -> tuple[Int64s, Floats]:
    return offsets[begin : end + 1] - offsets[begin], column[offsets[begin] : offsets[end]]


def detector_input(case: Case) -> DetectorInput:
    """Convert a case to a detector's input, with a context if the case holds the buyers' own purchases.

    Sorts the windows of the case by time, in place.
    """
    _sort(case.windows)
    context = None
    if case.own is not None:
        own = case.own
        _sort(own)
        bought = np.flatnonzero(np.diff(own.offsets))
        since = np.full(len(case.amount), np.nan)
        newest = own.timestamp[own.offsets[bought + 1] - 1]
        since[bought] = np.maximum(case.timestamp[bought] - newest, 0) / SECOND  # a late line may be older than these
        context = Context(own.offsets, own.amount.units(), since, (case.timestamp % DAY) / HOUR, case.members)
    return DetectorInput(case.windows.offsets, case.windows.amount.units(), case.amount.units(), context)


def _sort(windows: Windows) -> None:
    sort_in_time(windows.offsets, windows.seq, windows.timestamp, windows.amount.held)
