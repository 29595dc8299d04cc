"""What actors say to each other. Columns of one message have the same length; sequence numbers start at 1."""

from typing import TypeAlias

import msgspec

from peerwatch.actors.snapshot import SnapshotRequest
from peerwatch.amounts import Amounts
from peerwatch.connectors.records import DecisionRow
from peerwatch.detectors.base import Detector
from peerwatch.judging.audit import AuditedDecision
from peerwatch.judging.judge import Scoring
from peerwatch.judging.severity import Level
from peerwatch.judging.training import TrainingSet
from peerwatch.kernels import Bytes, Int32s, Int64s
from peerwatch.network.decoder import Events
from peerwatch.network.graph import GraphContents, Networks
from peerwatch.network.rejects import RejectedLine
from peerwatch.network.statistics import Statistics
from peerwatch.network.windows import Windows


class Batch(msgspec.Struct, frozen=True):
    """Dispatcher to graph: events in log order, the first of them number `seq`.

    `content` is the text their `start` and `end` point into, `file` its name. Purchases are judged if `judged`.
    Dense users are below `users`. `rejected` are the lines among its own that are not events. `new` says that no event
    can have been there before this run began.
    """

    events: Events
    seq: int
    content: bytes
    file: str
    judged: bool
    users: int
    rejected: list[RejectedLine]
    new: bool = False


class PurchaseBatch(msgspec.Struct, frozen=True):
    """Dispatcher to a shard: its users' purchases among all up to `through`.

    `low` is the shard's new low watermark: no later question is about an event before it.
    """

    seq: Int64s
    user: Int32s
    timestamp: Int64s
    amount: Amounts
    through: int
    users: int
    low: int


class WindowQueries(msgspec.Struct, frozen=True):
    """Graph to coordinator: purchases to be judged, with what answers for their buyers' networks as of each of them.

    Every batch gives at least one message, be it empty; the last of a batch says how far the events have come. `next`
    says that the following message comes from the next graph actor, `new` is the batch's.
    """

    seq: Int64s
    events: Events
    networks: Networks
    content: bytes
    file: str
    rejected: list[RejectedLine]
    through: int
    next: bool
    new: bool = False


class WindowRequest(msgspec.Struct, frozen=True):
    """Coordinator to a shard: the T latest purchases of its users in these networks, before each event in `seq`.

    Every shard gets the same arrays and skips what it does not own: cheaper than dealing the members out. The first one
    alone gets the windows that have been found already, and takes them over. `low` is the shard's new low watermark: no
    later question is about an event before it.
    """

    id: int
    seq: Int64s
    networks: Networks
    low: int


class WindowReply(msgspec.Struct, frozen=True):
    """A shard to the coordinator: the windows that request `id` asked for, of the purchases of this shard's users."""

    id: int
    shard: int
    windows: Windows


class Share(msgspec.Struct, frozen=True):
    """Dispatcher to all graph actors, before the first batch that is judged: each other one gets a copy of the first's.

    Until then only the first one gets batches.
    """


class GraphCopy(msgspec.Struct, frozen=True):
    """The first graph actor to another: what its graph holds as of `Share`. The arrays are the receiver's own."""

    contents: GraphContents


GraphMessage: TypeAlias = Batch | Share | SnapshotRequest
ShardMessage: TypeAlias = PurchaseBatch | WindowRequest | SnapshotRequest
CoordinatorMessage: TypeAlias = WindowQueries | SnapshotRequest


class Flagged(msgspec.Struct, frozen=True):
    """Coordinator to output: one flagged purchase: its number, its line and that line's own text, its window.

    `scoring` is what a detector other than sigma had to say, `severity` how bad it is, if levels are set.
    """

    seq: int
    line: int
    text: bytes
    statistics: Statistics
    scoring: Scoring | None = None
    severity: Level | None = None


class Results(msgspec.Struct, frozen=True):
    """Coordinator to output: what to write, in order; with it all events up to `through` are judged.

    `seq` are the purchases that were judged, `decisions` what is known of each of them, where a sink takes that.
    """

    seq: Int64s
    flagged: list[Flagged]
    rejected: list[RejectedLine]
    through: int
    decisions: list[DecisionRow] = []


class TrainingRequest(msgspec.Struct, frozen=True):
    """Coordinator to trainer: a model is to be trained for `who`, "champion" or "challenger"."""

    who: str
    training_set: TrainingSet


class TrainedModel(msgspec.Struct, frozen=True):
    """Trainer to coordinator: model number `version` of `who`, which is kept by now. It is the receiver's own.

    The model itself travels: to restore one from its arrays can take as long as to fit it.
    """

    who: str
    version: int
    model: Detector


OutputMessage: TypeAlias = Results | SnapshotRequest


class AuditBatch(msgspec.Struct, frozen=True):
    """Dispatcher to audit: a batch as the graph actors get it, with the columns of all ids that it may name."""

    batch: Batch
    arena: Bytes
    ends: Int64s


class AuditDecisions(msgspec.Struct, frozen=True):
    """Coordinator to audit: what was decided on the purchases that are recomputed, in order."""

    outcomes: list[AuditedDecision]


AuditMessage: TypeAlias = AuditBatch | AuditDecisions
