"""What each detector costs a purchase, beside sigma, on the case `stream`."""

import statistics
from pathlib import Path
from typing import Any

from cases import Case
from throughput import cost_of, run_of

from peerwatch.detectors.registry import DETECTORS

SLOW = {"seasonal"}
"""A decomposition of each window takes five milliseconds: not measured on hundreds of thousands."""


def measure(case: Case, directory: Path, runs: int, scratch: Path) -> dict[str, Any]:
    """Wall-clock seconds of whole runs, libraries' imports and all training included; medians, all in turn."""
    names = ["sigma", *(name for name in DETECTORS if name not in SLOW)]
    walls: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(runs):
        for name in names:
            config = scratch / f"{name}.yaml"
            config.write_text(f"detector: {{name: {name}}}\n")
            walls[name].append(cost_of(run_of(case, directory, scratch / "ours", "--config", str(config))).wall)
    purchases = (directory / "stream_log.json").read_bytes().count(b'"purchase"')
    return {"purchases": purchases, "walls": {name: statistics.median(taken) for name, taken in walls.items()}}


def lines(found: dict[str, Any]) -> list[str]:
    """The figures as Markdown."""
    if not found:
        return []
    sigma = found["walls"]["sigma"]
    rows = [
        f"| {name} | {wall:.2f} | {wall / sigma:.2f} | {(wall - sigma) / found['purchases'] * 1e6:.1f} |"
        for name, wall in found["walls"].items()
    ]
    head = ["| detector | wall s | to sigma | µs a purchase more |", "|---|--:|--:|--:|"]
    return [
        (
            "What other detectors cost on `stream`, imports of libraries and all training included; `seasonal`, which"
            " takes five milliseconds a purchase, is not measured:"
        ),
        "\n".join([*head, *rows]),
    ]
