"""Shared by all data sets: size, weekly rhythm, stretches of anomalies, and CSV output.

The same order gives the same bytes. Values are rounded to a few decimals, because their last bits may differ between
processors.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peerwatch.errors import UsageError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FIRST_SECOND: Final = np.datetime64("2024-01-01T00:00:00", "s")
"""The first second of every data set: a Monday, UTC."""
DAY: Final = 86_400
NORMAL: Final = -1
"""The kind of a normal row. Other values are indices of the data set's kinds."""
TRIES: Final = 100

HOURS: Final = (2, 1, 1, 1, 1, 2, 4, 7, 9, 10, 10, 11, 12, 11, 10, 10, 11, 12, 13, 13, 11, 8, 5, 3, 2)
"""How active people are at each full hour, from midnight to midnight."""
DAYS: Final = (1.0, 1.0, 1.0, 1.0, 1.1, 0.8, 0.6)
"""How active people are on each day, from Monday to Sunday."""
BUSY: Final = float(np.mean(HOURS[:-1]) * np.mean(DAYS))


class Column(NamedTuple):
    """A numeric column: its unit, its meaning, and its number of decimals."""

    name: str
    unit: str
    about: str
    decimals: int = 0


@dataclass(frozen=True, kw_only=True)
class DatasetOrder:
    """The size of a data set: its number of rows, and the share of anomalous ones, between 0 and 0.5."""

    rows: int = 10_000
    anomalies: float = 0.02
    seed: int = 1

    def counts(self, kinds: Sequence[str]) -> list[int]:
        """Return the number of anomalous rows of each kind, as equal as possible.

        Raises:
            UsageError: there would not be at least one of each kind.
        """
        total = round(self.rows * self.anomalies)
        if self.anomalies and total < len(kinds):
            raise UsageError(
                f"--anomalies {self.anomalies:g} of --rows {self.rows} is {total}, too few for {len(kinds)} kinds;"
                " raise one of them, or set --anomalies 0"
            )
        return [total // len(kinds) + (place < total % len(kinds)) for place in range(len(kinds))]


@dataclass(frozen=True)
class Table:
    """Rows in any order, in columns of shape [rows].

    `seconds` count from FIRST_SECOND; `kind` is NORMAL or an index of the kinds.
    """

    seconds: Ints
    kind: Ints
    values: Mapping[str, Ints | Floats]

    def lines(self, columns: Sequence[Column], kinds: Sequence[str]) -> Iterator[str]:
        """Yield the lines of the CSV, with a header and in time order. Rows of the same second keep their order."""
        yield ",".join(("timestamp", *(column.name for column in columns), "label", "kind")) + "\n"
        order = np.argsort(self.seconds, kind="stable")
        stamps = np.datetime_as_string(FIRST_SECOND + self.seconds[order]).tolist()
        texts = [[f"{value:.{c.decimals}f}" for value in self.values[c.name][order].tolist()] for c in columns]
        for stamp, kind, *row in zip(stamps, self.kind[order].tolist(), *texts, strict=True):
            label = "0," if kind == NORMAL else f"1,{kinds[kind]}"
            yield f"{stamp}Z,{','.join(row)},{label}\n"


@dataclass(frozen=True)
class Stretches:
    """Stretches of consecutive anomalous rows, in arrays of shape [rows].

    `episode` is the number of the stretch; `progress` rises to 1 within each stretch; `severity` is a constant of each
    stretch, from 0 (hard to see) to 1 (obvious), spread evenly over the stretches.
    """

    episode: Ints
    progress: Floats
    severity: Floats

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.episode)

    def parts(self) -> list[Ints]:
        """The row indices of each stretch."""
        return np.split(np.arange(len(self)), np.flatnonzero(np.diff(self.episode)) + 1) if len(self) else []

    def elapsed(self, gaps: Ints) -> Ints:
        """Return the time since the stretch began for each row, given the gap before each row."""
        total = np.cumsum(gaps)
        return np.asarray(total - total[np.searchsorted(self.episode, self.episode)])


