"""Generates seeded synthetic logs."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from peerwatch.errors import RunError, UsageError
from peerwatch.settings.model import Friendships

FIRST_SECOND: Final = np.datetime64("2017-06-13T11:33:01", "s")
TAIL: Final = 2.2
"""Exponent of the Pareto weights with which users befriend. Below 3, so the variance of degrees is unbounded."""
SLICE: Final = 1 << 16
PURCHASE, BEFRIEND, UNFRIEND = 0, 1, 2
NAMES: Final = ("batch_log.json", "stream_log.json", "labels.json")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to generate. Shares are between 0 and 1."""

    users: int = 10_000
    batch_events: int = 200_000
    stream_events: int = 20_000
    mean_degree: float = 10.0
    friend_share: float = 0.1
    friendships: Friendships = "mutual"
    D: int = 2
    T: int = 50
    ties: float = 0.2
    anomalies: float = 0.01
    seed: int = 1

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean_degree):
            raise UsageError(f"--mean-degree {self.mean_degree} is not a number of friends")
        if self.befriendings > self.batch_events:
            raise UsageError(
                f"--mean-degree {self.mean_degree:g} of {self.users} users takes {self.befriendings} befriendings, but"
                f" --batch-events is {self.batch_events}; raise it or lower the degree"
            )

    @property
    def befriendings(self) -> int:
        """The number of befriend events in the batch log."""
        friends_each = 1 if self.friendships == "directed" else 2
        return round(self.users * self.mean_degree / friends_each)


@dataclass(frozen=True)
class DrawnEvents:
    """Events in time order, in columns of the same length.

    `seconds` count from FIRST_SECOND; users count from 0. `b` applies to friendship events only, `cents` to purchases
    only.
    """

    kind: NDArray[np.int8]
    seconds: NDArray[np.int64]
    a: NDArray[np.int64]
    b: NDArray[np.int64]
    cents: NDArray[np.int64]

    def __getitem__(self, which: slice | NDArray[np.int64]) -> "DrawnEvents":
        """Return some of the events."""
        return DrawnEvents(self.kind[which], self.seconds[which], self.a[which], self.b[which], self.cents[which])


def write_logs(directory: Path, recipe: Recipe, *, force: bool) -> list[Path]:
    """Write the batch log, the stream log and the labels. Returns their paths.

    Raises:
        UsageError: a file exists and `force` is not set, or the directory cannot be made.
        RunError: a file could not be written.
    """
    paths = vacant(directory, NAMES, force=force)
    write_files(paths, _generated(recipe))
    return paths


def vacant(directory: Path, names: Sequence[str], *, force: bool) -> list[Path]:
    """Return paths for new files in a directory, which is created if necessary.

    Raises:
        UsageError: a file exists and `force` is not set, the directory cannot be made, or a path is not writable.
    """
    paths = [directory / name for name in names]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the directory {directory}: {error.strerror}") from None
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise UsageError(f"{', '.join(there)} already exists; name another directory or add --force")
    for path in (directory, *filter(Path.exists, paths)):
        if not os.access(path, os.W_OK):
            raise UsageError(f"{path} may not be written; name another directory")
    return paths


def write_files(paths: Sequence[Path], contents: Iterable[Iterable[str]]) -> None:
    """Write the lines of each file in ASCII.

    Raises:
        RunError: a file could not be written.
    """
    for path, lines in zip(paths, contents, strict=True):
        try:
            with path.open("w", encoding="ascii") as file:
                file.writelines(lines)
        except OSError as error:
            raise RunError(f"cannot write into {path.parent}: {error.strerror}") from None


def generate(recipe: Recipe) -> tuple[list[str], list[str], list[str]]:
    """Return the lines of the batch log, the stream log and the labels."""
    batch, stream, labels = map(list, _generated(recipe))
    return batch, stream, labels


