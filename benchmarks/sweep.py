"""How much a sweep saves: twelve settings in one pass, beside twelve runs."""

import sys
from itertools import product
from pathlib import Path
from typing import Any, Final

from throughput import COMMAND, Cost, cost_of, median

GRID: Final = {"--D": ("1", "2"), "--T": ("10", "50", "100"), "--k": ("2", "3")}


def measure(directory: Path, runs: int, scratch: Path) -> dict[str, Any]:
    """Seconds and memory of both ways to the same files, in turn; memory of the runs is that of the largest.

    Raises:
        SystemExit: a file of the sweep is not that of its run.
    """
    logs = [str(directory / name) for name in ("batch_log.json", "stream_log.json")]
    lists = [part for option, values in GRID.items() for part in (option, ",".join(values))]
    counting = [sys.executable, "-m", "peerwatch", "sweep", *logs, *lists]
    writing = [*counting, "--force", "--output", str(scratch / "sweep")]
    alone: list[Cost] = []
    swept: list[Cost] = []
    written: list[Cost] = []
    for _ in range(runs):
        costs = []
        for D, T, k in product(*GRID.values()):
            output = scratch / f"D{D}-T{T}-k{k}.json"
            costs.append(cost_of([*COMMAND, "--D", D, "--T", T, "--k", k, *logs, str(output)]))
        alone.append(Cost(sum(c.wall for c in costs), sum(c.cpu for c in costs), max(c.memory for c in costs)))
        swept.append(cost_of(counting))
        written.append(cost_of(writing))
    for path in (scratch / "sweep").iterdir():
        if path.read_bytes() != (scratch / path.name).read_bytes():
            raise SystemExit(f"{path.name} of the sweep is not that of its run")
    return {name: median(costs)._asdict() for name, costs in (("runs", alone), ("sweep", swept), ("files", written))}


def lines(results: dict[str, Any]) -> list[str]:
    """The result as sentences, for each case."""
    return [
        f"Twelve settings (D 1 and 2, T 10, 50 and 100, k 2 and 3) on `{case}`: {found['sweep']['wall']:.2f} s and"
        f" {found['sweep']['memory']:.0f} MiB in one sweep, {found['files']['wall']:.2f} s with all files written,"
        f" {found['runs']['wall']:.2f} s and {found['runs']['memory']:.0f} MiB in twelve runs:"
        f" {found['runs']['wall'] / found['sweep']['wall']:.1f} and"
        f" {found['runs']['wall'] / found['files']['wall']:.1f} times as fast."
        for case, found in results.items()
    ]