def stretches(rng: np.random.Generator, total: int, typical: int) -> Stretches:
    """Draw stretches with `total` rows in all, 0.5 to 1.5 times `typical` rows each; single rows if `typical` is 1."""
    count = max(1, round(total / typical))
    weight = rng.uniform(0.5, 1.5, count) if typical > 1 else np.ones(count)
    ends = np.rint(np.cumsum(weight) / weight.sum() * total).astype(np.int64)
    sizes = np.diff(ends, prepend=0)
    episode = np.repeat(np.arange(len(sizes)), sizes)
    progress = (np.arange(total) - (ends - sizes)[episode] + 1) / sizes[episode]
    severity = (rng.permutation(count) + rng.random(count)) / count
    return Stretches(episode, progress, severity[episode])


@dataclass(frozen=True)
class MachineGrid:
    """One row for each time step and machine, in arrays of shape [steps, machines].

    `begin` is the step at which the stretch of a row began.
    """

    kind: Ints
    progress: Floats
    severity: Floats
    begin: Ints

    def seconds(self, step: int) -> Ints:
        """Return the second of each row, with steps of `step` seconds."""
        return np.arange(len(self.kind))[:, None] * step + np.zeros_like(self.kind)

    def table(self, rows: int, seconds: Ints, values: Mapping[str, Floats]) -> Table:
        """Return the first `rows` rows as a table, with the machine as `id`."""
        machine = np.indices(self.kind.shape)[1] + 1
        first = {name: column.ravel()[:rows] for name, column in values.items()}
        return Table(seconds.ravel()[:rows], self.kind.ravel()[:rows], {"id": machine.ravel()[:rows], **first})


def grid(rng: np.random.Generator, rows: int, machines: int, plan: Sequence[tuple[int, int]]) -> MachineGrid:
    """Place stretches of each kind at random on a grid of at least `rows` cells, within the first `rows` ones.

    `plan` gives the number of rows and the typical stretch of each kind. A stretch that does not fit is split in two.
    """
    shape = -(-rows // machines), machines
    free = np.arange(shape[0] * machines).reshape(shape) < rows
    made = MachineGrid(np.full(shape, NORMAL), np.zeros(shape), np.zeros(shape), np.zeros(shape, np.int64))
    for kind, (total, typical) in enumerate(plan):
        found = stretches(rng, total, typical)
        parts = found.parts()
        while parts:
            part = parts.pop()
            begin = _room(rng, free, len(part))
            if begin is None:
                parts += np.array_split(part, min(2, len(part)))
                continue
            step, machine = begin
            where = slice(step, step + len(part)), machine
            free[where] = False
            made.kind[where], made.begin[where] = kind, step
            made.progress[where], made.severity[where] = found.progress[part], found.severity[part]
    return made


def _room(rng: np.random.Generator, free: NDArray[np.bool_], size: int) -> tuple[int, int] | None:
    steps, machines = free.shape
    for _ in range(TRIES if size <= steps else 0):
        step, machine = int(rng.integers(0, steps - size + 1)), int(rng.integers(0, machines))
        if free[step : step + size, machine].all():
            return step, machine
    return None


def rhythm(seconds: Ints) -> Floats:
    """Return how active people are at a moment; the average over a week is 1."""
    hour = np.interp(seconds % DAY / 3600, np.arange(25), HOURS)
    return np.asarray(hour * np.array(DAYS)[seconds // DAY % 7] / BUSY)


def moments(rng: np.random.Generator, count: int, days: int) -> Ints:
    """Draw `count` moments within `days`, distributed as the rhythm, in any order."""
    ends = np.arange(1, days * 144 + 1) * 600
    share = np.cumsum(rhythm(ends - 300))
    found = np.interp(rng.random(count) * share[-1], np.insert(share, 0, 0), np.insert(ends, 0, 0))
    return np.asarray(found.astype(np.int64))


def wander(rng: np.random.Generator, steps: int, machines: int, keep: float) -> Floats:
    """Draw autocorrelated noise of mean 0 and sd 1: each step keeps a share `keep` of the one before."""
    noise = rng.standard_normal((steps, machines))
    noise[1:] *= (1 - keep * keep) ** 0.5
    for step in range(1, steps):
        noise[step] += keep * noise[step - 1]
    return noise


def graded(low: float, high: float, severity: Floats) -> Floats:
    """Interpolate geometrically from `low` at severity 0 to `high` at severity 1."""
    return np.asarray(low * (high / low) ** severity)
