"""The order of time among some purchases: the T latest, and all from the oldest to the newest.

Which purchases these are, of all that a network's members have made, `peerwatch.network.selection` chooses.
"""

from typing import Final

from peerwatch.kernels import Int64s, kernel

BEGINNING: Final = -(2**63)


@kernel
def kth_largest(values: Int64s, count: int, k: int) -> int:
    """The k-th largest (from 1) of `values[:count]`, which are reordered.

    Hoare's quickselect (CACM 1961, algorithm 65) with Lomuto's partition, written so that the comparison moves a
    counter and decides no jump: on random values a processor mispredicts half of those. Values equal to the pivot are
    set apart, so that ties cost nothing. The pivot's place comes from a fixed linear congruential sequence: the same on
    every run, and no ordinary input makes it quadratic.
    """
    low, high = 0, count
    target = k - 1
    state = 12345
    while high - low > 1:
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        pivot = values[low + state % (high - low)]
        larger = low
        for i in range(low, high):
            value = values[i]
            values[i] = values[larger]
            values[larger] = value
            larger += value > pivot
        if target < larger:
            high = larger
            continue
        equal = larger
        for i in range(larger, high):
            value = values[i]
            values[i] = values[equal]
            values[equal] = value
            equal += value == pivot
        if target < equal:
            return pivot  # type: ignore[no-any-return]
        low = equal
    return values[target]  # type: ignore[no-any-return]


def keep_latest(T: int, count: int, seq: Int64s, timestamp: Int64s, amount: Int64s, scratch: Int64s) -> int:
    """Reduce the first `count` > T purchases to the T latest, in place; returns the timestamp of the oldest kept.

    First by timestamp alone; among those at the last timestamp that fits, the highest sequence numbers stay. `scratch`
    has room for `count` + 1.
    """
    for i in range(count):
        scratch[i] = timestamp[i]
    last = kth_largest(scratch, count, T)
    newer, tied = 0, 0
    for i in range(count):
        scratch[tied] = seq[i]
        newer += timestamp[i] > last
        tied += timestamp[i] == last
    first_seq = kth_largest(scratch, tied, T - newer) if tied > T - newer else BEGINNING
    kept = 0
    for i in range(count):
        is_kept = timestamp[i] > last or (timestamp[i] == last and seq[i] >= first_seq)
        seq[kept], timestamp[kept], amount[kept] = seq[i], timestamp[i], amount[i]
        kept += is_kept
        if kept == T:
            break
    return last


@kernel
def sort_in_time(offsets: Int64s, seq: Int64s, timestamp: Int64s, amount: Int64s) -> None:
    """Put each window in order of (timestamp, sequence number), in place.

    Shell's sort (CACM 1959) with Knuth's gaps: needs no other memory, and is quick on what is nearly in order.
    """
    for q in range(len(offsets) - 1):
        begin, end = offsets[q], offsets[q + 1]
        gap = 1
        while 3 * gap < end - begin:
            gap = 3 * gap + 1
        while gap > 0:
            for i in range(begin + gap, end):
                at, number, paid = timestamp[i], seq[i], amount[i]
                to = i
                while to >= begin + gap and (
                    timestamp[to - gap] > at or (timestamp[to - gap] == at and seq[to - gap] > number)
                ):
                    timestamp[to], seq[to], amount[to] = timestamp[to - gap], seq[to - gap], amount[to - gap]
                    to -= gap
                timestamp[to], seq[to], amount[to] = at, number, paid
            gap //= 3
