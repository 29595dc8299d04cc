"""Card transactions over sixty days, a row for each: how much, when and where.

Normal: each card has a home, a usual amount with a heavy tail (one purchase in thirty is 3 to 12 times as large:
furniture, a holiday; one in twelve is small change: parking) and hours of its own; one card in ten is used at
night. Three cards in five go on a trip of some days, up to a few thousand kilometres from home. So neither a large
amount nor a late hour nor a far place is an anomaly by itself: what counts is what the card did before.

- `unusual amount`: one purchase of 5 to 60 times the card's usual amount, at a usual time and place. The larger ones
  stand out for their card, the smaller ones are no larger than furniture.
- `unusual time`: some purchases within hours, when the card's holder sleeps. The amounts are usual, and the hour is
  usual for others: only a detector that knows the card's own hours finds them.
- `unusual place`: one purchase 400 to 9,000 km away, 10 to 120 minutes after the card was used elsewhere. Trips are as
  far; `km_from_last` and `gap_minutes` together show that nobody travels so fast. (The next purchase, back home, is
  normal although it is as far from the last one.)
- `card testing`: a burst of purchases of small change, a minute or two apart, to try whether a stolen card works. Each
  by itself is cheap and looks harmless; the gaps betray it.
"""

from typing import Final

import numpy as np

from peerwatch.studies.datasets.table import (
    DAY,
    NORMAL,
    Column,
    DatasetOrder,
    Floats,
    Ints,
    Table,
    graded,
    moments,
    stretches,
)

COLUMNS: Final = (
    Column("id", "", "the card"),
    Column("amount", "euros", "paid", 2),
    Column("hour", "hours", "since midnight UTC", 2),
    Column("latitude", "degrees", "north", 3),
    Column("longitude", "degrees", "east", 3),
    Column("km_from_home", "km", "from the card's home", 1),
    Column("km_from_last", "km", "from where the card was used before; of its first use, from home", 1),
    Column("gap_minutes", "minutes", "since the card was used before; of its first use, since the first day began", 1),
)
KINDS: Final = ("unusual amount", "unusual time", "unusual place", "card testing")
AMOUNT, TIME, PLACE, TESTING = range(4)
ROWS_PER_CARD: Final = 100
DAYS: Final = 60
EARTH_KM: Final = 6371.0
DEGREE_KM: Final = 111.2
DEEP_NIGHT: Final = 2 * 3600
"""The second of the day at which most people sleep."""


