"""What each detector costs a purchase, by itself: processor microseconds, in large and in small batches.

`python benchmarks/detector_costs.py [DETECTOR...]` prints them as Markdown, for docs/detectors.md.
"""

import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from peerwatch.detectors.base import Context, Detector, Floats
from peerwatch.detectors.features import features
from peerwatch.detectors.registry import DETECTORS, make
from peerwatch.kernels import Int64s

WINDOW, OWN, ROWS, EVERY = 50, 10, 1000, 50_000
"""Purchases in a window; earlier ones of the buyer; rows in a training set; purchases between trainings."""
BATCHES = (1000, 10)
SLOW = {"seasonal": 20}
"""The large batch of what takes milliseconds a purchase."""
RUNS = 5


class Purchases(NamedTuple):
    """What a detector is asked about."""

    offsets: Int64s
    window: Floats
    amount: Floats
    context: Context


def purchases(count: int, seed: int) -> Purchases:
    """Purchases with windows of all spreads."""
    rng = np.random.default_rng(seed)
    middle, spread = rng.lognormal(3, 1, count), rng.uniform(0.02, 0.6, count)
    window = np.repeat(middle, WINDOW) * rng.lognormal(0, np.repeat(spread, WINDOW))
    own = Context(
        np.arange(count + 1) * OWN, rng.lognormal(3, 1, count * OWN), rng.exponential(1e5, count),
        rng.uniform(0, 24, count), rng.integers(50, 200, count),
    )  # fmt: skip
    return Purchases(np.arange(count + 1) * WINDOW, window, middle * rng.lognormal(0, spread), own)


def seconds(work: Callable[[], object]) -> float:
    """The least processor time of some runs, after one that does not count."""
    work()
    taken = []
    for _ in range(RUNS):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return min(taken)


def costs(name: str) -> list[float]:
    """Microseconds a purchase: training spread over those between two, then judging in each size of batch."""
    detector: Detector = make(name, {})
    training = 0.0
    if detector.trains:
        rows = features(*purchases(ROWS, 1))
        training = seconds(partial(detector.fit, rows)) / EVERY
    counts = (SLOW.get(name, BATCHES[0]), BATCHES[1])
    judging = [seconds(partial(detector.judge, *purchases(count, 2))) / count for count in counts]
    return [1e6 * each for each in (training, *judging)]


def main() -> None:
    """Print a table."""
    warnings.simplefilter("ignore")  # ties among the scores of made-up rows
    print(f"| detector | training | judging, of {BATCHES[0]:,} | of {BATCHES[1]} |\n|---|--:|--:|--:|")
    for name in sys.argv[1:] or DETECTORS:
        training, large, small = costs(name)
        print(f"| `{name}` | {training:.1f} | {large:,.1f} | {small:,.1f} |", flush=True)


if __name__ == "__main__":
    main()
