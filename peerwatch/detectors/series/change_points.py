"""The detector `change_points`: Bayesian online change point detection."""

import math
from functools import cache
from typing import ClassVar, Final

import numpy as np

from peerwatch.detectors.base import Floats, positive
from peerwatch.detectors.series.causal import Sequential
from peerwatch.errors import BadInput
from peerwatch.kernels import Float64s, Int64s, kernel

LONGEST: Final = 200
"""The longest run that is told apart: it forgets its older values gradually."""
OVERALL: Final = 3
"""Of all values in a memory: their number, their mean, and their sum of squared distances from it."""
CENTER: Final = 0.05
"""What is known beforehand about a run's mean is worth that many values: close to nothing."""
SHAPE: Final = 1.0
"""What is known beforehand about a run's variance is worth that many pairs of values."""
LEAST_WEIGHT: Final = 1e-9
"""A run less probable than this is left out."""
LEAST_SCALE: Final = 1e-9
"""The least standard deviation, as a share of the mean: what is smaller is rounding."""
TINY: Final = 1e-150
"""The least standard deviation."""


class ChangePoints(Sequential):
    """Flags a value with which, more probably than not, something new begins (Adams and MacKay, 2007).

    A series is taken as runs of normal values, each run with a mean and a variance of its own; with probability 1 /
    `run` a value is the first of a new one. How long the present run is follows from all values by Bayes' rule. The
    score is the probability that the value is the first of a run.
    """

    name: ClassVar[str] = "change_points"

    def __init__(self, *, run: float = 250.0) -> None:
        self.run = run

    def check(self) -> None:
        """Check that a run is expected to hold more than one value.

        Raises:
            BadInput: it is not.
        """
        positive(self.name, run=self.run)
        if self.run <= 1:
            raise BadInput(f'{self.name}: "run" is {self.run!r}; expected more than 1')

    @property
    def threshold(self) -> float:
        """More probably than not."""
        return 0.5

    @property
    def width(self) -> int:
        """Of all values OVERALL numbers; of each run its probability, its mean and its squared distances."""
        return OVERALL + 3 * LONGEST

    def _go(self, values: Floats, memory: Floats) -> Floats:
        scores = np.zeros(values.size)
        flat = np.ascontiguousarray(values).reshape(-1)
        _go_through(flat, len(values), 1 / self.run, _gammas(), memory.reshape(-1), np.zeros(LONGEST), scores)
        return scores

    def _next(self, memory: Floats, places: Int64s, amount: Floats, scores: Floats) -> None:
        _score(amount, places, 1 / self.run, _gammas(), memory, np.zeros(LONGEST), scores)


@cache
def _gammas() -> Floats:
    """For 0 to LONGEST values in a run, the logarithm of the gamma functions' ratio in the density of Student's t."""
    shapes = [SHAPE + count / 2 for count in range(LONGEST + 1)]
    return np.array([math.lgamma(shape + 0.5) - math.lgamma(shape) for shape in shapes])


@kernel
def _go_through(
    values: Float64s, series: int, hazard: float, gammas: Float64s, memory: Float64s, joint: Float64s, scores: Float64s
) -> None:
    """Go through `series` series of the same length, value by value, with memories and scores."""
    if series:
        width, length = len(memory) // series, len(values) // series
        for which in range(series):
            for place in range(which * length, (which + 1) * length):
                scores[place] = _seen(values[place], hazard, gammas, memory, which * width, joint)
                _learn(values[place], memory, which * width, joint)


@kernel
def _score(
    values: Float64s, places: Int64s, hazard: float, gammas: Float64s, memory: Float64s, joint: Float64s,
    scores: Float64s,
) -> None:  # fmt: skip
    """Score each value after the memory at its place."""
    for i in range(len(values)):
        scores[i] = _seen(values[i], hazard, gammas, memory, places[i] * (OVERALL + 3 * LONGEST), joint)


def _seen(value: float, hazard: float, gammas: Float64s, memory: Float64s, at: int, joint: Float64s) -> float:
    """The probability that a value begins a run; `joint` gets those that it continues a run of 1, 2, ... values."""
    count, center = memory[at], memory[at + 1]
    if count == 0.0:
        return 1.0
    runs = min(int(count), LONGEST)
    scale = max(math.sqrt(memory[at + 2] / count), LEAST_SCALE * abs(center), TINY)
    new = _log_density(value, 0, 0.0, 0.0, center, scale * scale, gammas)
    largest, weights = new, at + OVERALL
    for run in range(runs):
        if memory[weights + run] > LEAST_WEIGHT:
            mean, spread = memory[weights + LONGEST + run], memory[weights + 2 * LONGEST + run]
            joint[run] = _log_density(value, run + 1, mean, spread, center, scale * scale, gammas)
            largest = max(largest, joint[run])
    new = hazard * math.exp(new - largest)
    total = new
    for run in range(runs):
        weight = memory[weights + run]
        joint[run] = (1.0 - hazard) * weight * math.exp(joint[run] - largest) if weight > LEAST_WEIGHT else 0.0
        total += joint[run]
    for run in range(runs):
        joint[run] /= total
    return new / total


def _log_density(
    value: float, count: int, mean: float, spread: float, center: float, variance: float, gammas: Float64s
) -> float:
    """The log density of the next value of a run of `count` values: Student's t, by the conjugate prior."""
    worth, shape = CENTER + count, SHAPE + 0.5 * count
    drift = mean - center
    scale = SHAPE * variance + 0.5 * spread + 0.5 * CENTER * count * drift * drift / worth
    width = 2.0 * scale * (worth + 1.0) / worth  # degrees of freedom times the squared scale
    distance = value - (CENTER * center + count * mean) / worth
    constant: float = gammas[count]
    return constant - 0.5 * math.log(math.pi * width) - (shape + 0.5) * math.log1p(distance * distance / width)


def _learn(value: float, memory: Float64s, at: int, joint: Float64s) -> None:
    """Take a value into the memory, with what `_seen` has found of it."""
    runs = min(int(memory[at]), LONGEST)
    memory[at] += 1.0
    ahead = value - memory[at + 1]
    memory[at + 1] += ahead / memory[at]
    memory[at + 2] += ahead * (value - memory[at + 1])
    weights, means, spreads = at + OVERALL, at + OVERALL + LONGEST, at + OVERALL + 2 * LONGEST
    new = 1.0
    for run in range(runs):
        new -= joint[run]
    for run in range(min(runs, LONGEST - 1), 0, -1):
        weight, mean, spread = joint[run - 1], memory[means + run - 1], memory[spreads + run - 1]
        if run == LONGEST - 1 and runs == LONGEST and joint[run] > 0.0:  # the longest run goes on as one of that length
            share = joint[run] / (weight + joint[run])
            mean += share * (memory[means + run] - mean)
            spread += share * (memory[spreads + run] * run / LONGEST - spread)
            weight += joint[run]
        memory[weights + run] = weight
        ahead = value - mean
        memory[means + run] = mean + ahead / (run + 1)
        memory[spreads + run] = spread + ahead * (value - memory[means + run])
    memory[weights], memory[means], memory[spreads] = max(new, 0.0), value, 0.0
