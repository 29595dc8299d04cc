"""Random logs for hypothesis: few users, few amounts and close timestamps, so that everything collides."""

from hypothesis import Phase, settings
from hypothesis import strategies as st

COMMANDS = settings(phases=(Phase.explicit, Phase.generate))
"""Of tests that run whole commands: what fails is shown as it was found, to shrink it may take minutes."""


def often(short: int, full: int) -> int:
    """How often something that takes long is done: less often in the profiles with fewer examples."""
    return full if settings().max_examples >= 100 else short


def examples(full: int) -> int:
    """How many examples of a property are tried: in the profile `full` as many, in others their share of it."""
    return max(5, full * settings().max_examples // 100)


USERS = ["1", "2", "3", "4", "5", "6", "7", "8", "anna", "ü"]
IDS = st.sampled_from([*(f'"{user}"' for user in USERS), "1", "2", "3", '"\\u0034"', '"\\u00fc"'])
AMOUNTS = st.one_of(
    st.integers(0, 400).map(lambda cents: f'"{cents // 100}.{cents % 100:02}"'),
    st.sampled_from(['"0"', "10", "10.5", '"10.500000"', "0.000001", '".5"', '"7."', "1e1", '"2.5E0"', '"1000"']),
    st.sampled_from(
        ['"9007199254740993.000001"', '"4611686018427.387904"', '"9223372036854.775807"', "1e30", '"1e30"']
    ),
)
STAMPS = st.one_of(
    st.integers(0, 40).map(lambda second: f'"2017-06-13 11:33:{second:02}"'),
    st.sampled_from([
        '"2017-06-13T11:33:05"', '"2017-06-13 11:33:05.5"', '"2017-06-13T11:33:05.000001Z"', '"2016-02-29 00:00:00"',
        '"2017-06-13T13:33:05+02:00"', '"2017-06-13 06:03:07-0530"', '"2017-06-13 12:33:05+01"',
        '"2099-01-01 00:00:00"',
    ]),
)  # fmt: skip
SPACES = st.sampled_from(["", " ", "  "])
EXTRAS = st.sampled_from(["", ', "note": "x"', ', "note": [1, {"id": "9"}]', ', "n": -1.5e3', ', "note": "a\\"b"'])


@st.composite
def purchases(draw: st.DrawFn) -> bytes:
    """A purchase line, sometimes written in an unusual way."""
    fields = [
        '"event_type":"purchase"',
        f'"timestamp":{draw(SPACES)}{draw(STAMPS)}',
        f'"id": {draw(IDS)}',
        f'"amount": {draw(AMOUNTS)}',
    ]
    if draw(st.integers(0, 9)) == 0:
        fields = draw(st.permutations(fields))
    return f"{draw(SPACES)}{{{', '.join(fields)}{draw(EXTRAS)}{draw(SPACES)}}}{draw(SPACES)}".encode()


@st.composite
def ties(draw: st.DrawFn) -> bytes:
    """A befriend or unfriend line, sometimes of a user with themselves."""
    kind = draw(st.sampled_from(["befriend", "befriend", "unfriend"]))
    return (
        f'{{"event_type":"{kind}", "timestamp":{draw(STAMPS)}, "id1": {draw(IDS)}, "id2": {draw(IDS)}{draw(EXTRAS)}}}'
    ).encode()


@st.composite
def cut_lines(draw: st.DrawFn) -> bytes:
    """An event's line cut off somewhere."""
    line = draw(st.one_of(purchases(), ties()))
    return line[: draw(st.integers(0, len(line)))]


NOISE = st.one_of(
    cut_lines(),
    st.binary(max_size=30).map(lambda data: data.replace(b"\n", b" ")),
    st.sampled_from([
        b"", b"   ", b"null", b"[]", b"{}", b'"purchase"', b"\xff\xfe", b'{"event_type":"purchase"}',
        b'{"event_type":"gift", "timestamp":"2017-06-13 11:33:01", "id": "1", "amount": "1"}',
        b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": "", "amount": "1"}',
        b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": 1.5, "amount": "1"}',
        b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": null, "amount": "1"}',
        b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": "1", "amount": "1.0000001"}',
        b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": "1", "amount": "-1"}',
        b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": "1", "amount": "NaN"}',
        b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": "1", "amount": NaN}',
        b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": "1", "amount": true}',
        b'{"event_type":"purchase", "timestamp":"2017-02-29 11:33:01", "id": "1", "amount": "1"}',
        b'{"event_type":"purchase", "timestamp":"2017-06-13 24:00:00", "id": "1", "amount": "1"}',
        b'{"event_type":"purchase", "timestamp":"2017-06-13", "id": "1", "amount": "1"}',
        b'{"event_type":"purchase", "timestamp":1497353581, "id": "1", "amount": "1"}',
        b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": "1", "amount": "1"} {}',
        b'{"event_type":"purchase", "timestamp":"2017-06-13 11:33:01", "id": "1", "id": "2", "amount": "1"}',
        b'{"event_type":"befriend", "timestamp":"2017-06-13 11:33:01", "id1": "1", "id2": 1}',
        b'{"event_type":"befriend", "timestamp":"2017-06-13 11:33:01", "id1": "1"}',
    ]),
)  # fmt: skip

LINES = st.one_of(purchases(), purchases(), purchases(), ties(), NOISE)
BEFORE = st.one_of(
    *[st.just(b"")] * 9, st.lists(st.sampled_from([b"\0", b"\0" * 9, b"\xef\xbb\xbf"]), max_size=3).map(b"".join)
)
"""What may stand before a line and is no part of it: a hole, the byte-order mark of a file that was appended."""


@st.composite
def logs(draw: st.DrawFn, max_size: int = 60) -> bytes:
    """A whole log, with LF or CRLF line ends, holes, byte-order marks, with or without a last line end."""
    lines = draw(st.lists(st.tuples(BEFORE, LINES).map(b"".join), max_size=max_size))
    end = draw(st.sampled_from([b"\n", b"\n", b"\r\n"]))
    content = end.join(lines) + draw(st.sampled_from([b"", end]))
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + content
