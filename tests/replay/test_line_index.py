"""Which line an event stands in, remembered as stretches."""

from hypothesis import given
from hypothesis import strategies as st
from support import purchase

from peerwatch.connectors.source import Block
from peerwatch.network.decoder import Decoder
from peerwatch.replay.replay import LineIndex, Part

GOOD, BAD = purchase(1, "1"), b"no event\n"
BLOCKS = st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.booleans(), max_size=6)), max_size=12)


@given(BLOCKS, st.integers(1, 5), st.integers(0, 4))
def test_each_event_is_found_in_its_line(blocks: list[tuple[str, list[bool]]], first: int, forgotten: int) -> None:
    """Through rejected lines, blocks without events and files that change; a stretch is no longer than need be."""
    lines, expected, decoder = LineIndex(), {}, Decoder()
    at, seq, stretches, last = {"a": 1, "b": 1}, first, [], ("", 0)
    for file, which in blocks:
        content = b"".join(GOOD if good else BAD for good in which)
        decoded = decoder.decode(content, at[file])
        block = Block(content, 0, at[file], None)
        lines.add(Part(file, judged=True, seq=seq, events=decoded.events, rejected=decoded.rejected, block=block))
        for line, good in enumerate(which, at[file]):
            if good:
                expected[seq] = (file, line)
                if last != (file, line - 1):
                    stretches.append(seq)
                last, seq = (file, line), seq + 1
        at[file] += len(which)
    assert len(lines) == len(stretches)
    assert {number: lines.where(number) for number in range(seq + 2) if lines.where(number)} == expected
    lines.forget(forgotten)
    kept = stretches[forgotten] if forgotten < len(stretches) else seq
    assert {number for number in range(seq + 2) if lines.where(number)} == {one for one in expected if one >= kept}
