"""A snapshot of all actors at one moment of the log.

A request travels behind the last event that belongs to the snapshot. Each actor that it passes sends its own part to
the checkpointer, and passes the request on. As it keeps its place in every mailbox, the parts belong together and
nothing has to stop for it: the aligned barrier of Carbone et al., "Lightweight Asynchronous Snapshots for Distributed
Dataflows" (2015).

Arrays in a part are copies: nobody changes them any more.
"""

from typing import Any

import msgspec
from numpy.typing import NDArray

from peerwatch.connectors.source import Bookmark
from peerwatch.judging.state import Counts
from peerwatch.judging.verdict_hash import VerdictHash
from peerwatch.kernels import Bytes, Int32s, Int64s
from peerwatch.network.history import PurchaseColumns


class SnapshotRequest(msgspec.Struct, frozen=True):
    """Dispatcher to all who have a part in a snapshot, along the way of the events."""

    id: int


class SnapshotPart(msgspec.Struct, frozen=True):
    """An actor to the collector: its part of the snapshot with request `id`. `part` is what that part is called."""

    id: int
    part: str


class DispatcherPart(SnapshotPart, frozen=True):
    """How far the logs have been read, and all ids: their bytes, and where each ends.

    `position` is in the log that is `judged` or in the other; `unseen` are the named users that no event has named yet.
    """

    progress: Counts
    judged: bool
    position: Any
    bookmarks: list[Bookmark[Any]]
    unseen: list[int]
    arena: Bytes
    ends: Int64s


class GraphPart(SnapshotPart, frozen=True):
    """The friend graph's columns."""

    degree: Int32s
    friends: Int32s


class ShardPart(SnapshotPart, frozen=True):
    """The purchase histories of one shard."""

    number: int
    columns: PurchaseColumns


class CoordinatorPart(SnapshotPart, frozen=True):
    """What the judges remember, and on how many purchases they have disagreed."""

    disagreed: Int64s
    judges: dict[str, NDArray[Any]]


class OutputPart(SnapshotPart, frozen=True):
    """Each sink's mark by its name, how many purchases are flagged, and the hash of all verdicts."""

    marks: dict[str, Any]
    flagged: int
    verdicts: VerdictHash
