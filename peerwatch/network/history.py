"""Everyone's latest purchases, and the T latest of any group of users as of any event."""

from copy import copy
from typing import NamedTuple

import numpy as np

from peerwatch.amounts import Amounts, LargeAmounts, united
from peerwatch.kernels import Int32s, Int64s, grown
from peerwatch.network.networks import Networks
from peerwatch.network.order_in_time import BEGINNING
from peerwatch.network.selection import select
from peerwatch.network.stretches import (
    AMOUNT,
    ARRIVED,
    COUNT,
    FIRST_ROOM,
    HELD,
    LINKED,
    NEWEST,
    OLDER,
    ROOM,
    ROWS,
    SEQ,
    START,
    STRETCH,
    TALLY,
    TIMESTAMP,
    USED,
    USER,
    chain,
    link_all,
    move,
    unpack,
    unpack_amounts,
)
from peerwatch.network.timeline import RECENT
from peerwatch.network.windows import Windows


class PurchaseColumns(NamedTuple):
    """Purchases of a history: how many of each user, and those one user after the other, the oldest first.

    `held` has shape [users], the other columns one place a purchase.
    """

    held: Int64s
    seq: Int64s
    timestamp: Int64s
    amount: Amounts


class PurchaseHistory:
    """The purchases of every user that can still be among the T latest of a network.

    User u's are a stretch of one pool, ordered by (timestamp, sequence number). Purchases arrive in columns of their
    own and join their stretches when a later event is asked about. Questions may come in any order as long as none is
    about an event before `low`, the low watermark: behind T purchases older than that nothing is ever needed again, and
    it is forgotten when its stretch is full.

    The most recent arrivals are remembered in order as well, each with the number of the same user's arrival before it;
    most windows lie within them, in memory that is small and hot. They are as many as there are users: the more users,
    the further back the T latest of a network lie.
    """

    def __init__(self, T: int, *, recent: int = RECENT) -> None:
        """Windows of T purchases; at least `recent` arrivals are remembered."""
        self.T, self._recent = T, recent
        self.users = 0
        self.last: Int64s = np.zeros(0, np.int64)
        """The latest timestamp of each user."""
        self.arrival: Int32s = np.zeros(0, np.int32)
        """The row of each user's last arrival, -1 if none is remembered; read for every member of a network."""
        self.stretch: Int64s = np.zeros(0, np.int64)
        self.pool: Int64s = np.zeros(HELD << 10, np.int64)
        self.recent: Int64s = np.zeros(ARRIVED << 10, np.int64)
        self.tally: Int64s = np.zeros(TALLY, np.int64)
        self.scratch: Int64s = np.zeros(0, np.int64)
        self.large = LargeAmounts()
        self.newest = BEGINNING
        """The latest timestamp of all purchases."""
        self.bought = 0
        """How many purchases have ever been appended: no window holds more."""
        self.applied = 0
        """The watermark: every purchase with a sequence number up to this one has been appended."""
        self.low = 0
        """The low watermark: no later query is about an event before this one."""

    def raise_low(self, seq: int) -> None:
        """Allow to forget what only queries about events before `seq` would need: there are none any more."""
        self.low = max(self.low, seq)

    def reserve(self, users: int) -> None:
        """Make room for the users 0 to `users` - 1."""
        self.users = max(self.users, users)
        known = len(self.last)
        if users > known:
            self.last = grown(self.last, users)
            self.last[known:] = BEGINNING
            self.arrival = grown(self.arrival, users)
            self.arrival[known:] = -1
            self.stretch = grown(self.stretch, STRETCH * len(self.last))

    @property
    def remembered(self) -> int:
        """The least number of the latest arrivals that are remembered."""
        return max(self._recent, self.users)

    def append(self, seq: Int64s, user: Int32s, timestamp: Int64s, amount: Amounts, through: int) -> None:
        """Take purchases in order of their sequence numbers; afterwards all up to `through` are there."""
        rows = int(self.tally[ROWS])
        if ARRIVED * (rows + len(seq)) > len(self.recent):
            rows = self._forget_arrivals(rows)
            self.recent = grown(self.recent, ARRIVED * (rows + len(seq)))
        new = self.recent[ARRIVED * rows : ARRIVED * (rows + len(seq))].reshape(-1, ARRIVED)
        new[:, TIMESTAMP], new[:, SEQ], new[:, AMOUNT], new[:, USER] = timestamp, seq, amount.held, user
        if len(seq):
            new[:, NEWEST] = np.maximum(np.maximum.accumulate(timestamp), self.newest)
            self.newest = int(new[-1, NEWEST])
        self.tally[ROWS] = rows + len(seq)
        self.bought += len(seq)
        self.applied = through
        self.large.add(amount)
        if self.large.crowded:
            self._forget_large()

    def _forget_large(self) -> None:
        """Free large amounts whose purchases are forgotten."""
        held = np.empty(int(self.stretch[COUNT::STRETCH].sum()), np.int64)
        unpack_amounts(self.stretch, self.pool, held)
        unlinked = self.recent[ARRIVED * int(self.tally[LINKED]) : ARRIVED * int(self.tally[ROWS])]
        self.large.keep(held, unlinked[AMOUNT::ARRIVED])

    def _forget_arrivals(self, rows: int) -> int:
        """Forget arrivals that are too old for a guess; returns how many are left."""
        arrived = self.recent[: ARRIVED * rows].reshape(-1, ARRIVED)
        first = int(np.searchsorted(arrived[:, SEQ], self.low)) - self.remembered
        first = min(first, int(self.tally[LINKED]))
        if first < rows // 2:
            return rows  # too few to be worth the move
        arrived[: rows - first] = arrived[first:].copy()
        arrived[: rows - first, OLDER] -= first
        self.arrival[:] = np.maximum(self.arrival - first, -1)
        self.tally[ROWS] = rows - first
        self.tally[LINKED] -= first
        return rows - first

    def settle(self) -> None:
        """Let all purchases join their stretches, although later queries may be about events before them."""
        while link_all(self.T, self.low, self.last, self.arrival, self.stretch, self.pool, self.recent, self.tally):
            self._make_room()

    def columns(self) -> PurchaseColumns:
        """The T + 1 latest purchases of each user, which is enough for queries about later events. Copies."""
        self.settle()
        stretch = self.stretch[: STRETCH * self.users]
        count = np.minimum(stretch[COUNT::STRETCH], self.T + 1)
        columns = np.empty((3, int(count.sum())), np.int64)
        unpack(self.T, stretch, self.pool, columns[SEQ], columns[TIMESTAMP], columns[AMOUNT])
        return PurchaseColumns(count, columns[SEQ], columns[TIMESTAMP], Amounts(columns[AMOUNT], self.large.all))

    def columns_of(self, users: Int64s) -> PurchaseColumns:
        """The `columns` of some users alone; the others have none. `users` ascend."""
        self.settle()
        users = users[users < self.users]
        stretch = self.stretch.reshape(-1, STRETCH)[users]
        count = np.minimum(stretch[:, COUNT], self.T + 1)
        before = np.cumsum(count) - count
        oldest = stretch[:, START] + stretch[:, COUNT] - count
        rows = np.arange(int(count.sum())) + np.repeat(oldest - before, count)
        held, purchases = np.zeros(self.users, np.int64), self.pool.reshape(-1, HELD)[rows]
        held[users] = count
        amount = Amounts(np.ascontiguousarray(purchases[:, AMOUNT]), self.large.all)
        return PurchaseColumns(held, purchases[:, SEQ].copy(), purchases[:, TIMESTAMP].copy(), amount)

    @classmethod
    def from_columns(
        cls, T: int, purchases: PurchaseColumns, through: int, *, recent: int = RECENT
    ) -> "PurchaseHistory":
        """The history whose `columns` these are, with everything up to event `through`."""
        history, held = cls(T, recent=recent), len(purchases.seq)
        history.reserve(len(purchases.held))
        history.pool = np.empty(HELD * max(held, 1), np.int64)
        columns = history.pool[: HELD * held].reshape(-1, HELD)
        columns[:, TIMESTAMP], columns[:, SEQ] = purchases.timestamp, purchases.seq
        columns[:, AMOUNT] = purchases.amount.held
        stretch = history.stretch.reshape(-1, STRETCH)[: len(purchases.held)]
        ends = np.cumsum(purchases.held)
        stretch[:, START] = ends - purchases.held
        stretch[:, COUNT] = stretch[:, ROOM] = purchases.held
        bought = np.flatnonzero(purchases.held)
        history.last[bought] = purchases.timestamp[ends[bought] - 1]
        history.tally[USED] = held
        user = np.repeat(np.arange(len(purchases.held), dtype=np.int32), purchases.held)
        arrived = np.argsort(purchases.seq)
        earlier, latest = arrived[: -history.remembered], arrived[-history.remembered :]
        history.newest = int(purchases.timestamp[earlier].max(initial=BEGINNING))
        _, seq, timestamp, amount = purchases
        history.append(seq[latest], user[latest], timestamp[latest], amount[latest], through)
        history.large.add(purchases.amount)
        chain(history.arrival, history.recent, history.tally)
        history.bought, history.low = held, through + 1
        return history

    def insert(self, seq: Int64s, user: Int64s, timestamp: Int64s, amount: Amounts) -> None:
        """Let purchases take their places by (timestamp, sequence number) that came earlier and were kept out so far.

        As costly as a checkpoint: everything is put in order anew. Later queries must be about events behind all that
        has been appended.
        """
        held, seqs, timestamps, amounts = self.columns()
        users = np.concatenate([np.repeat(np.arange(self.users), held), user])
        seqs, timestamps = np.concatenate([seqs, seq]), np.concatenate([timestamps, timestamp])
        order = np.lexsort((seqs, timestamps, users))
        columns = PurchaseColumns(
            np.bincount(users, minlength=self.users), seqs[order], timestamps[order],
            Amounts.joined([amounts, amount])[order],
        )  # fmt: skip
        vars(self).update(vars(self.from_columns(self.T, columns, self.applied, recent=self._recent)))

    def view(self) -> "PurchaseHistory":
        """A view of the same purchases for queries from another thread; valid until more are appended here."""
        self.settle()  # then asking changes nothing but the scratch
        view = copy(self)
        view.scratch = np.zeros(0, np.int64)
        return view

    def windows(self, seq: Int64s, networks: Networks) -> Windows:
        """For each of q decisions the T latest purchases in its network before event `seq[i]`, of those held here.

        Latest is by (timestamp, sequence number). Members that are not here, such as another shard's, are skipped. The
        windows that have been found already are taken over.
        """
        q, found = len(seq), networks.found
        widest = int(np.diff(networks.offsets).max(initial=0))
        most = min(self.T, max(self.bought, int(np.diff(found.offsets).max(initial=0))))
        room = max(2 * most, 64)
        self.scratch = grown(self.scratch, 4 * room + widest + 2)
        ends = np.zeros(q + 1, np.int64)
        columns = np.empty((3, q * most), np.int64)
        progress = np.zeros(1, np.int64)
        while select(
            seq, networks.offsets, networks.members, networks.plan, found.offsets, found.seq, found.timestamp,
            found.amount.held, self.T, self.users, room, self.low, self.last, self.arrival, self.stretch, self.pool,
            self.recent, self.tally, self.scratch, progress, ends, columns[SEQ], columns[TIMESTAMP], columns[AMOUNT],
        ):  # fmt: skip
            self._make_room()
        seqs, timestamps, amounts = (columns[place, : ends[-1]] for place in (SEQ, TIMESTAMP, AMOUNT))
        return Windows(ends, seqs, timestamps, Amounts(amounts, united([self.large.all, found.amount.large])))

    def _make_room(self) -> None:
        """Close the gaps that moved stretches have left; grow the pool if that is not enough."""
        rooms = self.stretch[ROOM::STRETCH]
        live = int(rooms.sum())
        needed = 2 * int(rooms.max(initial=0)) + FIRST_ROOM
        pool = np.empty(max(len(self.pool), HELD * (2 * live + needed)), np.int64)
        move(self.stretch, self.pool, pool)
        self.pool = pool
        self.tally[USED] = live
