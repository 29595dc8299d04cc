"""What the speed is held against: decoding alone, the naive reference, a hand-written C++ loop."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import msgspec
from cases import SHARED, Case, blocks

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from reference import judge

REFERENCE_SECONDS: Final = 10.0
"""About how long the reference judges at least; of a longer stream only the beginning is judged."""


class Purchase(msgspec.Struct, tag_field="event_type", tag="purchase"):
    """A purchase as text."""

    timestamp: str
    id: str
    amount: str


class Befriend(msgspec.Struct, tag_field="event_type", tag="befriend"):
    """A befriending as text."""

    timestamp: str
    id1: str
    id2: str


class Unfriend(Befriend, tag_field="event_type", tag="unfriend"):
    """An unfriending as text."""


def decoding_seconds(directory: Path) -> float:
    """How long msgspec takes to make objects of both logs' lines, in blocks of a mebibyte, and nothing more."""
    decoder = msgspec.json.Decoder(Purchase | Befriend | Unfriend)
    spent = 0.0
    for block in blocks(directory):
        began = time.perf_counter()
        decoder.decode_lines(block)
        spent += time.perf_counter() - began
    return spent


def reference_seconds(directory: Path, case: Case) -> tuple[float, int]:
    """What the whole stream would take the naive reference at the pace of its first lines, and how many those are.

    The pace falls as the history grows, so that this is less than it would really take.
    """
    batch = (directory / "batch_log.json").read_bytes().partition(b"\n")[2]
    lines = (directory / "stream_log.json").read_bytes().splitlines(keepends=True)
    began = time.perf_counter()
    judge(batch, b"", case.D, case.T)
    building = time.perf_counter() - began
    judged, enough = min(50, len(lines)), building / 2 + REFERENCE_SECONDS / 4
    while True:
        began = time.perf_counter()
        judge(batch, b"".join(lines[:judged]), case.D, case.T)
        spent = time.perf_counter() - began - building
        if spent > enough or judged == len(lines):
            return building + spent / judged * len(lines), judged
        judged = min(len(lines), 2 * int(judged * max(enough / max(spent, enough / 10), 1)))


def compiled_yardstick(directory: Path) -> Path | None:
    """The C++ loop as a program, None where its source or g++ is missing."""
    source, compiler = SHARED / "limit.cpp", shutil.which("g++")
    if compiler is None or not source.exists():
        return None
    program = directory / "limit"
    subprocess.run([compiler, "-O3", "-march=native", str(source), "-o", str(program)], check=True)
    return program
