"""A running hash of all verdicts, and the entries of a ledger in which two runs can be compared."""

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
"""The digest of no decision."""


class FlaggedVerdict(NamedTuple):
    """A flagged purchase: its sequence number, its line in its file, and the mean and sd that are written."""

    seq: int
    line: int
    mean: str
    sd: str


class LedgerEntry(msgspec.Struct, frozen=True):
    """One line of a ledger: the verdicts of one group, which ends with event `through` or goes on behind it.

    `judged` counts the group's decisions; whatever is not in `flagged` is normal. `digest` is that of these and all
    before.
    """

    through: int
    judged: int
    digest: str
    flagged: list[FlaggedVerdict]

    @property
    def group(self) -> int:
        """Which group it is, from 0."""
        return (self.through - 1) // GROUP

    @property
    def has_ended(self) -> bool:
        """Whether it is whole; if not, a run ended within the group, and one that goes on writes it again."""
        return self.through % GROUP == 0


class VerdictHash(msgspec.Struct):
    """The verdicts so far as a chain of digests, one for each group of GROUP sequence numbers in which any were judged.

    A link is BLAKE2b (128 bits) over the digest before it and, as JSON, the group's number from 0, how many of its
    purchases were judged, and the sequence number, mean and sd of each flagged one. So the digest depends on the
    verdicts alone, not on how they came. A verdict's line is not in it, because lines are counted anew in every file
    that a log is rotated through.
    """

    closed: str = NOTHING
    """The digest of all groups before the one that is open."""
    decisions: int = 0
    through: int = 0
    group: int = 0
    judged: int = 0
    flagged: list[FlaggedVerdict] = []

    def add(self, seq: Int64s, flagged: Sequence[FlaggedVerdict], through: int) -> list[LedgerEntry]:
        """Take in the decisions on purchases `seq`, those that were `flagged` among them, up to event `through`.

        Both are in order and behind everything before. Returns the groups that have ended.
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
        """The group that has not ended, as it is now, if anything in it has been judged."""
        return [LedgerEntry(self.through, self.judged, self.digest(), self.flagged)] if self.judged else []

    def copy(self) -> "VerdictHash":
        """Another that goes its own way."""
        return msgspec.structs.replace(self, flagged=[*self.flagged])

    def _end(self) -> list[LedgerEntry]:
        ended = [msgspec.structs.replace(entry, through=(self.group + 1) * GROUP) for entry in self.unended()]
        self.closed, self.judged, self.flagged = self.digest(), 0, []
        return ended


def encode_entry(entry: LedgerEntry) -> bytes:
    """One NDJSON line."""
    return msgspec.json.encode(entry) + b"\n"


def decode_entry(line: bytes) -> LedgerEntry:
    """The inverse of `encode_entry`.

    Raises:
        MsgspecError: the line is no entry.
    """
    return msgspec.json.decode(line, type=LedgerEntry)


def is_provisional(line: bytes) -> bool:
    """Whether a line is the entry of a group within which a run ended."""
    with suppress(msgspec.MsgspecError):
        return not decode_entry(line).has_ended
    return False
