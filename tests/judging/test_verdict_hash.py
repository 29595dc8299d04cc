"""The running hash: it depends on the verdicts alone, and every one of them counts."""

from hashlib import blake2b

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.judging.verdict_hash import (
    GROUP,
    NOTHING,
    FlaggedVerdict,
    LedgerEntry,
    VerdictHash,
    decode_entry,
    encode_entry,
)  # fmt: skip

JUDGED = st.lists(st.integers(1, 4 * GROUP), unique=True, max_size=60).map(sorted)


def taken(judged: list[int], flagged: set[int], cuts: list[int]) -> tuple[VerdictHash, list[LedgerEntry]]:
    """The hash of these decisions, handed over in pieces."""
    verdicts, ended = VerdictHash(), []
    ends = sorted({*(cut for cut in cuts if cut <= len(judged)), 0, len(judged)})
    for begin, end in zip(ends, [*ends[1:], len(judged)], strict=True):
        piece = judged[begin:end]
        said = [FlaggedVerdict(seq, seq + 1, "1.00", "0.50") for seq in piece if seq in flagged]
        ended += verdicts.add(np.array(piece, np.int64), said, piece[-1] if piece else 0)
    return verdicts, ended


@given(judged=JUDGED, cuts=st.lists(st.integers(0, 60)), data=st.data())
def test_how_decisions_are_handed_over_does_not_matter(judged: list[int], cuts: list[int], data: st.DataObject) -> None:
    """In one piece or many, and copied in between: the same digest, the same entries."""
    flagged = set(data.draw(st.lists(st.sampled_from(judged)))) if judged else set()
    whole, entries = taken(judged, flagged, [])
    pieces, same = taken(judged, flagged, cuts)
    assert (whole.digest(), whole.decisions) == (pieces.digest(), len(judged))
    assert [*entries, *whole.unended()] == [*same, *pieces.unended()]
    assert sum(entry.judged for entry in (*entries, *whole.unended())) == len(judged)
    assert [decode_entry(encode_entry(entry)) for entry in entries] == entries
    assert whole.copy().digest() == whole.digest()


@given(judged=JUDGED.filter(bool), data=st.data())
def test_each_verdict_counts(judged: list[int], data: st.DataObject) -> None:
    """One decision more or less, or the other way round, and the digest is another; it stays so behind it."""
    flagged = set(data.draw(st.lists(st.sampled_from(judged))))
    other = data.draw(st.sampled_from(judged))
    digest = taken(judged, flagged, [])[0].digest()
    assert taken(judged, flagged ^ {other}, [])[0].digest() != digest
    assert taken([seq for seq in judged if seq != other], flagged - {other}, [])[0].digest() != digest


def test_a_digest_can_be_recomputed_by_hand() -> None:
    """BLAKE2b over the digest before and plain JSON: anybody can check a ledger."""
    verdicts = VerdictHash()
    assert verdicts.digest() == NOTHING
    (first,) = verdicts.add(np.array([5, 4096, 4097]), [FlaggedVerdict(5, 9, "1.00", "0.50")], 4097)
    said = NOTHING.encode() + b'[0,2,[[5,"1.00","0.50"]]]'
    assert first == LedgerEntry(
        4096, 2, blake2b(said, digest_size=16).hexdigest(), [FlaggedVerdict(5, 9, "1.00", "0.50")]
    )
    said = first.digest.encode() + b"[1,1,[]]"
    assert verdicts.digest() == blake2b(said, digest_size=16).hexdigest()
    assert verdicts.add(np.zeros(0, np.int64), [], 8192)[0].through == 8192
    assert verdicts.add(np.zeros(0, np.int64), [], 3 * 4096) == []
