"""Everyone's purchases, and the T latest of any group of users as of any event."""

from typing import NamedTuple

import numpy as np

from peerwatch.network.kernels import (
    Int32s, Int64s, grown, i4s, i8, i8s, kernel, kth_largest, nothing,
)  # fmt: skip

NOBODY = -1
BEGINNING = -(2**63)


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
    falling order. Rows are never changed, so a question as of an earlier event skips the rows it must not see.
    """

    def __init__(self, T: int) -> None:
        self.T = T
        self.seq: Int64s = np.zeros(1 << 10, np.int64)
        self.timestamp: Int64s = np.zeros(1 << 10, np.int64)
        self.amount: Int64s = np.zeros(1 << 10, np.int64)
        self.older: Int32s = np.zeros(1 << 10, np.int32)
        self.latest: Int32s = np.zeros(0, np.int32)
        self.rows = 0
        self.applied = 0
        """The watermark: every purchase with a sequence number up to this one has been appended."""

    def reserve(self, users: int) -> None:
        """Make room for the users 0 to `users` - 1."""
        known = len(self.latest)
        if users > known:
            self.latest = grown(self.latest, users)
            self.latest[known:] = NOBODY

    def append(self, seq: Int64s, user: Int32s, timestamp: Int64s, amount: Int64s, through: int) -> None:
        """Take purchases in order of their sequence numbers; afterwards all up to `through` are there."""
        end = self.rows + len(seq)
        self.seq, self.timestamp = grown(self.seq, end), grown(self.timestamp, end)
        self.amount, self.older = grown(self.amount, end), grown(self.older, end)
        new = slice(self.rows, end)
        self.seq[new], self.timestamp[new], self.amount[new] = seq, timestamp, amount
        _link(user, self.rows, self.T, self.seq, self.timestamp, self.older, self.latest)
        self.rows, self.applied = end, through

    def windows(self, seq: Int64s, offsets: Int64s, members: Int32s) -> Windows:
        """For each of q decisions the T latest purchases before event `seq[i]` of `members[offsets[i]:offsets[i + 1]]`.

        Latest is by (timestamp, sequence number).
        """
        widest = int(np.diff(offsets).max(initial=0))
        room = len(seq) * min(self.T, self.rows)
        ends = np.zeros(len(seq) + 1, np.int64)
        columns = np.empty((3, room), np.int64)
        _windows(
            seq, offsets, members, widest, self.T, self.seq, self.timestamp, self.amount, self.older, self.latest,
            ends, columns[0], columns[1], columns[2],
        )  # fmt: skip
        taken = ends[-1]
        return Windows(ends, columns[0, :taken], columns[1, :taken], columns[2, :taken])


@kernel(nothing(i4s, i8, i8, i8s, i8s, i4s, i4s))
def _link(user: Int32s, row: int, T: int, seq: Int64s, timestamp: Int64s, older: Int32s, latest: Int32s) -> None:
    """Put the rows from `row` on, bought by `user`, in their users' chains.

    A late purchase (older timestamp) moves back to its place; behind T others no later question can reach it.
    """
    for i in range(len(user)):
        newer, here = NOBODY, latest[user[i]]
        passed = 0
        while here != NOBODY and timestamp[here] > timestamp[row] and passed < T:
            newer, here = here, older[here]
            passed += 1
        if passed < T:
            older[row] = here
            if newer == NOBODY:
                latest[user[i]] = row
            else:
                older[newer] = row
        row += 1


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
    return last  # type: ignore[no-any-return]


@kernel(nothing(i8s, i8s, i4s, i8, i8, i8s, i8s, i8s, i4s, i4s, i8s, i8s, i8s, i8s))
def _windows(
    before: Int64s, offsets: Int64s, members: Int32s, widest: int, T: int,
    seq: Int64s, timestamp: Int64s, amount: Int64s, older: Int32s, latest: Int32s,
    ends: Int64s, out_seq: Int64s, out_timestamp: Int64s, out_amount: Int64s,
) -> None:  # fmt: skip
    """The T-th latest among the members' own latest purchases bounds who has to be looked at further back."""
    rows, stamps = np.empty(widest, np.int32), np.empty(widest, np.int64)
    room = max(2 * min(T, len(seq)), 64)
    scratch = np.empty(max(widest, room), np.int64)
    c_seq, c_timestamp, c_amount = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64)
    for q in range(len(before)):
        now, buyers = before[q], 0
        for i in range(offsets[q], offsets[q + 1]):
            row = latest[members[i]]
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
                    if count == room:
                        bound = _keep_latest(T, count, c_seq, c_timestamp, c_amount, scratch)
                        count = T
                    c_seq[count], c_timestamp[count], c_amount[count] = seq[row], timestamp[row], amount[row]
                    count += 1
                    taken += 1
                row = older[row]
        if count > T:
            _keep_latest(T, count, c_seq, c_timestamp, c_amount, scratch)
            count = T
        begin = ends[q]
        out_seq[begin : begin + count] = c_seq[:count]
        out_timestamp[begin : begin + count] = c_timestamp[:count]
        out_amount[begin : begin + count] = c_amount[:count]
        ends[q + 1] = begin + count


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
