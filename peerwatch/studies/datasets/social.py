"""Purchases in a social network: the three logs of `peerwatch generate`, over eighteen weeks, with four kinds of fraud.

Normal: a few users know very many; each user has a usual amount, with a heavy tail over users and purchases; people buy
by day more than by night. A tenth of the stream makes or ends friendships. The batch log holds twelve weeks, the stream
log six. Every label names a purchase of the stream log.

- `sudden spender`: one purchase of 10 to 50 times what the user usually spends. What the rule was made for: it stands
  out of the network's window, unless the user is used to spending far less than the network.
- `slow climb`: a user's amounts grow purchase by purchase, over three to five weeks, up to 8 to 40 times. All of them
  are labelled: the early ones look like normal ones, the last ones are far above the network's, which does
  not climb along. (A rule on the user's own past would climb along.)
- `collusive ring`: four to six users befriend each other and then buy, in turn, at 4 to 12 times their usual amounts.
  At first their own network has hardly bought at such prices and the first purchases stand out; soon their window is
  full of each other's, and mean and standard deviation are as inflated as what is judged.
- `account takeover`: a user drops a few friends and befriends strangers; then, within an hour or two, come four to ten
  purchases of 0.02 to 15 times the usual amount. The rule looks for high amounts only: the low ones it cannot find.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np

from peerwatch.studies.datasets.table import DAY, DatasetOrder, Floats, Ints, Stretches, graded, moments, stretches
from peerwatch.studies.generate import BEFRIEND, FIRST_SECOND, PURCHASE, UNFRIEND, DrawnEvents, Recipe, as_logs, draw

KINDS: Final = ("sudden spender", "slow climb", "collusive ring", "account takeover")
MONDAY: Final = int((np.datetime64("2017-06-19T00:00:00") - FIRST_SECOND).astype(np.int64))
"""The start of the batch log, in seconds after the start of generated logs; a midnight, so that days begin there."""
BATCH_DAYS: Final = 84
STREAM_DAYS: Final = 42
ROWS_PER_USER: Final = 20
"""Stream events for each user."""
NONE: Final = -1
"""The label of an event that is not an anomaly."""


class Act(NamedTuple):
    """An event of a fraud. `second` counts from the stream's beginning; `label` is NONE or an index of the kinds."""

    second: int
    kind: int
    a: int
    b: int
    cents: int
    label: int


