"""User ids as dense integers, so that everything after the dispatcher works on arrays."""

from itertools import pairwise
from typing import Final

import numpy as np

from peerwatch.kernels import Bytes, Int64s, grown, kernel

EMPTY: Final = 0
"""The key of a free slot."""
SHORT: Final = 7
"""Bytes of an id that fit into its key, so that looking it up reads one place of memory only."""
IDS, SHIFT = 0, 1
"""Places in the tally: how many ids there are; how far a product is shifted to give a slot."""


def key_of(source: Bytes, start: int, end: int) -> int:
    """A short id's bytes and length, above 0; of a longer one a hash, below 0 (FNV-1a, 64 bits, without the lowest)."""
    length = end - start
    if length <= SHORT:
        key = length << 56
        for i in range(length):
            key |= int(source[start + i]) << (8 * i)
        return key
    hashed = np.uint64(14695981039346656037)
    for i in range(start, end):
        hashed = (hashed ^ np.uint64(source[i])) * np.uint64(1099511628211)
    return -1 - np.int64(hashed >> np.uint64(1))  # type: ignore[return-value]


def slot_of(key: int, shift: int) -> int:
    """Where the search for a key begins: multiplicative hashing (Knuth, TAOCP 3, 6.4)."""
    return np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(shift))  # type: ignore[return-value]


@kernel
def intern(source: Bytes, start: int, end: int, arena: Bytes, ends: Int64s, slots: Int64s, tally: Int64s) -> int:
    """The dense integer of the id `source[start:end]`, a new one if it has none yet.

    `arena[ends[i - 1]:ends[i]]` holds id i; `slots` is an open-addressing hash table (linear probing) of pairs of key
    and dense integer, a power of two of them. The caller has reserved the room.
    """
    key = key_of(source, start, end)
    length = end - start
    slot = slot_of(key, tally[SHIFT])
    last = len(slots) // 2 - 1
    while slots[2 * slot] != EMPTY:
        if slots[2 * slot] == key:
            known = slots[2 * slot + 1]
            if length <= SHORT:
                return known  # type: ignore[no-any-return]
            begin = ends[known - 1] if known > 0 else 0
            same = ends[known] - begin == length
            for i in range(length):
                if not same:
                    break
                same = arena[begin + i] == source[start + i]
            if same:
                return known  # type: ignore[no-any-return]
        slot = (slot + 1) & last
    new = tally[IDS]
    begin = ends[new - 1] if new > 0 else 0
    for i in range(length):
        arena[begin + i] = source[start + i]
    ends[new] = begin + length
    slots[2 * slot], slots[2 * slot + 1] = key, new
    tally[IDS] = new + 1
    return new  # type: ignore[no-any-return]


@kernel
def rehash(arena: Bytes, ends: Int64s, count: int, slots: Int64s, shift: int) -> None:
    """Fill the larger, empty table `slots` with the `count` known ids."""
    last = len(slots) // 2 - 1
    begin = 0
    for known in range(count):
        key = key_of(arena, begin, ends[known])
        slot = slot_of(key, shift)
        while slots[2 * slot] != EMPTY:
            slot = (slot + 1) & last
        slots[2 * slot], slots[2 * slot + 1] = key, known
        begin = ends[known]


def ids_of(arena: Bytes, ends: Int64s, first: int) -> list[bytes]:
    """The ids from the dense integer `first` on, of an interner with these columns."""
    bounds = [int(ends[first - 1]) if first else 0, *ends[first:].tolist()]
    text = arena[bounds[0] : bounds[-1]].tobytes()
    return [text[begin - bounds[0] : end - bounds[0]] for begin, end in pairwise(bounds)]


class Interner:
    """Ids (UTF-8 bytes, never empty) numbered from 0 in the order they are first interned."""

    def __init__(self) -> None:
        self.arena: Bytes = np.zeros(1 << 12, np.uint8)
        self.ends: Int64s = np.zeros(1 << 9, np.int64)
        self.slots: Int64s = np.zeros(2 << 10, np.int64)
        self.tally: Int64s = np.array([0, 54], np.int64)

    def __len__(self) -> int:
        return int(self.tally[IDS])

    def reserve(self, ids: int, size: int) -> None:
        """Make room for `ids` more ids of `size` bytes together; the table stays at most half full."""
        known = len(self)
        used = int(self.ends[known - 1]) if known else 0
        self.arena = grown(self.arena, used + size)
        self.ends = grown(self.ends, known + ids)
        if 4 * (known + ids) > len(self.slots):
            self._rehash((2 * (known + ids)).bit_length())

    def _rehash(self, bits: int) -> None:
        self.slots, self.tally[SHIFT] = np.zeros(2 << bits, np.int64), 64 - bits
        rehash(self.arena, self.ends, len(self), self.slots, 64 - bits)

    def columns(self) -> tuple[Bytes, Int64s]:
        """The ids' bytes and where each ends. Both only ever grow at their ends, so these views stay as they are."""
        ends = self.ends[: len(self)]
        return self.arena[: ends[-1] if len(ends) else 0], ends

    @classmethod
    def from_columns(cls, arena: Bytes, ends: Int64s) -> "Interner":
        """The interner whose `columns` these are."""
        interner = cls()
        interner.arena, interner.ends = grown(arena, 1), grown(ends, 1)
        interner.tally[IDS] = len(ends)
        interner._rehash(max(10, (2 * len(ends)).bit_length()))
        return interner

    def intern(self, user: bytes) -> int:
        """The dense integer of one id."""
        self.reserve(1, len(user))
        return intern(np.frombuffer(user, np.uint8), 0, len(user), self.arena, self.ends, self.slots, self.tally)
