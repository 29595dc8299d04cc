"""A running hash of all verdicts, and the ledger entries by which two runs can be compared."""

from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec
import numpy as np

from peerwatch.kernels import Int64s

GROUP: Final = 4096
"""Sequence numbers whose verdicts are hashed together."""
NOTHING: Final = "0" * 32
"""The digest before the first decision."""


class FlaggedVerdict(NamedTuple):
    """A flagged purchase: its sequence number, its line number, and the mean and sd as written."""

    seq: int
    line: int
    mean: str
    sd: str


class LedgerEntry(msgspec.Struct, frozen=True):
    """A line of a ledger: the verdicts of one group, up to event `through`.

    `judged` counts the group's decisions; those not in `flagged` are normal. `digest` is the digest of all decisions up
    to and including these.
    """

    through: int
    judged: int
    digest: str
    flagged: list[FlaggedVerdict]

    @property
    def group(self) -> int:
        """The number of the group, from 0."""
        return (self.through - 1) // GROUP

    @property
    def has_ended(self) -> bool:
        """Whether the group is complete. If not, a run ended within it; a run that continues writes it again."""
        return self.through % GROUP == 0


class VerdictHash(msgspec.Struct):
    """The running hash: a chain of digests, one for each group of GROUP sequence numbers with a judged purchase.

    A link is BLAKE2b (128 bits) over the previous digest and, as JSON, the group's number from 0, how many of its
    purchases were judged, and the sequence number, mean and sd of each flagged one. The digest depends on the verdicts
    alone, not on how they were batched. Line numbers are left out, because every file that a log is rotated through
    counts its lines anew.
    """

    closed: str = NOTHING
    """The digest of all complete groups."""
    decisions: int = 0
    through: int = 0
    group: int = 0
    judged: int = 0
    flagged: list[FlaggedVerdict] = []

    def add(self, seq: Int64s, flagged: Sequence[FlaggedVerdict], through: int) -> list[LedgerEntry]:
        """Add the decisions on purchases `seq`, of which some are `flagged`, up to event `through`.

        Both must be in order and later than everything added before. Returns the entries of groups that are now
        complete.
        """
        ended: list[LedgerEntry] = []
        begin = taken = 0
        while begin < len(seq):
            group = (int(seq[begin]) - 1) // GROUP
            if group != self.group:
                ended += self._end()
                self.group = group
            last = (group + 1) * GROUP
            end = int(np.searchsorted(seq, last, "right"))
            first = taken
            while taken < len(flagged) and flagged[taken].seq <= last:
                taken += 1
            self.flagged += flagged[first:taken]
            self.judged += end - begin
            begin = end
        self.decisions += len(seq)
        self.through = max(self.through, through, int(seq[-1]) if len(seq) else 0)
        if self.through >= (self.group + 1) * GROUP:
            ended += self._end()
        return ended

    def digest(self) -> str:
        """The digest of all decisions so far."""
        if not self.judged:
            return self.closed
        said = (self.group, self.judged, [(seq, mean, sd) for seq, _, mean, sd in self.flagged])
        return blake2b(self.closed.encode() + msgspec.json.encode(said), digest_size=16).hexdigest()

    def unended(self) -> list[LedgerEntry]:
        """The entry of the incomplete group; empty if nothing in it has been judged."""
        return [LedgerEntry(self.through, self.judged, self.digest(), self.flagged)] if self.judged else []

    def copy(self) -> "VerdictHash":
        """Return an independent copy."""
        return msgspec.structs.replace(self, flagged=[*self.flagged])

    def _end(self) -> list[LedgerEntry]:
        ended = [msgspec.structs.replace(entry, through=(self.group + 1) * GROUP) for entry in self.unended()]
        self.closed, self.judged, self.flagged = self.digest(), 0, []
        return ended


def encode_entry(entry: LedgerEntry) -> bytes:
    """Encode an entry as one line of NDJSON."""
    return msgspec.json.encode(entry) + b"\n"


def decode_entry(line: bytes) -> LedgerEntry:
    """The inverse of `encode_entry`.

    Raises:
        MsgspecError: the line is not a ledger entry.
    """
    return msgspec.json.decode(line, type=LedgerEntry)


def is_provisional(line: bytes) -> bool:
    """Whether a line is the entry of an incomplete group."""
    with suppress(msgspec.MsgspecError):
        return not decode_entry(line).has_ended
    return False
