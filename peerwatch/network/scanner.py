"""The kernel that reads ordinary lines: flat JSON objects of plain strings and plain numbers in ASCII.

Lines of a log are built alike. The first line of a kind is read field by field; what stands between its values is then
expected of the next ones (their shape), which is several times quicker, and whatever differs is read field by field.
"""

from typing import Final

import numpy as np

from peerwatch.kernels import Bytes, Int8s, Int32s, Int64s, kernel
from peerwatch.network.events import MICROS, Kind, days_in_month, days_since_epoch
from peerwatch.network.interner import IDS, intern

UNREAD: Final = 0
"""The kind of a line the kernel leaves to `network.events.parse_event`."""

_KEYS: Final = (b"event_type", b"timestamp", b"id", b"amount", b"id1", b"id2")
EVENT_TYPE, TIMESTAMP, ID, AMOUNT, ID1, ID2 = range(6)
_KEY_TEXT: Final = np.frombuffer(b"".join(_KEYS), np.uint8)
_KEY_ENDS: Final = np.cumsum([len(key) for key in _KEYS])
_PURCHASE: Final = np.frombuffer(b"purchase", np.uint8)
_BEFRIEND: Final = np.frombuffer(b"befriend", np.uint8)
_UNFRIEND: Final = np.frombuffer(b"unfriend", np.uint8)

ROW, BEGIN, LINE = range(3)
"""Places in the kernel's progress: the next row, the next line's first byte and its number."""
SHAPE_BEGIN, SHAPE_END, SHAPE_VALUES, SHAPE_SIZE = 0, 1, 2, 14
"""A shape: where its line begins and ends, then of each of its three values the field, start, end, whether quoted."""
STARTS, ENDS, QUOTED, SHAPES = 0, 6, 12, 18
MINUTE_TEXT, MINUTES = SHAPES + 3 * SHAPE_SIZE, SHAPES + 3 * SHAPE_SIZE + 1
"""Where the last timestamp stands whose minute was new, and its minutes since 1970."""
SCRATCH: Final = MINUTES + 1
NO_TIME: Final = -(2**63)


def _is(content: Bytes, start: int, end: int, word: Bytes) -> bool:
    if end - start != len(word):
        return False
    for i in range(len(word)):  # noqa: SIM110 (numba knows no generators)
        if content[start + i] != word[i]:
            return False
    return True


def _same(content: Bytes, one: int, other: int, length: int) -> bool:
    """Whether the same text stands in both places: compared to its end, which a processor does many bytes at a time."""
    a, b = content[one : one + length], content[other : other + length]
    different = np.uint8(0)
    for k in range(length):
        different |= a[k] ^ b[k]
    return bool(different == 0)


def _key(content: Bytes, start: int, end: int) -> int:
    """Which of `_KEYS` is in `content[begin:end]`, or -1."""
    begin = 0
    for key in range(len(_KEY_ENDS)):
        if _is(content, start, end, _KEY_TEXT[begin : _KEY_ENDS[key]]):
            return key
        begin = _KEY_ENDS[key]
    return -1


def _after_blanks(content: Bytes, i: int, end: int) -> int:
    while i < end and (content[i] == 32 or content[i] == 9):
        i += 1
    return i


def _string_end(content: Bytes, i: int, end: int) -> int:
    """Where the quote stands that ends the string begun before i; -1 if it has an escape or is not printable ASCII."""
    rest = content[i:end]
    for k in range(len(rest)):
        c = rest[k]
        if c == 34:
            return i + k
        if c < 32 or c == 92 or c > 126:
            return -1
    return -1


def _number_end(content: Bytes, i: int, end: int) -> int:
    """The end of the plain JSON number (no sign, no exponent) that begins at i; -1 if there is none."""
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


def _digits(content: Bytes, start: int, end: int) -> int:
    """The number that `content[begin:end]` writes in digits only, or -1."""
    value = 0
    digits = content[start:end]
    for k in range(len(digits)):
        if digits[k] < 48 or digits[k] > 57:
            return -1
        value = value * 10 + (digits[k] - 48)
    return value


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


