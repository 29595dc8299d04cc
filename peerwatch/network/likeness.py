"""Recognises what a log without events is: compressed, in another encoding, in another format."""

import re
from typing import Final, NamedTuple

from peerwatch.network.events import begin_of_line

LOOKED_AT: Final = 4096
"""Bytes of a log's beginning that are looked at."""
ENOUGH: Final = 100
"""Lines after which the warning comes for a log that goes on."""


class Likeness(NamedTuple):
    """What a log looks like, and what to do."""

    what: str
    way_out: str


_UNPACK: Final = "unpack it first, as with"
_ROWS: Final = "write its rows as JSON, one object a line"
_BEGINNINGS: Final = (
    (b"\x1f\x8b", "a file compressed with gzip", f"{_UNPACK} gunzip or zcat"),
    (b"\x28\xb5\x2f\xfd", "a file compressed with zstd", f"{_UNPACK} unzstd or zstdcat"),
    (b"BZh", "a file compressed with bzip2", f"{_UNPACK} bunzip2 or bzcat"),
    (b"\xfd7zXZ\0", "a file compressed with xz", f"{_UNPACK} unxz or xzcat"),
    (b"\x04\x22\x4d\x18", "a file compressed with lz4", f"{_UNPACK} unlz4 or lz4cat"),
    (b"PK\x03\x04", "a zip archive", f"{_UNPACK} unzip"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", f"{_UNPACK} 7z"),
    (b"PAR1", "a Parquet file", _ROWS),
    (b"ORC", "an ORC file", _ROWS),
    (b"Obj\x01", "an Avro file", _ROWS),
    (b"SQLite format 3\0", "an SQLite database", _ROWS),
    (b"\xff\xfe\0\0", "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8"),
    (b"\xfe\xff\0\0", "UTF-32 text", "convert it: iconv -f UTF-32 -t UTF-8"),  # without its NUL bytes, as after a hole
    (b"\xff\xfe", "UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8"),
    (b"\xfe\xff", "UTF-16 text", "convert it: iconv -f UTF-16 -t UTF-8"),
)
"""How files of other kinds begin."""
_JSON: Final = "write one object a line, as with"
_SHAPES: Final = (
    (rb"[^\r\n]*\r[^\n]+\Z", "text whose lines end in CR alone", r"convert it, as with tr '\r' '\n'"),
    (rb"\[\s*(\{|\Z)", "a JSON array", f"{_JSON} jq -c '.[]'"),
    (rb'\{[ \t\r]*\n\s*"', "JSON whose objects go over several lines", f"{_JSON} jq -c ."),
    (rb"\{[^\n]*\}[ \t]*\{", "JSON with several objects on a line", f"{_JSON} jq -c ."),
    (rb"<[!?A-Za-z]", "XML or HTML", _ROWS),
    (rb"(?=[^\n]*[A-Za-z])[^\n{}]*([,;\t])[^\n{}]*\1[^\n{}]*\r?\n", "a table of separated values", _ROWS),
)
"""How the text of other kinds of files begins."""


def looks_like(head: bytes) -> Likeness | None:
    """What a log is that begins like this and holds no events; None if that cannot be told."""
    for beginning, what, way_out in _BEGINNINGS:
        if head.startswith(beginning):
            return Likeness(what, way_out)
    nuls = head.count(b"\0")
    if 3 * nuls > len(head):
        width = 32 if 3 * nuls > 2 * len(head) else 16
        return Likeness(f"UTF-{width} text", f"convert it: iconv -f UTF-{width}LE (or BE) -t UTF-8")
    text = head[begin_of_line(head) :].lstrip()
    for shape, what, way_out in _SHAPES:
        if re.match(shape, text):
            return Likeness(what, way_out)
    return None


class Impression:
    """Counts a log's events and rejected lines, to say whether next to none of its lines is an event."""

    def __init__(self) -> None:
        self._head = b""
        self._events = 0
        self._rejected = 0
        self._reason = ""

    def add(self, content: bytes, events: int, rejected: int, reason: str) -> None:
        """Count some more lines: how many are events, how many were rejected, and why the first of those was."""
        self._head += content[: LOOKED_AT - len(self._head)]
        self._events += events
        self._rejected += rejected
        self._reason = self._reason or reason

    def complaint(self, name: str, *, ended: bool, reason: bool = True) -> str | None:
        """The warning about the log called `name`, if there is one; without `reason` only what it looks like."""
        lines = self._events + self._rejected
        if not self._rejected or (lines < ENOUGH and not ended) or self._rejected < 2 * self._events:
            return None
        likeness = looks_like(self._head)
        if likeness is None and (self._rejected < 9 * self._events or not reason):
            return None
        few = f"only {self._events:,}" if self._events else "none"
        said = f"{few} of the {lines:,} lines read from {name} {'are events' if self._events > 1 else 'is an event'}"
        if lines == 1:
            said = f"the only line read from {name} is not an event"
        if likeness is None:
            return f"{said}; the first bad line: {self._reason}"
        return f"{said}: it looks like {likeness.what}; {likeness.way_out}"
