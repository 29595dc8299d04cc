"""How long after a line is written its flagged line can be read, beside the same for `tail -F | cat`."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from peerwatch.studies.generate import Recipe, write_logs

PERCENTILES = (50.0, 99.0, 99.9)
LOOK_SECONDS = 0.0005
"""How often the outputs are looked at; adds at most this much to what is measured."""


class Output:
    """A file that another process appends to: its lines, each with the moment at which it could be read."""

    def __init__(self, path: Path) -> None:
        self.file = os.open(path, os.O_RDONLY)
        self.rest = b""
        self.lines: list[bytes] = []
        self.moments: list[float] = []

    def look(self) -> None:
        """Read what has come."""
        content = os.read(self.file, 1 << 20)
        if content:
            now = time.perf_counter()
            *lines, self.rest = (self.rest + content).split(b"\n")
            self.lines += lines
            self.moments += [now] * len(lines)


def measure(directory: Path, rate: int, rounds: int = 5) -> dict[str, list[float]]:
    """Milliseconds from write to readability, as percentiles, of peerwatch and of tail: medians of some rounds."""
    measured = [one_round(directory / str(number), rate) for number in range(rounds)]
    return {
        program: np.median([percentiles[program] for percentiles in measured], axis=0).tolist()
        for program in measured[0]
    }


def one_round(directory: Path, rate: int, seconds: float = 10.0) -> dict[str, list[float]]:
    """The same for one round.

    Both follow the same log at the same time, written at `rate` events a second. k is 0, so that many are flagged. The
    first second is not counted.
    """
    count = int(rate * (seconds + 1))
    batch, stream, _ = write_logs(directory, Recipe(batch_events=100_000, stream_events=count), force=True)
    lines = stream.read_bytes().splitlines(keepends=True)
    stream.write_bytes(b"")
    flagged, copied = directory / "flagged", directory / "copied"
    for path in (flagged, copied):
        path.touch()
    run = [sys.executable, "-m", "peerwatch", "run", "--quiet", "--follow", "--k", "0", "--walkers", "1"]
    with ExitStack() as stack:
        peerwatch = stack.enter_context(
            subprocess.Popen([*run, "--state", str(directory / "state"), str(batch), str(stream), str(flagged)])
        )
        while not list((directory / "state").glob("checkpoint-*")):  # then it has begun
            time.sleep(0.1)
        tail = stack.enter_context(subprocess.Popen(["tail", "-n", "0", "-F", str(stream)], stdout=subprocess.PIPE))
        with copied.open("wb") as sink:
            stack.enter_context(subprocess.Popen(["cat"], stdin=tail.stdout, stdout=sink))
        time.sleep(1)  # for the batch log, and for tail to begin
        ours, theirs = Output(flagged), Output(copied)
        written = _write(stream, lines, rate, (ours, theirs))
        peerwatch.send_signal(signal.SIGTERM)
        tail.kill()
    place = {line: number for number, line in enumerate(lines)}
    ours_late, theirs_late = [], []
    for line, moment in zip(ours.lines, ours.moments, strict=True):
        number = place[line.rpartition(b', "mean"')[0] + b"}\n"]
        if theirs.lines[number] + b"\n" != lines[number]:
            raise SystemExit("tail -F has left lines out")
        if number < rate:
            continue
        ours_late.append(moment - written[number])
        theirs_late.append(theirs.moments[number] - written[number])
    return {
        name: (1000 * np.percentile(late, PERCENTILES)).tolist()
        for name, late in (("peerwatch", ours_late), ("tail -F | cat", theirs_late))
    }


def _write(log: Path, lines: list[bytes], rate: int, outputs: tuple[Output, Output]) -> list[float]:
    """Append the lines at their times, each when it is due; returns the moment just before each was written."""
    written: list[float] = []
    file = os.open(log, os.O_WRONLY | os.O_APPEND)
    begin = time.perf_counter()
    while len(written) < len(lines) or time.perf_counter() < written[-1] + 1:
        due = min(len(lines), int((time.perf_counter() - begin) * rate) + 1)
        if due > len(written):
            content = b"".join(lines[len(written) : due])
            written += [time.perf_counter()] * (due - len(written))
            os.write(file, content)
        for output in outputs:
            output.look()
        time.sleep(LOOK_SECONDS)
    os.close(file)
    return written