def _time(content: Bytes, start: int, end: int, scratch: Int64s) -> int:
    """The timestamp in microseconds, or NO_TIME if it has a zone other than Z or does not exist."""
    if end > start and content[end - 1] == 90:
        end -= 1
    size = end - start
    if size < 19 or size == 20 or size > 26:
        return NO_TIME
    minutes, known = scratch[MINUTES], scratch[MINUTE_TEXT]
    if known < 0 or not _same(content, start, known, 17):
        c = content[start : start + 17]
        year, month, day = _digits(c, 0, 4), _digits(c, 5, 7), _digits(c, 8, 10)
        hour, minute = _digits(c, 11, 13), _digits(c, 14, 16)
        if c[4] != 45 or c[7] != 45 or (c[10] != 32 and c[10] != 84) or c[13] != 58 or c[16] != 58:
            return NO_TIME
        if year < 1 or not 1 <= month <= 12 or day < 1 or day > days_in_month(year, month):
            return NO_TIME
        if not 0 <= hour <= 23 or not 0 <= minute <= 59:
            return NO_TIME
        minutes = (days_since_epoch(year, month, day) * 24 + hour) * 60 + minute
        scratch[MINUTE_TEXT], scratch[MINUTES] = start, minutes
    second = _digits(content, start + 17, start + 19)
    if not 0 <= second <= 59:
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
    return int((minutes * 60 + second) * MICROS + micros)


def _fields(content: Bytes, i: int, end: int, starts: Int64s, ends: Int64s, quoted: Int64s) -> bool:
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


def _is_id(content: Bytes, key: int, starts: Int64s, ends: Int64s, quoted: Int64s) -> bool:
    """Whether the key is there and is a string that is not empty or a whole number without sign.

    A number too long for an int64 may wrap to a negative one here; then `parse_event` reads the line.
    """
    if starts[key] < 0 or starts[key] == ends[key]:
        return False
    return quoted[key] != 0 or _digits(content, starts[key], ends[key]) >= 0


def _like(content: Bytes, begin: int, shape: Int64s, starts: Int64s, ends: Int64s) -> int:
    """Where the line that begins there ends if it is built like the shape, or -1; finds its values.

    What stands between the values must be the same text, so that both lines have the same keys and read alike.
    """
    i, at, size = begin, shape[SHAPE_BEGIN], len(content)
    for value in range(3):
        place = SHAPE_VALUES + 4 * value
        literal = shape[place + 1] - at
        if i + literal > size or not _same(content, i, at, literal):
            return -1
        i += literal
        field, at = shape[place], shape[place + 2]
        starts[field] = i
        length = at - shape[place + 1]
        if field == TIMESTAMP and i + length < size and content[i + length] == 34:
            i += length  # what stands there is read, and a quote or an escape among it refused, by _time
        else:
            i = _string_end(content, i, size) if shape[place + 3] else _number_end(content, i, size)
        if i < 0:
            return -1
        ends[field] = i
    literal = shape[SHAPE_END] - at
    if i + literal > size or (i + literal < size and content[i + literal] != 10):
        return -1
    return int(i + literal) if _same(content, i, at, literal) else -1


def _learn(
    begin: int, end: int, first: int, second: int, third: int, starts: Int64s, ends: Int64s, quoted: Int64s,
    shape: Int64s,
) -> None:  # fmt: skip
    """Take the line as the shape of its kind; its values are these three fields."""
    if starts[first] > starts[second]:
        first, second = second, first
    if starts[second] > starts[third]:
        second, third = third, second
    if starts[first] > starts[second]:
        first, second = second, first
    shape[SHAPE_BEGIN], shape[SHAPE_END] = begin, end
    for value, field in enumerate((first, second, third)):
        place = SHAPE_VALUES + 4 * value
        shape[place], shape[place + 1], shape[place + 2] = field, starts[field], ends[field]
        shape[place + 3] = quoted[field]


