"""The columns of session tables: names and aliases, values read from text or objects, bad rows set apart."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from peerwatch.errors import BadInput, UsageError
from peerwatch.readable import shown

Floats: TypeAlias = NDArray[np.float64]
Texts: TypeAlias = NDArray[np.object_]
Mask: TypeAlias = NDArray[np.bool_]
ColumnKind: TypeAlias = Literal["id", "time", "count", "number", "category"]

EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 (wall-clock time, whatever the zone)
MISSING: Final = frozenset({"", "nan", "null", "none", "na", "n/a", "<na>"})
"""Text, in lower case, that stands for a value that is not there."""
MOST_CATEGORIES: Final = 50
"""A text column that nobody knows is a category with at most so many values, otherwise it is ignored."""
LONGEST: Final = 100
"""Characters of a category that count."""
ROWS: Final = 256
"""Rows of a CSV file that are held at once: many live lists have the interpreter look for garbage among all objects."""
LARGEST: Final = 1e30
"""Numbers beyond it are no measurements, and models that work with 32 bits could not hold them."""


class SessionColumn(NamedTuple):
    """A column that is known: its name, what it holds, and other names for it."""

    name: str
    kind: ColumnKind
    about: str
    aliases: tuple[str, ...] = ()


COLUMNS: Final = (
    SessionColumn("user_id", "id", "whose session it is", ("user", "userid", "customer_id", "account_id")),
    SessionColumn("session_id", "id", "names the session", ("session", "sessionid")),
    SessionColumn(
        "transaction_date", "time", "when it was, in the user's time", ("timestamp", "date", "session_date", "time")
    ),
    SessionColumn("click_events", "count", "clicks", ("clicks_count", "clicks", "click_count")),
    SessionColumn("scroll_events", "count", "scrolls", ("scroll_count", "scrolls", "scrolls_count")),
    SessionColumn("touch_events", "count", "touches", ("touch_count", "touches", "touches_count")),
    SessionColumn("keyboard_events", "count", "keys pressed", ("keyboard_count", "key_events", "keystrokes")),
    SessionColumn("form_submissions", "count", "forms sent", ("forms", "form_count")),
    SessionColumn("page_views", "count", "pages seen", ("pages", "pages_viewed")),
    SessionColumn("time_on_page", "count", "seconds on the page", ("time_spent",)),
    SessionColumn("session_duration", "count", "seconds of the session", ("duration", "seconds")),
    SessionColumn("avg_session_duration", "count", "seconds of the user's sessions, on average", ()),
    SessionColumn("bounce_rate", "number", "share of visits that ended at once", ()),
    SessionColumn("conversion_rate", "number", "share of visits that led to a purchase", ()),
    SessionColumn("transaction_amount", "number", "what was paid", ("amount", "purchase_amount")),
    SessionColumn("mouse_movement", "count", "movement of the mouse", ("mouse_movements", "mouse_distance")),
    SessionColumn("device_motion", "number", "movement of the device", ("motion",)),
    SessionColumn("timezone_offset", "number", "the device's time zone", ("tz_offset",)),
    SessionColumn("device_type", "category", "mobile or pc", ("device",)),
    SessionColumn("screen_size", "category", "width x height in pixels", ("screen_resolution", "resolution")),
    SessionColumn("browser_info", "category", "the browser", ("browser", "user_agent")),
    SessionColumn("language", "category", "the browser's language", ("lang", "locale")),
    SessionColumn("device_orientation", "category", "portrait, landscape or none", ("orientation",)),
    SessionColumn("geolocation_city", "category", "where it was", ("city", "location")),
)
KNOWN: Final = {column.name: column for column in COLUMNS}
ALIASES: Final = {alias: column.name for column in COLUMNS for alias in (column.name, *column.aliases)}
USER, SESSION, TIME = "user_id", "session_id", "transaction_date"


class BadSessionRow(NamedTuple):
    """A row that cannot be judged: its line (from 1; of objects their number), its session if it has one, and why."""

    line: int
    session: str
    reason: str


class Schema(msgspec.Struct, frozen=True):
    """The columns that a model reads, by the names in the table or those that they are aliases of."""

    numbers: tuple[str, ...]
    categories: tuple[str, ...]
    has_time: bool
    has_user: bool
    ignored: tuple[str, ...] = ()
    """Text columns with too many values to be categories."""


@dataclass
class RawSessions:
    """Rows as they came, a list a column; a column's name is the known one that it is an alias of."""

    name: str
    columns: dict[str, list[Any]]
    lines: list[int]
    bad: list[BadSessionRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """The number of rows that are not bad so far."""
        return len(self.lines)

    def taken(self, rows: Sequence[int]) -> "RawSessions":
        """Some of the rows."""
        columns = {name: [values[row] for row in rows] for name, values in self.columns.items()}
        return RawSessions(self.name, columns, [self.lines[row] for row in rows], self.bad, self.notes)


@dataclass
class SessionTable:
    """Sessions as columns of n values. Missing numbers and times are NaN, missing text is empty.

    `seconds` since 1970 UTC order the sessions, `wall` are those of the clock on the user's wall, which is NaN where a
    date has no time of day; `day` is as `wall` at midnight.
    """

    numbers: dict[str, Floats]
    categories: dict[str, Texts]
    seconds: Floats
    wall: Floats
    day: Floats
    user: Texts
    session: Texts
    lines: list[int]
    bad: list[BadSessionRow]
    has_time: bool = True

    def __len__(self) -> int:
        """The number of sessions."""
        return len(self.seconds)

    def number(self, name: str) -> Floats:
        """A column of numbers, NaN if there is none."""
        found = self.numbers.get(name)
        return found if found is not None else np.full(len(self), np.nan)

    def text(self, name: str) -> Texts:
        """A column of categories, empty text if there is none."""
        found = self.categories.get(name)
        return found if found is not None else np.full(len(self), "", object)

    def taken(self, rows: NDArray[Any]) -> "SessionTable":
        """Some of the rows."""
        return SessionTable(
            {name: column[rows] for name, column in self.numbers.items()},
            {name: column[rows] for name, column in self.categories.items()},
            self.seconds[rows], self.wall[rows], self.day[rows], self.user[rows], self.session[rows],
            np.array(self.lines)[rows].tolist(), [], self.has_time,
        )  # fmt: skip


def read_sessions(path: Path, without: Iterable[str] = ()) -> RawSessions:
    """Read a CSV file with a header line. Rows with too many or too few fields are set apart.

    Raises:
        UsageError: the file cannot be read, is not CSV, has no header, or lacks a column that is to be left out.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _from_csv(shown(path), csv.reader(file), without)
    except OSError as error:
        raise UsageError(f"cannot read the sessions {shown(path)}: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{shown(path)} is not CSV text: {error}") from None


def _from_csv(name: str, reader: Any, without: Iterable[str]) -> RawSessions:
    rows = ((reader.line_num, row) for row in reader if row)
    _, header = next(rows, (1, []))
    if not header:
        raise UsageError(f"{name} is empty; expected a header line with the columns' names")
    lines, values, bad = list[int](), [list[str]() for _ in header], list[BadSessionRow]()
    while some := [*islice(rows, ROWS)]:
        whole = [(line, row) for line, row in some if len(row) == len(header)]
        lines += [line for line, _ in whole]
        for column, more in zip(values, zip(*(row for _, row in whole), strict=True), strict=False):
            column.extend(more)
        bad += [
            BadSessionRow(line, "", f"{len(row)} fields; the header has {len(header)}")
            for line, row in some
            if len(row) != len(header)
        ]
    columns, notes = named(name, header, values, without)
    return RawSessions(name, columns, lines, bad, notes)


def from_objects(objects: Sequence[Any], name: str = "the sessions") -> RawSessions:
    """Sessions that are given as mappings of columns to values. What is no mapping is set apart."""
    bad = [
        BadSessionRow(number, "", f"a {type(each).__name__}; expected an object with the columns as keys")
        for number, each in enumerate(objects, 1)
        if not isinstance(each, Mapping)
    ]
    refused = {row.line for row in bad}
    lines = [number for number in range(1, len(objects) + 1) if number not in refused]
    rows = [objects[number - 1] for number in lines] if bad else objects
    shapes = dict.fromkeys(map(tuple, rows))
    keys = list(dict.fromkeys(chain.from_iterable(shapes)))
    if len(shapes) == 1:
        values = [list(column) for column in zip(*(row.values() for row in rows), strict=True)]
    else:
        values = [[row.get(key) for row in rows] for key in keys]
    columns, notes = named(name, [str(key) for key in keys], values)
    return RawSessions(name, columns, lines, bad, notes)


def named(
    name: str, header: Sequence[str], values: Sequence[list[Any]], without: Iterable[str] = ()
) -> tuple[dict[str, list[Any]], list[str]]:
    """The columns by their known names, and notes on those of which there are two.

    Raises:
        UsageError: a column that is to be left out does not exist.
    """
    without = set(without)
    if missing := sorted(without - set(header)):
        raise UsageError(f'{name} has no column "{missing[0]}"; there are {", ".join(header)}')
    columns: dict[str, list[Any]] = {}
    origin: dict[str, str] = {}
    notes = []
    for given, column in zip(header, values, strict=True):
        known = known_name(given)
        if given in without:
            continue
        if known in columns:
            if given.strip().lower() != known:
                notes.append(f'{name}: "{given}" is left out, because "{origin[known]}" is the same column')
                continue
            notes.append(f'{name}: "{origin[known]}" is left out, because "{given}" is the same column')
        columns[known], origin[known] = column, given
    return columns, notes


def known_name(given: str) -> str:
    """The name of the known column that `given` is an alias of; any other name as it is, without spaces around it."""
    plain = given.strip()
    return ALIASES.get(plain.lower().replace(" ", "_"), plain)


def schema_of(raw: RawSessions, *, leave_out: Iterable[str] = ()) -> Schema:
    """What the columns of a table are: those that are known, and others by their values."""
    numbers, categories, ignored = list[str](), list[str](), list[str]()
    for name, values in raw.columns.items():
        if name in leave_out or name in {USER, SESSION, TIME}:
            continue
        known = KNOWN.get(name)
        if known is not None:
            (categories if known.kind == "category" else numbers).append(name)
            continue
        some = [value for value in values if not is_missing(value)]
        if all(_as_number(value) is not None for value in some):
            numbers.append(name)
        elif len({_as_text(value) for value in some}) <= min(MOST_CATEGORIES, max(2, len(some) // 2)):
            categories.append(name)
        else:
            ignored.append(name)
    return Schema(tuple(numbers), tuple(categories), TIME in raw.columns, USER in raw.columns, tuple(ignored))


def sessions_of(raw: RawSessions, schema: Schema, *, unique: bool = True) -> SessionTable:
    """The sessions as typed columns. Rows with a value that cannot be read are set apart, and so is a session's repeat.

    A column that is not there is missing in each row.
    """
    count = len(raw)
    reasons: dict[int, str] = {}
    numbers = {name: _numbers(raw, name, reasons) for name in schema.numbers}
    categories = {name: _texts(raw.columns.get(name), count) for name in schema.categories}
    seconds, wall, day = _times(raw, reasons)
    user, session = ids_of(raw.columns.get(USER), count), ids_of(raw.columns.get(SESSION), count)
    if unique:
        _set_repeats_apart(user, session, reasons)
    bad = [BadSessionRow(raw.lines[row], session[row], reasons[row]) for row in sorted(reasons)]
    table = SessionTable(numbers, categories, seconds, wall, day, user, session, list(raw.lines), [], schema.has_time)
    if reasons:
        kept = np.ones(count, np.bool_)
        kept[list(reasons)] = False
        table = table.taken(kept)
    table.bad = sorted([*raw.bad, *bad])
    return table


def labels_of(raw: RawSessions, label: str) -> tuple[RawSessions, Mask]:
    """The rows whose label is 0 or 1, without the label, and the labels; other rows are set apart.

    Raises:
        UsageError: there is no such column, or no row has a label.
    """
    name = known_name(label)
    if name not in raw.columns:
        raise UsageError(f'{raw.name} has no column "{label}"; there are {", ".join(raw.columns) or "none"}')
    values = [_as_label(value) for value in raw.columns[name]]
    kept = [row for row, value in enumerate(values) if value is not None]
    if not kept:
        raise UsageError(f'{raw.name}: no row has 0 or 1 in "{label}"')
    bad = [
        BadSessionRow(line, "", f'"{label}" is {_quoted(raw.columns[name][row])}; expected 0 or 1')
        for row, (line, value) in enumerate(zip(raw.lines, values, strict=True))
        if value is None
    ]
    columns = {key: [column[row] for row in kept] for key, column in raw.columns.items() if key != name}
    rest = RawSessions(raw.name, columns, [raw.lines[row] for row in kept], [*raw.bad, *bad], raw.notes)
    return rest, np.array([values[row] for row in kept], np.bool_)


def ids_of(values: list[Any] | None, count: int) -> Texts:
    """Names of users or sessions, without spaces around them; empty where there is none. Shape [count]."""
    found = np.full(count, "", object)
    if values is not None:
        found[:] = [
            plain
            if len(plain := (value if type(value) is str else _str(value)).strip()) > 4
            else ""
            if is_missing(value)
            else plain
            for value in values
        ]
    return found


def is_missing(value: Any) -> bool:
    """Whether a value stands for none."""
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip().lower() in MISSING
    return isinstance(value, float | np.floating) and math.isnan(value)


def _as_label(value: Any) -> bool | None:
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return value.strip().lower() == "true"
    number = None if is_missing(value) else _as_number(value)
    return None if number not in {0.0, 1.0} else bool(number)


def _as_number(value: Any) -> float | None:
    """A finite number; None if the value is not one."""
    if isinstance(value, str):
        if "_" in value:
            return None
    elif not isinstance(value, int | float | np.number) and not hasattr(type(value), "__float__"):
        return None
    try:
        number = float(value)
    except (ValueError, TypeError, OverflowError, ArithmeticError):
        return None
    return number if abs(number) <= LARGEST else None


def _numbers(raw: RawSessions, name: str, reasons: dict[int, str]) -> Floats:
    values = raw.columns.get(name)
    if values is None:
        return np.full(len(raw), np.nan)
    known = KNOWN.get(name)
    counts = known is not None and known.kind == "count"
    plain = _plain_numbers(values)
    if plain is not None and not (counts and (plain < 0).any()):
        return plain
    found = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        number = _as_number(value) if not isinstance(value, str) or "n" not in value.lower() else None
        if number is None or math.isnan(number):
            if not is_missing(value):
                reasons.setdefault(row, f'"{name}" is {_quoted(value)}; expected a number')
        elif counts and number < 0:
            reasons.setdefault(row, f'"{name}" is {_quoted(value)}; expected 0 or more')
        else:
            found[row] = number
    return found


def _plain_numbers(values: list[Any]) -> Floats | None:
    """Numbers, if all are finite ones and nothing is missing: the way of most columns, and a quick one."""
    if not {type(value) for value in values} <= {str, int, float}:
        return None
    try:
        found = np.array([*map(float, values)])
    except (ValueError, OverflowError):
        return None
    is_plain = bool((np.abs(found) <= LARGEST).all()) and "_" not in "".join([v for v in values if isinstance(v, str)])
    return found if is_plain else None


def _as_text(value: Any) -> str:
    if is_missing(value):
        return ""
    text = value if isinstance(value, str) else _str(value)
    return text.strip().casefold()[:LONGEST]


def _str(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    try:
        return str(value)
    except Exception:  # noqa: BLE001 (a user's own object)
        return type(value).__name__


def _texts(values: list[Any] | None, count: int) -> Texts:
    found = np.full(count, "", object)
    if values is not None:
        known: dict[str, str] = {}
        for row, value in enumerate(values):
            if type(value) is not str:
                found[row] = _as_text(value)
            elif value in known:
                found[row] = known[value]
            else:
                found[row] = known.setdefault(value, _as_text(value))
    return found


def _times(raw: RawSessions, reasons: dict[int, str]) -> tuple[Floats, Floats, Floats]:
    seconds, wall, day = (np.full(len(raw), np.nan) for _ in range(3))
    for row, value in enumerate(raw.columns.get(TIME, ())):
        if is_missing(value):
            continue
        try:
            seconds[row], wall[row], day[row] = moment_of(value.strip() if isinstance(value, str) else value)
        except BadInput as error:
            reasons.setdefault(row, f'"{TIME}" is {_quoted(value)}; {error}')
    return seconds, wall, day


def moment_of(value: Any) -> tuple[float, float, float]:
    """The seconds since 1970 UTC, the same by the clock on the wall (NaN without a time of day), and its midnight.

    Raises:
        BadInput: it is not a date; the message is what is expected.
    """
    expected = "expected a date such as 2024-05-09 or 2024-05-09 18:30:00"
    has_clock = True
    if isinstance(value, str):
        has_clock = len(value) > 10
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise BadInput(expected) from None
    elif isinstance(value, datetime):
        moment = value
    elif isinstance(value, date):
        moment, has_clock = datetime(value.year, value.month, value.day), False  # noqa: DTZ001 (wall-clock time)
    else:
        raise BadInput(expected)
    offset = 0.0
    if moment.tzinfo is not None:
        offset = (moment.utcoffset() or timedelta()).total_seconds()
        moment = moment.replace(tzinfo=None)
    wall = (moment - EPOCH).total_seconds()
    return wall - offset, wall if has_clock else math.nan, wall - wall % 86_400


def _set_repeats_apart(user: Texts, session: Texts, reasons: dict[int, str]) -> None:
    seen: set[tuple[str, str]] = set()
    for row, key in enumerate(zip(user.tolist(), session.tolist(), strict=True)):
        if not key[1] or row in reasons:
            continue
        if key in seen:
            reasons[row] = f"session {_plain(key[1])} is there already"
        seen.add(key)


def _plain(text: str) -> str:
    """Text in one line that every terminal takes."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _quoted(value: Any) -> str:
    text = _plain(_str(value))
    return f'"{text[:40]}{"..." if len(text) > 40 else ""}"'
