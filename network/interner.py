"""User ids as dense integers, so that everything behind the dispatcher works on arrays."""

import numpy as np

from peerwatch.network.kernels import Bytes, Int32s, Int64s, grown, i4, i4s, i8, i8s, kernel, nothing, text, u1s, u8

EMPTY = -1


@kernel(u8(text, i8, i8))
def hash_of(source: Bytes, start: int, end: int) -> int:
    """FNV-1a, 64 bits, of `source[start:end]`, its halves folded so that the low bits see all of it."""
    hashed = np.uint64(14695981039346656037)
    for i in range(start, end):
        hashed = (hashed ^ np.uint64(source[i])) * np.uint64(1099511628211)
    return hashed ^ (hashed >> np.uint64(32))  # type: ignore[return-value] # unsigned, which Python has no type for


@kernel(i4(text, i8, i8, u1s, i8s, i4s, i8s))
def intern(source: Bytes, start: int, end: int, arena: Bytes, ends: Int64s, slots: Int32s, count: Int64s) -> int:
    """The dense integer of the id `source[start:end]`, a new one if it has none yet.

    `arena[ends[i - 1]:ends[i]]` holds id i; `slots` is an open-addressing hash table (linear probing) whose
    length is a power of two; `count[0]` is how many ids there are. The caller has reserved the room.
    """
    mask = np.uint64(len(slots) - 1)
    slot = hash_of(source, start, end) & mask
    length = end - start
    while slots[slot] != EMPTY:
        known = slots[slot]
        begin = ends[known - 1] if known > 0 else 0
        if ends[known] - begin == length:
            same = True
            for i in range(length):
                if arena[begin + i] != source[start + i]:
                    same = False
                    break
            if same:
                return known  # type: ignore[no-any-return]
        slot = (slot + np.uint64(1)) & mask
    new = count[0]
    begin = ends[new - 1] if new > 0 else 0
    for i in range(length):
        arena[begin + i] = source[start + i]
    ends[new] = begin + length
    slots[slot] = new
    count[0] = new + 1
    return new  # type: ignore[no-any-return]


@kernel(nothing(u1s, i8s, i8, i4s))
def rehash(arena: Bytes, ends: Int64s, count: int, slots: Int32s) -> None:
    """Fill the larger, empty table `slots` with the `count` known ids."""
    mask = np.uint64(len(slots) - 1)
    begin = 0
    for known in range(count):
        slot = hash_of(arena, begin, ends[known]) & mask
        while slots[slot] != EMPTY:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = known
        begin = ends[known]


class Interner:
    """Ids (UTF-8 bytes, never empty) numbered from 0 in the order they are first interned."""

    def __init__(self) -> None:
        self.arena: Bytes = np.zeros(1 << 12, np.uint8)
        self.ends: Int64s = np.zeros(1 << 9, np.int64)
        self.slots: Int32s = np.full(1 << 10, EMPTY, np.int32)
        self.count: Int64s = np.zeros(1, np.int64)

    def __len__(self) -> int:
        return int(self.count[0])

    def reserve(self, ids: int, size: int) -> None:
        """Make room for `ids` more ids of `size` bytes together; the table stays at most half full."""
        known = len(self)
        used = int(self.ends[known - 1]) if known else 0
        self.arena = grown(self.arena, used + size)
        self.ends = grown(self.ends, known + ids)
        if 2 * (known + ids) > len(self.slots):
            self.slots = np.full(1 << (2 * (known + ids)).bit_length(), EMPTY, np.int32)
            rehash(self.arena, self.ends, known, self.slots)

    def columns(self) -> tuple[Bytes, Int64s]:
        """The ids' bytes and where each ends. Both only ever grow at their ends, so these views stay as they are."""
        ends = self.ends[: len(self)]
        return self.arena[: ends[-1] if len(ends) else 0], ends

    @classmethod
    def from_columns(cls, arena: Bytes, ends: Int64s) -> "Interner":
        """The interner whose `columns` these are."""
        interner = cls()
        interner.arena, interner.ends = grown(arena, 1), grown(ends, 1)
        interner.count[0] = len(ends)
        interner.slots = np.full(1 << max(10, (2 * len(ends)).bit_length()), EMPTY, np.int32)
        rehash(interner.arena, interner.ends, len(ends), interner.slots)
        return interner

    def intern(self, user: bytes) -> int:
        """The dense integer of one id."""
        self.reserve(1, len(user))
        source = np.frombuffer(user, np.uint8)
        return int(intern(source, 0, len(user), self.arena, self.ends, self.slots, self.count))
