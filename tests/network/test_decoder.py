"""The decoder reads exactly what `parse_event` reads, only faster."""

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import own_part
from strategies import BEFORE, LINES, examples, logs
from support import befriend, purchase

from peerwatch.errors import BadEvent
from peerwatch.network.decoder import Decoder
from peerwatch.network.events import Event, Kind, parse_event


def decoded(content: bytes, decoder: Decoder | None = None) -> list[Event | str]:
    """What the decoder makes of each line that is not blank: the event, or the reason."""
    decoder = decoder or Decoder()
    events, rejected, _ = decoder.decode(content, 1)
    ends = [0, *decoder.interner.ends[: len(decoder.interner)].tolist()]
    names = [decoder.interner.arena[a:b].tobytes() for a, b in itertools.pairwise(ends)]
    found: dict[int, Event | str] = {bad.line: bad.reason for bad in rejected}
    for i in range(len(events)):
        kind = Kind(events.kind[i])
        tie = kind is not Kind.PURCHASE
        found[int(events.line[i])] = Event(
            kind, int(events.timestamp[i]), names[events.user[i]], names[events.friend[i]] if tie else b"",
            events.amount.exact(i),
        )  # fmt: skip
    return [found[line] for line in sorted(found)]


def parsed(line: bytes) -> Event | str:
    """What `parse_event` makes of its own part."""
    try:
        return parse_event(own_part(line))
    except BadEvent as error:
        return str(error)


ALPHABET = st.sampled_from('{}":,. \t0123456789-+eETZ\\purchase_typeid12befnamountstmp\x7fü\x00')


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A line with some characters replaced, inserted or deleted."""
    text = draw(LINES).decode(errors="replace")
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.one_of(st.just(""), ALPHABET)) + text[place + draw(st.integers(0, 1)) :]
    return text.replace("\n", " ").encode()


@settings(max_examples=examples(2000))
@given(st.one_of(LINES, mutants()))
@example(b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": "", "id": "1", "amount": "1"}')
@example(b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": 9223372036854775808, "amount": "1"}')
@example(b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": 18446744073709551617, "amount": 1}')
@example(b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": 01, "amount": "1"}')
@example(b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01.", "id": 1, "amount": "1"}')
@example(b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01.1234567", "id": 1, "amount": "1"}')
@example(b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": 1, "amount": "999999999999.999999"}')
@example(b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": 1, "amount": "9999999999999"}')
@example(b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": 1, "amount": 1, "x": 1.}')
@example(b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": 1, "amount": 1, }')
@example(b'{"event_type":"purchase" "timestamp":"2017-06-13 11:33:01", "id": 1, "amount": 1}')
@example(b'{"event_type":purchase, "timestamp":"2017-06-13 11:33:01", "id": 1, "amount": 1}')
@example(b'{"event_type":"purchase", "timestamp":20170613113301, "id": 1, "amount": 1}')
@example(b'{"event_type":"befriend", "timestamp":"2017-06-13 11:33:01", "id1": 1, "id2": "1"}')
def test_fast_and_exact_reading_agree(line: bytes) -> None:
    """On any line, however mangled, the kernel finds the same event or leaves it to `parse_event`."""
    blank = not own_part(line).strip(b" \t\r")
    assert decoded(line) == ([] if blank else [parsed(line.removesuffix(b"\r"))])


PLAIN = st.sampled_from([
    purchase(1, "16.83"), purchase("x", "5", "2017-06-13 11:34:59.25"), befriend(1, 2), befriend(3, "y", "unfriend"),
    b'{"amount": 12.5, "event_type":"purchase", "id": 77, "timestamp":"2017-06-13T11:33:01Z"}\r\n',
])  # fmt: skip


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """Plain lines, then the same with characters replaced, inserted or deleted anywhere, line ends too."""
    lines = draw(st.lists(PLAIN, min_size=1, max_size=4))
    text = b"".join(lines).decode()
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(text)))
        new = draw(st.one_of(st.just(""), ALPHABET, st.sampled_from(["\n", "\r\n", '"', "0", "1"])))
        text = text[:place] + new + text[place + draw(st.integers(0, 2)) :]
    return b"".join(lines) + text.encode()


@settings(max_examples=examples(3000))
@given(mangled())
@example(purchase(1, "5") + purchase(1, "5", "2017-06-13 11:3\n:01"))
@example(purchase(1, "5") + purchase(1, "5", "2017-06-13 11:33:\n1"))
@example(purchase(1, "5") + purchase(1, "5")[:50] + b"\n" + purchase(1, "5")[51:])
def test_a_line_almost_like_those_before_is_read_like_any_other(content: bytes) -> None:
    """What the kernel has learned from plain lines never makes it read the next ones differently."""
    lines = [line.removesuffix(b"\r") for line in content.split(b"\n") if own_part(line).strip(b" \t\r")]
    assert decoded(content) == [parsed(line) for line in lines]


@given(logs())
def test_lines_keep_their_places(content: bytes) -> None:
    """Spans and line numbers lead back to the lines' own parts; blank lines count as lines; holes are named."""
    events, rejected, holes = Decoder().decode(content, 10)
    split = content.split(b"\n")
    own = [own_part(line) for line in split]
    for i in range(len(events)):
        assert content[events.start[i] : events.end[i]] == own[events.line[i] - 10]
    for bad in rejected:
        assert bad.raw == own[bad.line - 10] == content[bad.start : bad.start + len(bad.raw)]
    before = [line[: len(line) - len(rest)].count(b"\0") for line, rest in zip(split, own, strict=True)]
    least = {bad.line - 10: 4 for bad in rejected}  # fewer may be UTF-16 or UTF-32
    assert holes == [(10 + place, nuls) for place, nuls in enumerate(before) if nuls >= least.get(place, 1)]


