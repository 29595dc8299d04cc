"""Everyone's latest purchases, and the T latest of any group of users as of any event."""

from copy import copy
from typing import Final, NamedTuple

import numpy as np

from peerwatch.amounts import Amounts, LargeAmounts, united
from peerwatch.kernels import Int8s, Int32s, Int64s, grown, kernel
from peerwatch.network.graph import Networks, Plan
from peerwatch.network.latest import BEGINNING, keep_latest, kth_largest
from peerwatch.network.timeline import RECENT
from peerwatch.network.windows import Windows

FIRST_ROOM: Final = 4
"""Purchases a user's stretch of the pool has room for when it is first made; it doubles up to a bit more than T."""
START, COUNT, ROOM, STRETCH = range(4)
"""Columns of a user's stretch."""
TIMESTAMP, SEQ, AMOUNT, HELD = range(4)
"""Columns of a purchase in the pool."""
USER, NEWEST, OLDER, ARRIVED = range(3, 7)
"""Further columns of an arrival: whose it is, the newest timestamp up to it, the row of the same user's before it."""
USED, ROWS, LINKED, TALLY = range(4)
"""Places in the tally: rows of the pool in use; arrivals that are remembered, those of them in their stretches."""


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


@kernel
def chain(arrivals: Int32s, recent: Int64s, tally: Int64s) -> None:
    """Connect the arrivals of purchases that are in their stretches already."""
    while tally[LINKED] < tally[ROWS]:
        row = tally[LINKED]
        user = recent[ARRIVED * row + USER]
        recent[ARRIVED * row + OLDER] = arrivals[user]
        arrivals[user] = row
        tally[LINKED] += 1


@kernel
def move(stretch: Int64s, pool: Int64s, into: Int64s) -> None:
    """Copy all stretches to `into`, one after the other, each with its room."""
    used = 0
    for at in range(0, len(stretch), STRETCH):
        begin = stretch[at + START]
        for i in range(HELD * stretch[at + COUNT]):
            into[HELD * used + i] = pool[HELD * begin + i]
        stretch[at + START] = used
        used += stretch[at + ROOM]


@kernel
def unpack(T: int, stretch: Int64s, pool: Int64s, seq: Int64s, timestamp: Int64s, amount: Int64s) -> None:
    """Write the T + 1 latest purchases of each user to columns, one user after the other."""
    to = 0
    for at in range(0, len(stretch), STRETCH):
        end = stretch[at + START] + stretch[at + COUNT]
        for row in range(max(stretch[at + START], end - T - 1), end):
            timestamp[to], seq[to] = pool[HELD * row + TIMESTAMP], pool[HELD * row + SEQ]
            amount[to] = pool[HELD * row + AMOUNT]
            to += 1


@kernel
def unpack_amounts(stretch: Int64s, pool: Int64s, amount: Int64s) -> None:
    """Write the amounts of all purchases to a column, one user after the other."""
    to = 0
    for at in range(0, len(stretch), STRETCH):
        for row in range(stretch[at + START], stretch[at + START] + stretch[at + COUNT]):
            amount[to] = pool[HELD * row + AMOUNT]
            to += 1


def _forget(at: int, T: int, low: int, stretch: Int64s, pool: Int64s) -> bool:
    """Drop purchases older than the T + 1 latest before `low`, if that frees an eighth of the stretch.

    Windows need T; one more tells what a verdict would have been without one of them.
    """
    begin, count = stretch[at + START], stretch[at + COUNT]
    needed, first = 0, count
    while first > 0 and needed <= T:
        first -= 1
        if pool[HELD * (begin + first) + SEQ] < low:
            needed += 1
    if 8 * first < stretch[at + ROOM] or first == 0:
        return False
    for i in range(HELD * (count - first)):
        pool[HELD * begin + i] = pool[HELD * (begin + first) + i]
    stretch[at + COUNT] = count - first
    return True