def _generated(recipe: Recipe) -> tuple[Iterator[str], Iterator[str], Iterator[str]]:
    """Return the lines as generators, so that a large log is never in memory as a whole."""
    events, _, odd = draw(recipe)
    labels = ((place, "sudden spender") for place in (odd - recipe.batch_events).tolist())
    return as_logs(recipe, events, labels)


def draw(recipe: Recipe) -> tuple[DrawnEvents, NDArray[np.float64], NDArray[np.int64]]:
    """Draw the events of both logs, each user's typical amount in money units, and the indices of the anomalies."""
    rng = np.random.default_rng(recipe.seed)
    count = recipe.batch_events + recipe.stream_events
    kind = np.full(count, PURCHASE, np.int8)
    early = rng.permutation(recipe.batch_events)[: recipe.befriendings]
    kind[early] = BEFRIEND
    changes = recipe.batch_events + np.flatnonzero(rng.random(recipe.stream_events) < recipe.friend_share)
    kind[changes] = rng.choice((BEFRIEND, UNFRIEND), len(changes))

    a, b = _pairs(rng, recipe.users, count)
    ended = np.flatnonzero(kind == UNFRIEND)
    if len(early):
        chosen = rng.choice(early, len(ended))
        a[ended], b[ended] = a[chosen], b[chosen]

    typical = rng.lognormal(3.0, 0.7, recipe.users)
    cents = np.maximum(1, (typical[a] * rng.lognormal(0.0, 0.5, count) * 100).astype(np.int64))
    judged = np.flatnonzero(kind[recipe.batch_events :] == PURCHASE) + recipe.batch_events
    odd = judged[rng.random(len(judged)) < recipe.anomalies]
    cents[odd] = (cents[odd] * rng.uniform(10, 50, len(odd))).astype(np.int64)

    seconds = np.cumsum(rng.random(count) >= recipe.ties, dtype=np.int64)
    return DrawnEvents(kind, seconds, a, b, cents), typical, odd


def as_logs(
    recipe: Recipe, events: DrawnEvents, labels: Iterable[tuple[int, str]]
) -> tuple[Iterator[str], Iterator[str], Iterator[str]]:
    """Return the lines of the batch log, the stream log and the labels. A label is a stream index and a kind."""
    kind = f', "friendships":"{recipe.friendships}"' if recipe.friendships != "mutual" else ""
    header = f'{{"D":"{recipe.D}", "T":"{recipe.T}"{kind}}}\n'
    stream = events[recipe.batch_events :]
    named = (f'{{"line": {place + 1}, "id": "{stream.a[place] + 1}", "label": "{label}"}}\n' for place, label in labels)
    return chain([header], _lines(events[: recipe.batch_events])), _lines(stream), named


def _pairs(rng: np.random.Generator, users: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw pairs of different users. The first is uniform; the second has a heavy-tailed weight."""
    weight = rng.pareto(TAIL, users) + 0.1
    a = rng.integers(0, users, count)
    b = rng.choice(users, count, p=weight / weight.sum())
    return a, np.where(a == b, (b + 1) % users, b)


def _lines(events: DrawnEvents) -> Iterator[str]:
    for begin in range(0, len(events.kind), SLICE):
        part = events[begin : begin + SLICE]
        stamps = np.datetime_as_string(FIRST_SECOND + part.seconds).tolist()
        users = (part.a + 1).tolist(), (part.b + 1).tolist()
        for what, stamp, first, second, amount in zip(
            part.kind.tolist(), stamps, *users, part.cents.tolist(), strict=True
        ):
            when = stamp.replace("T", " ")
            if what == PURCHASE:
                yield (
                    f'{{"event_type":"purchase", "timestamp":"{when}", "id": "{first}",'
                    f' "amount": "{amount // 100}.{amount % 100:02d}"}}\n'
                )
            else:
                name = "befriend" if what == BEFRIEND else "unfriend"
                yield f'{{"event_type":"{name}", "timestamp":"{when}", "id1": "{first}", "id2": "{second}"}}\n'
