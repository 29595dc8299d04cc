"""Several dispatchers, simulated: blocks of a log are decoded apart, and still give the events of one.

Each block is decoded by a decoder of its own, so blocks may be decoded at the same time, anywhere. What makes one order
of them is a prefix sum: how many events and lines stand before each block. Ids are numbered by several interners: an id
belongs to the one that its hash names, so these need not know of each other either.
"""

import hashlib
import statistics
from itertools import accumulate
from typing import Final, NamedTuple

import numpy as np
from scale_machine import RUNS, blocks_of, decode_all, taken

from peerwatch.kernels import Int64s
from peerwatch.network.decoder import Decoder, Events, line_feeds
from peerwatch.network.events import Kind
from peerwatch.network.interner import Interner, ids_of

OWNERS: Final = 4
"""Interners among which ids are divided."""


class Block(NamedTuple):
    """A decoded block: its events with the block's own numbers of users, and the ids behind these."""

    events: Events
    ids: list[bytes]
    lines: int


class Ordered(NamedTuple):
    """A block in its place: the number of its first event, that of its first line, and the numbers of its users."""

    seq: int
    line: int
    users: Int64s


def decoded(text: bytes) -> Block:
    """Decode a block by itself."""
    decoder = Decoder()
    events = decoder.decode(text, 1).events
    return Block(events, ids_of(*decoder.interner.columns(), 0), line_feeds(text))


def owner_of(user: bytes) -> int:
    """The interner that numbers an id."""
    return hashlib.blake2b(user, digest_size=1).digest()[0] % OWNERS


def numbered(blocks: list[Block], interners: list[Interner]) -> list[Int64s]:
    """For each block the numbers of its users: the owner's own number, times OWNERS, plus the owner's."""
    return [
        np.array([OWNERS * interners[owner_of(user)].intern(user) + owner_of(user) for user in block.ids], np.int64)
        for block in blocks
    ]


def ordered(blocks: list[Block], users: list[Int64s]) -> list[Ordered]:
    """Put blocks in order. This alone has to be done in one place: two additions a block."""
    seqs = accumulate((len(block.events) for block in blocks[:-1]), initial=1)
    lines = accumulate((block.lines for block in blocks[:-1]), initial=1)
    return [Ordered(*place) for place in zip(seqs, lines, users, strict=True)]


def renumbered(block: Block, place: Ordered) -> tuple[Int64s, Int64s, Int64s]:
    """A block's users, friends and lines as everyone numbers them."""
    events = block.events
    friend = np.where(events.kind == Kind.PURCHASE, 0, events.friend)
    return place.users[events.user], place.users[friend], events.line + place.line - 1


def check_same(text: bytes) -> None:
    """Check that blocks decoded apart give the events of one decoder: the same users, numbers and lines.

    Raises:
        SystemExit: they do not.
    """
    decoder = Decoder()
    line, seq, alone = 1, 1, []
    for part in blocks_of(text):
        events = decoder.decode(part, line).events
        alone.append((seq, events))
        line, seq = line + line_feeds(part), seq + len(events)
    known = ids_of(*decoder.interner.columns(), 0)
    blocks = [decoded(part) for part in blocks_of(text)]
    interners = [Interner() for _ in range(OWNERS)]
    places = ordered(blocks, numbered(blocks, interners))
    ids = [ids_of(*interner.columns(), 0) for interner in interners]
    for (first, events), block, place in zip(alone, blocks, places, strict=True):
        user, friend, lines = renumbered(block, place)
        names = [ids[number % OWNERS][number // OWNERS] for number in user.tolist()]
        same = first == place.seq and names == [known[each] for each in events.user.tolist()]
        ties = np.flatnonzero(events.kind != Kind.PURCHASE)
        others = [ids[number % OWNERS][number // OWNERS] for number in friend[ties].tolist()]
        same &= others == [known[each] for each in events.friend[ties].tolist()]
        if not same or lines.tolist() != events.line.tolist():
            raise SystemExit("blocks that are decoded apart give other events")


def measure(text: bytes) -> dict[str, float]:
    """CPU microseconds an event: of one decoder, of a block's own, of renumbering; of ordering, per block.

    `unique` are the ids of a block for each of its events, which are what is sent to the interners.
    """
    check_same(text)
    parts = blocks_of(text)
    found: dict[str, list[float]] = {"one": [], "block": [], "renumber": [], "order": []}
    count = text.count(b"\n")
    unique = 0
    for _ in range(RUNS):
        found["one"].append(1e6 * taken(decode_all, Decoder(), text) / count)
        found["block"].append(1e6 * taken(_decode_apart, parts) / count)
        blocks = [decoded(part) for part in parts]
        unique = sum(len(block.ids) for block in blocks)
        users = numbered(blocks, [Interner() for _ in range(OWNERS)])
        places = ordered(blocks, users)
        found["order"].append(1e6 * taken(ordered, blocks, users) / len(blocks))
        found["renumber"].append(1e6 * taken(_renumber_all, blocks, places) / count)
    figures = {name: statistics.median(each) for name, each in found.items()}
    return {**figures, "unique": unique / count, "events_a_block": count / len(parts)}


def _decode_apart(parts: list[bytes]) -> None:
    for part in parts:
        Decoder().decode(part, 1)


def _renumber_all(blocks: list[Block], places: list[Ordered]) -> None:
    for block, place in zip(blocks, places, strict=True):
        renumbered(block, place)
