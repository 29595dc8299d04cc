"""What detectors are handed: windows and what else is known, in floats and in order of time."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from peerwatch.detectors.base import Context, Floats
from peerwatch.detectors.judge import Case
from peerwatch.network.kernels import Int64s
from peerwatch.network.latest import sort_in_time

UNIT: Final = 10**6
"""Millionths in what a detector counts in, and microseconds in a second."""
HOUR: Final = 3600 * UNIT
DAY: Final = 24 * HOUR


class Given(NamedTuple):
    """The arguments of `Detector.judge`."""

    offsets: Int64s
    window: Floats
    amount: Floats
    context: Context | None

    def part(self, begin: int, end: int) -> "Given":
        """What is given for the purchases from `begin` on, before `end`."""
        offsets, window = _cut(self.offsets, self.window, begin, end)
        context = self.context
        if context is not None:
            own_offsets, own = _cut(context.own_offsets, context.own, begin, end)
            since, hour, members = context.since[begin:end], context.hour[begin:end], context.members[begin:end]
            context = Context(own_offsets, own, since, hour, members)
        return Given(offsets, window, self.amount[begin:end], context)


def _cut(offsets: Int64s, column: Floats, begin: int, end: int) -> tuple[Int64s, Floats]:
    return offsets[begin : end + 1] - offsets[begin], column[offsets[begin] : offsets[end]]


def given(case: Case, large: Sequence[int]) -> Given:
    """What a detector is handed for a case, with a context if the buyers' own purchases are there.

    The windows are put in order of time, in place. Where a column holds -1 - i, the amount is `large[i]`.
    """
    sort_in_time(*case.windows)
    context = None
    if case.own is not None:
        own = case.own
        sort_in_time(*own)
        bought = np.flatnonzero(np.diff(own.offsets))
        since = np.full(len(case.amount), np.nan)
        newest = own.timestamp[own.offsets[bought + 1] - 1]
        since[bought] = np.maximum(case.timestamp[bought] - newest, 0) / UNIT  # a late line may be older than that
        context = Context(own.offsets, units(own.amount, large), since, (case.timestamp % DAY) / HOUR, case.members)
    return Given(case.windows.offsets, units(case.windows.amount, large), units(case.amount, large), context)


def units(held: Int64s, large: Sequence[int]) -> Floats:
    """Amounts in units of the log, as near as floats come; where -1 - i is held, it is `large[i]`."""
    amounts = held / UNIT
    for place in np.flatnonzero(held < 0).tolist():
        amounts[place] = large[-1 - int(held[place])] // UNIT  # too large for its fraction to matter
    return amounts
