"""`peerwatch radius`: what a friendship or a user is a part of at a moment, and the friendships that matter most.

Networks, windows and verdicts at the moment are compared with those that there would be without the friendship, or
without all friendships of the user. Nothing is run again: only users near enough to be concerned are looked at, by the
kernels that judge.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from anyio.to_thread import run_sync

from peerwatch.amounts import Amounts
from peerwatch.errors import UsageError
from peerwatch.judging.judge import Mask
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.kernels import Int8s, Int32s, Int64s
from peerwatch.network.bridges import PLACES, hanging, mark_lost
from peerwatch.network.events import Kind
from peerwatch.network.friendships import DEGREE, STRETCH, start_of
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.networks import PARTITION_ONLY, Networks
from peerwatch.network.reach import hops_to, networks_of
from peerwatch.network.statistics import decimal, shown_k
from peerwatch.network.windows import Windows, shortened
from peerwatch.readable import readable
from peerwatch.replay.event_selectors import id_of, selector_of
from peerwatch.replay.explain import Names
from peerwatch.replay.replay import Opened, Past, open_replay, past
from peerwatch.runtime.judges_from_settings import check_sigma
from peerwatch.settings.model import Layer
from peerwatch.studies.radius_table import Bridge, BridgesRecord, ConcernedUser, RadiusRecord

MOST_MEMBERS: Final = 1 << 22
"""The number of members, over several networks, after which a walk returns."""
AT_ONCE: Final = 1 << 20
"""The most window purchases that are selected at once."""
USERS_AT_ONCE: Final = 1 << 10
"""The most users whose friendships are left out, one after the other, at once."""
NOW: Final = 2**62
"""A time behind all others."""
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


class _Latest(NamedTuple):
    """The purchases that may be in a window, and the latest of each user.

    `seq` and `amount` have shape [users]; `seq` is -1 for a user without purchases. `seqs` ascend and have their
    `buyers`.
    """

    seq: Int64s
    amount: Amounts
    seqs: Int64s
    buyers: Int32s

    @classmethod
    def of(cls, history: PurchaseHistory) -> "_Latest":
        """Those in a history."""
        held, seqs, _, amounts = history.columns()
        bought = np.flatnonzero(held)
        rows = np.cumsum(held)[bought] - 1
        seq, amount = np.full(len(held), -1, np.int64), np.zeros(len(held), np.int64)
        seq[bought], amount[bought] = seqs[rows], amounts.held[rows]
        order = np.argsort(seqs)
        buyers = np.repeat(np.arange(len(held), dtype=np.int32), held)
        return cls(seq, Amounts(amount, amounts.large), seqs[order], buyers[order])

    def buyers_of(self, seq: Int64s) -> Int32s:
        """Who bought."""
        return self.buyers[np.searchsorted(self.seqs, seq)]


class _Standing(NamedTuple):
    """The networks of some users, the events in their windows, and what these say.

    `limits` are the highest amounts (millionths) that are not flagged, None where nothing is; `flagged` says whether
    the latest purchase of each user would be.
    """

    networks: list[Int32s]
    windows: list[Int64s]
    limits: list[int | None]
    flagged: list[bool]


class RadiusState:
    """The state at a moment, and what it would be without some friendships."""

    def __init__(self, opened: Opened, then: Past) -> None:
        self._D, self._T, self._k = opened.D, opened.T, opened.settings.detector.exact_k()
        self._then, self._name = then, Names(then)
        self._graph = then.state.graph.copy(costs=PARTITION_ONLY)
        self._latest = _Latest.of(then.history)
        self._judge = SigmaJudge(Sigma(self._k))
        self._stamps = 0
        self._left: Mask = np.zeros(self._graph.users, np.bool_)
        """Members of a network, while it is compared; otherwise nobody."""
        self._seen: Int64s = np.zeros(PLACES * self._graph.users, np.int64)

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
        everyone = np.flatnonzero(self._graph.columns()[0]).astype(np.int32)
        for begin in range(0, len(everyone), USERS_AT_ONCE):
            self._count(everyone[begin : begin + USERS_AT_ONCE], windows, verdicts)
        return windows, verdicts

    def _count(self, users: Int32s, windows: Counter[Edge], verdicts: Counter[Edge]) -> None:
        """Count the windows and verdicts of some users that would be others without each friendship."""
        buyers: list[Int32s] = []
        flagged: list[Mask] = []
        for networks in self._networks_of(users):
            now = self._windows(networks)
            answered = users[sum(map(len, flagged)) :][: len(networks.plan)]
            buyers += [self._latest.buyers_of(now.seq[now.window(place)]) for place in range(len(answered))]
            flagged.append(self._flags(answered, now))
        sizes = np.cumsum([0, *map(len, buyers)])
        owner, near, far = self._hanging(users, sizes, np.concatenate([np.zeros(0, np.int32), *buyers]))
        kind = np.tile(np.array([Kind.UNFRIEND, Kind.PURCHASE, Kind.BEFRIEND], np.int8), len(owner))
        a, b = np.repeat(near, 3), np.repeat(far, 3)
        a[1::3] = users[owner]
        was_flagged, done = np.concatenate([np.zeros(0, np.bool_), *flagged])[owner], 0
        for networks in self._walked(kind, a, b):
            pairs = slice(done, done + len(networks.plan))
            done = pairs.stop
            lost = np.zeros(len(networks.plan), np.int8)
            self._stamps += 1
            mark_lost(
                networks.offsets, networks.members, owner[pairs], sizes, np.concatenate(buyers), self._stamps,
                self._seen, lost,
            )  # fmt: skip
            self._stamps += len(lost)
            flags = self._flags(users[owner[pairs]], self._windows(networks))
            for place in np.flatnonzero(lost).tolist():
                one, other = int(near[done - len(lost) + place]), int(far[done - len(lost) + place])
                edge = (one, other) if self._graph.directed or one < other else (other, one)
                windows[edge] += 1
                verdicts[edge] += bool(flags[place] != was_flagged[done - len(lost) + place])

    def _hanging(self, users: Int32s, sizes: Int64s, buyers: Int32s) -> tuple[Int64s, Int32s, Int32s]:
        """The friendships on which a buyer in a user's window may depend: the user's place, and both ends of each."""
        room = len(buyers) * self._D
        owner, ends = np.empty(room, np.int64), np.empty((2, room), np.int32)
        scratch = np.empty(self._graph.users + 1, np.int32)
        graph = self._graph
        found = hanging(
            users, sizes, buyers, self._D, self._stamps, graph.stretch, graph.pool, self._seen, scratch, owner, ends[0],
            ends[1],
        )  # fmt: skip
        self._stamps += len(users)
        return owner[:found], ends[0][:found], ends[1][:found]

    def _record(
        self,
        concerned: Int32s,
        edges: Sequence[Edge],
        *,
        near: int,
        friendship: tuple[str, str] | None = None,
        user: str | None = None,
    ) -> RadiusRecord:
        now = self._standing(concerned)
        self._change(Kind.UNFRIEND, edges)
        without = self._standing(concerned)
        self._change(Kind.BEFRIEND, edges)
        users = [
            self._concerned(one, place, now, without)
            for place, one in enumerate(concerned.tolist())
            if len(now.networks[place]) != len(without.networks[place])
        ]
        users.sort(key=lambda one: (one.verdict == one.verdict_without, not one.purchases_lost, order_of(one.user)))
        windows = sum(1 for one in users if one.purchases_lost)
        verdicts = sum(1 for one in users if one.verdict != one.verdict_without)
        return RadiusRecord(
            self._then.seq - 1, self._D, self._T, shown_k(self._k), friendship, user, near, len(users), windows,
            verdicts, users,
        )  # fmt: skip

    def _concerned(self, user: int, place: int, now: _Standing, without: _Standing) -> ConcernedUser:
        latest = int(self._latest.seq[user])
        verdict = verdict_without = None
        if latest >= 0:
            verdict, verdict_without = ("flagged" if one.flagged[place] else "normal" for one in (now, without))
        members, left = now.networks[place], without.networks[place]
        self._left[left] = True
        lost = members[~self._left[members]].tolist()
        self._left[left] = False
        window, window_without = {*now.windows[place].tolist()}, {*without.windows[place].tolist()}
        return ConcernedUser(
            self._name[user],
            len(now.networks[place]),
            [self._name[one] for one in sorted(lost, key=self._then.key)],
            sorted(window - window_without),
            sorted(window_without - window),
            _shown(now.limits[place]),
            _shown(without.limits[place]),
            latest if latest >= 0 else None,
            decimal(self._latest.amount.exact(user)) if latest >= 0 else None,
            verdict,
            verdict_without,
        )

    def _standing(self, users: Int32s) -> _Standing:
        found = _Standing([], [], [], [])
        for networks in self._networks_of(users):
            windows, q = self._windows(networks), len(networks.plan)
            answered = users[len(found.networks) :][:q]
            found.flagged.extend(self._flags(answered, windows).tolist())
            for place in range(q):
                members, window = networks.offsets[place : place + 2], windows.window(place)
                found.networks.append(networks.members[members[0] : members[1]])
                found.windows.append(windows.seq[window].copy())
                statistics = self._judge.statistics(windows, place)
                found.limits.append(statistics.highest_normal(self._k) if statistics.n > 1 else None)
        return found

    def _flags(self, users: Int32s, windows: Windows) -> Mask:
        """Which users' latest purchases would be flagged by their windows; none of a user without purchases."""
        return self._judge.flags(windows, self._latest.amount[users]) & (self._latest.seq[users] >= 0)

    def _windows(self, networks: Networks) -> Windows:
        """The windows of purchases that are made now."""
        now = np.full(len(networks.plan), self._then.seq)
        return shortened(self._then.history.windows(now, networks), self._T)

    def _networks_of(self, users: Int32s) -> Iterator[Networks]:
        return networks_of(self._graph, users, max(1, AT_ONCE // self._T))

    def _change(self, kind: Kind, edges: Sequence[Edge]) -> None:
        ends = np.array(edges, np.int32).reshape(-1, 2)
        for _ in self._walked(np.full(len(ends), kind, np.int8), ends[:, 0].copy(), ends[:, 1].copy()):
            pass

    def _walked(self, kind: Int8s, a: Int32s, b: Int32s) -> Iterator[Networks]:
        """Apply changes of friendship to the graph, and yield the networks of who buys in between, in order."""
        timestamp, amount, gone = np.full(len(kind), NOW), Amounts(np.zeros(len(kind), np.int64)), 0
        asked = int(np.count_nonzero(kind == Kind.PURCHASE))
        while gone < len(kind):
            done, networks = self._graph.walk(
                kind[gone:], a[gone:], b[gone:], timestamp[gone:], amount[gone:], 0, min(asked, AT_ONCE // self._T),
                MOST_MEMBERS,
            )  # fmt: skip
            gone += done
            asked -= len(networks.plan)
            if len(networks.plan):
                yield networks

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


def _shown(limit: int | None) -> str | None:
    return decimal(limit) if limit is not None else None
