"""What an event is: the exact reading of one log line, field by field.

This module defines the input format; `network.decoder` reads the same format faster and hands every line that is out
of the ordinary to `parse_event`.
"""

import json
import re
from enum import IntEnum
from typing import Final, NamedTuple

import msgspec

from peerwatch.errors import BadEvent

MICROS: Final = 1_000_000
"""Amounts are held in millionths of the unit they are written in, timestamps in microseconds since 1970 UTC."""


class Kind(IntEnum):
    """The event types, as the columns hold them."""

    PURCHASE = 1
    BEFRIEND = 2
    UNFRIEND = 3


class Event(NamedTuple):
    """One event. `user` and `friend` are ids as UTF-8 bytes; a purchase has no friend, a tie no amount."""

    kind: Kind
    timestamp: int
    user: bytes
    friend: bytes
    amount: int


class FieldNames(NamedTuple):
    """The keys under which a log has an event's fields. `=purchase` for `event_type` means that all are purchases."""

    event_type: str = "event_type"
    timestamp: str = "timestamp"
    id: str = "id"
    amount: str = "amount"
    id1: str = "id1"
    id2: str = "id2"


CANONICAL: Final = FieldNames()
KINDS: Final = {kind.name.lower(): kind for kind in Kind}
DEEPEST: Final = 100
"""Levels that a line's JSON may be nested."""
_BRACKETS_AND_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[][{}]')
_LONGEST_AMOUNT: Final = 400
_LARGEST_MAGNITUDE: Final = 308
_AMOUNT: Final = re.compile(r"([+-]?)(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?")
_INTEGER: Final = re.compile(rb"-?[0-9]+")
_TIMESTAMP: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[ T]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,6}))?"
    r"(?:Z|([+-])([0-9]{2})(?::?([0-9]{2}))?)?"
)

_NO_PART: Final = re.compile(rb"(?:\x00+|\xef\xbb\xbf)+")
# compiled when they are first needed, which in most runs is never
_PLACE: Final = r" \(byte ([0-9]+)\)$"
_TYPOGRAPHIC: Final = "[\u2018-\u201f\u00ab\u00bb\u2033\u2039\u203a\uff02]"
_ESCAPE: Final = rb"\\(?:u([0-9A-Fa-f]{4})|.)"

_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_string = msgspec.json.Decoder(str)


def begin_of_line(content: bytes | bytearray, start: int = 0, end: int | None = None) -> int:
    """Where the line that stands in `content` from `start` on begins.

    NUL bytes before it are a hole that a truncation left, a byte-order mark is what a file began with that was appended
    to another; neither is a part of the line.
    """
    found = _NO_PART.match(content, start, len(content) if end is None else end)
    return found.end() if found is not None else start


def parse_event(line: bytes, names: FieldNames = CANONICAL) -> Event:
    """Read one line (without its line end), whose fields have these names.

    Raises:
        BadEvent: the line is not an event; the text says why and what was expected.
    """
    fields = parse_object(line)
    constant = names.event_type.startswith("=")
    name = names.event_type[1:] if constant else _text(fields, names.event_type)
    kind = KINDS.get(name) if name is not None else None
    if kind is None:
        key = names.event_type
        raise BadEvent(f'unknown "{key}" {_shown(fields, key)}; expected purchase, befriend or unfriend')
    timestamp = parse_timestamp(fields, names.timestamp)
    if kind is Kind.PURCHASE:
        return Event(kind, timestamp, _id(fields, names.id), b"", _amount(fields, names.amount))
    user, friend = _id(fields, names.id1), _id(fields, names.id2)
    if user == friend:
        both = f'"{names.id1}" and "{names.id2}" are the same user {_shown(fields, names.id1)}'
        raise BadEvent(f"{both}; a friendship needs two")
    return Event(kind, timestamp, user, friend, 0)


def parse_object(line: bytes) -> dict[str, msgspec.Raw]:
    """Read one line as a JSON object, its values still undecoded; of a repeated key the last counts.

    Raises:
        BadEvent: the line is not a JSON object in UTF-8.
    """
    if line.count(b"[") + line.count(b"{") > DEEPEST and _depth(line) > DEEPEST:
        raise BadEvent(f"not valid JSON: nested deeper than {DEEPEST} levels")
    try:
        line.decode()
        fields: dict[str, msgspec.Raw] = _object.decode(line)
    except UnicodeDecodeError as error:
        raise BadEvent(f"not UTF-8 at byte {error.start + 1} of the line") from None
    except msgspec.ValidationError:
        raise BadEvent("not a JSON object") from None
    except msgspec.DecodeError as error:
        raise BadEvent(f"not valid JSON: {_why_malformed(line, str(error))}") from None
    return fields


def _why_malformed(line: bytes, error: str) -> str:
    """What is wrong with UTF-8 text that is not JSON, in words that a person can act on."""
    place = re.search(_PLACE, error)
    text = line.decode()
    there = line[int(place[1]) :].decode(errors="replace")[:1] if place is not None else ""
    quote = re.search(_TYPOGRAPHIC, text)
    if quote is not None and (there == quote[0] or _is_json(re.sub(_TYPOGRAPHIC, '"', text))):
        where = len(text[: quote.start()].encode())
        return f"quotes must be straight, not typographic like {quote[0]} (byte {where})"
    if place is not None and there == "'":
        return f"quotes must be double, not single{place[0]}"
    lone = _lone_surrogate(line)
    if lone is not None and _is_json(text):
        return f"{line[lone : lone + 6].decode()} is a lone surrogate, no character (byte {lone})"
    return error.removeprefix("JSON is malformed: ")


