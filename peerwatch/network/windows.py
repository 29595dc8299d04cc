"""Windows: the T latest purchases of each of some networks."""

from typing import NamedTuple

import numpy as np

from peerwatch.amounts import Amounts, united
from peerwatch.kernels import Int64s, kernel
from peerwatch.network.order_in_time import keep_latest


class Windows(NamedTuple):
    """The windows of q decisions: purchases `offsets[i]` to `offsets[i + 1]` are the i-th, in no particular order.

    `offsets` has shape [q + 1], the other columns one place a purchase.
    """

    offsets: Int64s
    seq: Int64s
    timestamp: Int64s
    amount: Amounts

    @classmethod
    def empty(cls, q: int) -> "Windows":
        """The windows of q decisions with nothing in them."""
        nothing = np.zeros(0, np.int64)
        return cls(np.zeros(q + 1, np.int64), nothing, nothing, Amounts(nothing))

    def window(self, i: int) -> slice:
        """The places of the i-th window in the columns."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def part(self, begin: int, end: int) -> "Windows":
        """The windows of the decisions from `begin` on, before `end`; the memory is shared."""
        taken = slice(int(self.offsets[begin]), int(self.offsets[end]))
        offsets = self.offsets[begin : end + 1] - self.offsets[begin]
        return Windows(offsets, self.seq[taken], self.timestamp[taken], self.amount[taken])


def merged(parts: list[Windows], T: int) -> Windows:
    """The windows of q decisions from the shards' windows of the same decisions: of each the T latest."""
    if len(parts) == 1:
        return parts[0]
    counts = sum(np.diff(part.offsets) for part in parts)
    gathered = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    columns = np.empty((3, int(gathered[-1])), np.int64)
    filled = gathered[:-1].copy()
    for part in parts:
        gather(part.offsets, filled, part.seq, part.timestamp, part.amount.held, columns[0], columns[1], columns[2])
    amount = Amounts(columns[2], united([part.amount.large for part in parts]))
    return shortened(Windows(gathered, columns[0], columns[1], amount), T)


def shortened(windows: Windows, T: int) -> Windows:
    """Of each window the T latest purchases, kept in the memory of the given windows, which are used up."""
    longest = int(np.diff(windows.offsets).max(initial=0))
    if longest <= T:
        return windows
    ends, scratch = np.zeros(len(windows.offsets), np.int64), np.empty(longest + 1, np.int64)
    merge(windows.offsets, T, windows.seq, windows.timestamp, windows.amount.held, scratch, ends)
    taken = ends[-1]
    return Windows(ends, windows.seq[:taken], windows.timestamp[:taken], windows.amount[:taken])


@kernel
def gather(
    offsets: Int64s, filled: Int64s, seq: Int64s, timestamp: Int64s, amount: Int64s,
    to_seq: Int64s, to_timestamp: Int64s, to_amount: Int64s,
) -> None:  # fmt: skip
    """Append each window to its place among the others' windows."""
    for q in range(len(filled)):
        for i in range(offsets[q], offsets[q + 1]):
            to = filled[q]
            to_seq[to], to_timestamp[to], to_amount[to] = seq[i], timestamp[i], amount[i]
            filled[q] = to + 1


@kernel
def merge(
    gathered: Int64s, T: int, seq: Int64s, timestamp: Int64s, amount: Int64s, scratch: Int64s, ends: Int64s
) -> None:  # fmt: skip
    """Keep the T latest purchases of each gathered window and close the gaps, in place."""
    for q in range(len(gathered) - 1):
        begin, end = gathered[q], gathered[q + 1]
        count = end - begin
        if count > T:
            keep_latest(T, count, seq[begin:end], timestamp[begin:end], amount[begin:end], scratch)
            count = T
        to = ends[q]
        for i in range(count):
            seq[to + i], timestamp[to + i], amount[to + i] = (
                seq[begin + i], timestamp[begin + i], amount[begin + i],
            )  # fmt: skip
        ends[q + 1] = to + count