def _link(
    row: int, T: int, low: int, last: Int64s, arrivals: Int32s, stretch: Int64s, pool: Int64s, recent: Int64s,
    tally: Int64s,
) -> bool:  # fmt: skip
    """Put an arrival into its user's stretch; False, with nothing changed, if the pool is used up.

    A late purchase (older timestamp) moves back to its place. It is left out if T + 1 of the user's are later: all of
    them came before it, so that whoever is asked about an event behind it sees those, too.
    """
    arrival = ARRIVED * row
    user, timestamp = recent[arrival + USER], recent[arrival + TIMESTAMP]
    at = STRETCH * user
    if not _is_outdated(at, timestamp, T, stretch, pool):
        count, room = stretch[at + COUNT], stretch[at + ROOM]
        if count == room and not (room >= T and _forget(at, T, low, stretch, pool)):
            larger, enough = max(FIRST_ROOM, 2 * room), T + T // 4 + FIRST_ROOM
            if room < enough:
                larger = min(larger, enough)
            new = tally[USED]
            if HELD * (new + larger) > len(pool):
                return False
            for i in range(HELD * count):
                pool[HELD * new + i] = pool[HELD * stretch[at + START] + i]
            stretch[at + START], stretch[at + ROOM] = new, larger
            tally[USED] = new + larger
        begin, place = stretch[at + START], stretch[at + START] + stretch[at + COUNT]
        while place > begin and pool[HELD * (place - 1) + TIMESTAMP] > timestamp:
            for i in range(HELD):
                pool[HELD * place + i] = pool[HELD * (place - 1) + i]
            place -= 1
        pool[HELD * place + TIMESTAMP], pool[HELD * place + SEQ] = timestamp, recent[arrival + SEQ]
        pool[HELD * place + AMOUNT] = recent[arrival + AMOUNT]
        stretch[at + COUNT] += 1
        last[user] = max(last[user], timestamp)
    recent[arrival + OLDER] = arrivals[user]
    arrivals[user] = row
    return True


def _is_outdated(at: int, timestamp: int, T: int, stretch: Int64s, pool: Int64s) -> bool:
    """Whether T + 1 purchases in a stretch are later. For a purchase in order only the last one is compared."""
    count, end = stretch[at + COUNT], HELD * (stretch[at + START] + stretch[at + COUNT])
    if count <= T or pool[end - HELD + TIMESTAMP] <= timestamp:
        return False
    return pool[end - HELD * (T + 1) + TIMESTAMP] > timestamp  # type: ignore[no-any-return]


@kernel
def link_all(
    T: int, low: int, last: Int64s, arrivals: Int32s, stretch: Int64s, pool: Int64s, recent: Int64s, tally: Int64s
) -> int:  # fmt: skip
    """Let all arrivals join their stretches; returns 1 if the pool must grow first."""
    while tally[LINKED] < tally[ROWS]:
        if not _link(tally[LINKED], T, low, last, arrivals, stretch, pool, recent, tally):
            return 1
        tally[LINKED] += 1
    return 0


def _is_late(recent: Int64s, first: int, end: int) -> bool:
    """Whether the arrivals from row `first` on seem to be older than those before; then a guess fails."""
    newest, last = recent[ARRIVED * (first - 1) + NEWEST], ARRIVED * (end - 1)
    return recent[last + NEWEST] == newest and recent[last + TIMESTAMP] < newest  # type: ignore[no-any-return]


def _since(
    members: Int32s, now: int, T: int, first: int, arrivals: Int32s, recent: Int64s,
    c_seq: Int64s, c_timestamp: Int64s, c_amount: Int64s, scratch: Int64s,
) -> int:  # fmt: skip
    """Collect the members' purchases before event `now` among the arrivals from row `first` on.

    Those older than anything before that row are left out; if there are T others, the T latest are among them, because
    what arrived before is no newer and has a lower sequence number.
    """
    for i in range(len(members)):
        scratch[i] = arrivals[members[i]]  # in a loop of its own: many are fetched from memory at the same time
    found = 0
    for i in range(len(members)):
        row = scratch[i]
        scratch[found] = row
        found += row >= first
    count, bound = 0, recent[ARRIVED * (first - 1) + NEWEST]
    spare = scratch[found:]
    for i in range(found):
        row = scratch[i]
        while row >= first:
            at = ARRIVED * row
            row = recent[at + OLDER]
            if recent[at + TIMESTAMP] < bound or recent[at + SEQ] >= now:
                continue
            if count == len(c_seq):
                bound = keep_latest(T, count, c_seq, c_timestamp, c_amount, spare)
                count = T
                if recent[at + TIMESTAMP] < bound:
                    continue
            c_timestamp[count], c_seq[count] = recent[at + TIMESTAMP], recent[at + SEQ]
            c_amount[count] = recent[at + AMOUNT]
            count += 1
    return count


def _follow(
    members: Int32s, now: int, T: int, bound: int, last: Int64s, stretch: Int64s, pool: Int64s,
    c_seq: Int64s, c_timestamp: Int64s, c_amount: Int64s, scratch: Int64s,
) -> int:  # fmt: skip
    """Collect the members' purchases before event `now` not older than `bound`; at least the T latest of them."""
    count = 0
    for i in range(len(members)):
        member = members[i]
        if last[member] < bound or last[member] == BEGINNING:
            continue
        at = STRETCH * member
        begin = stretch[at + START]
        row = begin + stretch[at + COUNT]
        while row > begin:
            row -= 1
            timestamp = pool[HELD * row + TIMESTAMP]
            if timestamp < bound:
                break
            if pool[HELD * row + SEQ] < now:
                if count == len(c_seq):
                    bound = keep_latest(T, count, c_seq, c_timestamp, c_amount, scratch)
                    count = T
                    if timestamp < bound:
                        break
                c_timestamp[count], c_seq[count] = timestamp, pool[HELD * row + SEQ]
                c_amount[count] = pool[HELD * row + AMOUNT]
                count += 1
    return count


