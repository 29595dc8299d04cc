"""Everyone's purchases, and the T latest of any group of users as of any event."""

from typing import NamedTuple

import numpy as np

from peerwatch.network.errors import RunError
from peerwatch.network.kernels import (
    Int32s,
    Int64s,
    grown,
    i4s,
    i8,
    i8s,
    kernel,
    kth_largest,
    nothing,
)  # fmt: skip

NOBODY = -1
BEGINNING = -(2**63)
END = 2**63 - 1
MOST_ROWS = 2**31 - 1
"""Purchases a shard can hold: rows are named by int32."""
SCAN_ROWS_A_MEMBER = 8
"""A scanned row costs about an eighth of what the partition pays a member (measured: 2 ns and 19 ns)."""


class Windows(NamedTuple):
    """The windows of q decisions: purchases `offsets[i]` to `offsets[i + 1]` are the i-th, in no particular order.

    `offsets` has shape [q + 1], the other columns one place a purchase.
    """

    offsets: Int64s
    seq: Int64s
    timestamp: Int64s
    amount: Int64s

    def window(self, i: int) -> slice:
        """The places of the i-th window in the columns."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))


class PurchaseHistory:
    """Append-only columns of purchases; each has a pointer to the user's next older one.

    `latest[u]` is the row of user u's latest purchase, from which `older` leads back through (timestamp, seq) in
    falling order. A row joins its user's chain only when a later event is asked about, so that questions in log order
    meet nothing they must not see, however far the columns are ahead; questions out of order skip what is too new.
    """

    def __init__(self, T: int) -> None:
        self.T = T
        self.seq: Int64s = np.zeros(1 << 10, np.int64)
        self.user: Int32s = np.zeros(1 << 10, np.int32)
        self.timestamp: Int64s = np.zeros(1 << 10, np.int64)
        self.amount: Int64s = np.zeros(1 << 10, np.int64)
        self.newest: Int64s = np.zeros(1 << 10, np.int64)
        """The latest timestamp up to each row: how far back anything newer than a bound can lie."""
        self.older: Int32s = np.zeros(1 << 10, np.int32)
        self.latest: Int32s = np.zeros(0, np.int32)
        self.mark: Int64s = np.zeros(0, np.int64)
        self.marks = 0
        self.rows = 0
        self.linked = 0
        """The rows that have joined their chains."""
        self.applied = 0
        """The watermark: every purchase with a sequence number up to this one has been appended."""

    def reserve(self, users: int) -> None:
        """Make room for the users 0 to `users` - 1."""
        known = len(self.latest)
        if users > known:
            self.latest, self.mark = grown(self.latest, users), grown(self.mark, users)
            self.latest[known:] = NOBODY

    def append(self, seq: Int64s, user: Int32s, timestamp: Int64s, amount: Int64s, through: int) -> None:
        """Take purchases in order of their sequence numbers; afterwards all up to `through` are there."""
        end = self.rows + len(seq)
        if end > MOST_ROWS:
            raise RunError(f"a shard holds at most {MOST_ROWS} purchases; use more shards")
        self.seq, self.user = grown(self.seq, end), grown(self.user, end)
        self.timestamp, self.amount = grown(self.timestamp, end), grown(self.amount, end)
        self.newest, self.older = grown(self.newest, end), grown(self.older, end)
        new = slice(self.rows, end)
        self.seq[new], self.user[new], self.timestamp[new], self.amount[new] = seq, user, timestamp, amount
        if len(seq):
            self.newest[new] = np.maximum.accumulate(timestamp)
            if self.rows:
                np.maximum(self.newest[new], self.newest[self.rows - 1], out=self.newest[new])
        self.rows, self.applied = end, through

    def columns(self) -> tuple[Int64s, Int32s, Int64s, Int64s]:
        """Sequence number, user, timestamp and amount of every purchase.

        Rows are only ever added behind these, so the views stay as they are.
        """
        return self.seq[: self.rows], self.user[: self.rows], self.timestamp[: self.rows], self.amount[: self.rows]

    def windows(self, seq: Int64s, offsets: Int64s, members: Int32s) -> Windows:
        """For each of q decisions the T latest purchases before event `seq[i]` of `members[offsets[i]:offsets[i + 1]]`.

        Latest is by (timestamp, sequence number). Members without purchases here, such as another shard's, are skipped.
        """
        widest = int(np.diff(offsets).max(initial=0))
        room = len(seq) * min(self.T, self.rows)
        ends = np.zeros(len(seq) + 1, np.int64)
        columns = np.empty((3, room), np.int64)
        self.linked = _windows(
            seq, offsets, members, widest, self.T, self.rows, self.linked, self.marks,
            self.seq, self.user, self.timestamp, self.amount, self.newest, self.older, self.latest, self.mark,
            ends, columns[0], columns[1], columns[2],
        )  # fmt: skip
        self.marks += len(seq)
        taken = ends[-1]
        return Windows(ends, columns[0, :taken], columns[1, :taken], columns[2, :taken])


@kernel(nothing(i8, i8, i8, i8s, i4s, i4s))
def _link(row: int, user: int, T: int, timestamp: Int64s, older: Int32s, latest: Int32s) -> None:
    """Put a row into its user's chain.

    A late purchase (older timestamp) moves back to its place; behind T others no later question can reach it.
    """
    newer, here = NOBODY, latest[user]
    passed = 0
    while here != NOBODY and timestamp[here] > timestamp[row]:
        newer, here = here, older[here]
        passed += 1
        if passed == T:
            return
    older[row] = here
    if newer == NOBODY:
        latest[user] = row
    else:
        older[newer] = row


@kernel(i8(i8, i8, i8s, i8s, i8s, i8s))
def _keep_latest(T: int, count: int, seq: Int64s, timestamp: Int64s, amount: Int64s, scratch: Int64s) -> int:
    """Reduce the first `count` > T purchases to the T latest, in place; returns the timestamp of the oldest kept.

    First by timestamp alone; among those at the last timestamp that fits, the highest sequence numbers stay.
    """
    for i in range(count):
        scratch[i] = timestamp[i]
    last = kth_largest(scratch, count, T)
    newer, tied = 0, 0
    for i in range(count):
        if timestamp[i] > last:
            newer += 1
        elif timestamp[i] == last:
            scratch[tied] = seq[i]
            tied += 1
    first_seq = kth_largest(scratch, tied, T - newer) if tied > T - newer else BEGINNING
    kept = 0
    for i in range(count):
        if timestamp[i] > last or (timestamp[i] == last and seq[i] >= first_seq):
            seq[kept], timestamp[kept], amount[kept] = seq[i], timestamp[i], amount[i]
            kept += 1
    return last


@kernel(i8(i4s, i8, i8, i8, i8, i8s, i4s, i8s, i8s, i8s, i8s, i8s, i8s, i8s, i8s))
def _scan(
    members: Int32s, stamp: int, T: int, end: int, most: int,
    seq: Int64s, user: Int32s, timestamp: Int64s, amount: Int64s, newest: Int64s, mark: Int64s,
    c_seq: Int64s, c_timestamp: Int64s, c_amount: Int64s, scratch: Int64s,
) -> int:  # fmt: skip
    """Selection by recency scan: from row `end` back, whoever is marked as a member.

    Ends as soon as nothing further back can be among the T latest: there everything has a lower sequence number, so a
    timestamp no newer than the T-th found loses. Returns the number of candidates, or -1 after `most` rows.
    """
    for member in members:
        mark[member] = stamp
    count, bound, oldest = 0, BEGINNING, END
    stop = max(0, end - most)
    for row in range(end - 1, stop - 1, -1):
        if newest[row] <= bound:
            return count
        if mark[user[row]] == stamp and timestamp[row] > bound:
            if count == len(c_seq):
                bound = _keep_latest(T, count, c_seq, c_timestamp, c_amount, scratch)
                count = T
                if timestamp[row] <= bound:
                    continue
            c_seq[count], c_timestamp[count], c_amount[count] = seq[row], timestamp[row], amount[row]
            count += 1
            oldest = min(oldest, timestamp[row])
            if count == T:
                bound = oldest
    return count if stop == 0 else -1


@kernel(i8(i4s, i8, i8, i8s, i8s, i8s, i4s, i4s, i8s, i8s, i8s, i4s, i8s, i8s))
def _partition(
    members: Int32s, now: int, T: int,
    seq: Int64s, timestamp: Int64s, amount: Int64s, older: Int32s, latest: Int32s,
    c_seq: Int64s, c_timestamp: Int64s, c_amount: Int64s, rows: Int32s, stamps: Int64s, scratch: Int64s,
) -> int:  # fmt: skip
    """Selection by partition: the T-th latest among the members' own latest purchases bounds who is followed back.

    Returns the number of candidates.
    """
    buyers = 0
    for member in members:
        row = latest[member]
        while row != NOBODY and seq[row] >= now:
            row = older[row]
        if row != NOBODY:
            rows[buyers], stamps[buyers] = row, timestamp[row]
            scratch[buyers] = stamps[buyers]
            buyers += 1
    bound = kth_largest(scratch, buyers, T) if buyers > T else BEGINNING
    count = 0
    for i in range(buyers):
        row, taken = rows[i], 0
        while row != NOBODY and taken < T and timestamp[row] >= bound:
            if seq[row] < now:
                if count == len(c_seq):
                    bound = _keep_latest(T, count, c_seq, c_timestamp, c_amount, scratch)
                    count = T
                c_seq[count], c_timestamp[count], c_amount[count] = seq[row], timestamp[row], amount[row]
                count += 1
                taken += 1
            row = older[row]
    return count


@kernel(i8(i8s, i8s, i4s, i8, i8, i8, i8, i8, i8s, i4s, i8s, i8s, i8s, i4s, i4s, i8s, i8s, i8s, i8s, i8s))
def _windows(
    before: Int64s, offsets: Int64s, members: Int32s, widest: int, T: int, all_rows: int, linked: int, marks: int,
    seq: Int64s, user: Int32s, timestamp: Int64s, amount: Int64s, newest: Int64s, older: Int32s, latest: Int32s,
    mark: Int64s, ends: Int64s, out_seq: Int64s, out_timestamp: Int64s, out_amount: Int64s,
) -> int:  # fmt: skip
    """Fill the windows; returns the number of rows that have joined their chains.

    The planner: a scan has met T members after about T * users / members rows. It is tried where that is fewer than
    SCAN_ROWS_A_MEMBER for each member, and given up for the partition at twice as many.
    """
    rows, stamps = np.empty(widest, np.int32), np.empty(widest, np.int64)
    room = max(2 * min(T, all_rows), 64)
    scratch = np.empty(max(widest, room), np.int64)
    c_seq, c_timestamp, c_amount = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    end = 0
    for q in range(len(before)):
        now, network = before[q], members[offsets[q] : offsets[q + 1]]
        if end > 0 and seq[end - 1] >= now:
            end = 0
        if end == 0:
            end = np.searchsorted(seq[:all_rows], now)
        while end < all_rows and seq[end] < now:
            end += 1
        if len(network) == 0:
            ends[q + 1] = ends[q]
            continue
        most = SCAN_ROWS_A_MEMBER * len(network)
        count = -1
        if min(T * len(latest), end * len(network)) <= most * len(network):
            count = _scan(
                network, marks + q + 1, T, end, 2 * most, seq, user, timestamp, amount, newest, mark,
                c_seq, c_timestamp, c_amount, scratch,
            )  # fmt: skip
        if count < 0:
            while linked < end:
                _link(linked, user[linked], T, timestamp, older, latest)
                linked += 1
            count = _partition(
                network, now, T, seq, timestamp, amount, older, latest,
                c_seq, c_timestamp, c_amount, rows, stamps, scratch,
            )  # fmt: skip
        if count > T:
            _keep_latest(T, count, c_seq, c_timestamp, c_amount, scratch)
            count = T
        begin = ends[q]
        out_seq[begin : begin + count] = c_seq[:count]
        out_timestamp[begin : begin + count] = c_timestamp[:count]
        out_amount[begin : begin + count] = c_amount[:count]
        ends[q + 1] = begin + count
    return linked


def merged(parts: list[Windows], T: int) -> Windows:
    """The windows of q decisions from the shards' windows of the same decisions: of each the T latest."""
    if len(parts) == 1:
        return parts[0]
    counts = sum(np.diff(part.offsets) for part in parts)
    gathered = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    columns = np.empty((3, int(gathered[-1])), np.int64)
    ends = np.zeros(len(gathered), np.int64)
    filled = gathered[:-1].copy()
    for part in parts:
        _gather(part.offsets, filled, part.seq, part.timestamp, part.amount, columns[0], columns[1], columns[2])
    _merge(gathered, T, columns[0], columns[1], columns[2], ends)
    taken = ends[-1]
    return Windows(ends, columns[0, :taken], columns[1, :taken], columns[2, :taken])


