"""The records that sinks take: one a result, each with a number that is the same in every run over the same logs."""

from collections.abc import Iterable
from typing import ClassVar, Final, Literal, Protocol, TypeAlias

import msgspec

from peerwatch.judging.verdict_hash import LedgerEntry, encode_entry
from peerwatch.network.rejects import RejectedLine, encode_reject

Kind: TypeAlias = Literal["flagged", "decision", "reject", "ledger"]
FLAGGED: Final = "flagged"
DECISION: Final = "decision"
REJECT: Final = "reject"
LEDGER: Final = "ledger"


class Record(Protocol):
    """One result. Records of one kind have ascending numbers, `seq`, with gaps; with its kind a number is a key."""

    kind: ClassVar[Kind]

    @property
    def seq(self) -> int:
        """The event's number for a flagged purchase or a decision; rejected lines are numbered on their own, from 1."""

    def encode(self) -> bytes:
        """The record as a file holds it: one NDJSON line."""


class FlaggedPurchase(msgspec.Struct, frozen=True):
    """A flagged purchase: event `seq`, and its own line with `mean` and `sd` added."""

    kind: ClassVar[Kind] = FLAGGED
    seq: int
    line: bytes

    def encode(self) -> bytes:
        """The line."""
        return self.line


class DecisionRow(msgspec.Struct, frozen=True):
    """Any decision: amounts in units, as near as floats come; `timestamp` in microseconds since 1970 UTC.

    `mean` and `sd` are None for an empty window, `network_size` where it was not counted; `score`, `threshold` and
    `model` are those of a detector other than sigma, `severity` stands where levels are set.
    """

    kind: ClassVar[Kind] = DECISION
    seq: int
    file: str
    line: int
    user: str
    timestamp: int
    amount: float
    flagged: bool
    window_size: int
    mean: float | None
    sd: float | None
    network_size: int | None
    score: float | None
    threshold: float | None
    model: int | None
    severity: str | None

    def encode(self) -> bytes:
        """The fields as one JSON object."""
        return msgspec.json.encode(self) + b"\n"


class Rejection(msgspec.Struct, frozen=True):
    """Rejected line number `seq` of all logs."""

    kind: ClassVar[Kind] = REJECT
    seq: int
    rejected: RejectedLine

    def encode(self) -> bytes:
        """Where the line stands, the reason, and its bytes."""
        return encode_reject(self.rejected)


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


def encoded(records: Iterable[Record]) -> bytes:
    """Records as a file holds them."""
    return b"".join([record.encode() for record in records])
