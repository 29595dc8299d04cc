"""The networks of buyers, as the friend graph answers them."""

from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np

from peerwatch.kernels import Int8s, Int32s, Int64s
from peerwatch.network.windows import Windows

COMPARED: Final = 4
"""How many expected costs a query has."""
PARTITION_ONLY: Final = (0, 1 << 20, 1 << 20, 0)
"""Planner costs that make every network be walked in full."""


class Plan(IntEnum):
    """How a window is selected; the planner chooses the cheapest way for each query."""

    PARTITION = 1
    """The network is walked, and the shards look at each member's latest purchases."""
    SCAN = 2
    """The network is walked, and the latest purchases of all users are scanned for buyers in it."""
    MEMBERSHIP = 3
    """The last hop is not walked; recent buyers are tested for a friend within D - 1 hops."""


class Networks(NamedTuple):
    """The networks of q buyers: their members, or their windows if a scan has found them.

    If `plan[i]` is PARTITION, `members[offsets[i]:offsets[i + 1]]` are the i-th's members (dense users, nearest hop
    first); otherwise its window has been found already: the i-th of `found`, which is empty for the others. `size[i]`
    is the number of members, -1 if the last hop was not walked. `expected[i]` are the costs (ns) that the planner
    compared: of walking the last hop, of testing membership instead, of scanning for members, of the partition; -1 for
    what was not considered. `offsets` has shape [q + 1], `expected` [q, 4]; q may be smaller than what was asked for,
    see `FriendGraph.walk`.
    """

    offsets: Int64s
    members: Int32s
    plan: Int8s
    size: Int64s
    expected: Int64s
    found: Windows

    def part(self, begin: int, end: int) -> "Networks":
        """The networks from `begin` on, before `end`; none of them may have been found by a scan."""
        taken = slice(int(self.offsets[begin]), int(self.offsets[end]))
        q, offsets = end - begin, self.offsets[begin : end + 1] - self.offsets[begin]
        rows = slice(begin, end)
        return Networks(
            offsets, self.members[taken], self.plan[rows], self.size[rows], self.expected[rows], Windows.empty(q)
        )

    def unfound(self) -> "Networks":
        """The same networks without the windows that have been found."""
        return self._replace(found=Windows.empty(len(self.plan)))


def alone(user: Int32s) -> Networks:
    """Networks in which each user is alone."""
    q = len(user)
    plan, expected = np.full(q, Plan.PARTITION, np.int8), np.full((q, COMPARED), -1, np.int64)
    return Networks(np.arange(q + 1, dtype=np.int64), user, plan, np.ones(q, np.int64), expected, Windows.empty(q))
