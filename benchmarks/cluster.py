"""What a run on a cluster costs beside one process: events a second, processor time and bytes an event.

The cluster is one node on this machine. So it shows what the workers cost, and not how much faster they are.
"""

import os
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import psutil
from cases import Case
from throughput import cost_of, run_of

from peerwatch.cluster import local
from peerwatch.cluster.environment import LOOPBACK
from peerwatch.storage.status import Status

NAME: Final = "cluster"
CASES: Final = ("stream", "deep", "huge")
WORKERS: Final = (1, 2, 4)
PORT: Final = 26379
LONG_EVENTS: Final = 1_100_000
"""The stream of the case `stream` is repeated up to so many events for the paired comparison."""


class ClusterCost(NamedTuple):
    """Of one run: wall-clock seconds, processor seconds of all processes, and bytes sent to workers and back."""

    wall: float
    cpu: float
    bytes: int


def measure(built: dict[str, tuple[Case, Path | None]], runs: int, scratch: Path) -> dict[str, Any]:
    """One row for each case and number of workers, and the comparison on the lengthened stream."""
    local.start(1, PORT)
    try:
        rows = []
        for name in CASES:
            case, directory = built.get(name, (None, None))
            if case is not None and directory is not None:
                rows += _rows(case, directory, 1 if case.large else runs, scratch)
        pairs: list[list[float]] = []
        case, directory = built.get("stream", (None, None))
        if case is not None and directory is not None:
            pairs = _pairs(case, _lengthened(directory, scratch / "lengthened"), runs, scratch)
    finally:
        local.stop()
    return {"cores": os.cpu_count(), "rows": rows, "pairs": pairs}


def _rows(case: Case, directory: Path, runs: int, scratch: Path) -> list[dict[str, Any]]:
    events, rows = _events(directory), []
    nothing = _cut(directory, scratch / "nothing")
    for workers in (0, *WORKERS):
        started = [_cost(case, nothing, workers, scratch) for _ in range(3)]
        start = ClusterCost(*(statistics.median(column) for column in zip(*started, strict=True)))
        found = [_cost(case, directory, workers, scratch) for _ in range(runs)]
        whole = ClusterCost(*(statistics.median(column) for column in zip(*found, strict=True)))
        rows.append(
            {
                "case": case.name,
                "workers": workers,
                "events": events,
                "start": start.wall,
                "events_per_second": events / (whole.wall - start.wall),
                "cpu_us": (whole.cpu - start.cpu) / events * 1e6,
                "bytes": whole.bytes / events,
            }
        )
        print(_row(rows[-1]), flush=True)
    return rows


def _pairs(case: Case, directory: Path, runs: int, scratch: Path) -> list[list[float]]:
    """The processor microseconds an event of one process and of two workers, in turn, the start left out."""
    events, nothing, pairs = _events(directory), _cut(directory, scratch / "nothing"), []
    for _ in range(runs):
        pair = []
        for workers in (0, 2):
            start = _cost(case, nothing, workers, scratch).cpu
            pair.append((_cost(case, directory, workers, scratch).cpu - start) / events * 1e6)
        pairs.append(pair)
    return pairs


def _cost(case: Case, directory: Path, workers: int, scratch: Path) -> ClusterCost:
    """What one run costs, with its state directory; without workers it is one process."""
    state, output = scratch / "cluster-state", scratch / "ours"
    options = ["--state", str(state), "--reset"]
    if workers:
        options += ["--cluster", f"ray:{LOOPBACK}:{PORT}", "--workers", str(workers)]
    before = _cluster_seconds()
    cost = cost_of(run_of(case, directory, output, *options))
    while any(_is_worker(process) for process in local.processes()):
        time.sleep(0.05)
    status = msgspec.json.decode((state / "status.json").read_bytes(), type=Status)
    moved = sum(worker.bytes_sent + worker.bytes_received for worker in status.workers)
    cpu = cost.cpu + sum(worker.cpu_seconds for worker in status.workers)
    return ClusterCost(cost.wall, cpu + (_cluster_seconds() - before if workers else 0.0), moved)


def _is_worker(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return "_Actor" in " ".join(process.cmdline())
    return False


def _cluster_seconds() -> float:
    """The processor seconds of Ray's own processes; those of a worker are in the status of its run."""
    total = 0.0
    for process in local.processes():
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _events(directory: Path) -> int:
    return sum((directory / name).read_bytes().count(b"\n") for name in ("batch_log.json", "stream_log.json"))


def _cut(directory: Path, to: Path) -> Path:
    """The first lines of both logs, of which a run is nothing but its start."""
    to.mkdir(exist_ok=True)
    for name in ("batch_log.json", "stream_log.json"):
        with (directory / name).open("rb") as log:
            (to / name).write_bytes(b"".join(log.readline() for _ in range(100)))
    return to


def _lengthened(directory: Path, to: Path) -> Path:
    """The same logs with the stream repeated."""
    to.mkdir(exist_ok=True)
    batch, stream = ((directory / name).read_bytes() for name in ("batch_log.json", "stream_log.json"))
    times = -(-(LONG_EVENTS - batch.count(b"\n")) // stream.count(b"\n"))
    (to / "batch_log.json").write_bytes(batch)
    (to / "stream_log.json").write_bytes(stream * times)
    return to


def _row(row: dict[str, Any]) -> str:
    cells = (
        row["case"], f"{row['workers']} worker{'s' * (row['workers'] > 1)}" if row["workers"] else "one process",
        f"{row['events_per_second']:,.0f}", f"{row['cpu_us']:.1f}", f"{row['bytes']:.0f}", f"{row['start']:.1f}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def lines(found: dict[str, Any]) -> list[str]:
    """The figures as Markdown."""
    if not found:
        return []
    head = "| case | run on | events/s | CPU µs an event | bytes an event | start, s |\n|---|---|--:|--:|--:|--:|"
    text = [
        (
            "A run on a Ray cluster of one node on this machine, the start left out, processor time of all processes"
            f" together. All share the {found['cores']} cores of this machine, which show the overhead of workers and"
            " not the speed-up of more machines:"
        ),
        "\n".join([head, *map(_row, found["rows"])]),
    ]
    if found["pairs"]:
        ratios = [two / one for one, two in found["pairs"]]
        one, two = (statistics.median(column) for column in zip(*found["pairs"], strict=True))
        text.append(
            f"`stream`, repeated to {LONG_EVENTS:,} events: {one:.2f} µs of processor time an event in one process,"
            f" {two:.2f} µs with two workers, {statistics.median(ratios):.2f} times as much (median of"
            f" {len(ratios)} pairs)."
        )
    return text
