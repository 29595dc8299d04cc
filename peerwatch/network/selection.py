"""Selects the T latest purchases of a network as of an event, from the stretches of a purchase history."""

from peerwatch.kernels import Int8s, Int32s, Int64s, kernel
from peerwatch.network.networks import Plan
from peerwatch.network.order_in_time import BEGINNING, keep_latest, kth_largest
from peerwatch.network.stretches import (
    AMOUNT,
    ARRIVED,
    COUNT,
    HELD,
    LINKED,
    NEWEST,
    OLDER,
    ROWS,
    SEQ,
    START,
    STRETCH,
    TIMESTAMP,
    _link,
)


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
