"""Several partitions as one stream: in whatever order they come, each run after a kill reads them in the same."""

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from peerwatch.connectors.interleaved import InterleavedStream
from peerwatch.connectors.stream import Entry, StreamSource
from peerwatch.errors import SourceError, UsageError
from peerwatch.urls import parsed

URL = parsed("kafka://h/topic")


class Partition:
    """A partition in memory, of which messages arrive when the test says so; some may have been trimmed."""

    url = URL

    def __init__(self, number: int, arrived: list[int]) -> None:
        self.number = number
        self.arrived = arrived
        """How many messages of each partition have arrived."""
        self.first = 0
        self.most = 1000

    async def connect(self, after: Any) -> None:
        """Go on behind a message."""
        self.next = 0 if after is None else after + 1

    async def close(self) -> None:
        """There is nothing to close."""

    async def fetch(self, seconds: float) -> list[Entry]:  # noqa: ARG002
        """Some of what has arrived."""
        end = min(self.arrived[self.number], self.next + self.most)
        entries = [
            Entry(place, b"%d:%d" % (self.number, place)) for place in range(self.next, end) if place >= self.first
        ]
        self.next = max(end, self.next)
        return entries

    async def lag(self) -> int:
        """What has arrived and not been fetched."""
        return self.arrived[self.number] - self.next


def opened(
    journal: Path, arrived: list[int], position: Any = None, most: int = 1000, first: int = 0, **options: Any
) -> StreamSource:
    """The source of a run that begins or goes on; messages before the `first` have been trimmed."""
    partitions = [Partition(number, arrived) for number in range(len(arrived))]
    for partition in partitions:
        partition.most, partition.first = most, first
    stream = InterleavedStream(URL, partitions, journal, **options)
    return StreamSource(stream, judged=True, position=position, follow=False, give_up=0.0, warn=print)


async def read(source: StreamSource, pieces: int = 1000) -> tuple[list[bytes], list[Any]]:
    """The lines of at most so many blocks, and the position behind each of these."""
    lines: list[bytes] = []
    positions: list[Any] = []
    await source.open()
    async with aclosing(source.blocks()) as blocks:
        async for block in blocks:
            if not block.content or len(positions) == pieces:
                break
            lines += block.content.splitlines()
            positions.append(block.position)
    await source.close()
    return lines, positions


@settings(max_examples=examples(100))
@given(
    steps=st.lists(
        st.tuples(
            st.lists(st.integers(0, 4), min_size=3, max_size=3), st.integers(0, 4), st.integers(1, 5), st.booleans()
        ),
        min_size=1,
        max_size=12,
    )
)
def test_every_run_reads_the_same_order(
    steps: Sequence[tuple[list[int], int, int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Messages arrive anyhow, a run is killed anywhere and goes on behind a checkpoint: what was read is read again."""
    directory = tmp_path_factory.mktemp("interleaved")
    journal, arrived = directory / "interleaving.jsonl", [0, 0, 0]
    kept: list[bytes] = []
    known: list[bytes] = []
    position: Any = None

    async def go() -> None:
        nonlocal kept, known, position
        for new, pieces, most, checkpoint in steps:
            for partition, count in enumerate(new):
                arrived[partition] += count
            lines, positions = await read(opened(journal, arrived, position, most), pieces)
            seen = kept + lines
            shorter = min(len(seen), len(known))
            assert seen[:shorter] == known[:shorter]
            known = max(seen, known, key=len)
            if checkpoint and positions:
                kept, position = seen, positions[-1]
        lines, _ = await read(opened(journal, arrived, position))
        assert (kept + lines)[: len(known)] == known
        assert sorted(kept + lines) == sorted(
            b"%d:%d" % (number, place) for number in range(3) for place in range(arrived[number])
        )
        again, _ = await read(opened(journal, [each + 3 for each in arrived], None, again=True))
        assert again == kept + lines  # explain reads what the journal names, whatever has come since

    anyio.run(go)


async def test_half_a_line_is_what_a_crash_has_left(tmp_path: Path) -> None:
    """It names a piece that nobody has judged."""
    journal = tmp_path / "interleaving.jsonl"
    lines, _ = await read(opened(journal, [2, 1]))
    await anyio.Path(journal).write_bytes(await anyio.Path(journal).read_bytes() + b"[0,")
    assert (await read(opened(journal, [2, 1])))[0] == lines
    assert (await anyio.Path(journal).read_bytes()).endswith(b"]\n")


async def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    """A journal that is shorter than it was or damaged, fewer partitions, a message that is gone."""
    journal = tmp_path / "interleaving.jsonl"
    _, positions = await read(opened(journal, [2, 1]))
    content = await anyio.Path(journal).read_bytes()
    with pytest.raises(UsageError, match="had 2 partitions when the checkpoint was taken, and has 1 now"):
        await read(opened(journal, [2], positions[-1]))
    trimmed = opened(journal, [2, 1], first=2)
    with pytest.raises(SourceError, match="message 1 of partition 0 has been judged before, and is gone"):
        await read(trimmed)
    await anyio.Path(journal).write_bytes(content[:8])
    with pytest.raises(UsageError, match="holds 6 bytes, but 12 when the checkpoint was taken"):
        await read(opened(journal, [2, 1], positions[-1]))
    await anyio.Path(journal).write_bytes(b"nothing\n")
    with pytest.raises(SourceError, match="is damaged"):
        await read(opened(journal, [2, 1]))
