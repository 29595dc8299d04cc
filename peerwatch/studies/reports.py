"""Reports that analysts ask for: large networks, spending over a period, all users at a moment, whom to notify."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from fractions import Fraction
from math import ceil
from typing import Any, Final

import numpy as np
from anyio.to_thread import run_sync

from peerwatch.amounts import Amounts
from peerwatch.errors import UsageError
from peerwatch.judging.engine import BATCH_CAP, MOST_PLACES, walked, windows_at_once
from peerwatch.kernels import Int32s, Int64s, grown
from peerwatch.network.decoder import Decoder
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph
from peerwatch.network.interner import ids_of
from peerwatch.network.networks import PARTITION_ONLY, Networks
from peerwatch.network.statistics import CENT, Statistics
from peerwatch.network.windows import shortened
from peerwatch.readable import readable, short
from peerwatch.replay.event_selectors import ByTime, selector_of, time_of
from peerwatch.replay.explain import explained
from peerwatch.replay.replay import Opened, Part, Past, Target, open_replay, parts, past
from peerwatch.settings.model import SIGMA, Layer
from peerwatch.studies.report_table import (
    COUNT,
    MONEY,
    PURCHASES,
    TEXT,
    TIME,
    USERS,
    ReportPurchase,
    ReportTable,
)

AFTER_ALL: Final = 1 << 62
"""A timestamp that is later than any other."""
HALF: Final = 31
"""Amounts are added up in two parts, the lower 31 bits and the others, so that neither sum overflows."""


async def networks(layers: Sequence[Layer], at: str | None) -> ReportTable:
    """All users' networks after event `at`, or as of the time `at`, or at the end of the logs; the largest first.

    Raises:
        UsageError: there is no such event or time, or the logs cannot be read.
        SourceError: a log could not be read any further.
    """
    opened, then = await _state_at(layers, at)
    return await run_sync(_networks, opened, then)


def _networks(opened: Opened, then: Past) -> ReportTable:
    graph, names = then.state.graph, _Names(then.state.decoder)
    users = names.in_order(then.existing())
    degree, _ = graph.columns()
    sizes = [int(size) for _, found in _walks(graph, users, BATCH_CAP) for size in found.size]
    order = sorted(range(len(users)), key=lambda i: -sizes[i])
    rows = ((names[users[i]], sizes[i], int(degree[users[i]])) for i in order)
    columns = {"user": TEXT, "members": COUNT, "friends": COUNT}
    title = f"{len(users):,} users with the members of their networks, within {opened.D} hops, as of event"
    return ReportTable(f"{title} {then.seq - 1:,}", columns, rows, len(users), 0)


async def users(layers: Sequence[Layer], at: str | None) -> ReportTable:
    """What is known of every user after event `at`, or as of the time `at`, or at the end of the logs.

    Mean, sd and threshold are those of the window of a purchase made now, None where it is empty; the threshold is for
    sigma only. `purchases` are the T latest, the newest first.

    Raises:
        UsageError: there is no such event or time, or the logs cannot be read.
        SourceError: a log could not be read any further.
    """
    opened, then = await _state_at(layers, at)
    return await run_sync(_users, opened, then)


def _users(opened: Opened, then: Past) -> ReportTable:
    existing = then.existing()
    k = opened.settings.detector.exact_k() if opened.settings.detector.name == SIGMA else None
    columns = {
        "user": TEXT, "friends": COUNT, "members": COUNT, "window_size": COUNT, "mean": MONEY,
        "sd": MONEY, "threshold": MONEY, "latest": TIME, "latest_amount": MONEY,
        "friend_ids": USERS, "purchases": PURCHASES,
    }  # fmt: skip
    most = max([0, *then.history.columns().amount.tolist()])
    title = f"{len(existing):,} users as of event {then.seq - 1:,}, with the window of a purchase made now"
    rows, largest = _user_rows(opened, then, k), most * (1 + ceil(k or 0))
    return ReportTable(f"{title} (D={opened.D} T={opened.T})", columns, rows, len(existing), largest)


def _user_rows(opened: Opened, then: Past, k: Fraction | None) -> Iterator[tuple[Any, ...]]:
    graph, names = then.state.graph, _Names(then.state.decoder)
    held = then.history.columns()
    ends = np.cumsum(held.held).tolist()
    counts = held.held.tolist()
    for some, found in _walks(graph, names.in_order(then.existing()), min(BATCH_CAP, windows_at_once(opened.T))):
        windows = shortened(then.history.windows(np.full(len(some), then.seq), found), opened.T)
        for i, user in enumerate(some.tolist()):
            window = Statistics.of(windows.amount[windows.window(i)].tolist())
            count = min(counts[user], opened.T) if user < len(counts) else 0
            last = slice(ends[user] - count, ends[user]) if count else slice(0)
            own_columns = (column[last].tolist() for column in (held.seq, held.timestamp, held.amount))
            own = [ReportPurchase(*row) for row in zip(*own_columns, strict=True)][::-1]
            friends = [names[friend] for friend in names.in_order(graph.friends(user).tolist())]
            yield (
                names[user], len(friends), int(found.size[i]), window.n,
                *((_micros(window.mean()), _micros(window.sd())) if window.n else (None, None)),
                _micros(window.threshold(k)) if window.n and k is not None else None,
                own[0].timestamp if own else None, own[0].amount if own else None, friends, own,
            )  # fmt: skip


async def spending(layers: Sequence[Layer], begin: str | None, end: str | None, *, by_network: bool) -> ReportTable:
    """What each user, or each user's network, has spent from `begin` on and before `end`; the most first.

    None stands for the beginning or the end of the logs. A purchase counts by its timestamp, wherever it stands in the
    logs. Networks are those before the first event at or after `end`. Whoever has not bought, or whose network has not,
    is left out.

    Raises:
        UsageError: `begin` or `end` is not a timestamp, the period is empty, or the logs cannot be read.
        SourceError: a log could not be read any further.
    """
    since = time_of(begin) if begin is not None else -AFTER_ALL
    until = time_of(end) if end is not None else AFTER_ALL
    if since >= until:
        raise UsageError(f"the period is empty: {end} is not later than {begin}")
    async with AsyncExitStack() as stack:
        opened = await open_replay(layers, lambda _: False, stack)
        spent = _Spending(opened, since, until, by_network=by_network)
        async with aclosing(parts(opened.logs, spent.decoder, 0)) as found:
            async for part in found:
                await run_sync(spent.add, part)
    period = "".join(f" {word} {time}" for word, time in (("from", begin), ("until", end)) if time is not None)
    return await run_sync(spent.report, period)


class _Spending:
    """Adds up purchases of a period, and keeps the friend graph as of its end."""

    def __init__(self, opened: Opened, since: int, until: int, *, by_network: bool) -> None:
        self._opened, self._since, self._until = opened, since, until
        self._graph = FriendGraph(opened.D, opened.T, directed=opened.settings.directed) if by_network else None
        self._end: Target | None = ByTime(until - 1)
        """Selects the first event after the period; None once that has been met."""
        self.decoder = Decoder()
        self._known = 0
        self._count: Int64s = np.zeros(0, np.int64)
        self._low: Int64s = np.zeros(0, np.int64)
        self._high: Int64s = np.zeros(0, np.int64)
        self._largest: Int64s = np.zeros(0, np.int64)
        self._large: dict[int, list[int]] = {}
        """The amounts that do not fit into 64 bits, by user."""

    def add(self, part: Part) -> None:
        """Add the purchases of a part, and its friendships up to the end of the period."""
        events, ids = part.events, len(self.decoder.interner)
        if self._graph is not None and self._end is not None:
            place = self._end.place(part)
            before = events[:place]
            self._graph.reserve(ids)
            for _ in walked(self._graph, before, part.seq, 0, judged=False):
                pass
            self._end = self._end if place is None else None
        self._count, self._low, self._high, self._largest = (
            grown(column, ids) for column in (self._count, self._low, self._high, self._largest)
        )
        inside = (events.timestamp >= self._since) & (events.timestamp < self._until)
        bought = events[inside & (events.kind == Kind.PURCHASE)]
        held = np.maximum(bought.amount.held, 0)
        np.add.at(self._count, bought.user, 1)
        np.add.at(self._low, bought.user, held & ((1 << HALF) - 1))
        np.add.at(self._high, bought.user, held >> HALF)
        np.maximum.at(self._largest, bought.user, held)
        for place in np.flatnonzero(bought.amount.held < 0).tolist():
            self._large.setdefault(int(bought.user[place]), []).append(bought.amount.exact(place))

    def report(self, period: str) -> ReportTable:
        """The table; `period` says when it is."""
        names = _Names(self.decoder)
        if self._graph is None:
            found, who = self._by_user(names), "users bought something"
            columns = {
                "user": TEXT,
                "purchases": COUNT,
                "spent": MONEY,
                "largest": MONEY,
            }
        else:
            found, who = self._by_network(names, self._graph), f"networks within {self._opened.D} hops bought something"
            columns = {
                "user": TEXT,
                "members": COUNT,
                "purchases": COUNT,
                "spent": MONEY,
            }
        spent = [*columns].index("spent")
        rows = sorted(found, key=lambda row: -row[spent])
        most = sum(map(self._total, range(len(self._count))))
        return ReportTable(f"{len(rows):,} {who}{period}", columns, rows, len(rows), most)

    def _total(self, user: int) -> int:
        return (int(self._high[user]) << HALF) + int(self._low[user]) + sum(self._large.get(user, ()))

    def _by_user(self, names: "_Names") -> Iterator[tuple[Any, ...]]:
        for user in names.in_order(np.flatnonzero(self._count).tolist()).tolist():
            largest = max([int(self._largest[user]), *self._large.get(user, ())])
            yield names[user], int(self._count[user]), self._total(user), largest

    def _by_network(self, names: "_Names", graph: FriendGraph) -> Iterator[tuple[Any, ...]]:
        sums = (self._count, self._low, self._high)
        everyone = names.in_order(range(graph.users))
        for some, found in _walks(graph, everyone, BATCH_CAP):
            many, low, high = (_within(found, column) for column in sums)
            for i, user in enumerate(some.tolist()):
                if many[i]:
                    members = found.members[found.offsets[i] : found.offsets[i + 1]].tolist() if self._large else ()
                    large = sum(amount for member in members for amount in self._large.get(member, ()))
                    yield names[user], int(found.size[i]), many[i], (high[i] << HALF) + low[i] + large


def _within(found: Networks, column: Int64s) -> list[int]:
    """The sums of a column over the members of each network. In between they may overflow, the differences do not."""
    sums = np.concatenate([np.zeros(1, np.int64), np.cumsum(column[found.members])])
    within: list[int] = (sums[found.offsets[1:]] - sums[found.offsets[:-1]]).tolist()
    return within


async def notify(layers: Sequence[Layer], **named: Any) -> ReportTable:
    """Whom to notify of a flagged purchase: its buyer's network, the nearest first.

    `named` names the purchase as for an explanation. `counted` says how many of a member's purchases it was compared
    with.

    Raises:
        UsageError: there is no such decision, or the purchase was not flagged.
        RunError: a log could not be read any further, or the detector failed.
    """
    record = await explained(layers, **named)
    what = (
        f"user {readable(record.user)} paid {record.amount} at {short(record.timestamp)} ({record.file}:{record.line})"
    )
    if record.verdict != "flagged":
        raise UsageError(f"{what}, which is normal: nobody is to be notified; peerwatch explain says why")
    counted: dict[str, int] = {}
    for bought in record.window:
        counted[bought.user] = counted.get(bought.user, 0) + 1
    columns = {"user": TEXT, "hop": COUNT, "counted": COUNT, "path": USERS}
    rows = [(member.user, member.hop, counted.get(member.user, 0), member.path) for member in record.network]
    title = f"{what[0].upper()}{what[1:]}, flagged: the {len(rows):,} users of the network, within {record.D} hops"
    return ReportTable(title, columns, rows, len(rows), 0)


async def _state_at(layers: Sequence[Layer], at: str | None) -> tuple[Opened, Past]:
    target = selector_of(at)
    async with AsyncExitStack() as stack:
        opened = await open_replay(layers, target.suits, stack)
        then = await past(opened, target)
    then.state.graph.reserve(len(then.state.decoder.interner))
    then.history.reserve(len(then.state.decoder.interner))
    return opened, then


class _Names:
    """The ids of dense users as text, and their order: by length, then by bytes, so that numbers are in order."""

    def __init__(self, decoder: Decoder) -> None:
        self._ids = ids_of(*decoder.interner.columns(), 0)

    def __getitem__(self, user: int) -> str:
        return self._ids[user].decode()

    def in_order(self, users: Iterable[int]) -> Int32s:
        """Some users in the order of their ids."""
        ids = self._ids
        return np.array(sorted(users, key=lambda user: (len(ids[user]), ids[user])), np.int32)


def _walks(graph: FriendGraph, users: Int32s, most: int) -> Iterator[tuple[Int32s, Networks]]:
    """The networks of users, at most so many at a time, each walked in full. The graph stays as it is."""
    walker = graph.copy(costs=PARTITION_ONLY)
    done = 0
    while done < len(users):
        some = users[done : done + most]
        kind, nothing = np.full(len(some), Kind.PURCHASE, np.int8), np.zeros(len(some), np.int64)
        _, found = walker.walk(kind, some, some, nothing + AFTER_ALL, Amounts(nothing), 0, len(some), MOST_PLACES)
        yield some[: len(found.plan)], found
        done += len(found.plan)


def _micros(cents: str) -> int:
    """Millionths of a number with two decimals."""
    return int(cents.replace(".", "")) * CENT