def make(order: DatasetOrder) -> Table:
    """Make sixty days of transactions, with a card for every 100 rows or so."""
    rng = np.random.default_rng(order.seed)
    counts = order.counts(KINDS)
    cards = max(2, order.rows // ROWS_PER_CARD)
    normal = order.rows - sum(counts)
    home = np.stack((rng.uniform(44, 55, cards), rng.uniform(0, 20, cards)), axis=1)
    usual = rng.lognormal(3.0, 0.5, cards)
    shift = np.where(rng.random(cards) < 0.1, 10 * 3600, 3600 * rng.standard_normal(cards)).astype(np.int64)

    card = rng.integers(0, cards, normal)
    seconds = (moments(rng, normal, DAYS) + shift[card]) % (DAYS * DAY)
    amount = _amounts(rng, usual[card]) * np.where(rng.random(normal) < 0.03, rng.uniform(3, 12, normal), 1)
    change = rng.random(normal) < 0.08
    amount[change] = rng.uniform(0.5, 4, np.count_nonzero(change))

    stolen = [stretches(rng, count, typical) for count, typical in zip(counts, (1, 3, 1, 10), strict=True)]
    kind = np.repeat([NORMAL, *range(len(KINDS))], [normal, *counts])
    severity = np.concatenate([part.severity for part in stolen])
    owner = [rng.integers(0, cards, len(part))[part.episode] for part in stolen]
    before = rng.integers(0, normal, counts[PLACE])
    owner[PLACE] = card[before]
    night = DEEP_NIGHT + shift[owner[TIME]] + DAY * rng.integers(1, DAYS - 1, counts[TIME])[stolen[TIME].episode]
    begun = rng.integers(0, (DAYS - 1) * DAY, counts[TESTING])[stolen[TESTING].episode]
    when = [
        (moments(rng, counts[AMOUNT], DAYS) + shift[owner[AMOUNT]]) % (DAYS * DAY),
        night + rng.integers(0, 3 * 3600, counts[TIME]),
        seconds[before] + rng.integers(600, 7200, counts[PLACE]),
        begun + stolen[TESTING].elapsed(rng.integers(20, 120, counts[TESTING])),
    ]

    card, seconds = np.concatenate((card, *owner)), np.concatenate((seconds, *when))
    amount = np.concatenate((amount, _amounts(rng, usual[card[normal:]])))
    large = kind == AMOUNT
    amount[large] = usual[card[large]] * graded(5, 60, severity[large[normal:]])
    amount[kind == TESTING] = rng.uniform(0.5, 3, counts[TESTING])

    place = _places(rng, card, seconds, home)
    far = kind == PLACE
    degrees = graded(400, 9000, severity[far[normal:]]) / DEGREE_KM
    place[far] = place[far] + _towards(rng, len(degrees)) * degrees[:, None] * (0.5, 1.3)
    place[:, 0] = np.clip(place[:, 0], -60, 70)
    place[:, 1] = (place[:, 1] + 180) % 360 - 180

    by_card = np.lexsort((seconds, card))
    first = np.flatnonzero(np.diff(card[by_card], prepend=-1))
    last_place, last_seconds = np.roll(place[by_card], 1, axis=0), np.roll(seconds[by_card], 1)
    last_place[first], last_seconds[first] = home[card[by_card][first]], 0
    gap, moved = np.empty(order.rows), np.empty(order.rows)
    gap[by_card] = (seconds[by_card] - last_seconds) / 60
    moved[by_card] = _distance(place[by_card], last_place)
    values = {
        "id": card + 1, "amount": np.maximum(0.5, amount), "hour": seconds % DAY // 36 / 100, "latitude": place[:, 0],
        "longitude": place[:, 1], "km_from_home": _distance(place, home[card]), "km_from_last": moved,
        "gap_minutes": gap,
    }  # fmt: skip
    return Table(seconds, kind, values)


def _amounts(rng: np.random.Generator, usual: Floats) -> Floats:
    return usual * rng.lognormal(0, 0.6, len(usual))


def _places(rng: np.random.Generator, card: Ints, seconds: Ints, home: Floats) -> Floats:
    """Return where each card's holder is, at home or travelling: degrees north and east, shape [n, 2]."""
    cards = len(home)
    begin = rng.integers(0, (DAYS - 5) * DAY, cards)
    end = begin + np.where(rng.random(cards) < 0.6, rng.integers(3 * DAY, 10 * DAY, cards), 0)
    goal = home + _towards(rng, cards) * graded(2, 35, rng.random(cards))[:, None]
    away = (begin[card] <= seconds) & (seconds < end[card])
    return np.where(away[:, None], goal[card], home[card]) + 0.04 * rng.standard_normal((len(card), 2))


def _towards(rng: np.random.Generator, count: int) -> Floats:
    """Return random directions as unit vectors, shape [count, 2]."""
    vector = rng.standard_normal((count, 2))
    return np.asarray(vector / np.sqrt(np.square(vector).sum(axis=1, keepdims=True)))


def _distance(a: Floats, b: Floats) -> Floats:
    """Return the kilometres between points in degrees north and east, on a sphere (haversine formula)."""
    north, east = np.radians(a - b).T
    h = np.sin(north / 2) ** 2 + np.cos(np.radians(a[:, 0])) * np.cos(np.radians(b[:, 0])) * np.sin(east / 2) ** 2
    return np.asarray(2 * EARTH_KM * np.arcsin(np.sqrt(np.minimum(1, h))))
