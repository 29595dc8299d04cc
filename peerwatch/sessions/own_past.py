"""How a session differs from the user's own past: from the sessions before it, never from later ones or other users.

A user's past is the last 16 sessions of earlier
moments. Deviations are robust: from their median, in median absolute deviations.
"""

from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from peerwatch.sessions.columns import Floats, Mask, SessionTable

PAST: Final = 16
"""Sessions of a user that are remembered."""
LEAST_SPREAD: Final = 0.15
"""Of logarithms: with less spread than a sixth, values count as if they had that much."""
FARTHEST: Final = 50.0
CHUNK: Final = 20_000
"""Sessions that are compared at once, which bounds the memory."""
MEASURES: Final = (
    "total_events", "click_events", "scroll_events", "touch_events", "keyboard_events", "seconds",
    "transaction_amount", "mouse_movement",
)  # fmt: skip
HABITS: Final = ("device_type", "browser_info", "language", "geolocation_city", "screen_size")
_HOUR: Final = len(MEASURES)
_FIRST_HABIT: Final = _HOUR + 1
_MOMENT: Final = _FIRST_HABIT + len(HABITS)
WIDTH: Final = _MOMENT + 1

NAMES: Final = (
    *(f"own_deviation_{name}" for name in MEASURES),
    *(f"own_change_{name}" for name in MEASURES),
    "own_mean_deviation", "own_largest_deviation", "own_change",
    "own_hour_distance",
    *(f"own_share_{name}" for name in HABITS),
    "own_sessions", "own_since",
)  # fmt: skip
"""The features, in the order of `compared`'s columns."""
_SESSIONS: Final = NAMES.index("own_sessions")
_NOTHING: Final = np.empty((0, WIDTH))


class PastSessions:
    """What is remembered of users: the last sessions of each, the oldest first, shape [sessions, WIDTH]."""

    def __init__(self, by_user: dict[str, Floats] | None = None) -> None:
        self.by_user = by_user if by_user is not None else {}

    @classmethod
    def of(cls, user: Sequence[str], rows: Floats) -> "PastSessions":
        """From rows and whose each is, the rows of each user next to each other."""
        by_user: dict[str, Floats] = {}
        begin = 0
        for end in range(1, len(user) + 1):
            if end == len(user) or user[end] != user[begin]:
                by_user[user[begin]] = rows[begin:end]
                begin = end
        return cls(by_user)

    def columns(self) -> tuple[list[str], Floats]:
        """Whose each row is, in order of users, and the rows."""
        users = sorted(self.by_user)
        names = [user for user in users for _ in range(len(self.by_user[user]))]
        return names, np.concatenate([np.empty((0, WIDTH)), *(self.by_user[user] for user in users)])

    def add(self, later: "PastSessions") -> None:
        """Remember what `compared` has returned."""
        self.by_user.update(later.by_user)


def remembered(table: SessionTable) -> Floats:
    """What is remembered of each session, shape [n, WIDTH]: measures as logarithms, the hour, habits, the moment."""
    events = np.stack([table.number(name) for name in MEASURES[1:5]])
    seconds = table.number("time_on_page")
    seconds = np.where(np.isnan(seconds), table.number("session_duration"), seconds)
    measures = (
        total(events), *events, seconds, table.number("transaction_amount"), table.number("mouse_movement"),
    )  # fmt: skip
    found = np.empty((len(table), WIDTH))
    for place, column in enumerate(measures):
        found[:, place] = np.sign(column) * np.log1p(np.abs(column))
    found[:, _HOUR] = table.wall % 86_400 / 3600
    for place, name in enumerate(HABITS, _FIRST_HABIT):
        found[:, place] = codes(table, name)
    found[:, _MOMENT] = table.seconds
    return found


def codes(table: SessionTable, name: str) -> Floats:
    """A number for each category, the same in every table; NaN where it is missing."""
    texts = table.text(name).tolist()
    known = {text: float(crc32(text.encode())) for text in set(texts)} | {"": np.nan}
    return np.array([known[text] for text in texts])


def total(events: Floats) -> Floats:
    """The sum of columns, those that are missing left out; NaN where all are. Shape [columns, n]."""
    return np.where(np.isnan(events).all(axis=0), np.nan, np.nansum(events, axis=0))


