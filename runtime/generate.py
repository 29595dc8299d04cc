"""Seeded synthetic logs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from peerwatch.network.errors import RunError, UsageError

FIRST_SECOND: Final = np.datetime64("2017-06-13T11:33:01", "s")
TAIL: Final = 2.2
"""Exponent of the Pareto weights with which users make friends: below 3, so the degrees' variance has no bound."""
SLICE: Final = 1 << 16
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
    try:
        for path, lines in zip(paths, _generated(recipe), strict=True):
            with path.open("w", encoding="ascii") as file:
                file.writelines(lines)
    except OSError as error:
        raise RunError(f"cannot write into {directory}: {error.strerror}") from None
    return paths


def generate(recipe: Recipe) -> tuple[list[str], list[str], list[str]]:
    """The lines of the batch log, the stream log and the labels."""
    batch, stream, labels = map(list, _generated(recipe))
    return batch, stream, labels


def _generated(recipe: Recipe) -> tuple[Iterator[str], Iterator[str], Iterator[str]]:
    """The same, written as they are asked for: a large log's lines never stand in memory together."""
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

    seconds = np.cumsum(rng.random(events) >= recipe.ties, dtype=np.int64)
    header = f'{{"D":"{recipe.D}", "T":"{recipe.T}"}}\n'
    labels = (
        f'{{"line": {place - recipe.batch_events + 1}, "id": "{a[place] + 1}", "label": "sudden spender"}}\n'
        for place in odd.tolist()
    )
    batch, stream = (
        _lines(kind[part], seconds[part], a[part] + 1, b[part] + 1, cents[part])
        for part in (slice(recipe.batch_events), slice(recipe.batch_events, None))
    )
    return chain([header], batch), stream, labels


def _pairs(rng: np.random.Generator, users: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two different users each; the first buys alike, the second is befriended with a heavy tail."""
    weight = rng.pareto(TAIL, users) + 0.1
    a = rng.integers(0, users, count)
    b = rng.choice(users, count, p=weight / weight.sum())
    return a, np.where(a == b, (b + 1) % users, b)


def _lines(
    kind: NDArray[np.int8], seconds: NDArray[np.int64], a: NDArray[np.int64], b: NDArray[np.int64],
    cents: NDArray[np.int64],
) -> Iterator[str]:  # fmt: skip
    for begin in range(0, len(kind), SLICE):
        part = slice(begin, begin + SLICE)
        stamps = np.datetime_as_string(FIRST_SECOND + seconds[part]).tolist()
        users = a[part].tolist(), b[part].tolist()
        for what, stamp, first, second, amount in zip(
            kind[part].tolist(), stamps, *users, cents[part].tolist(), strict=True
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
