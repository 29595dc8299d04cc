"""`peerwatch radius`: what a friendship or a user is a part of at a moment, and the friendships that matter most.

Networks, windows and verdicts at the moment are compared with those that there would be without the friendship, or
without all friendships of the user. Nothing is run again: only users near enough to be concerned are looked at, by the
kernels that judge.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from anyio.to_thread import run_sync

from peerwatch.amounts import Amounts
from peerwatch.errors import UsageError
from peerwatch.judging.judge import Mask
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.kernels import Int32s, Int64s
from peerwatch.network.bridges import PLACES, PROGRESS, USER, without_each
from peerwatch.network.events import Kind
from peerwatch.network.friendships import DEGREE, STRETCH, start_of
from peerwatch.network.networks import PARTITION_ONLY
from peerwatch.network.reach import batches, hops_to, reach_of
from peerwatch.network.statistics import Statistics, decimal, shown_k
from peerwatch.network.windows_at_once import LatestFirst, held_by
from peerwatch.readable import readable
from peerwatch.replay.event_selectors import id_of, selector_of
from peerwatch.replay.explain import Names
from peerwatch.replay.replay import Opened, Past, open_replay, past
from peerwatch.runtime.judges_from_settings import check_sigma
from peerwatch.settings.model import Layer
from peerwatch.studies.radius_table import Bridge, BridgesRecord, ConcernedUser, RadiusRecord

AT_ONCE: Final = 1 << 20
"""The most window purchases that are selected at once."""
DEEPER: Final = 2
"""So many times the purchases of a window are held, to find those that come in for others."""
Edge: TypeAlias = tuple[int, int]
"""A friendship of two dense users: the smaller number first, or the one whose friend the other is if it is directed."""


async def radius_of(
    layers: Sequence[Layer],
    *,
    friendship: tuple[str, str] | None = None,
    user: str | None = None,
    at: str | None = None,
) -> RadiusRecord:
    """Find what a friendship or a user takes part in, after event number `at` or at that time; at the end without it.

    Raises:
        UsageError: there is no such friendship or user then, `at` is neither, or the detector is not sigma.
    """
    names = friendship if friendship is not None else (user or "",)
    opened, then = await moment_of(layers, at, [id_of(name) for name in names])
    found = RadiusState(opened, then)
    dense = then.state.decoder.named.tolist()
    unknown = [name for name, one in zip(names, dense, strict=True) if one in then.unseen]
    if unknown:
        raise UsageError(
            f"user {readable(unknown[0])} does not exist as of event {then.seq - 1:,}: no event has named it yet"
        )
    if friendship is None:
        return await run_sync(found.of_user, dense[0])
    if dense[1] not in then.state.graph.friends(dense[0]).tolist():
        raise UsageError(
            f"user {readable(friendship[1])} is not a friend of user {readable(friendship[0])} as of event"
            f" {then.seq - 1:,}"
        )
    return await run_sync(found.of_friendship, dense[0], dense[1])


async def bridges_of(layers: Sequence[Layer], *, most: int, at: str | None = None) -> BridgesRecord:
    """Find the friendships without which the most verdicts would be others, after event number `at` or at that time.

    Raises:
        UsageError: `at` is neither, or the detector is not sigma.
    """
    opened, then = await moment_of(layers, at)
    return await run_sync(RadiusState(opened, then).bridges, most)


async def moment_of(layers: Sequence[Layer], at: str | None, named: Sequence[bytes] = ()) -> tuple[Opened, Past]:
    """Read the logs up to the moment `at`, or to their end; the `named` users are known to the decoder.

    Raises:
        UsageError: `at` is neither an event's number nor a time, or the detector is not sigma.
    """
    target = selector_of(at)
    async with AsyncExitStack() as stack:
        opened = await open_replay(layers, target.suits, stack)
        check_sigma(opened.settings, "radius")
        return opened, await past(opened, target, named)


class _Standing(NamedTuple):
    """What the window of a user says.

    `limit` is the highest amount (millionths) that is not flagged, None where nothing is; `verdict` is that on the
    user's latest purchase, None without one.
    """

    window: Int32s
    limit: str | None
    verdict: str | None


class RadiusState:
    """The state at a moment, and what it would be without some friendships."""

    def __init__(self, opened: Opened, then: Past) -> None:
        self._D, self._T, self._k = opened.D, opened.T, opened.settings.detector.exact_k()
        self._then, self._name = then, Names(then)
        self._graph = then.state.graph.copy(costs=PARTITION_ONLY)
        self._purchases = LatestFirst.of(then.history)
        self._latest = self._purchases.latest()
        self._judge = SigmaJudge(Sigma(self._k))
        self._limits: dict[bytes, str | None] = {}
        """The limits of windows, by their places: many users have the same."""

    def of_friendship(self, a: int, b: int) -> RadiusRecord:
        """What the friendship of two dense users takes part in.

        Networks are walked only of those who would be farther from one end without it, as far as they come: whoever
        comes to the farther end as soon by another way loses nobody.
        """
        graph, D = self._graph, self._D
        self._change(Kind.UNFRIEND, [(a, b)])
        ends = [hops_to(graph, end, D) for end in (a, b)]
        self._change(Kind.BEFRIEND, [(a, b)])
        near, farther = np.zeros(graph.users, np.bool_), np.zeros(graph.users, np.bool_)
        for this, other in (ends,) if graph.directed else (ends, ends[::-1]):
            near |= this < D
            farther |= (this < D) & (this + 1 < other)
        found = np.flatnonzero(farther).astype(np.int32)
        names = self._name[a], self._name[b]
        return self._record(found, [(a, b)], near=int(np.count_nonzero(near)), friendship=names)

    def of_user(self, user: int) -> RadiusRecord:
        """What a dense user takes part in, besides the own network."""
        near = np.flatnonzero(hops_to(self._graph, user, self._D) <= self._D).astype(np.int32)
        edges = [(user, friend) for friend in self._graph.friends(user).tolist()]
        if self._graph.directed:
            edges += [(other, user) for other in self._befriended_by(user)]
        return self._record(near[near != user], edges, near=len(near) - 1, user=self._name[user])

    def bridges(self, most: int) -> BridgesRecord:
        """The `most` friendships without which the most verdicts would be others, then the most windows."""
        windows, verdicts = self.changes()
        key, found = self._then.key, []
        ranked = sorted(windows, key=lambda edge: (-verdicts[edge], -windows[edge], self._ends(edge)))
        for edge in ranked[:most]:
            a, b = edge if self._graph.directed else sorted(edge, key=key)
            record = self.of_friendship(a, b)
            found.append(Bridge((self._name[a], self._name[b]), record.networks, record.windows, record.verdicts))
        friendships = self._graph.friendships
        return BridgesRecord(self._then.seq - 1, self._D, self._T, shown_k(self._k), friendships, found)

    def changes(self) -> tuple[Counter[Edge], Counter[Edge]]:
        """For each friendship, how many windows and how many verdicts would be others without it; only if any would.

        A friendship changes a window only if it is on every path to one of its buyers: then it is on the path by which
        breadth-first search comes to the buyer, and is the only way there from the hop before.
        """
        windows, verdicts = Counter[Edge](), Counter[Edge]()
        graph = self._graph
        everyone = np.flatnonzero(graph.columns()[0]).astype(np.int32)
        marks, progress = np.zeros(PLACES * graph.users, np.int64), np.zeros(PROGRESS, np.int64)
        for users in batches(graph, everyone, AT_ONCE // (DEEPER * self._T)):
            self._count(users, marks, progress, windows, verdicts)
        return windows, verdicts

    def _count(
        self, users: Int32s, marks: Int64s, progress: Int64s, windows: Counter[Edge], verdicts: Counter[Edge]
    ) -> None:
        """Count the windows and verdicts of some users that would be others without each friendship."""
        graph, T, purchases = self._graph, self._T, self._purchases
        reach = reach_of(graph, users)
        candidates = purchases.by(reach.reached)
        held = held_by(purchases, candidates, reach, np.arange(len(users)), len(users), DEEPER * T)
        was_flagged = self._flags(users, *held.joined(T))
        longest = min(T, len(candidates))
        room = max(1, AT_ONCE // T)
        owner, ends, offsets = np.empty(room, np.int64), np.empty((2, room), np.int32), np.zeros(room + 1, np.int64)
        places, scratch = np.empty(room * longest, np.int32), np.empty((2, graph.users + 1), np.int32)
        progress[USER] = 0
        while progress[USER] < len(users):
            found = without_each(
                users, graph.D, longest, held.places.shape[1], held.size, held.places.ravel(), candidates,
                purchases.buyer, graph.stretch, graph.incoming, graph.pool, marks, scratch[0], scratch[1], progress,
                owner, ends[0], ends[1], offsets, places,
            )  # fmt: skip
            flags = self._flags(users[owner[:found]], offsets[: found + 1], places[: offsets[found]])
            edges = ends[:, :found].T if graph.directed else np.sort(ends[:, :found], axis=0).T
            changed = flags != was_flagged[owner[:found]]
            for one, other, another in zip(*edges.T.tolist(), changed.tolist(), strict=True):
                windows[one, other] += 1
                verdicts[one, other] += another

    def _record(
        self,
        concerned: Int32s,
        edges: Sequence[Edge],
        *,
        near: int,
        friendship: tuple[str, str] | None = None,
        user: str | None = None,
    ) -> RadiusRecord:
        users: list[ConcernedUser] = []
        for some in batches(self._graph, concerned, AT_ONCE // self._T):
            users += self._compared(some, edges)
        users.sort(key=lambda one: (one.verdict == one.verdict_without, not one.purchases_lost, order_of(one.user)))
        windows = sum(1 for one in users if one.purchases_lost)
        verdicts = sum(1 for one in users if one.verdict != one.verdict_without)
        return RadiusRecord(
            self._then.seq - 1, self._D, self._T, shown_k(self._k), friendship, user, near, len(users), windows,
            verdicts, users,
        )  # fmt: skip

    def _compared(self, users: Int32s, edges: Sequence[Edge]) -> list[ConcernedUser]:
        """Those of some users who would have a smaller network without some friendships."""
        q, purchases = len(users), self._purchases
        everyone, now = np.arange(q), reach_of(self._graph, users)
        sizes, candidates = now.sizes(q), purchases.by(now.reached)
        ends, places = held_by(purchases, candidates, now, everyone, q, self._T).joined(self._T)
        standing = self._standing(users, ends, places, everyone)
        self._change(Kind.UNFRIEND, edges)
        then = reach_of(self._graph, users)
        self._change(Kind.BEFRIEND, edges)
        offsets, lost = now.without(then).members(q)
        lost = self._in_order(lost, np.repeat(everyone, np.diff(offsets)))
        owner = np.repeat(everyone, np.diff(ends))
        wanted = np.unique(owner[now.holds(purchases.buyer[places], owner)])
        held = held_by(purchases, candidates, then, wanted, q, self._T)
        without = self._standing(users, *held.joined(self._T), wanted)
        return [
            self._concerned(
                int(users[place]), int(sizes[place]), lost[offsets[place] : offsets[place + 1]], standing[place],
                without.get(place, standing[place]),
            )
            for place in np.flatnonzero(np.diff(offsets)).tolist()
        ]  # fmt: skip

    def _concerned(self, user: int, size: int, lost: Int32s, now: _Standing, without: _Standing) -> ConcernedUser:
        purchases, latest, name = self._purchases, int(self._latest[user]), self._name
        gone: list[int] = []
        come: list[int] = []
        if now is not without:
            before, after = ({*purchases.seq[each.window].tolist()} for each in (now, without))
            gone, come = sorted(before - after), sorted(after - before)
        return ConcernedUser(
            name[user], size, [name[one] for one in lost.tolist()], gone, come, now.limit, without.limit,
            int(purchases.seq[latest]) if latest >= 0 else None,
            decimal(purchases.amount.exact(latest)) if latest >= 0 else None, now.verdict, without.verdict,
        )  # fmt: skip

    def _in_order(self, members: Int32s, owner: Int64s) -> Int32s:
        """Members of networks in the order of their owners, and of each in that of the members' ids."""
        distinct, place = np.unique(members, return_inverse=True)
        keys = [*map(self._then.key, distinct.tolist())]
        rank = np.empty(len(distinct), np.int64)
        rank[sorted(range(len(keys)), key=keys.__getitem__)] = np.arange(len(keys))
        return members[np.lexsort((rank[place], owner))]

    def _standing(self, users: Int32s, offsets: Int64s, places: Int32s, which: Int64s) -> dict[int, _Standing]:
        """What the windows of the users with these indices say."""
        flags, ends = self._flags(users, offsets, places).tolist(), offsets.tolist()
        bought = (self._latest[users] >= 0).tolist()
        found = {}
        for place in which.tolist():
            window = places[ends[place] : ends[place + 1]]
            verdict = ("flagged" if flags[place] else "normal") if bought[place] else None
            found[place] = _Standing(window, self._limit(window), verdict)
        return found

    def _limit(self, window: Int32s) -> str | None:
        key = window.tobytes()
        if key not in self._limits:
            statistics = Statistics.of(self._purchases.amount[window].tolist())
            self._limits[key] = decimal(statistics.highest_normal(self._k)) if statistics.n > 1 else None
        return self._limits[key]

    def _flags(self, users: Int32s, offsets: Int64s, places: Int32s) -> Mask:
        """Which users' latest purchases would be flagged by their windows; none of a user without purchases."""
        purchases, latest = self._purchases, self._latest[users]
        if not len(purchases.seq):
            return np.zeros(len(users), np.bool_)
        return self._judge.flags(purchases.windows(offsets, places), purchases.amount[latest]) & (latest >= 0)

    def _change(self, kind: Kind, edges: Sequence[Edge]) -> None:
        ends = np.array(edges, np.int32).reshape(-1, 2)
        nothing = np.zeros(len(ends), np.int64)
        self._graph.walk(
            np.full(len(ends), kind, np.int8), ends[:, 0].copy(), ends[:, 1].copy(), nothing, Amounts(nothing), 0, 0, 1
        )

    def _ends(self, edge: Edge) -> list[tuple[int, bytes]]:
        """What friendships are sorted by."""
        ends = [self._then.key(user) for user in edge]
        return ends if self._graph.directed else sorted(ends)

    def _befriended_by(self, user: int) -> list[int]:
        """Who has a user as a friend."""
        begin, incoming = start_of(user, self._graph.incoming), self._graph.incoming
        others: list[int] = self._graph.pool[begin : begin + incoming[STRETCH * user + DEGREE]].tolist()
        return others


def order_of(user: str) -> tuple[int, bytes]:
    """The sort key of a user's id: numeric ids sort as numbers."""
    name = user.encode()
    return len(name), name
