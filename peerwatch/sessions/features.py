"""The features of a session: numbers with a name and a meaning, computed from its columns.

A feature whose columns are missing is NaN. `FEATURES` is the table; `describe` says what each is, those of the user's
own past (`own_past`) included.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np

from peerwatch.sessions import own_past
from peerwatch.sessions.columns import Floats, SessionTable

DAY: Final = 86_400
TWO_PI: Final = 2 * np.pi
EVENTS: Final = ("click_events", "scroll_events", "touch_events", "keyboard_events")
SHORT, LONG = 10, 600
"""Seconds: a session is very short up to the one, very long from the other on."""
FAST: Final = 5.0
"""Events a second that few people reach."""
LARGE_SCREEN: Final = 1_000
"""Pixels of width from which a screen is not a telephone's."""


class Derived:
    """A table's columns and what several features need of them; all of shape [n], NaN where unknown."""

    def __init__(self, table: SessionTable) -> None:
        self.table = table
        self._made: dict[str, Floats] = {}

    def feature(self, name: str) -> Floats:
        """A feature of `FEATURES`, computed once."""
        if name not in self._made:
            self._made[name] = _MAKERS[name](self)
        return self._made[name]

    def __getitem__(self, name: str) -> Floats:
        """A column of numbers."""
        return self.table.number(name)

    @cached_property
    def events(self) -> Floats:
        """Clicks, scrolls, touches and keys, shape [4, n]."""
        return np.stack([self[name] for name in EVENTS])

    @cached_property
    def total(self) -> Floats:
        """All events."""
        return own_past.total(self.events)

    @cached_property
    def seconds(self) -> Floats:
        """Time on the page; where it is missing that of the session."""
        return np.where(np.isnan(self["time_on_page"]), self["session_duration"], self["time_on_page"])

    @cached_property
    def second_of_day(self) -> Floats:
        """By the clock on the wall."""
        return np.asarray(self.table.wall % DAY)

    @cached_property
    def hour(self) -> Floats:
        """The full hour."""
        return np.asarray(self.second_of_day // 3600)

    @cached_property
    def weekday(self) -> Floats:
        """0 is Monday."""
        return np.asarray((self.table.day // DAY + 3) % 7)

    @cached_property
    def date(self) -> Any:
        """The day as numpy's type; NaT where unknown."""
        days = np.where(np.isnan(self.table.day), np.nan, self.table.day // DAY)
        whole = np.where(np.isnan(days), 0, days).astype(np.int64).astype("datetime64[D]")
        return np.where(np.isnan(days), np.datetime64("NaT", "D"), whole)

    @cached_property
    def month(self) -> Floats:
        """From 0."""
        return np.where(np.isnat(self.date), np.nan, self.date.astype("datetime64[M]").astype(np.int64) % 12)

    @cached_property
    def day_of_month(self) -> Floats:
        """From 1."""
        months = self.date.astype("datetime64[M]").astype("datetime64[D]")
        return np.where(np.isnat(self.date), np.nan, (self.date - months).astype(np.int64) + 1)

    @cached_property
    def mobile(self) -> Floats:
        """1 on a mobile device, 0 on any other."""
        return self._is("device_type", {"mobile", "tablet", "phone", "smartphone", "android", "ios"})

    @cached_property
    def screen(self) -> Floats:
        """Width and height in pixels, shape [2, n]."""
        known: dict[str, tuple[float, float]] = {}
        texts = self.table.text("screen_size").tolist()
        return np.array([known.get(text) or known.setdefault(text, screen_of(text)) for text in texts]).reshape(-1, 2).T

    def risks(self) -> Floats:
        """How many of the risk flags are 1."""
        return np.asarray(np.nansum([self.feature(name) for name in RISKS], axis=0))

    def _is(self, column: str, values: set[str]) -> Floats:
        texts = self.table.text(column).tolist()
        return np.array([np.nan if not text else float(text in values) for text in texts])

    def share(self, place: int) -> Floats:
        """One kind of events among all."""
        return ratio(self.events[place], self.total)


def screen_of(text: str) -> tuple[float, float]:
    """Width and height of a screen such as `1920x1080`; NaN if it is none."""
    wide, _, tall = text.replace("\u00d7", "x").partition("x")
    if wide.strip().isdecimal() and tall.strip().isdecimal() and len(text) < 20:
        return float(wide), float(tall)
    return np.nan, np.nan


def ratio(part: Floats, whole: Floats) -> Floats:
    """A quotient; 0 where nothing is divided by nothing, the part itself where something is."""
    return np.asarray(part / np.where(whole == 0, 1.0, whole))


def flag(condition: Any, *known: Floats) -> Floats:
    """1 where a condition holds, 0 where not, NaN where one of the columns that it was made of is unknown."""
    unknown = np.isnan(np.stack(known)).any(axis=0)
    return np.where(unknown, np.nan, np.asarray(condition, np.float64))


def _entropy(events: Floats, total: Floats) -> Floats:
    share = np.where(np.isnan(events), 0.0, events / np.where(total > 0, total, 1.0))
    bits = -np.sum(share * np.log2(np.where(share > 0, share, 1.0)), axis=0)
    return np.where(np.isnan(total), np.nan, bits)


def _consistency(events: Floats, total: Floats) -> Floats:
    count = np.sum(~np.isnan(events), axis=0)
    mean = total / np.maximum(count, 1)
    spread = np.sqrt(np.nansum((events - mean) ** 2, axis=0) / np.maximum(count, 1))
    return np.where(np.isnan(total), np.nan, 1 / (1 + ratio(spread, mean)))


def _kinds(events: Floats, total: Floats) -> Floats:
    return np.where(np.isnan(total), np.nan, np.sum(np.nan_to_num(events) > 0, axis=0))


def _dominance(events: Floats, total: Floats) -> Floats:
    return ratio(np.where(np.isnan(total), np.nan, np.max(np.nan_to_num(events), axis=0)), total)


class SessionFeature(NamedTuple):
    """A feature: its name, its group, what it means, and how it is computed."""

    name: str
    group: str
    about: str
    make: Callable[[Derived], Floats]


def _column(name: str, about: str) -> SessionFeature:
    return SessionFeature(name, "volume", about, lambda d: d[name])


FEATURES: Final = (
    SessionFeature("hour", "time", "full hour, 0 to 23", lambda d: d.hour),
    SessionFeature("hour_sin", "time", "sine of the time of day", lambda d: np.sin(d.second_of_day / DAY * TWO_PI)),
    SessionFeature("hour_cos", "time", "cosine of the time of day", lambda d: np.cos(d.second_of_day / DAY * TWO_PI)),
    SessionFeature("day_sin", "time", "sine of the day of the week", lambda d: np.sin(d.weekday / 7 * TWO_PI)),
    SessionFeature("day_cos", "time", "cosine of the day of the week", lambda d: np.cos(d.weekday / 7 * TWO_PI)),
    SessionFeature("month_sin", "time", "sine of the month", lambda d: np.sin(d.month / 12 * TWO_PI)),
    SessionFeature("month_cos", "time", "cosine of the month", lambda d: np.cos(d.month / 12 * TWO_PI)),
    SessionFeature("day_of_month", "time", "1 to 31", lambda d: d.day_of_month),
    SessionFeature("is_weekend", "time", "1 on Saturday and Sunday", lambda d: flag(d.weekday >= 5, d.weekday)),
    SessionFeature(
        "is_business_hours", "time", "1 from 9 to 17 o'clock on a working day",
        lambda d: flag((d.hour >= 9) & (d.hour < 17) & (d.weekday < 5), d.hour),
    ),
    SessionFeature("is_night", "time", "1 from 22 to 6 o'clock", lambda d: flag((d.hour >= 22) | (d.hour < 6), d.hour)),
    _column("click_events", "clicks"),
    _column("scroll_events", "scrolls"),
    _column("touch_events", "touches"),
    _column("keyboard_events", "keys pressed"),
    _column("form_submissions", "forms sent"),
    _column("page_views", "pages seen"),
    _column("time_on_page", "seconds on the page"),
    _column("session_duration", "seconds of the session"),
    _column("avg_session_duration", "seconds of the user's sessions on average, as the log has it"),
    _column("bounce_rate", "share of visits that ended at once, as the log has it"),
    _column("conversion_rate", "share of visits that led to a purchase, as the log has it"),
    _column("transaction_amount", "what was paid"),
    _column("mouse_movement", "movement of the mouse"),
    _column("device_motion", "movement of the device"),
    _column("timezone_offset", "the device's time zone, as the log has it"),
    SessionFeature("total_events", "volume", "clicks, scrolls, touches and keys together", lambda d: d.total),
    SessionFeature("clicks_per_second", "rate", "clicks a second", lambda d: ratio(d["click_events"], d.seconds)),
    SessionFeature("scrolls_per_second", "rate", "scrolls a second", lambda d: ratio(d["scroll_events"], d.seconds)),
    SessionFeature("touches_per_second", "rate", "touches a second", lambda d: ratio(d["touch_events"], d.seconds)),
    SessionFeature("keys_per_second", "rate", "keys a second", lambda d: ratio(d["keyboard_events"], d.seconds)),
    SessionFeature("events_per_second", "rate", "all events a second", lambda d: ratio(d.total, d.seconds)),
    SessionFeature("amount_per_second", "rate", "paid a second", lambda d: ratio(d["transaction_amount"], d.seconds)),
    SessionFeature(
        "mouse_per_second", "rate", "mouse movement a second",
        lambda d: ratio(d["mouse_movement"], d.seconds),
    ),
    SessionFeature("pages_per_minute", "rate", "pages a minute", lambda d: ratio(60 * d["page_views"], d.seconds)),
    SessionFeature("click_share", "ratio", "clicks among all events", lambda d: d.share(0)),
    SessionFeature("scroll_share", "ratio", "scrolls among all events", lambda d: d.share(1)),
    SessionFeature("touch_share", "ratio", "touches among all events", lambda d: d.share(2)),
    SessionFeature("key_share", "ratio", "keys among all events", lambda d: d.share(3)),
    SessionFeature(
        "mouse_per_click", "ratio", "mouse movement a click",
        lambda d: ratio(d["mouse_movement"], d["click_events"]),
    ),
    SessionFeature("clicks_per_page", "ratio", "clicks a page", lambda d: ratio(d["click_events"], d["page_views"])),
    SessionFeature("seconds_per_page", "ratio", "seconds a page", lambda d: ratio(d.seconds, d["page_views"])),
    SessionFeature("forms_per_page", "ratio", "forms a page", lambda d: ratio(d["form_submissions"], d["page_views"])),
    SessionFeature(
        "duration_to_average", "ratio", "the session's seconds to the user's average in the log",
        lambda d: ratio(d["session_duration"], d["avg_session_duration"]),
    ),
    SessionFeature(
        "page_to_session", "ratio", "seconds on the page to those of the session",
        lambda d: ratio(d["time_on_page"], d["session_duration"]),
    ),
    SessionFeature(
        "session_efficiency", "efficiency", "events to the root of the seconds",
        lambda d: ratio(d.total, np.sqrt(d.seconds)),
    ),
    SessionFeature(
        "click_efficiency", "efficiency", "paid a click",
        lambda d: ratio(d["transaction_amount"], d["click_events"]),
    ),
    SessionFeature(
        "event_efficiency", "efficiency", "paid an event",
        lambda d: ratio(d["transaction_amount"], d.total),
    ),
    SessionFeature(
        "conversion_efficiency", "efficiency", "conversion among visits that did not end at once",
        lambda d: d["conversion_rate"] * (1 - d["bounce_rate"]),
    ),
    SessionFeature(
        "interaction_diversity", "diversity", "entropy of the kinds of events, in bits",
        lambda d: _entropy(d.events, d.total),
    ),
    SessionFeature(
        "kinds_of_events", "diversity", "how many kinds of events there were",
        lambda d: _kinds(d.events, d.total),
    ),
    SessionFeature(
        "dominance", "diversity", "share of the most frequent kind of events",
        lambda d: _dominance(d.events, d.total),
    ),
    SessionFeature(
        "consistency", "consistency", "1 if all kinds of events are equally many, towards 0 the more they differ",
        lambda d: _consistency(d.events, d.total),
    ),
    SessionFeature("is_mobile", "device", "1 on a mobile device", lambda d: d.mobile),
    SessionFeature("touches_on_mobile", "device", "touches, 0 elsewhere", lambda d: d["touch_events"] * d.mobile),
    SessionFeature(
        "touches_elsewhere", "device", "touches on what is not mobile",
        lambda d: d["touch_events"] * (1 - d.mobile),
    ),
    SessionFeature(
        "mouse_on_mobile", "device", "mouse movement on a mobile device, which has no mouse",
        lambda d: d["mouse_movement"] * d.mobile,
    ),
    SessionFeature(
        "mouse_elsewhere", "device", "mouse movement on what is not mobile",
        lambda d: d["mouse_movement"] * (1 - d.mobile),
    ),
    SessionFeature("keys_on_mobile", "device", "keys on a mobile device", lambda d: d["keyboard_events"] * d.mobile),
    SessionFeature(
        "motion_elsewhere", "device", "device movement of what is not mobile",
        lambda d: d["device_motion"] * (1 - d.mobile),
    ),
    SessionFeature("screen_width", "device", "pixels", lambda d: d.screen[0]),
    SessionFeature("screen_area", "device", "thousand pixels", lambda d: d.screen[0] * d.screen[1] / 1000),
    SessionFeature("screen_aspect", "device", "width to height", lambda d: ratio(d.screen[0], d.screen[1])),
    SessionFeature(
        "screen_mismatch", "device", "1 for a mobile device with a large screen, or another with a small one",
        lambda d: flag((d.screen[0] >= LARGE_SCREEN) == (d.mobile == 1), d.screen[0], d.mobile),
    ),
    SessionFeature("no_events", "risk", "1 without any event", lambda d: flag(d.total == 0, d.total)),
    SessionFeature("no_clicks", "risk", "1 without a click", lambda d: flag(d["click_events"] == 0, d["click_events"])),
    SessionFeature(
        "no_keys", "risk", "1 without a key",
        lambda d: flag(d["keyboard_events"] == 0, d["keyboard_events"]),
    ),
    SessionFeature("very_short", "risk", "1 up to 10 seconds", lambda d: flag(d.seconds <= SHORT, d.seconds)),
    SessionFeature("very_long", "risk", "1 from 600 seconds on", lambda d: flag(d.seconds >= LONG, d.seconds)),
    SessionFeature(
        "very_fast", "risk", "1 with more than 5 events a second",
        lambda d: flag(ratio(d.total, d.seconds) > FAST, d.total, d.seconds),
    ),
    SessionFeature("deep_night", "risk", "1 from 1 to 5 o'clock", lambda d: flag((d.hour >= 1) & (d.hour < 5), d.hour)),
    SessionFeature(
        "mouse_on_a_telephone", "risk", "1 if a mobile device's mouse moved",
        lambda d: flag((d.mobile == 1) & (d["mouse_movement"] > 0), d.mobile, d["mouse_movement"]),
    ),
    SessionFeature(
        "paid_without_a_click", "risk", "1 if something was paid without a click or a touch",
        lambda d: flag(
            (d["transaction_amount"] > 0) & (d["click_events"] + np.nan_to_num(d["touch_events"]) == 0),
            d["transaction_amount"], d["click_events"],
        ),
    ),
    SessionFeature("risk_flags", "risks", "how many of the risk flags are 1", lambda d: d.risks()),
)  # fmt: skip
"""Every feature but those of the user's own past."""

_MAKERS: Final = {feature.name: feature.make for feature in FEATURES}
GROUPS: Final = {**{feature.name: feature.group for feature in FEATURES}, **dict.fromkeys(own_past.NAMES, "own past")}
"""The group of each feature."""
RISKS: Final[tuple[str, ...]] = tuple(feature.name for feature in FEATURES if feature.group == "risk")
_MEASURED: Final = dict(zip(own_past.MEASURES, (
    "all events", "clicks", "scrolls", "touches", "keys", "the seconds", "the amount", "the mouse movement",
), strict=True))  # fmt: skip
OWN_ABOUT: Final[Mapping[str, str]] = {
    **{f"own_deviation_{name}": f"{about}: median absolute deviations from the own median, of logarithms"
       for name, about in _MEASURED.items()},
    **{f"own_change_{name}": f"{about}: logarithm of the ratio to the own median" for name, about in _MEASURED.items()},
    "own_mean_deviation": "mean size of the own deviations",
    "own_largest_deviation": "largest size of the own deviations, -1 without a past",
    "own_change": "root mean square of the own changes",
    "own_hour_distance": "median distance in hours to the time of day of own sessions",
    **{f"own_share_{name}": f"share of the own sessions with the same {name}" for name in own_past.HABITS},
    "own_sessions": f"how many own sessions are known, at most {own_past.PAST}",
    "own_since": "logarithm of the hours since the last own session",
}  # fmt: skip
"""What the features of the user's own past mean."""


def computed(table: SessionTable, names: Iterable[str]) -> list[Floats]:
    """The features with these names, shape [n] each; not those of the own past."""
    derived = Derived(table)
    with np.errstate(all="ignore"):
        return [derived.feature(name) for name in names]


def describe() -> dict[str, str]:
    """What each feature means, by its name."""
    return {**{feature.name: feature.about for feature in FEATURES}, **OWN_ABOUT}
