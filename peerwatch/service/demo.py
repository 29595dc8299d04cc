"""The demo of `peerwatch serve`: a seeded log that grows by itself, in a directory that is removed at the end."""

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from peerwatch.settings.model import Layer
from peerwatch.studies.generate import Recipe, write_logs

RECIPE: Final = Recipe(users=2000, batch_events=40_000, stream_events=200_000)
RATE: Final = 50
"""Events a second."""
FIRST: Final = 20_000
"""Events of the stream that are there at the beginning."""


@contextmanager
def demo() -> Iterator[Layer]:
    """The settings of a run over the demo log, which grows meanwhile."""
    with tempfile.TemporaryDirectory(prefix="peerwatch-demo-") as name:
        directory = Path(name)
        batch, whole, _ = write_logs(directory / "whole", RECIPE, force=True)
        lines = whole.read_bytes().splitlines(keepends=True)
        stream = directory / "stream_log.json"
        stream.write_bytes(b"".join(lines[:FIRST]))
        over = threading.Event()
        writer = threading.Thread(target=_grow, args=(stream, lines[FIRST:], over), daemon=True)
        writer.start()
        values = {
            "input.batch": str(batch),
            "input.stream": str(stream),
            "output.flagged": str(directory / "flagged_purchases.json"),
            "state.directory": str(directory / "state"),
            "follow": True,
        }
        try:
            yield Layer(values, dict.fromkeys(values, "the demo"))
        finally:
            over.set()
            writer.join()


def _grow(stream: Path, lines: list[bytes], over: threading.Event) -> None:
    with stream.open("ab", buffering=0) as file:
        for line in lines:
            if over.wait(1 / RATE):
                return
            file.write(line)
