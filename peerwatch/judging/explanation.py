"""Explains a verdict by brute force, and finds what would change it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from peerwatch.amounts import Amounts
from peerwatch.detectors.features import FEATURES, features
from peerwatch.judging.detector_input import detector_input
from peerwatch.judging.judge import Case
from peerwatch.kernels import Int64s
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseColumns
from peerwatch.network.neighbourhood import Member, path_to
from peerwatch.network.networks import PARTITION_ONLY
from peerwatch.network.statistics import Statistics
from peerwatch.network.windows import Windows

MOST_MEMBERS: Final = 1 << 22
"""The number of members, over several networks, after which a walk returns."""


@dataclass(frozen=True)
class Bought:
    """A purchase in a history: sequence number, dense buyer, timestamp (microseconds) and amount (millionths)."""

    seq: int
    user: int
    timestamp: int
    amount: int


@dataclass(frozen=True)
class Without:
    """The window statistics without one friendship (two dense users) or without one purchase (its sequence number)."""

    friendship: tuple[int, int] | None
    purchase: int | None
    statistics: Statistics


@dataclass(frozen=True)
class Grounds:
    """What a verdict on `amount` (millionths) of dense `user` is based on.

    `window` holds the T latest purchases of the network, newest first.
    """

    user: int
    amount: int
    members: dict[int, Member]
    window: list[Bought]
    statistics: Statistics


@dataclass(frozen=True)
class Explanation:
    """Sigma's verdict, its `grounds`, and what would change it.

    `flips_at` is the nearest amount with the opposite verdict, None if there is none. `flipped_by` are the friendships
    and purchases of which one less would reverse the verdict.
    """

    grounds: Grounds
    k: Fraction
    flagged: bool
    flips_at: int | None
    flipped_by: list[Without]

    @property
    def d(self) -> int:
        """The difference n * amount - S, in millionths."""
        return self.grounds.statistics.n * self.grounds.amount - self.grounds.statistics.S


def grounds_of(members: dict[int, Member], held: PurchaseColumns, user: int, amount: int, T: int) -> Grounds:
    """Find what a purchase is judged by, given its buyer's network `members`.

    Uses none of the selection kernels: sorting the network's purchases gives the window.
    """
    window = latest_of(held, members, T)
    return Grounds(user, amount, members, window, Statistics.of([bought.amount for bought in window]))


def explain(graph: FriendGraph, held: PurchaseColumns, grounds: Grounds, T: int, k: Fraction) -> Explanation:
    """Judge a purchase by sigma, and find what would change the verdict.

    `held` must contain the T + 1 latest purchases of each user, or all if there are fewer.
    """
    purchases, statistics = _latest_first(held, grounds.members), grounds.statistics
    flagged = statistics.exceeded_by(grounds.amount, k)
    alternatives = [
        *_without_purchases(grounds.window, purchases.top(T + 1)),
        *_without_friendships(graph, grounds, purchases, T),
    ]
    flipped_by = [other for other in alternatives if other.statistics.exceeded_by(grounds.amount, k) != flagged]
    flips_at = flip_amount(statistics, flagged=flagged, k=k)
    return Explanation(grounds, k, flagged, flips_at, flipped_by)


def features_of(grounds: Grounds, timestamp: int, own: Sequence[Bought] | None) -> dict[str, float]:
    """The features of a purchase at `timestamp` (microseconds) that a learned detector gets, by name.

    `own` are the buyer's own latest purchases, newest first; None if the detector does not use them.
    """
    case = case_of(grounds, timestamp, own)
    return dict(zip(FEATURES, features(*detector_input(case))[0].tolist(), strict=True))


def case_of(grounds: Grounds, timestamp: int, own: Sequence[Bought] | None) -> Case:
    """The purchase as a judge gets it, without its numbers; `own` as for `features_of`."""
    return Case(
        _windows(grounds.window), np.zeros(1, np.int64), np.zeros(1, np.int64), Amounts.of([grounds.amount]),
        np.array([timestamp]), np.array([len(grounds.members)]), None if own is None else _windows(own),
    )  # fmt: skip


def _windows(bought: Sequence[Bought]) -> Windows:
    """Make `Windows` with one window."""
    seq, timestamp = (np.array([getattr(one, name) for one in bought], np.int64) for name in ("seq", "timestamp"))
    return Windows(np.array([0, len(bought)]), seq, timestamp, Amounts.of([one.amount for one in bought]))


def latest_of(held: PurchaseColumns, users: Collection[int], count: int) -> list[Bought]:
    """Return the `count` latest purchases by some users, newest first."""
    return _latest_first(held, users).top(count)


def flip_amount(statistics: Statistics, *, flagged: bool, k: Fraction) -> int | None:
    """Return the amount (millionths) nearest to the boundary with the opposite verdict, None if there is none."""
    if statistics.n < 2:
        return None
    highest = statistics.highest_normal(k)
    if not flagged:
        return highest + 1
    return highest if highest >= 0 else None


@dataclass(frozen=True)
class _Purchases:
    """A network's purchases, newest first. All columns have shape [n]."""

    seq: Int64s
    user: Int64s
    timestamp: Int64s
    amount: Amounts

    def top(self, count: int, lost: NDArray[np.bool_] | None = None) -> list[Bought]:
        """Return the `count` latest purchases, without those by `lost` users (a mask of shape [users])."""
        which = np.arange(min(count, len(self.seq))) if lost is None else np.flatnonzero(~lost[self.user])[:count]
        columns = (column[which].tolist() for column in (self.seq, self.user, self.timestamp, self.amount))
        return [Bought(seq, user, timestamp, amount) for seq, user, timestamp, amount in zip(*columns, strict=True)]


