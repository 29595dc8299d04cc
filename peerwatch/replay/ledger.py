"""`peerwatch bisect`: the first decision on which two runs differ, from their ledgers."""

from pathlib import Path

import msgspec

from peerwatch.errors import UsageError
from peerwatch.judging.verdict_hash import FlaggedVerdict, LedgerEntry, decode_entry, is_provisional
from peerwatch.readable import shown


class Ledger:
    """The entries of a ledger, decoded when they are used.

    If rotated ledgers were concatenated, the entry of an incomplete group may be followed by the entry of the whole
    group. Then only the latter counts.
    """

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            UsageError: the file cannot be read.
        """
        self.name = shown(path)
        try:
            lines = list(enumerate(path.read_bytes().splitlines(), 1))
        except OSError as error:
            raise UsageError(f"cannot read the ledger {self.name}: {error.strerror}") from None
        self._lines = [(number, line) for number, line in lines[:-1] if not is_provisional(line)] + lines[-1:]

    def __len__(self) -> int:
        return len(self._lines)

    def where(self, place: int) -> str:
        """Return the file and line of the entry at an index."""
        return f"{self.name}:{self._lines[place][0]}"

    def entry(self, place: int) -> LedgerEntry:
        """Return the entry at an index, from 0.

        Raises:
            UsageError: the line is not an entry.
        """
        try:
            return decode_entry(self._lines[place][1])
        except msgspec.MsgspecError as error:
            raise UsageError(
                f"{self.where(place)}: not a line of a ledger ({error}); name files written with --verdicts"
            ) from None


class Comparison(msgspec.Struct, frozen=True):
    """Whether two ledgers agree, and a sentence that says so."""

    same: bool
    text: str


def compare(a: Ledger, b: Ledger) -> Comparison:
    """Find the first decision that differs.

    An entry's digest covers everything up to it, so the first entry that differs is found by bisection.

    Raises:
        UsageError: a line is not an entry, or has been altered. Only lines that the search visits are checked.
    """
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high) // 2
        if a.entry(middle).digest == b.entry(middle).digest:
            low = middle + 1
        else:
            high = middle
    if low < min(len(a), len(b)):
        return _within(a, b, low)
    if len(a) != len(b):
        return _ends(*((a, b) if len(a) < len(b) else (b, a)))
    if low == 0:
        return Comparison(same=True, text="Both are empty: nothing was judged.")
    last = a.entry(low - 1)
    return Comparison(same=True, text=f"Every verdict is the same through event {last.through:,}: hash {last.digest}")


def _within(a: Ledger, b: Ledger, place: int) -> Comparison:
    """Find the first difference in the first entries that differ."""
    entries = one, other = a.entry(place), b.entry(place)
    if one.group != other.group:
        early, late, entry = (a, b, one) if one.group < other.group else (b, a, other)
        text = f"{early.name} has decisions up to event {entry.through:,} where {late.name} has none:"
        return Comparison(same=False, text=f"{text} they are not from the same logs.")
    said = [{verdict.seq: verdict for verdict in entry.flagged} for entry in entries]
    reached = min(one.through, other.through)
    for seq in sorted(said[0].keys() | said[1].keys()):
        found = [verdicts.get(seq) for verdicts in said]
        if seq <= reached and _shown(found[0]) != _shown(found[1]):
            line = next(verdict.line for verdict in found if verdict is not None)
            width = max(len(a.name), len(b.name))
            text = f"The first decision that differs is on event {seq:,}, line {line:,}:"
            for ledger, verdict in zip((a, b), found, strict=True):
                text += f"\n  {ledger.name:<{width}}  {_shown(verdict)}"
            return Comparison(same=False, text=text)
    if one.through != other.through:
        return _ends(*((a, b) if one.through < other.through else (b, a)))
    if one.judged != other.judged:
        text = (
            f"Up to event {one.through:,} the same purchases are flagged, but {one.judged:,} and {other.judged:,} were"
            " judged:"
        )
        return Comparison(same=False, text=f"{text} they are not from the same logs.")
    raise UsageError(
        f"{a.where(place)} and {b.where(place)} agree, but their digests differ: one of the files has been altered"
    )


def _shown(verdict: FlaggedVerdict | None) -> str:
    return f"flagged, mean {verdict.mean}, sd {verdict.sd}" if verdict is not None else "normal"


def _ends(shorter: Ledger, longer: Ledger) -> Comparison:
    """Describe a ledger that is the beginning of the other."""
    reached = shorter.entry(len(shorter) - 1).through if len(shorter) else 0
    text = f"{shorter.name} ends with event {reached:,}, and {longer.name} goes on; up to there they agree."
    return Comparison(same=False, text=text)
