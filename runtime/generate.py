"""Seeded synthetic logs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from peerwatch.network.errors import RunError, UsageError

FIRST_SECOND: Final = np.datetime64("2017-06-13T11:33:01", "s")
TAIL: Final = 2.2
"""Exponent of the Pareto weights with which users make friends: below 3, so the degrees' variance has no bound."""
PURCHASE, BEFRIEND, UNFRIEND = 0, 1, 2
NAMES: Final = ("batch_log.json", "stream_log.json", "labels.json")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to generate; shares are between 0 and 1."""

    users: int = 10_000
    batch_events: int = 200_000
    stream_events: int = 20_000
    mean_degree: float = 10.0
    friend_share: float = 0.1
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
        """Befriend events in the batch log."""
        return round(self.users * self.mean_degree / 2)


def write_logs(directory: Path, recipe: Recipe, *, force: bool) -> list[Path]:
    """Write the batch log, the stream log and the labels; returns their paths.

    Raises:
        UsageError: a file is there already and `force` is not set, or the directory cannot be made.
        RunError: a file could not be written.
    """
    paths = [directory / name for name in NAMES]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the directory {directory}: {error.strerror}") from None
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise UsageError(f"{', '.join(there)} is there already; name another directory or add --force")
    batch, stream, labels = generate(recipe)
    try:
        for path, lines in zip(paths, (batch, stream, labels), strict=True):
            path.write_text("".join(lines), encoding="ascii")
    except OSError as error:
        raise RunError(f"cannot write into {directory}: {error.strerror}") from None
    return paths


def generate(recipe: Recipe) -> tuple[list[str], list[str], list[str]]:
    """The lines of the batch log, the stream log and the labels."""
    rng = np.random.default_rng(recipe.seed)
    events = recipe.batch_events + recipe.stream_events
    kind = np.full(events, PURCHASE, np.int8)
    early = rng.permutation(recipe.batch_events)[: recipe.befriendings]
    kind[early] = BEFRIEND
    changes = recipe.batch_events + np.flatnonzero(rng.random(recipe.stream_events) < recipe.friend_share)
    kind[changes] = rng.choice((BEFRIEND, UNFRIEND), len(changes))

    a, b = _pairs(rng, recipe.users, events)
    ended = np.flatnonzero(kind == UNFRIEND)
    if len(early):
        chosen = rng.choice(early, len(ended))
        a[ended], b[ended] = a[chosen], b[chosen]

    typical = rng.lognormal(3.0, 0.7, recipe.users)
    cents = np.maximum(1, (typical[a] * rng.lognormal(0.0, 0.5, events) * 100).astype(np.int64))
    judged = np.flatnonzero(kind[recipe.batch_events :] == PURCHASE) + recipe.batch_events
    odd = judged[rng.random(len(judged)) < recipe.anomalies]
    cents[odd] = (cents[odd] * rng.uniform(10, 50, len(odd))).astype(np.int64)

    seconds = np.cumsum(rng.random(events) >= recipe.ties)
    stamps = [str(moment).replace("T", " ") for moment in FIRST_SECOND + seconds]
    lines = list(_lines(kind.tolist(), stamps, (a + 1).tolist(), (b + 1).tolist(), cents.tolist()))
    header = f'{{"D":"{recipe.D}", "T":"{recipe.T}"}}\n'
    labels = [
        f'{{"line": {place - recipe.batch_events + 1}, "id": "{a[place] + 1}", "label": "sudden spender"}}\n'
        for place in odd.tolist()
    ]
    return [header, *lines[: recipe.batch_events]], lines[recipe.batch_events :], labels


def _pairs(rng: np.random.Generator, users: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two different users each; the first buys alike, the second is befriended with a heavy tail."""
    weight = rng.pareto(TAIL, users) + 0.1
    a = rng.integers(0, users, count)
    b = rng.choice(users, count, p=weight / weight.sum())
    return a, np.where(a == b, (b + 1) % users, b)


def _lines(kind: list[int], stamps: list[str], a: list[int], b: list[int], cents: list[int]) -> Iterator[str]:
    for what, stamp, first, second, amount in zip(kind, stamps, a, b, cents, strict=True):
        if what == PURCHASE:
            yield (
                f'{{"event_type":"purchase", "timestamp":"{stamp}", "id": "{first}",'
                f' "amount": "{amount // 100}.{amount % 100:02d}"}}\n'
            )
        else:
            name = "befriend" if what == BEFRIEND else "unfriend"
            yield f'{{"event_type":"{name}", "timestamp":"{stamp}", "id1": "{first}", "id2": "{second}"}}\n'
