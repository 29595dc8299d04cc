"""The messages between actors. Columns of one message have the same length; sequence numbers start at 1."""

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from peerwatch.actors.snapshot import SnapshotRequest
from peerwatch.amounts import Amounts
from peerwatch.connectors.records import DecisionRow, NoticeRecord
from peerwatch.detectors.base import Detector
from peerwatch.judging.audit import AuditedDecision
from peerwatch.judging.judge import Reasons, Scoring
from peerwatch.judging.severity import Level
from peerwatch.judging.training import TrainingSet
from peerwatch.kernels import Bytes, Int32s, Int64s
from peerwatch.network.decoder import Events
from peerwatch.network.events import CANONICAL, FieldNames
from peerwatch.network.graph import GraphContents
from peerwatch.network.networks import Networks
from peerwatch.network.rejects import RejectedLine
from peerwatch.network.statistics import Statistics
from peerwatch.network.windows import Windows


class Batch(msgspec.Struct, frozen=True):
    """Dispatcher to graph: events in log order, beginning with number `seq`.

    The events' `start` and `end` are offsets in `content`, which comes from the log `file`. The purchases are judged if
    `judged`. All dense users are below `users`. `rejected` holds the batch's rejected lines. `new` means that the
    events cannot have existed before this run began; `in_batch_log` that they are not of the stream log.
    """

    events: Events
    seq: int
    content: bytes
    file: str
    judged: bool
    users: int
    rejected: list[RejectedLine]
    new: bool = False
    names: FieldNames = CANONICAL
    in_batch_log: bool = False


class PurchaseBatch(msgspec.Struct, frozen=True):
    """Dispatcher to a shard: the purchases of its users among the events up to `through`.

    With quarantine those that are judged come from the coordinator, without the flagged ones.

    `low` is the shard's new low watermark: no later request is about an event before it.
    """

    seq: Int64s
    user: Int32s
    timestamp: Int64s
    amount: Amounts
    through: int
    users: int
    low: int


class PurchaseRelease(msgspec.Struct, frozen=True):
    """Coordinator to a shard, with quarantine: purchases of its users that are in windows from now on."""

    seq: Int64s
    user: Int64s
    timestamp: Int64s
    amount: Amounts


class WindowQueries(msgspec.Struct, frozen=True):
    """Graph to coordinator: purchases to judge, and their buyers' networks as of each purchase.

    Every batch yields at least one message, even if it is empty; `through` of its last one is the batch's last event.
    `next` means that the following message comes from the next graph actor. `new`, `in_batch_log` and `users` are those
    of the batch.
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
    names: FieldNames = CANONICAL
    in_batch_log: bool = False
    users: int = 0


class AnsweredQueries(msgspec.Struct, frozen=True):
    """A cluster to coordinator: queries with their windows, or judged, with the reasons of what may be sent on.

    `own` are the windows of the buyers' own purchases, empty if no judge wants them. Their owner is the receiver.
    """

    queries: WindowQueries
    windows: list[Windows] = []
    own: list[Windows] = []
    reasons: list[Reasons] | None = None


class WindowRequest(msgspec.Struct, frozen=True):
    """Coordinator to a shard: the T latest purchases of its users in these networks, before each event in `seq`.

    All shards get the same arrays and skip users that they do not own, which is cheaper than splitting the networks.
    Windows that a scan has found already go to the first shard only, which includes them in its reply. `low` is the
    shard's new low watermark: no later request is about an event before it. All dense users in the networks are below
    `users`, 0 if the shard knows them all.
    """

    id: int
    seq: Int64s
    networks: Networks
    low: int
    users: int = 0


class WindowReply(msgspec.Struct, frozen=True):
    """A shard to the coordinator: its users' part of the windows that request `id` asked for."""

    id: int
    shard: int
    windows: Windows


class Share(msgspec.Struct, frozen=True):
    """Dispatcher to all graph actors, before the first judged batch: the first one copies its graph to the others.

    Until then only the first graph actor gets batches.
    """


class GraphCopy(msgspec.Struct, frozen=True):
    """The first graph actor to another: a copy of its graph as of `Share`, which the receiver owns."""

    contents: GraphContents


GraphMessage: TypeAlias = Batch | Share | SnapshotRequest
ShardMessage: TypeAlias = PurchaseBatch | PurchaseRelease | WindowRequest | SnapshotRequest
CoordinatorMessage: TypeAlias = WindowQueries | AnsweredQueries | SnapshotRequest


class Flagged(msgspec.Struct, frozen=True):
    """Coordinator to output: a flagged purchase with its sequence number, line number, line text and window statistics.

    `scoring` is set by detectors other than sigma, `severity` if levels are configured.
    """

    seq: int
    line: int
    text: bytes
    statistics: Statistics
    scoring: Scoring | None = None
    severity: Level | None = None
    names: FieldNames = CANONICAL
    in_batch_log: bool = False


class Results(msgspec.Struct, frozen=True):
    """Coordinator to output: what to write, in order. All events up to `through` have been judged.

    `seq` holds the sequence numbers of the judged purchases, `decisions` a row for each if a sink takes them, `notices`
    what has happened to the judges.
    """

    seq: Int64s
    flagged: list[Flagged]
    rejected: list[RejectedLine]
    through: int
    decisions: list[DecisionRow] = []
    notices: list[NoticeRecord] = []


class TrainingRequest(msgspec.Struct, frozen=True):
    """Coordinator to trainer: train a model for `who`, "champion" or "challenger"."""

    who: str
    training_set: TrainingSet


class TrainedModel(msgspec.Struct, frozen=True):
    """Trainer to coordinator: model number `version` of `who`. It has been saved, and the receiver owns it.

    The message holds the model itself, because restoring one from its arrays can take as long as fitting it.
    """

    who: str
    version: int
    model: Detector


OutputMessage: TypeAlias = Results | SnapshotRequest


class AuditBatch(msgspec.Struct, frozen=True):
    """Dispatcher to audit: a batch as the graph actors get it, and the columns with the ids of its users."""

    batch: Batch
    arena: Bytes
    ends: Int64s


class AuditDecisions(msgspec.Struct, frozen=True):
    """Coordinator to audit: the decisions on the sampled purchases of one message, in order.

    None on an event up to `through` will follow. With quarantine `releases` are the events before which labels were
    read, each with the events of the purchases that they released.
    """

    outcomes: list[AuditedDecision]
    through: int
    releases: Sequence[tuple[int, list[int]]] = ()


class AuditNotices(msgspec.Struct, frozen=True):
    """Audit to output, for each `AuditDecisions`: the differences it has brought to light, in order."""

    notices: list[NoticeRecord]


AuditMessage: TypeAlias = AuditBatch | AuditDecisions
