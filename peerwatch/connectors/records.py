"""The records that sinks take: one a result, each with a number that is the same in every run over the same logs."""

from collections.abc import Iterable
from typing import Any, ClassVar, Final, Literal, Protocol, TypeAlias

import msgspec

from peerwatch.judging.verdict_hash import LedgerEntry, encode_entry
from peerwatch.network.events import CANONICAL, FieldNames, parse_object
from peerwatch.network.rejects import RejectedLine, encode_reject

Kind: TypeAlias = Literal["flagged", "decision", "reject", "notice", "ledger", "session"]
FLAGGED: Final = "flagged"
DECISION: Final = "decision"
REJECT: Final = "reject"
NOTICE: Final = "notice"
LEDGER: Final = "ledger"
SESSION: Final = "session"
MOST_NOTICES: Final = 64
"""More notices than there can be about one event: their numbers are its own times so many, and what comes to that."""
SCHEMA: Final = 1
"""The version of the fields that messages and tables have."""
JUDGED_BY: Final = ("detector", "score", "score_threshold", "model")
"""What a detector other than sigma adds to a flagged line."""


class Record(Protocol):
    """One result. Records of one kind have ascending numbers, `seq`, with gaps; with its kind a number is a key."""

    kind: ClassVar[Kind]

    @property
    def seq(self) -> int:
        """The event's number for a flagged purchase or a decision; rejected lines are numbered on their own, from 1."""

    def encode(self) -> bytes:
        """The record as a file holds it: one NDJSON line."""

    def fields(self) -> dict[str, Any]:
        """The record as named fields, for a database or a message; amounts are text, as they may have 300 digits."""


class FlaggedPurchase(msgspec.Struct, frozen=True):
    """A flagged purchase: event `seq`, and its own line with `mean` and `sd` added."""

    kind: ClassVar[Kind] = FLAGGED
    seq: int
    line: bytes
    names: FieldNames = CANONICAL
    """The keys under which the line has the purchase's own fields."""
    in_batch_log: bool = False

    def encode(self) -> bytes:
        """The line."""
        return self.line

    def fields(self) -> dict[str, Any]:
        """The purchase's own fields and those that were added, amounts as text; `line` is the whole line."""
        raw = parse_object(self.line)
        names = self.names
        fields: dict[str, Any] = {"timestamp": _text(raw[names.timestamp]), "id": _text(raw[names.id])}
        fields |= {"amount": _text(raw[names.amount]), "mean": _text(raw["mean"]), "sd": _text(raw["sd"])}
        if "detector" in raw:
            fields |= {name: msgspec.json.decode(raw[name]) for name in JUDGED_BY if name in raw}
        if "severity" in raw:
            fields["severity"] = _text(raw["severity"])
        if self.in_batch_log:
            fields["log"] = "batch"
        return fields | {"line": self.line.rstrip(b"\n").decode()}


class DecisionRow(msgspec.Struct, frozen=True):
    """Any decision. `amount` is exact, `mean` and `sd` have two decimals; `timestamp` is microseconds since 1970 UTC.

    `mean` and `sd` are None for an empty window, `network_size` where it was not counted; `score`, `threshold` and
    `model` are those of a detector other than sigma, `severity` stands where levels are set.
    """

    kind: ClassVar[Kind] = DECISION
    seq: int
    file: str
    line: int
    user: str
    timestamp: int
    amount: str
    flagged: bool
    window_size: int
    mean: str | None
    sd: str | None
    network_size: int | None
    score: float | None
    threshold: float | None
    model: int | None
    severity: str | None

    def encode(self) -> bytes:
        """The fields as one JSON object."""
        return msgspec.json.encode(self) + b"\n"

    def fields(self) -> dict[str, Any]:
        """The columns, but `line` is called `line_number`."""
        fields = msgspec.structs.asdict(self)
        fields["line_number"] = fields.pop("line")
        return fields


class Rejection(msgspec.Struct, frozen=True):
    """Rejected line number `seq` of all logs."""

    kind: ClassVar[Kind] = REJECT
    seq: int
    rejected: RejectedLine

    def encode(self) -> bytes:
        """Where the line stands, the reason, and its bytes."""
        return encode_reject(self.rejected)

    def fields(self) -> dict[str, Any]:
        """The same, but `line` is called `line_number`."""
        fields: dict[str, Any] = msgspec.json.decode(self.encode())
        fields["line_number"] = fields.pop("line")
        return fields


class NoticeRecord(msgspec.Struct, frozen=True):
    """A notice about a judge: drift, labels that were read, a model that is active from now on, a wrong decision.

    `seq` is a number of its own, ascending; `event` is the event's, `who` the champion or the challenger. `timestamp`
    is the event's too, in microseconds since 1970 UTC, for sinks whose records must have a time.
    """

    kind: ClassVar[Kind] = NOTICE
    seq: int
    event: int
    who: str
    notice: str
    details: dict[str, Any]
    timestamp: int

    def encode(self) -> bytes:
        """Number and fields as one JSON object."""
        return msgspec.json.encode({"seq": self.seq, **self.fields()}) + b"\n"

    def fields(self) -> dict[str, Any]:
        """The fields."""
        return {"event": self.event, "who": self.who, "notice": self.notice, "details": self.details}


class LedgerRecord(msgspec.Struct, frozen=True):
    """An entry of the ledger; its number is that of the last event in it."""

    kind: ClassVar[Kind] = LEDGER
    entry: LedgerEntry

    @property
    def seq(self) -> int:
        """The last event's number."""
        return self.entry.through

    def encode(self) -> bytes:
        """The entry."""
        return encode_entry(self.entry)

    def fields(self) -> dict[str, Any]:
        """The entry's fields."""
        fields: dict[str, Any] = msgspec.to_builtins(self.entry)
        return fields


class FlaggedSession(msgspec.Struct, frozen=True):
    """A flagged session: number `seq` of all sessions of its log, and its own line with the verdict added."""

    kind: ClassVar[Kind] = SESSION
    seq: int
    session_id: str
    user: str
    probability: float
    confidence: float
    reasons: list[str]
    line: bytes

    def encode(self) -> bytes:
        """The line."""
        return self.line

    def fields(self) -> dict[str, Any]:
        """The verdict; `line` is the whole line."""
        fields = msgspec.structs.asdict(self)
        del fields["seq"]
        return fields | {"line": self.line.rstrip(b"\n").decode()}


def payload(record: Record, run: str) -> dict[str, Any]:
    """A record as messages hold it: `version` of the schema, `kind`, `run`, `seq`, and the record's own fields."""
    return {"version": SCHEMA, "kind": record.kind, "run": run, "seq": record.seq, **record.fields()}


def _text(raw: msgspec.Raw) -> str:
    """A JSON value as text: a string's content, or a number as it is written."""
    value = bytes(raw)
    return msgspec.json.decode(value, type=str) if value.startswith(b'"') else value.decode()


def encoded(records: Iterable[Record]) -> bytes:
    """Records as a file holds them."""
    return b"".join([record.encode() for record in records])
