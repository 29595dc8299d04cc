"""The input format: what is an event, and what a rejected line's reason says."""

import pytest

from peerwatch.errors import BadEvent
from peerwatch.network.events import Event, Kind, parse_event, parse_micros

STAMP = '"timestamp":"2017-06-13 11:33:01"'
MICROS = 1497353581 * 10**6


def bought(**fields: str) -> bytes:
    """A purchase line with some fields written differently; an empty one is left out."""
    parts = {"event_type": '"purchase"', "timestamp": '"2017-06-13 11:33:01"', "id": '"1"', "amount": '"1"'} | fields
    return ("{" + ", ".join(f'"{key}": {value}' for key, value in parts.items() if value) + "}").encode()


def test_the_three_kinds() -> None:
    """Each event type is read with its fields; extra keys do not matter."""
    assert parse_event(bought(amount='"16.83"')) == Event(Kind.PURCHASE, MICROS, b"1", b"", 16_830_000)
    for name, kind in (("befriend", Kind.BEFRIEND), ("unfriend", Kind.UNFRIEND)):
        line = f'{{"id2": 2, {STAMP}, "id1": "1", "event_type": "{name}", "note": {{"id1": []}}}}'
        assert parse_event(line.encode()) == Event(kind, MICROS, b"1", b"2", 0)


@pytest.mark.parametrize(
    ("written", "micros"),
    [
        ("16.83", 16_830_000), ("0", 0), ("-0.00", 0), ("+5", 5_000_000), (".5", 500_000), ("5.", 5_000_000),
        ("007.50", 7_500_000), ("0.000001", 1), ("1.0000000", 1_000_000), ("1e3", 10**9), ("10E-7", 1), ("1e-6", 1),
        ("9" * 30, int("9" * 30) * 10**6), ("9e307", 9 * 10**313), ("0e99999999999", 0),
    ],
)  # fmt: skip
def test_amounts_are_exact(written: str, micros: int) -> None:
    """An amount is its exact number of millionths, as a string or as a number."""
    assert parse_micros(written) == micros


