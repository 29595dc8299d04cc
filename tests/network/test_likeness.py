"""What a log looks like that holds next to no events, and when it is said."""

import bz2
import gzip
import json
import lzma

import pytest
from hypothesis import given
from strategies import logs
from support import befriend, purchase

from peerwatch.network.likeness import ENOUGH, LOOKED_AT, Impression, looks_like

LOG = b"".join(purchase(number, "10") + befriend(number, number + 1) for number in range(60))
OBJECTS = [json.loads(line) for line in LOG.splitlines()]
ARRAY = b"[\n" + b",\n".join(LOG.splitlines()) + b"\n]\n"
PRETTY = "\n".join(json.dumps(each, indent=2) for each in OBJECTS).encode()
TABLE = b"event_type,timestamp,id,amount\npurchase,2017-06-13 11:33:01,1,10\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(LOG), "a file compressed with gzip"),
        (bz2.compress(LOG), "a file compressed with bzip2"),
        (lzma.compress(LOG), "a file compressed with xz"),
        (b"\x28\xb5\x2f\xfd\x04\x60", "a file compressed with zstd"),
        (b"\x04\x22\x4d\x18\x64\x40", "a file compressed with lz4"),
        (b"PK\x03\x04\x14\0", "a zip archive"),
        (b"PAR1\x15\0", "a Parquet file"),
        (b"SQLite format 3\0\x10", "an SQLite database"),
        *((LOG.decode().encode(encoding), "UTF-16 text") for encoding in ("utf-16", "utf-16-le", "utf-16-be")),
        *((LOG.decode().encode(encoding), "UTF-32 text") for encoding in ("utf-32", "utf-32-le", "utf-32-be")),
        (b"\xfe\xff" + LOG.decode().encode("utf-16-be"), "UTF-16 text"),
        (b"\0\0\xfe\xff" + LOG.decode().encode("utf-32-be"), "UTF-32 text"),
        (LOG.replace(b"\n", b"\r"), "text whose lines end in CR alone"),
        (json.dumps(OBJECTS).encode(), "a JSON array"),
        (json.dumps(OBJECTS, indent=1).encode(), "a JSON array"),
        (b"\xef\xbb\xbf" + ARRAY, "a JSON array"),
        (PRETTY, "JSON whose objects go over several lines"),
        (PRETTY.replace(b"\n", b"\r\n"), "JSON whose objects go over several lines"),
        (LOG.replace(b"\n", b""), "JSON with several objects on a line"),
        (TABLE, "a table of separated values"),
        (TABLE.replace(b",", b"\t"), "a table of separated values"),
        (b'<?xml version="1.0"?>', "XML or HTML"),
    ],
)
def test_other_kinds_of_files_are_named(content: bytes, what: str) -> None:
    """Also without the NUL bytes they begin with, which are let go like a hole; and their way out is told."""
    for head in (content[:LOOKED_AT], content.lstrip(b"\0")[:LOOKED_AT]):
        found = looks_like(head)
        assert found is not None
        assert found.what == what
        assert found.way_out


@given(logs())
def test_a_log_looks_like_nothing_else(content: bytes) -> None:
    """Whatever is said of a log, it is never said of one whose first line is an event."""
    assert looks_like(purchase(1, "5") + content.replace(b"\0", b"")) is None
    assert looks_like(LOG[:LOOKED_AT].replace(b"\n", b"\r\n")) is None


def impression(*lines: tuple[bytes, str]) -> Impression:
    """What is seen of lines, each with the reason why it was rejected, "" for an event."""
    seen = Impression()
    for line, reason in lines:
        seen.add(line, not reason, bool(reason), reason)
    return seen


def test_it_is_said_at_the_end_or_when_enough_has_been_seen() -> None:
    """A log that goes on is not judged by a few lines; then neither a few events nor an unknown kind matter."""
    bad = [(b"junk\n", "not valid JSON")]
    assert impression(*bad).complaint("log", ended=False) is None
    assert (
        impression(*bad).complaint("log", ended=True)
        == "the only line read from log is not an event; the first bad line: not valid JSON"
    )
    said = "none of the 100 lines read from log is an event; the first bad line: not valid JSON"
    assert impression(*bad * ENOUGH).complaint("log", ended=False) == said
    few = impression(*bad * 10, (b"{}\n", "")).complaint("log", ended=True)
    assert few == "only 1 of the 11 lines read from log is an event; the first bad line: not valid JSON"
    array = [(line, "not a JSON object") for line in ARRAY.splitlines()[:3]]
    said = "only 1 of the 4 lines read from log is an event: it looks like a JSON array; write one object a line"
    assert impression(*array, (b"{}\n", "")).complaint("log", ended=True) == f"{said}, as with jq -c '.[]'"


def test_nothing_is_said_of_a_log_with_events() -> None:
    """Bad lines among events stand in the rejects file, and that is enough; so is nothing at all."""
    assert Impression().complaint("log", ended=True) is None
    assert impression((b"{}\n", ""), *[(b"junk\n", "bad")] * 8).complaint("log", ended=True) is None
    assert impression((b"[\n", "bad"), (b"{}\n", "")).complaint("log", ended=True) is None
