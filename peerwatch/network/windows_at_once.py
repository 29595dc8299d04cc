"""The windows of many users at once: one pass over the purchases, the latest first, for all of them.

Where networks overlap this looks at a purchase once for 64 users, as the walk that finds the networks does at a
friendship.
"""

from typing import NamedTuple

import numpy as np

from peerwatch.amounts import Amounts
from peerwatch.kernels import Int32s, Int64s, kernel
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.reach import BITS, Reach, place_of
from peerwatch.network.windows import Windows


class LatestFirst(NamedTuple):
    """The purchases that may be in a window, the latest first by (timestamp, sequence number).

    `buyer` and the columns before it have a place for each purchase. User u's are at `places[starts[u]:starts[u + 1]]`,
    the oldest first; `starts` has shape [users + 1].
    """

    seq: Int64s
    timestamp: Int64s
    amount: Amounts
    buyer: Int32s
    starts: Int64s
    places: Int32s

    @classmethod
    def of(cls, history: PurchaseHistory) -> "LatestFirst":
        """Those in a history."""
        held, seq, timestamp, amount = history.columns()
        order = np.lexsort((seq, timestamp))[::-1]
        places = np.empty(len(seq), np.int32)
        places[order] = np.arange(len(seq), dtype=np.int32)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(held)])
        buyer = np.repeat(np.arange(len(held), dtype=np.int32), held)
        return cls(seq[order], timestamp[order], amount[order], buyer[order], starts, places)

    def latest(self) -> Int32s:
        """The place of each user's latest purchase, -1 of a user without. Shape [users]."""
        bought = np.flatnonzero(np.diff(self.starts))
        latest = np.full(len(self.starts) - 1, -1, np.int32)
        latest[bought] = self.places[self.starts[bought + 1] - 1]
        return latest

    def by(self, users: Int32s) -> Int32s:
        """The places of the purchases of some users, the latest first."""
        users = users[users < len(self.starts) - 1]
        begin, size = self.starts[users], self.starts[users + 1] - self.starts[users]
        rows = np.arange(int(size.sum())) + np.repeat(begin - (np.cumsum(size) - size), size)
        return np.sort(self.places[rows])

    def windows(self, offsets: Int64s, places: Int32s) -> Windows:
        """The windows whose purchases are at these places."""
        return Windows(offsets, self.seq[places], self.timestamp[places], self.amount[places])


class Held(NamedTuple):
    """For each of q users the latest purchases of the network: `places[i, :size[i]]`, the latest first."""

    size: Int64s
    places: Int32s

    def joined(self, T: int) -> tuple[Int64s, Int32s]:
        """At most T of each, one user's behind the other's; where each begins, shape [q + 1]."""
        size = np.minimum(self.size, T)
        taken = np.arange(self.places.shape[1]) < size[:, np.newaxis]
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(size)]), self.places[taken]


def held_by(purchases: LatestFirst, candidates: Int32s, reach: Reach, wanted: Int64s, q: int, T: int) -> Held:
    """The T latest purchases of each `wanted` network (their indices, ascending) of q, among the `candidates`.

    Candidates are places, the latest first.
    """
    most = min(T, len(candidates))
    size, places = np.zeros(q, np.int64), np.empty(q * most, np.int32)
    is_open = np.zeros(BITS * reach.words, np.bool_)
    is_open[wanted] = most > 0
    words = np.packbits(is_open, bitorder="little").view(np.int64)
    fill(candidates, purchases.buyer, reach.words, reach.seen, most, words, len(wanted), size, places)
    return Held(size, places.reshape(q, most))


@kernel
def fill(
    candidates: Int32s, buyer: Int32s, words: int, seen: Int64s, T: int, is_open: Int64s, left: int, size: Int64s,
    places: Int32s,
) -> None:  # fmt: skip
    """Append each purchase to the windows of all networks of its buyer that have a bit in `is_open`, until T are there.

    `left` is the number of these bits.
    """
    for i in range(len(candidates)):
        if left == 0:
            return
        at = words * buyer[candidates[i]]
        for word in range(words):
            bits = seen[at + word] & is_open[word]
            while bits != 0:
                q = BITS * word + place_of(bits)
                places[q * T + size[q]] = candidates[i]
                size[q] += 1
                if size[q] == T:
                    is_open[word] ^= bits & -bits
                    left -= 1
                bits &= bits - 1
