"""How fast whole runs are, start-up included, and what they hold in memory."""

import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from cases import Case, blocks
from yardsticks import decoding_seconds, reference_seconds

from peerwatch.network.decoder import Decoder
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.stretches import COUNT, STRETCH
from peerwatch.network.timeline import Timeline

COMMAND: Final = [sys.executable, "-m", "peerwatch", "run", "--quiet"]
ENVIRONMENT: Final = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
"""Users let Python keep its byte code."""


class Cost(NamedTuple):
    """Of one process: wall-clock and processor seconds, and the peak of its resident memory in MiB."""

    wall: float
    cpu: float
    memory: float


def cost_of(command: list[str]) -> Cost:
    """Run a command to its end.

    Raises:
        SystemExit: it failed.
    """
    launched = subprocess.run(
        [sys.executable, "-S", "-E", str(Path(__file__).with_name("launch.py")), *command],
        env=ENVIRONMENT, stdout=subprocess.PIPE, check=False,
    )  # fmt: skip
    if launched.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {launched.returncode}")
    wall, cpu, memory = map(float, launched.stdout.split())
    return Cost(wall, cpu, memory / (1024 if sys.platform == "linux" else 1 << 20))


def median(costs: list[Cost]) -> Cost:
    """Each column's median."""
    return Cost(*(statistics.median(column) for column in zip(*costs, strict=True)))


def run_of(case: Case, directory: Path, output: Path, *options: str) -> list[str]:
    """The command that judges a case."""
    logs = [str(directory / name) for name in ("batch_log.json", "stream_log.json")]
    return [*COMMAND, "--D", str(case.D), "--T", str(case.T), *options, *logs, str(output)]


def measure(case: Case, directory: Path, yardstick: Path | None, runs: int, scratch: Path) -> dict[str, Any]:
    """One row of the table; every program in turn, so that all meet the machine in the same mood."""
    ours: list[Cost] = []
    theirs: list[Cost] = []
    decoding: list[float] = []
    same = None
    for _ in range(1 if case.large else runs):
        if yardstick is not None:
            theirs.append(cost_of([str(yardstick), str(directory), str(scratch / "theirs")]))
        ours.append(cost_of(run_of(case, directory, scratch / "ours")))
        decoding.append(decoding_seconds(directory))
    if yardstick is not None:
        same = (scratch / "ours").read_bytes() == (scratch / "theirs").read_bytes()
    events = sum((directory / name).read_bytes().count(b"\n") for name in ("batch_log.json", "stream_log.json"))
    cost = median(ours)
    row: dict[str, Any] = {"case": case.name, "D": case.D, "T": case.T, "events": events, **cost._asdict()}
    row["events_per_second"] = events / cost.wall
    row["decoding"] = statistics.median(decoding)
    row["yardstick"] = median(theirs)._asdict() if theirs else None
    row["same_bytes"] = same
    if not case.large:
        row["reference"], row["reference_lines"] = reference_seconds(directory, case)
    row |= held(case, directory)
    return row


def held(case: Case, directory: Path) -> dict[str, float]:
    """Bytes that the state takes: all arrays of the history a purchase held, all of the graph a friendship in force."""
    decoder, graph, history = Decoder(), FriendGraph(case.D, case.T), PurchaseHistory(case.T)
    seq = 1
    for block in blocks(directory):
        events = decoder.decode(block, 1).events
        bought = np.flatnonzero(events.kind == Kind.PURCHASE)
        history.reserve(decoder.users)
        through = seq + len(events) - 1
        history.append(
            seq + bought, events.user[bought], events.timestamp[bought], events.amount[bought], through
        )  # fmt: skip
        history.raise_low(through + 1)
        history.settle()
        graph.reserve(decoder.users)
        graph.walk(events.kind, events.user, events.friend, events.timestamp, events.amount, seq, 0, 0)
        seq = through + 1
    purchases = int(history.stretch[COUNT::STRETCH].sum())
    return {
        "purchases_held": purchases,
        "purchase_bytes": _bytes(history) / purchases,
        "friendships": graph.friendships,
        "friendship_bytes": _bytes(graph) / max(graph.friendships, 1),
    }


def _bytes(state: object) -> int:
    parts = [*vars(state).values()]
    parts += [part for value in parts if isinstance(value, Timeline) for part in vars(value).values()]
    return sum(value.nbytes for value in parts if isinstance(value, np.ndarray))


def cores(case: Case, directory: Path, runs: int, scratch: Path) -> dict[str, float]:
    """Wall-clock seconds on one core and on two."""
    if not hasattr(os, "sched_setaffinity"):
        return {}
    available = sorted(os.sched_getaffinity(0))
    walls: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(runs):
        for count, taken in walls.items():
            os.sched_setaffinity(0, available[:count])
            taken.append(cost_of(run_of(case, directory, scratch / "ours")).wall)
    os.sched_setaffinity(0, available)
    one, two = (statistics.median(taken) for taken in walls.values())
    return {"one_core": one, "two_cores": two, "speed_up": one / two}


def judging_cost(case: Case, directory: Path, scratch: Path) -> float:
    """Microseconds a stream purchase takes, the batch log left out.

    The stream is a named pipe: what a pipe cannot hold is taken only when the batch log is through.
    """
    stream = (directory / "stream_log.json").read_bytes()
    pipe = scratch / "pipe"
    os.mkfifo(pipe)
    begun: list[float] = []

    def feed() -> None:
        with pipe.open("wb", buffering=0) as end:
            rest = memoryview(stream)
            while rest:
                rest = rest[end.write(rest[: 1 << 20]) :]
                if not begun and len(rest) <= len(stream) - (1 << 20):
                    begun.append(time.perf_counter())

    feeder = threading.Thread(target=feed)
    feeder.start()
    options = ["--D", str(case.D), "--T", str(case.T)]
    cost_of([*COMMAND, *options, str(directory / "batch_log.json"), str(pipe), str(scratch / "ours")])
    ended = time.perf_counter()
    feeder.join()
    pipe.unlink()
    left = stream[1 << 20 :].count(b'"purchase"')
    return (ended - begun[0]) / left * 1e6


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