def _latest_first(held: PurchaseColumns, members: Collection[int]) -> _Purchases:
    member = np.zeros(len(held.held), np.bool_)
    inside = np.array([user for user in members if user < len(member)], np.int64)
    member[inside] = True
    user = np.repeat(np.arange(len(held.held)), held.held)
    rows = np.flatnonzero(member[user])
    rows = rows[np.lexsort((held.seq[rows], held.timestamp[rows]))[::-1]]
    return _Purchases(held.seq[rows], user[rows], held.timestamp[rows], held.amount[rows])


def _without_purchases(window: list[Bought], latest: list[Bought]) -> list[Without]:
    """The statistics without each purchase of the window. The next older purchase, if any, takes its place."""
    return [
        Without(None, gone.seq, Statistics.of([bought.amount for bought in latest if bought.seq != gone.seq]))
        for gone in window
    ]


def _without_friendships(graph: FriendGraph, grounds: Grounds, purchases: _Purchases, T: int) -> list[Without]:
    """The statistics without each friendship that can affect the window.

    A friendship affects the window only if its removal takes one of the window's buyers out of the network. Then it is
    on every path to that buyer, so it is also on the shortest path that is shown.
    """
    members = grounds.members
    buyers = dict.fromkeys(bought.user for bought in grounds.window)
    edges = list(
        dict.fromkeys(edge for buyer in buyers for path in (path_to(buyer, members),) for edge in pairwise(path))
    )
    found = []
    for edge, rest in zip(edges, _networks_without(graph, grounds.user, edges), strict=True):
        lost = np.ones(graph.users, np.bool_)
        lost[rest] = False
        if any(lost[buyer] for buyer in buyers):
            latest = purchases.top(T, lost)
            found.append(Without(edge, None, Statistics.of([bought.amount for bought in latest])))
    return found


def _networks_without(graph: FriendGraph, user: int, edges: list[tuple[int, int]]) -> list[NDArray[np.int32]]:
    """A user's network without each of some friendships: end the friendship, walk, and restore it."""
    graph = graph.copy(costs=PARTITION_ONLY)
    kind = np.tile(np.array([Kind.UNFRIEND, Kind.PURCHASE, Kind.BEFRIEND], np.int8), len(edges))
    a = np.array([(one, user, one) for one, _ in edges], np.int32).reshape(-1)
    b = np.array([(other, user, other) for _, other in edges], np.int32).reshape(-1)
    networks: list[NDArray[np.int32]] = []
    nothing, gone = np.zeros(len(kind), np.int64), 0
    while gone < len(kind):
        done, found = graph.walk(
            kind[gone:], a[gone:], b[gone:], nothing[gone:], Amounts(nothing[gone:]), 0, len(edges) - len(networks),
            MOST_MEMBERS,
        )  # fmt: skip
        gone += done
        networks.extend(found.members[begin:end] for begin, end in pairwise(found.offsets.tolist()))
    return networks
