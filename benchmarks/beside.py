"""Two checkouts side by side: `python benchmarks/beside.py OTHER --cases stream,deep --runs 9`.

Each run is a whole process of this checkout and one of the other in turn, so that both meet the machine in the same
mood; what is shown are medians, and the median of the ratios within pairs. The other checkout needs its `.venv`.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

from cases import CASES, Case
from throughput import COMMAND, cost_of, run_of

from peerwatch.studies.generate import Recipe

START: Final = Case("start", 1, 50, Recipe(users=3, batch_events=3, stream_events=3, mean_degree=1, D=1, T=50))
"""A log of six lines: start-up and nothing else."""
TIMES: Final = 5
"""So often is the start-up measured for each run of another case."""


def main() -> None:
    """Measure and print a line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("--cases", default=",".join(case.name for case in (START, *CASES) if not case.large))
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for case in (START, *CASES):
            if case.name in options.cases.split(","):
                print(line(case, options.other / ".venv/bin/peerwatch", options.runs, Path(scratch)), flush=True)


def line(case: Case, other: Path, runs: int, root: Path) -> str:
    """What one case costs here and there."""
    directory = case.build(root)
    if directory is None:
        return f"{case.name}: not measured, its data are not here"
    here, there = root / "here", root / "there"
    script = Path(sys.executable).with_name("peerwatch")  # not `-m`: that would take the folder one stands in
    behind = len(COMMAND) - 2
    commands = [
        [str(program), *run_of(case, directory, output)[behind:]]
        for program, output in ((script, here), (other, there))
    ]
    for command in commands:
        cost_of(command)  # kernels may have to be compiled
    pairs = []
    for number in range(runs * TIMES if case is START else runs):
        order = commands if number % 2 else commands[::-1]  # whoever is first may find another machine
        costs = [cost_of(command) for command in order]
        pairs.append(costs if number % 2 else costs[::-1])
    same = "same" if here.read_bytes() == there.read_bytes() else "DIFFERENT"
    shown = []
    for name in ("cpu", "wall", "memory"):
        ours, theirs = ([getattr(cost, name) for cost in side] for side in zip(*pairs, strict=True))
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        shown.append(f"{name} {statistics.median(ours):.3f} / {statistics.median(theirs):.3f} = {ratio:.3f}")
    return f"{case.name}: {same} bytes; " + "; ".join(shown)


if __name__ == "__main__":
    main()
