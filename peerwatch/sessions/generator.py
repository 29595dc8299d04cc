"""Seeded sessions in which an anomaly looks like a heavy session, and only the habits of its user give it away.

Every user has habits: how much of everything, at which time of day, from which city, with which browser. About a third
are heavy users. An anomaly is a session of a heavy user in somebody else's account. So a model that looks at sessions
alone finds the heavy ones, among which most are normal; one that knows the user's past finds the strangers.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from peerwatch.errors import UsageError
from peerwatch.readable import shown

FIRST: Final = np.datetime64("2024-01-01T00:00:00", "s")
DAYS: Final = 120
SESSIONS_PER_USER: Final = 25
HEAVY: Final = 0.32
"""The share of heavy users."""
HEAVIER: Final = 3.0
"""The logarithm of how much heavier they are."""
HABITS: Final = 0.45
"""How much users differ in each measure, as a standard deviation of logarithms; `WITHIN` is how much a user's do."""
WITHIN: Final = 0.5
HOURS: Final = 3.5
"""How far a user's sessions lie from the usual time of day, as a standard deviation."""
FAITHFUL: Final = 0.65
"""The share of sessions from the user's own city, and with the user's own browser."""
CITIES: Final = ("Delhi", "Mumbai", "Bangalore", "Kolkata", "Indore", "Unknown")
BROWSERS: Final = ("Chrome", "Firefox", "Safari", "Edge")
LANGUAGES: Final = ("english", "hindi", "foreign")
SCREENS: Final = (("414x896", "360x640"), ("1920x1080", "1366x768"))
HEADER: Final = (
    "user_id", "session_id", "transaction_date", "device_type", "click_events", "scroll_events", "touch_events",
    "keyboard_events", "time_on_page", "transaction_amount", "mouse_movement", "screen_size", "browser_info",
    "language", "geolocation_city", "label",
)  # fmt: skip
TYPICAL: Final = np.log(np.array([6.0, 9.0, 8.0, 7.0, 80.0, 900.0]))
"""Logarithms of clicks, scrolls, touches, keys, seconds and amount of a light user."""
LIFT: Final = np.array([1.0, 0.8, 0.8, 0.9, 0.9, 1.0])
"""How much of a heavy user's weight is in each of them."""


@dataclass(frozen=True, kw_only=True)
class SessionOrder:
    """What to make: rows, the share of anomalies, and how many users; with the same seed the same bytes.

    The users follow from `users_seed` alone, so that two files may be of the same users.
    """

    rows: int = 5_000
    anomalies: float = 0.04
    seed: int = 1
    users: int | None = None
    users_seed: int = 1


def sessions(order: SessionOrder) -> Iterator[list[str]]:
    """The rows as text, in order of time, without a header.

    Raises:
        UsageError: the share of anomalies is out of range.
    """
    if not 0 <= order.anomalies <= 0.5 or order.rows < 1:
        raise UsageError(f"{order.rows} rows with a share of {order.anomalies} anomalies; expected 0 to 0.5 of them")
    users = order.users or max(2, order.rows // SESSIONS_PER_USER)
    who = np.random.default_rng([order.users_seed, users])
    heavy = who.permutation(users) < max(1, round(HEAVY * users))
    level = np.where(heavy, who.normal(HEAVIER, 0.2, users), who.normal(0.0, 0.3, users))
    habit = TYPICAL + level[:, None] * LIFT + who.normal(0, HABITS, (users, len(TYPICAL)))
    hour, mobile = who.uniform(0, 24, users), who.random(users) < 0.5
    city, browser = who.integers(0, len(CITIES), users), who.integers(0, len(BROWSERS), users)
    language, screen = who.integers(0, len(LANGUAGES), users), who.integers(0, 2, users)

    rng = np.random.default_rng([order.seed, order.rows])
    user = rng.integers(0, users, order.rows)
    label = np.zeros(order.rows, np.bool_)
    label[rng.choice(order.rows, round(order.rows * order.anomalies), replace=False)] = True
    strangers = np.flatnonzero(heavy)
    source = np.where(label, strangers[rng.integers(0, len(strangers), order.rows)], user)
    amounts = np.exp(habit[source] + rng.normal(0, WITHIN, (order.rows, len(TYPICAL))))
    counts = rng.poisson(amounts[:, :4])
    mouse = rng.poisson(12 * amounts[:, 0])
    days = np.sort(rng.integers(0, DAYS, order.rows))
    moment = (hour[source] + rng.normal(0, HOURS, order.rows)) % 24
    seconds = days * 86_400 + (moment * 3600).astype(np.int64)
    stays = rng.random((2, order.rows)) < FAITHFUL
    place = np.where(stays[0], city[source], rng.integers(0, len(CITIES), order.rows))
    agent = np.where(stays[1], browser[source], rng.integers(0, len(BROWSERS), order.rows))
    stamps = np.datetime_as_string(FIRST + seconds)
    for number, row in enumerate(np.argsort(seconds, kind="stable").tolist()):
        who_is, on_mobile = int(user[row]), bool(mobile[user[row]])
        clicks, scrolls, touches, keys = counts[row].tolist()
        yield [
            f"user_{order.users_seed}_{who_is}", f"session_{order.seed}_{number}", stamps[row].replace("T", " "),
            "Mobile" if on_mobile else "PC", str(clicks), str(scrolls), str(touches if on_mobile else 0), str(keys),
            f"{max(1.0, amounts[row, 4]):.0f}", f"{amounts[row, 5]:.2f}", str(0 if on_mobile else int(mouse[row])),
            SCREENS[not on_mobile][int(screen[who_is])], BROWSERS[agent[row]], LANGUAGES[language[who_is]],
            CITIES[place[row]], str(int(label[row])),
        ]  # fmt: skip


def write_sessions(path: Path, order: SessionOrder, *, force: bool) -> None:
    """Write a CSV file, or, if its name ends in `.json`, one JSON object a line without the labels.

    Raises:
        UsageError: it exists and `force` is not set, or cannot be written.
    """
    rows = sessions(order)
    first = next(rows)
    try:
        with path.open("w" if force else "x", newline="", encoding="utf-8") as file:
            if path.suffix == ".json":
                file.writelines(json.dumps(dict(zip(HEADER[:-1], row, strict=False))) + "\n" for row in [first, *rows])
            else:
                csv.writer(file, lineterminator="\n").writerows([HEADER, first, *rows])
    except FileExistsError:
        raise UsageError(f"{shown(path)} exists; name another file, or add --force") from None
    except OSError as error:
        raise UsageError(f"cannot write {shown(path)}: {error.strerror}") from None