def _is_json(text: str) -> bool:
    """Whether Python's json module reads the text; it accepts lone surrogates."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _lone_surrogate(line: bytes) -> int | None:
    """Where the first escaped surrogate stands that is not one of a pair."""
    high: int | None = None
    for escape in re.finditer(_ESCAPE, line):
        code = int(escape[1] or b"0", 16)
        if high is not None and (escape.start() != high + 6 or not 0xDC00 <= code <= 0xDFFF):
            return high
        if high is None and 0xDC00 <= code <= 0xDFFF:
            return escape.start()
        high = escape.start() if 0xD800 <= code <= 0xDBFF else None
    return high


def _depth(line: bytes) -> int:
    """How deep brackets are nested outside of strings.

    The decoder's own limit depends on how deep the caller's stack already is; a fixed one gives the same verdict
    everywhere.
    """
    depth = deepest = 0
    for part in _BRACKETS_AND_STRINGS.findall(line):
        depth += (part in b"[{") - (part in b"]}") if len(part) == 1 else 0
        deepest = max(deepest, depth)
    return deepest


def parse_micros(text: str) -> int:
    """An amount as millionths, exactly: `16.83` gives 16830000.

    Digits with an optional fraction and exponent; at most 6 decimals that are not zero, at most 1e308.

    Raises:
        ValueError: the text says why in words that follow the amount.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None or len(text) > _LONGEST_AMOUNT:
        raise ValueError("is not a finite decimal number")
    sign, whole, fraction, exponent = match.groups(default="")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return 0
    if sign == "-":
        raise ValueError("is negative")
    shift = int(exponent or 0) - len(fraction) + 6
    if len(digits) + shift - 6 > _LARGEST_MAGNITUDE:
        raise ValueError("is not finite (1e308 or more)")
    if shift >= 0:
        return int(digits) * int(10**shift)
    if -shift >= len(digits) or digits[shift:].strip("0"):
        raise ValueError("has more than 6 decimals")
    return int(digits[:shift])


def parse_timestamp(fields: dict[str, msgspec.Raw], key: str = CANONICAL.timestamp) -> int:
    """The timestamp under a key as microseconds since 1970-01-01 00:00:00 UTC (proleptic Gregorian).

    Raises:
        BadEvent: it is missing or not a date and time that exists.
    """
    text = _text(fields, key)
    match = _TIMESTAMP.fullmatch(text) if text is not None else None
    if match is None:
        raise BadEvent(f'"{key}" {_shown(fields, key)} is not YYYY-MM-DD HH:MM:SS')
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    fraction, sign, zone_hours, zone_minutes = match.groups(default="0")[6:]
    valid = year > 0 and 1 <= month <= 12 and 1 <= day <= days_in_month(year, month)
    valid &= hour < 24 and minute < 60 and second < 60 and int(zone_hours) < 24 and int(zone_minutes) < 60
    if not valid:
        raise BadEvent(f'"{key}" {_shown(fields, key)} is not a date and time that exists')
    offset = int(sign + "1") * (int(zone_hours) * 60 + int(zone_minutes)) if sign != "0" else 0
    minutes = days_since_epoch(year, month, day) * 1440 + hour * 60 + minute - offset
    return (minutes * 60 + second) * MICROS + int(fraction.ljust(6, "0"))


def days_in_month(year: int, month: int) -> int:
    """The number of days in a month, 28 to 31."""
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def days_since_epoch(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01. H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", days_from_civil."""
    year -= month <= 2
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468


def _amount(fields: dict[str, msgspec.Raw], key: str) -> int:
    raw = _raw(fields, key)
    text = _text(fields, key) if raw[:1] == b'"' else raw.decode()
    try:
        return parse_micros(text or "")
    except ValueError as error:
        raise BadEvent(f'"{key}" {_shown(fields, key)} {error}') from None


def _id(fields: dict[str, msgspec.Raw], key: str) -> bytes:
    raw = _raw(fields, key)
    text = _text(fields, key)
    if text:
        return text.encode()
    if _INTEGER.fullmatch(raw):
        return raw if raw != b"-0" else b"0"
    raise BadEvent(f'"{key}" {_shown(fields, key)} is neither a non-empty string nor an integer')


def _text(fields: dict[str, msgspec.Raw], key: str) -> str | None:
    """The field as a string, or None if it is something else."""
    raw = _raw(fields, key)
    try:
        return _string.decode(raw) if raw[:1] == b'"' else None
    except msgspec.DecodeError:
        raise BadEvent(f'"{key}" {_shown(fields, key)} is not a string of Unicode characters') from None


def _raw(fields: dict[str, msgspec.Raw], key: str) -> bytes:
    if key not in fields:
        raise BadEvent(f'"{key}" is missing')
    return bytes(fields[key])


def _shown(fields: dict[str, msgspec.Raw], key: str) -> str:
    """The value as it stands in the line, cut to a readable length."""
    written = bytes(fields[key]).decode()
    return written if len(written) <= 60 else f"{written[:60]}..."
