"""What a purchase costs that comes late, beside one in order, on streams that differ in their timestamps alone."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from cases import Case
from numpy.typing import NDArray
from throughput import judging_cost

from peerwatch.studies.generate import NAMES, Recipe, as_logs, draw, write_files

NAME: Final = "late"
RECIPE: Final = Recipe(users=1000, batch_events=2_000_000, stream_events=400_000, mean_degree=20, friend_share=0.0, D=2)
Seconds = NDArray[np.int64]
STREAMS: Final[dict[str, Callable[[Seconds, int], Seconds]]] = {
    "in order": lambda seconds, first: seconds,  # noqa: ARG005
    "older than all before": lambda seconds, first: seconds - 2 * first,
    "anywhere in the time before": lambda seconds, first: np.random.default_rng(1).integers(0, first, len(seconds)),
    "up to an hour late": lambda seconds, first: seconds - np.random.default_rng(1).integers(0, 3600, len(seconds)),  # noqa: ARG005
}
"""Of each stream the timestamps, given those in order and the first of them."""


def measure(root: Path, runs: int) -> dict[str, float]:
    """Microseconds a stream purchase takes in each stream; medians, all in turn."""
    events, _, _ = draw(RECIPE)
    cases = {}
    for number, (name, timed) in enumerate(STREAMS.items()):
        directory = root / f"{NAME}-{number}"
        directory.mkdir()
        batch, stream = slice(None, RECIPE.batch_events), slice(RECIPE.batch_events, None)
        seconds = events.seconds.copy()
        seconds[stream] = timed(seconds[stream], int(seconds[batch][-1]))
        write_files([directory / log for log in NAMES], as_logs(RECIPE, replace(events, seconds=seconds), []))
        cases[name] = Case(NAME, RECIPE.D, RECIPE.T), directory
    costs: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(runs):
        for name, (case, directory) in cases.items():
            costs[name].append(judging_cost(case, directory, root))
    return {name: statistics.median(taken) for name, taken in costs.items()}


def lines(found: dict[str, Any]) -> list[str]:
    """The figures as Markdown."""
    if not found:
        return []
    first = found["in order"]
    rows = [f"| {name} | {cost:.2f} | {cost / first:.2f} |" for name, cost in found.items()]
    return [
        (
            f"What late purchases cost, {RECIPE.stream_events:,} behind {RECIPE.batch_events:,} events of"
            f" {RECIPE.users:,} users, D={RECIPE.D}:"
        ),
        "\n".join(["| the stream's timestamps | µs a purchase | to in order |", "|---|--:|--:|", *rows]),
    ]
