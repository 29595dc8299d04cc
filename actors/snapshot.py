"""Snapshots of all actors' state at one sequence number.

A snapshot request follows the last event that belongs to the snapshot. Each actor that receives it sends its own part
to the checkpointer and passes the request on. Requests keep their place in every mailbox, so the parts are consistent
and no actor has to stop: the aligned barrier of Carbone et al., "Lightweight Asynchronous Snapshots for Distributed
Dataflows" (2015).

Arrays in a part are copies and never change.
"""

from typing import Any

import msgspec
from numpy.typing import NDArray

from peerwatch.connectors.source import Bookmark
from peerwatch.judging.state import Arrays, Counts
from peerwatch.judging.verdict_hash import VerdictHash
from peerwatch.kernels import Bytes, Int32s, Int64s
from peerwatch.network.history import PurchaseColumns
from peerwatch.storage.checkpoints import StoredPart


class SnapshotRequest(msgspec.Struct, frozen=True):
    """Dispatcher to every actor with a part in a snapshot, along the way of the events.

    With `judged` the position is in a log that is judged. In a run with quarantine the shards then get the request from
    the coordinator, like the purchases that belong to the snapshot.
    """

    id: int
    judged: bool = False


class SnapshotPart(msgspec.Struct, frozen=True):
    """An actor to the checkpointer: its part of the snapshot with request `id`. `part` is the part's name."""

    id: int
    part: str


class DispatcherPart(SnapshotPart, frozen=True):
    """How far the logs have been read, and all ids: their bytes in `arena`, and where each of them `ends`.

    `position` is in the `judged` log or in the other one. `unseen` holds the configured users that have not occurred in
    an event yet.
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


class ReplicaPart(SnapshotPart, frozen=True):
    """What the workers of a cluster hold, which is the friend graph and perhaps the purchases.

    It is in `arrays`, named as in a checkpoint, unless a worker has written it: then `stored` says where.
    """

    arrays: Arrays
    stored: StoredPart | None


class CoordinatorPart(SnapshotPart, frozen=True):
    """The judges' state, and the number of purchases on which they have disagreed.

    `decisions_written` is the number of complete parts of the decisions file, None if there is no such file.
    """

    disagreed: Int64s
    judges: dict[str, NDArray[Any]]


class OutputPart(SnapshotPart, frozen=True):
    """The position of each sink, in the sink's own terms; the number of flagged purchases; the hash of all verdicts."""

    marks: dict[str, Any]
    flagged: int
    verdicts: VerdictHash