@settings(max_examples=examples(300))
@given(st.lists(st.tuples(BEFORE, LINES), max_size=20))
def test_what_stands_before_lines_changes_nothing_else(lines: list[tuple[bytes, bytes]]) -> None:
    """With holes and byte-order marks before them, lines are the same events and rejected lines, byte for byte."""
    with_holes, without = Decoder(), Decoder()
    content = b"".join(before + line + b"\n" for before, line in lines)
    plain = b"".join(own_part(line) + b"\n" for _, line in lines)
    assert decoded(content, with_holes) == decoded(plain, without)
    found, expected = Decoder().decode(content, 1), Decoder().decode(plain, 1)
    assert [bad[2:] for bad in found.rejected] == [bad[2:] for bad in expected.rejected]
    assert found.events.line.tolist() == expected.events.line.tolist()


def test_ordinary_lines_take_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of the contract's examples never reach the slow reading: none is unread after the kernel."""
    content = purchase(1, "16.83") + befriend(1, 2) + befriend("a-b_c", "7", "unfriend") + purchase("x y", "5")
    content += b'{"event_type":"purchase","timestamp":"2017-06-13T11:33:01.25Z","id":5,"amount":3.5}\r\n'
    decoder = Decoder()
    monkeypatch.delattr(Decoder, "_read")
    assert len(decoder.decode(content, 1).events) == 5


def test_many_ids_survive_the_table_growing() -> None:
    """Ids keep their integers while the table grows from hundreds to hundreds of thousands."""
    decoder = Decoder()
    users = [str(i * 7919) for i in range(200_000)]
    for begin in range(0, len(users), 30_000):
        decoder.decode(b"".join(purchase(user, "1") for user in users[begin : begin + 30_000]), 1)
    assert [decoder.interner.intern(user.encode()) for user in users[::1000]] == list(range(0, len(users), 1000))
    assert len(decoder.interner) == len(users)


def test_a_rejected_line_makes_no_user() -> None:
    """A line that is not an event leaves the state as it was."""
    decoder = Decoder()
    decoder.decode(purchase("1", "x") + befriend("2", "2") + purchase("3", "1", "never"), 1)
    assert len(decoder.interner) == 0
