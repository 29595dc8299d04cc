"""The kernel that reads ordinary lines: flat JSON objects of plain strings and plain numbers in ASCII."""

from typing import Final

import numpy as np

from peerwatch.network.events import MICROS, Kind, days_in_month, days_since_epoch
from peerwatch.network.interner import intern
from peerwatch.network.kernels import Bytes, Int8s, Int32s, Int64s, flag, i1s, i4s, i8, i8s, kernel, text, u1s

UNREAD: Final = 0
"""The kind of a line the kernel leaves to `network.events.parse_event`."""

_KEYS: Final = (b"event_type", b"timestamp", b"id", b"amount", b"id1", b"id2")
EVENT_TYPE, TIMESTAMP, ID, AMOUNT, ID1, ID2 = range(6)
_KEY_TEXT: Final = np.frombuffer(b"".join(_KEYS), np.uint8)
_KEY_ENDS: Final = np.cumsum([len(key) for key in _KEYS])
_PURCHASE: Final = np.frombuffer(b"purchase", np.uint8)
_BEFRIEND: Final = np.frombuffer(b"befriend", np.uint8)
_UNFRIEND: Final = np.frombuffer(b"unfriend", np.uint8)

_days_in_month = kernel(i8(i8, i8))(days_in_month)
_days_since_epoch = kernel(i8(i8, i8, i8))(days_since_epoch)


@kernel(flag(text, i8, i8, text))
def _is(content: Bytes, start: int, end: int, word: Bytes) -> bool:
    if end - start != len(word):
        return False
    for i in range(len(word)):  # noqa: SIM110 (numba knows no generators)
        if content[start + i] != word[i]:
            return False
    return True


@kernel(i8(text, i8, i8))
def _key(content: Bytes, start: int, end: int) -> int:
    """Which of `_KEYS` stands there, or -1."""
    begin = 0
    for key in range(len(_KEY_ENDS)):
        if _is(content, start, end, _KEY_TEXT[begin : _KEY_ENDS[key]]):
            return key
        begin = _KEY_ENDS[key]
    return -1


@kernel(i8(text, i8, i8))
def _after_blanks(content: Bytes, i: int, end: int) -> int:
    while i < end and (content[i] == 32 or content[i] == 9):
        i += 1
    return i


@kernel(i8(text, i8, i8))
def _string_end(content: Bytes, i: int, end: int) -> int:
    """Where the quote stands that ends the string begun before i; -1 if it has an escape or is not printable ASCII."""
    while i < end:
        c = content[i]
        if c == 34:
            return i
        if c < 32 or c == 92 or c > 126:
            return -1
        i += 1
    return -1


@kernel(i8(text, i8, i8))
def _number_end(content: Bytes, i: int, end: int) -> int:
    """Behind the plain JSON number (no sign, no exponent) that begins at i; -1 if there is none."""
    begin = i
    while i < end and 48 <= content[i] <= 57:
        i += 1
    if i == begin or (content[begin] == 48 and i - begin > 1):
        return -1
    if i < end and content[i] == 46:
        point = i
        i += 1
        while i < end and 48 <= content[i] <= 57:
            i += 1
        if i == point + 1:
            return -1
    if i < end and (content[i] == 101 or content[i] == 69):
        return -1
    return i


@kernel(i8(text, i8, i8))
def _digits(content: Bytes, start: int, end: int) -> int:
    """The number that only digits write, or -1."""
    value = 0
    for i in range(start, end):
        if content[i] < 48 or content[i] > 57:
            return -1
        value = value * 10 + (content[i] - 48)
    return value


@kernel(i8(text, i8, i8))
def _micros(content: Bytes, start: int, end: int) -> int:
    """The amount in millionths, or -1 if it is not 1 to 12 digits with an optional point and 1 to 6 decimals."""
    point = end
    for i in range(start, end):
        if content[i] == 46:
            point = i
            break
    if not 1 <= point - start <= 12:
        return -1
    whole = _digits(content, start, point)
    decimals = end - point - 1
    if whole < 0 or decimals == 0 or decimals > 6:
        return -1
    fraction = 0
    if decimals > 0:
        fraction = _digits(content, point + 1, end)
        if fraction < 0:
            return -1
        for _ in range(6 - decimals):
            fraction *= 10
    return whole * MICROS + fraction


NO_TIME: Final = -(2**63)