@pytest.mark.parametrize(
    ("stamp", "micros"),
    [
        ("2017-06-13 11:33:01", MICROS), ("2017-06-13T11:33:01", MICROS), ("2017-06-13 11:33:01Z", MICROS),
        ("2017-06-13 11:33:01.5", MICROS + 500_000), ("2017-06-13T11:33:01.000001Z", MICROS + 1),
        ("2017-06-13 13:33:01+02:00", MICROS), ("2017-06-13 06:03:01-0530", MICROS), ("2017-06-13 12:33:01+01", MICROS),
        ("1970-01-01 00:00:00", 0), ("1969-12-31 23:59:59.999999", -1), ("2000-02-29 00:00:00", 951782400 * 10**6),
        ("0001-01-01 00:00:00", -62135596800 * 10**6), ("9999-12-31 23:59:59", 253402300799 * 10**6),
    ],
)  # fmt: skip
def test_timestamps_are_microseconds_utc(stamp: str, micros: int) -> None:
    """Fractions, T, Z and offsets count; without a zone it is UTC."""
    assert parse_event(bought(timestamp=f'"{stamp}"')).timestamp == micros


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"\xff", "not UTF-8 at byte 1 of the line"),
        (b"hello", "not valid JSON: invalid character (byte 0)"),
        (b"[1]", "not a JSON object"),
        (
            "{“event_type”:“purchase”}".encode(),
            "not valid JSON: quotes must be straight, not typographic like “ (byte 1)",
        ),
        (
            '{"note":"ü", "event_type":»purchase«'.encode(),
            "not valid JSON: quotes must be straight, not typographic like » (byte 27)",
        ),
        (
            b"{'event_type':'purchase'}",
            "not valid JSON: quotes must be double, not single (byte 1)",
        ),
        ('{"note":"“so”", "event_type":}'.encode(), "not valid JSON: invalid character (byte 33)"),
        (bought(amount=r'"\ud83d\ude00"'), '"amount" "\\ud83d\\ude00" is not a finite decimal number'),
        (bought(amount=r'"\\ud800"'), '"amount" "\\\\ud800" is not a finite decimal number'),
        (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not valid JSON: nested deeper than 100 levels"),
        (b"{}", '"event_type" is missing'),
        (bought(event_type='"gift"'), 'unknown "event_type" "gift"; expected purchase, befriend or unfriend'),
        (bought(event_type="7"), 'unknown "event_type" 7; expected purchase, befriend or unfriend'),
        (bought(timestamp=""), '"timestamp" is missing'),
        (bought(timestamp='"13.6.2017"'), '"timestamp" "13.6.2017" is not YYYY-MM-DD HH:MM:SS'),
        (bought(timestamp="1497353581"), '"timestamp" 1497353581 is not YYYY-MM-DD HH:MM:SS'),
        (
            bought(timestamp='"2017-02-29 11:33:01"'),
            '"timestamp" "2017-02-29 11:33:01" is not a date and time that exists',
        ),
        (
            bought(timestamp='"0000-01-01 00:00:00"'),
            '"timestamp" "0000-01-01 00:00:00" is not a date and time that exists',
        ),
        (bought(id=""), '"id" is missing'),
        (bought(id='""'), '"id" "" is neither a non-empty string nor an integer'),
        (bought(id="1.0"), '"id" 1.0 is neither a non-empty string nor an integer'),
        (bought(id="null"), '"id" null is neither a non-empty string nor an integer'),
        (bought(id=f'["{"x" * 99}"]'), f'"id" ["{"x" * 58}... is neither a non-empty string nor an integer'),
        (bought(amount=""), '"amount" is missing'),
        (bought(amount='"abc"'), '"amount" "abc" is not a finite decimal number'),
        (bought(amount='"NaN"'), '"amount" "NaN" is not a finite decimal number'),
        (bought(amount="true"), '"amount" true is not a finite decimal number'),
        (bought(amount='"-1"'), '"amount" "-1" is negative'),
        (bought(amount="1.0000001"), '"amount" 1.0000001 has more than 6 decimals'),
        (bought(amount="1e-999999999"), '"amount" 1e-999999999 has more than 6 decimals'),
        (bought(amount="1e308"), '"amount" 1e308 is not finite (1e308 or more)'),
        (bought(amount="1e999999999999"), '"amount" 1e999999999999 is not finite (1e308 or more)'),
        (
            f'{{"event_type":"befriend", {STAMP}, "id1": "5", "id2": 5}}'.encode(),
            '"id1" and "id2" are the same user "5"; a friendship needs two',
        ),
        (f'{{"event_type":"unfriend", {STAMP}, "id1": "5"}}'.encode(), '"id2" is missing'),
    ],
)
def test_reasons(line: bytes, reason: str) -> None:
    """A rejected line's reason names the field, shows the value and says what was expected."""
    with pytest.raises(BadEvent) as caught:
        parse_event(line)
    assert str(caught.value) == reason


@pytest.mark.parametrize("field", ["event_type", "timestamp", "id", "amount", "note"])
@pytest.mark.parametrize("escapes", [r"\ud800", r"\udc00\ud800", r"\uD83D\u0041", r"\udfff\n", r"\uDBFF\\"])
def test_a_lone_surrogate_is_named(field: str, escapes: str) -> None:
    """In whatever field it is, the reason says so, and where."""
    line = bought(**{field: f'"a{escapes}"'})
    with pytest.raises(BadEvent) as caught:
        parse_event(line)
    where = line.index(escapes.encode())
    assert str(caught.value) == f"not valid JSON: {escapes[:6]} is a lone surrogate, no character (byte {where})"


@pytest.mark.parametrize(
    ("written", "user"), [("5", b"5"), ('"5"', b"5"), ("-0", b"0"), ("-7", b"-7"), ('"05"', b"05")]
)
def test_ids(written: str, user: bytes) -> None:
    """An integer id and its digits as a string are the same user; other strings are not."""
    assert parse_event(bought(id=written)).user == user


@pytest.mark.parametrize("levels", [99, 100])
def test_nesting_has_one_limit_everywhere(levels: int) -> None:
    """The limit counts the line's own brackets, not those in strings, and not how deep the caller stands."""
    line = bought(note="[" * levels + '"]]]{{{"' + "]" * levels)

    def parse_at(depth: int) -> bool:
        if depth:
            return parse_at(depth - 1)
        try:
            return parse_event(line).amount > 0
        except BadEvent:
            return False

    assert [parse_at(depth) for depth in (0, 500)] == [levels < 100] * 2