@kernel(nothing(i8s, i8s, i8s, i8s, i8s, i8s, i8s, i8s))
def _gather(
    offsets: Int64s, filled: Int64s, seq: Int64s, timestamp: Int64s, amount: Int64s,
    to_seq: Int64s, to_timestamp: Int64s, to_amount: Int64s,
) -> None:  # fmt: skip
    for q in range(len(filled)):
        for i in range(offsets[q], offsets[q + 1]):
            to = filled[q]
            to_seq[to], to_timestamp[to], to_amount[to] = seq[i], timestamp[i], amount[i]
            filled[q] = to + 1


@kernel(nothing(i8s, i8, i8s, i8s, i8s, i8s))
def _merge(gathered: Int64s, T: int, seq: Int64s, timestamp: Int64s, amount: Int64s, ends: Int64s) -> None:
    """Keep the T latest of each gathered window and close the gaps, in place."""
    scratch = np.empty(len(seq), np.int64)
    for q in range(len(gathered) - 1):
        begin, end = gathered[q], gathered[q + 1]
        count = end - begin
        if count > T:
            _keep_latest(T, count, seq[begin:end], timestamp[begin:end], amount[begin:end], scratch)
            count = T
        to = ends[q]
        for i in range(count):
            seq[to + i], timestamp[to + i], amount[to + i] = (
                seq[begin + i], timestamp[begin + i], amount[begin + i],
            )  # fmt: skip
        ends[q + 1] = to + count