@kernel(i8(text, i8, i8))
def _time(content: Bytes, start: int, end: int) -> int:
    """The timestamp in microseconds, or NO_TIME if it has a zone other than Z or does not exist."""
    if end > start and content[end - 1] == 90:
        end -= 1
    size = end - start
    if size < 19 or size == 20 or size > 26:
        return NO_TIME
    c = content[start : start + 20]
    if c[4] != 45 or c[7] != 45 or (c[10] != 32 and c[10] != 84) or c[13] != 58 or c[16] != 58:
        return NO_TIME
    year, month, day = _digits(c, 0, 4), _digits(c, 5, 7), _digits(c, 8, 10)
    hour, minute, second = _digits(c, 11, 13), _digits(c, 14, 16), _digits(c, 17, 19)
    if year < 1 or not 1 <= month <= 12 or day < 1 or hour < 0 or minute < 0 or second < 0:
        return NO_TIME
    if day > _days_in_month(year, month) or hour > 23 or minute > 59 or second > 59:
        return NO_TIME
    micros = 0
    if size > 19:
        if content[start + 19] != 46:
            return NO_TIME
        micros = _digits(content, start + 20, end)
        if micros < 0:
            return NO_TIME
        for _ in range(26 - size):
            micros *= 10
    return (((_days_since_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second) * MICROS + micros


@kernel(flag(text, i8, i8, i8s, i8s, i1s))
def _fields(content: Bytes, i: int, end: int, starts: Int64s, ends: Int64s, quoted: Int8s) -> bool:
    """Find the known keys' values in the flat object `content[i:end]`; False if it is anything but plain.

    A key that is missing has start -1. A string's span is without its quotes.
    """
    starts[:] = -1
    i = _after_blanks(content, i, end)
    if i >= end or content[i] != 123:
        return False
    while True:
        i = _after_blanks(content, i + 1, end)
        if i >= end or content[i] != 34:
            return False
        begin = i + 1
        i = _string_end(content, begin, end)
        if i < 0:
            return False
        key = _key(content, begin, i)
        i = _after_blanks(content, i + 1, end)
        if i >= end or content[i] != 58:
            return False
        i = _after_blanks(content, i + 1, end)
        if i >= end:
            return False
        begin = i
        is_string = content[i] == 34
        if is_string:
            begin += 1
            stop = _string_end(content, begin, end)
            i = stop + 1
        else:
            stop = _number_end(content, begin, end)
            i = stop
        if stop < 0:
            return False
        if key >= 0:
            if starts[key] >= 0:
                return False
            starts[key], ends[key], quoted[key] = begin, stop, is_string
        i = _after_blanks(content, i, end)
        if i >= end:
            return False
        if content[i] == 125:
            return _after_blanks(content, i + 1, end) == end
        if content[i] != 44:
            return False


@kernel(flag(text, i8, i8s, i8s, i1s))
def _is_id(content: Bytes, key: int, starts: Int64s, ends: Int64s, quoted: Int8s) -> bool:
    """Whether the key is there and is a string that is not empty or a whole number without sign.

    A number too long for an int64 may wrap to a negative one here; then `parse_event` reads the line.
    """
    if starts[key] < 0 or starts[key] == ends[key]:
        return False
    return quoted[key] != 0 or _digits(content, starts[key], ends[key]) >= 0


@kernel(i8(text, i1s, i4s, i4s, i8s, i8s, i8s, i8s, i8s, i8, u1s, i8s, i4s, i8s))
def scan(
    content: Bytes, kind: Int8s, user: Int32s, friend: Int32s, amount: Int64s, timestamp: Int64s,
    start: Int64s, end: Int64s, line: Int64s, number: int,
    arena: Bytes, id_ends: Int64s, slots: Int32s, count: Int64s,
) -> int:  # fmt: skip
    """Fill the columns, one row a line that is not blank; returns the number of rows."""
    starts, ends, quoted = np.empty(6, np.int64), np.empty(6, np.int64), np.empty(6, np.int8)
    row, begin, size = 0, 0, len(content)
    while begin < size:
        stop = begin
        while stop < size and content[stop] != 10:
            stop += 1
        last = stop
        while last > begin and (content[last - 1] == 13 or content[last - 1] == 32 or content[last - 1] == 9):
            last -= 1
        if last > begin:
            start[row], end[row], line[row], kind[row] = begin, stop, number, UNREAD
            if _fields(content, begin, last, starts, ends, quoted) and quoted[EVENT_TYPE] and quoted[TIMESTAMP]:
                event, time = starts[EVENT_TYPE], NO_TIME
                if event >= 0 and starts[TIMESTAMP] >= 0:
                    time = _time(content, starts[TIMESTAMP], ends[TIMESTAMP])
                if time != NO_TIME and _is(content, event, ends[EVENT_TYPE], _PURCHASE):
                    held = _micros(content, starts[AMOUNT], ends[AMOUNT]) if starts[AMOUNT] >= 0 else -1
                    if held >= 0 and _is_id(content, ID, starts, ends, quoted):
                        kind[row], timestamp[row], amount[row] = Kind.PURCHASE, time, held
                        user[row] = intern(content, starts[ID], ends[ID], arena, id_ends, slots, count)
                elif time != NO_TIME:
                    tie = UNREAD
                    if _is(content, event, ends[EVENT_TYPE], _BEFRIEND):
                        tie = Kind.BEFRIEND
                    elif _is(content, event, ends[EVENT_TYPE], _UNFRIEND):
                        tie = Kind.UNFRIEND
                    if (
                        tie != UNREAD
                        and _is_id(content, ID1, starts, ends, quoted)
                        and _is_id(content, ID2, starts, ends, quoted)
                        and not _is(content, starts[ID1], ends[ID1], content[starts[ID2] : ends[ID2]])
                    ):
                        kind[row], timestamp[row] = tie, time
                        user[row] = intern(content, starts[ID1], ends[ID1], arena, id_ends, slots, count)
                        friend[row] = intern(content, starts[ID2], ends[ID2], arena, id_ends, slots, count)
            row += 1
        begin = stop + 1
        number += 1
    return row