def _likely(members: Int32s, T: int, last: Int64s, scratch: Int64s) -> int:
    """The T-th latest among the members' last purchases: if all were made before the event, a bound for the window."""
    for i in range(len(members)):
        scratch[i] = last[members[i]]
    return kth_largest(scratch, len(members), T)


def _certain(
    members: Int32s, now: int, T: int, room: int, last: Int64s, stretch: Int64s, pool: Int64s, scratch: Int64s
) -> int:
    """A timestamp from which on the members have T purchases before event `now`: no older one can be in the window.

    Of each member the purchase is looked at that is so many back that half of the members have T from there on.
    """
    held = 0
    for i in range(len(members)):
        held += stretch[STRETCH * members[i] + COUNT]
    if held <= room:
        return BEGINNING
    deep = 1 + 2 * T // len(members)
    enough = (T + deep - 1) // deep
    found = 0
    for i in range(len(members)):
        member = members[i]
        if last[member] == BEGINNING:
            continue
        begin = stretch[STRETCH * member + START]
        row, left = begin + stretch[STRETCH * member + COUNT], deep
        while row > begin and left > 0:
            row -= 1
            left -= pool[HELD * row + SEQ] < now
        if left == 0:
            scratch[found] = pool[HELD * row + TIMESTAMP]
            found += 1
    return kth_largest(scratch, found, enough) if found >= enough else BEGINNING


@kernel
def select(
    before: Int64s, offsets: Int64s, members: Int32s, plans: Int8s, found: Int64s, found_seq: Int64s,
    found_timestamp: Int64s, found_amount: Int64s, T: int, users: int, room: int, low: int, last: Int64s,
    arrivals: Int32s, stretch: Int64s, pool: Int64s, recent: Int64s, tally: Int64s, scratch: Int64s, progress: Int64s,
    ends: Int64s, out_seq: Int64s, out_timestamp: Int64s, out_amount: Int64s,
) -> int:  # fmt: skip
    """Fill the windows from where `progress` says; returns 1 if the pool must grow first.

    Partition: whatever is older than the T-th latest of all cannot be in the window, so a bound on that tells whom to
    follow back. First a guess is tried: the arrivals since which one and a half times T should be the members', then,
    if they are many, the T-th latest of their last purchases. If that was too recent, or they are few, it is certain.
    """
    c_seq, c_timestamp, c_amount = scratch[:room], scratch[room : 2 * room], scratch[2 * room : 3 * room]
    spare = scratch[3 * room :]
    rows = tally[ROWS]
    end = tally[LINKED]
    for q in range(progress[0], len(before)):
        now = before[q]
        while end > 0 and recent[ARRIVED * (end - 1) + SEQ] >= now:
            end -= 1
        while end < rows and recent[ARRIVED * end + SEQ] < now:
            end += 1
        while tally[LINKED] < end:
            if not _link(tally[LINKED], T, low, last, arrivals, stretch, pool, recent, tally):
                progress[0] = q
                return 1
            tally[LINKED] += 1
        begin = ends[q]
        if plans[q] != Plan.PARTITION:
            for i in range(found[q], found[q + 1]):
                to = begin + i - found[q]
                out_seq[to], out_timestamp[to], out_amount[to] = found_seq[i], found_timestamp[i], found_amount[i]
            ends[q + 1] = begin + found[q + 1] - found[q]
            continue
        answer = members[offsets[q] : offsets[q + 1]]
        count = 0
        if len(answer) > T // 8:  # that few are looked at sooner than guessed at
            back = 3 * T * users // (2 * len(answer))
            if back < end and not _is_late(recent, end - back, end):
                count = _since(answer, now, T, end - back, arrivals, recent, c_seq, c_timestamp, c_amount, spare)
            if count < T and len(answer) > 2 * T:
                bound = _likely(answer, T, last, spare)
                count = _follow(answer, now, T, bound, last, stretch, pool, c_seq, c_timestamp, c_amount, spare)
        if count < T and len(answer) > 0:
            bound = _certain(answer, now, T, room, last, stretch, pool, spare)
            count = _follow(answer, now, T, bound, last, stretch, pool, c_seq, c_timestamp, c_amount, spare)
        if count > T:
            keep_latest(T, count, c_seq, c_timestamp, c_amount, spare)
            count = T
        for i in range(count):
            out_seq[begin + i], out_timestamp[begin + i] = c_seq[i], c_timestamp[i]
            out_amount[begin + i] = c_amount[i]
        ends[q + 1] = begin + count
    return 0