def compared(table: SessionTable, past: PastSessions, counts: Mask | None = None) -> tuple[Floats, PastSessions]:
    """Each session's features against those before it, shape [n, len(NAMES)], and the past of its users after all.

    The past of a session are its user's sessions of earlier moments; where the table has no times, those before it in
    the table. Without a user, or without a time where the table has times, a session has no past and belongs to none.
    Sessions that do not `count` belong to no past either, which leaves out those known to be anomalous.
    """
    new = remembered(table)
    names, number = list[str](), np.full(len(table), -1)
    found: dict[str, int] = {"": -1}
    for row, name in enumerate(table.user.tolist()):
        place = found.get(name)
        if place is None:
            place = found[name] = len(names)
            names.append(name)
        number[row] = place
    known = number >= 0
    if table.has_time:
        known = known & ~np.isnan(table.seconds)
    earlier = [past.by_user.get(name, _NOTHING) for name in names]
    rows = np.concatenate([*earlier, new]) if names else new
    old = len(rows) - len(new)
    user = np.concatenate((np.repeat(np.arange(len(names)), [len(each) for each in earlier]), number))
    moment = rows[:, _MOMENT] if table.has_time else np.zeros(len(rows))
    everywhere = np.ones(old, np.bool_)
    order = np.lexsort((np.arange(len(rows)), moment, user))  # what is remembered came before
    order = order[np.concatenate((everywhere, known))[order]]
    belongs = np.concatenate((everywhere, known if counts is None else known & counts))[order]
    within = np.cumsum(belongs) - belongs  # how many belong to somebody's past before this place
    if table.has_time and len(order):  # ... before the first one of the same moment
        is_first = np.ones(len(order), np.bool_)
        is_first[1:] = (user[order][1:] != user[order][:-1]) | (moment[order][1:] != moment[order][:-1])
        within = within[np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))]
    members = order[belongs]
    first = np.searchsorted(user[members], user[order])  # members are in order of users
    features = np.full((len(table), len(NAMES)), np.nan)
    features[known, _SESSIONS] = 0
    at = np.flatnonzero(order >= old)
    for begin in range(0, len(at) if len(members) else 0, CHUNK):
        part = at[begin : begin + CHUNK]
        place = within[part][:, None] - 1 - np.arange(PAST)
        there = place >= first[part][:, None]
        history = rows[members[np.where(there, place, 0)]]
        history[~there] = np.nan
        features[order[part] - old] = _differences(rows[order[part]], history, there.sum(axis=1))
    last = _kept(user[members], moment[members])
    return features, PastSessions.of([names[each] for each in user[members][last].tolist()], rows[members[last]])


def _kept(user: NDArray[Any], moment: Floats) -> Mask:
    """Which rows, in order of users and moments, are remembered: the last of the latest moment, and the last before it.

    Those before it are the past of a session that may still come with the same moment.
    """
    if not len(user):
        return np.zeros(0, np.bool_)
    end = np.searchsorted(user, user, "right")
    is_latest = moment == moment[end - 1]
    latest = np.bincount(user, is_latest)[user].astype(np.int64)
    behind = end - np.arange(len(user))
    return np.asarray(np.where(is_latest, behind, behind - latest) <= PAST)


def _differences(row: Floats, history: Floats, count: NDArray[Any]) -> Floats:
    """Rows [n, WIDTH] against histories [n, PAST, WIDTH] that are NaN where there is nothing."""
    values = np.ascontiguousarray(history[:, :, :_HOUR].transpose(0, 2, 1))
    middle = median(values)
    change = row[:, :_HOUR] - middle
    spread = 1.4826 * median(np.abs(values - middle[:, :, None])) + LEAST_SPREAD
    deviation = np.clip(change / spread, -FARTHEST, FARTHEST)
    size = np.abs(deviation)
    away = np.abs((row[:, None, _HOUR] - history[:, :, _HOUR] + 12) % 24 - 12)
    since = np.log1p(np.maximum(row[:, _MOMENT] - history[:, 0, _MOMENT], 0) / 3600)
    habits = history[:, :, _FIRST_HABIT:_MOMENT]
    same = np.where(np.isnan(habits), np.nan, habits == row[:, None, _FIRST_HABIT:_MOMENT])
    share = _mean(same, 1)
    share[np.isnan(row[:, _FIRST_HABIT:_MOMENT])] = np.nan
    return np.column_stack([
        deviation, change, _mean(size, 1), np.where(np.isnan(size), -1.0, size).max(axis=1, initial=-1.0),
        np.sqrt(_mean(change**2, 1)), median(away), share, count, since,
    ])  # fmt: skip


def median(values: Floats) -> Floats:
    """The median along the last axis of what is not NaN, NaN where all is."""
    inner = np.sort(values, axis=-1)  # NaN last
    count = values.shape[-1] - np.isnan(inner).sum(axis=-1, keepdims=True)
    low = np.take_along_axis(inner, np.maximum(count - 1, 0) // 2, -1)
    high = np.take_along_axis(inner, np.minimum(count // 2, values.shape[-1] - 1), -1)
    return np.asarray(np.where(count > 0, (low + high) / 2, np.nan)[..., 0])


def _mean(values: Floats, axis: int) -> Floats:
    """The mean of what is not NaN, NaN where all is."""
    count = np.sum(~np.isnan(values), axis=axis)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(count > 0, np.nansum(values, axis=axis) / np.maximum(count, 1), np.nan))