def make(order: DatasetOrder) -> Iterable[Iterable[str]]:
    """Make the lines of the batch log, of the stream log (`order.rows` of them) and of the labels."""
    recipe = Recipe(
        users=max(20, order.rows // ROWS_PER_USER), batch_events=2 * order.rows, stream_events=order.rows,
        mean_degree=6.0, anomalies=0.0, seed=order.seed,
    )  # fmt: skip
    events, usual, _ = draw(recipe)
    rng = np.random.default_rng((order.seed, 1))
    counts = order.counts(KINDS)
    parts = [stretches(rng, count, typical) for count, typical in zip(counts, (1, 14, 24, 6), strict=True)]
    acts = [
        *_sudden(rng, parts[0], usual),
        *_climbs(rng, parts[1], usual),
        *_rings(rng, parts[2], usual),
        *_takeovers(rng, parts[3], usual, events),
    ]
    kept = recipe.batch_events + np.sort(rng.permutation(order.rows)[: order.rows - len(acts)])
    seconds = np.concatenate((
        np.sort(moments(rng, recipe.batch_events, BATCH_DAYS)),
        BATCH_DAYS * DAY + np.sort(moments(rng, len(kept), STREAM_DAYS)),
    ))  # fmt: skip
    normal = events[np.concatenate((np.arange(recipe.batch_events), kept))]
    second, kind, a, b, cents, label = np.array(acts, np.int64).reshape(-1, len(Act._fields)).T
    when = np.concatenate((seconds, BATCH_DAYS * DAY + second))
    by_time = np.argsort(when, kind="stable")
    merged = DrawnEvents(
        np.concatenate((normal.kind, kind.astype(np.int8)))[by_time],
        MONDAY + when[by_time],
        np.concatenate((normal.a, a))[by_time],
        np.concatenate((normal.b, b))[by_time],
        np.concatenate((normal.cents, cents))[by_time],
    )
    labels = np.concatenate((np.full(len(seconds), NONE), label))[by_time][recipe.batch_events :]
    named = ((place, KINDS[labels[place]]) for place in np.flatnonzero(labels != NONE).tolist())
    return as_logs(recipe, merged, named)


def _sudden(rng: np.random.Generator, part: Stretches, usual: Floats) -> Iterator[Act]:
    users = rng.integers(0, len(usual), len(part))
    cents = usual[users] * rng.uniform(10, 50, len(part))
    return _purchases(users, moments(rng, len(part), STREAM_DAYS), cents, 0)


def _climbs(rng: np.random.Generator, part: Stretches, usual: Floats) -> Iterator[Act]:
    """Yield slow climbs. The factor of purchase k of n is the last one's factor to the power k/n."""
    users = rng.integers(0, len(usual), len(part))[part.episode]
    days = rng.uniform(21, 35, len(part))[part.episode]
    begun = rng.uniform(0, STREAM_DAYS - 36, len(part))[part.episode]
    jitter = rng.uniform(0, 6 * 3600, len(part))
    seconds = (begun + days * part.progress) * DAY + jitter
    cents = usual[users] * graded(8, 40, part.severity) ** part.progress * rng.lognormal(0, 0.1, len(part))
    return _purchases(users, seconds.astype(np.int64), cents, 1)


def _rings(rng: np.random.Generator, part: Stretches, usual: Floats) -> Iterator[Act]:
    for rows in part.parts():
        ring = rng.permutation(len(usual))[: rng.integers(4, 7)]
        begun = int(rng.integers(0, (STREAM_DAYS - 15) * DAY))
        pairs = [(int(a), int(b)) for place, a in enumerate(ring) for b in ring[:place]]
        for place, (a, b) in enumerate(pairs):
            yield Act(begun + 600 * place, BEFRIEND, a, b, 0, NONE)
        users = ring[np.arange(len(rows)) % len(ring)]
        seconds = begun + DAY + np.sort(rng.integers(0, 13 * DAY, len(rows)))
        price = graded(4, 12, part.severity[rows]) * usual[ring].mean()
        yield from _purchases(users, seconds, price * rng.lognormal(0, 0.2, len(rows)), 2)


def _takeovers(rng: np.random.Generator, part: Stretches, usual: Floats, events: DrawnEvents) -> Iterator[Act]:
    ties = np.flatnonzero(events.kind == BEFRIEND)
    for rows in part.parts():
        user = int(rng.integers(0, len(usual)))
        begun = int(rng.integers(0, (STREAM_DAYS - 1) * DAY))
        friends = events.b[ties[events.a[ties] == user]][: rng.integers(1, 4)]
        strangers = (user + rng.integers(1, len(usual), rng.integers(2, 5))) % len(usual)
        changes = [(UNFRIEND, int(friend)) for friend in friends] + [(BEFRIEND, int(other)) for other in strangers]
        for place, (kind, other) in enumerate(changes):
            yield Act(begun + 60 * place, kind, user, other, 0, NONE)
        seconds = begun + 1800 + np.cumsum(rng.integers(120, 1200, len(rows)))
        factor = np.where(
            rng.random(len(rows)) < 0.25, rng.uniform(0.02, 0.1, len(rows)), rng.uniform(4, 15, len(rows))
        )
        yield from _purchases(np.full(len(rows), user), seconds, usual[user] * factor, 3)


def _purchases(users: Ints, seconds: Ints, amounts: Floats, label: int) -> Iterator[Act]:
    cents = np.maximum(1, amounts * 100).astype(np.int64)
    for user, second, paid in zip(users.tolist(), seconds.tolist(), cents.tolist(), strict=True):
        yield Act(second, PURCHASE, user, user, paid, label)