@kernel
def scan(
    content: Bytes, kind: Int8s, user: Int32s, friend: Int32s, amount: Int64s, timestamp: Int64s,
    start: Int64s, end: Int64s, line: Int64s,
    arena: Bytes, id_ends: Int64s, slots: Int64s, tally: Int64s, progress: Int64s, scratch: Int64s,
) -> int:  # fmt: skip
    """Fill the columns, one row a line that is not blank.

    Goes on where `progress` says; returns 1 before the content's end if there is no room for two more ids.
    `scratch` has SCRATCH places, -1 at first.
    """
    starts, ends, quoted = scratch[STARTS:ENDS], scratch[ENDS:QUOTED], scratch[QUOTED:SHAPES]
    row, begin, number, size = progress[ROW], progress[BEGIN], progress[LINE], len(content)
    while begin < size:
        if 4 * (tally[IDS] + 2) > len(slots) or tally[IDS] + 2 > len(id_ends):
            progress[ROW], progress[BEGIN], progress[LINE] = row, begin, number
            return 1
        what, stop, known, time = UNREAD, -1, False, NO_TIME
        for candidate in range(Kind.PURCHASE, Kind.UNFRIEND + 1):
            shape = scratch[SHAPES + (candidate - 1) * SHAPE_SIZE : SHAPES + candidate * SHAPE_SIZE]
            if shape[SHAPE_END] >= 0:
                stop = _like(content, begin, shape, starts, ends)
                if stop >= 0:
                    time = _time(content, starts[TIMESTAMP], ends[TIMESTAMP], scratch)
                    if time == NO_TIME:
                        break  # even a line end may be in it
                    what, known = candidate, True
                    for value in range(3):
                        quoted[shape[SHAPE_VALUES + 4 * value]] = shape[SHAPE_VALUES + 4 * value + 3]
                    break
        last = stop
        if not known:
            stop = begin
            while stop < size and content[stop] != 10:
                stop += 1
            last = stop
            while last > begin and (content[last - 1] == 13 or content[last - 1] == 32 or content[last - 1] == 9):
                last -= 1
        if last > begin:
            start[row], end[row], line[row], kind[row] = begin, stop, number, UNREAD
            if not known and _fields(content, begin, last, starts, ends, quoted) and quoted[TIMESTAMP]:
                word, word_end = starts[EVENT_TYPE], ends[EVENT_TYPE]
                if word < 0 or not quoted[EVENT_TYPE]:
                    what = UNREAD
                elif _is(content, word, word_end, _PURCHASE):
                    what = Kind.PURCHASE
                elif _is(content, word, word_end, _BEFRIEND):
                    what = Kind.BEFRIEND
                elif _is(content, word, word_end, _UNFRIEND):
                    what = Kind.UNFRIEND
                if starts[TIMESTAMP] < 0:
                    what = UNREAD
            if not known and what != UNREAD:
                time = _time(content, starts[TIMESTAMP], ends[TIMESTAMP], scratch)
            if time != NO_TIME and what == Kind.PURCHASE:
                held = _micros(content, starts[AMOUNT], ends[AMOUNT]) if starts[AMOUNT] >= 0 else -1
                if held >= 0 and _is_id(content, ID, starts, ends, quoted):
                    kind[row], timestamp[row], amount[row] = what, time, held
                    user[row] = intern(content, starts[ID], ends[ID], arena, id_ends, slots, tally)
                    if not known:
                        shape = scratch[SHAPES : SHAPES + SHAPE_SIZE]
                        _learn(begin, stop, TIMESTAMP, ID, AMOUNT, starts, ends, quoted, shape)
            elif (
                time != NO_TIME
                and _is_id(content, ID1, starts, ends, quoted)
                and _is_id(content, ID2, starts, ends, quoted)
                and not _is(content, starts[ID1], ends[ID1], content[starts[ID2] : ends[ID2]])
            ):
                kind[row], timestamp[row] = what, time
                user[row] = intern(content, starts[ID1], ends[ID1], arena, id_ends, slots, tally)
                friend[row] = intern(content, starts[ID2], ends[ID2], arena, id_ends, slots, tally)
                if not known:
                    shape = scratch[SHAPES + (what - 1) * SHAPE_SIZE : SHAPES + what * SHAPE_SIZE]
                    _learn(begin, stop, TIMESTAMP, ID1, ID2, starts, ends, quoted, shape)
            row += 1
        begin = stop + 1
        number += 1
    progress[ROW], progress[BEGIN], progress[LINE] = row, begin, number
    return 0
