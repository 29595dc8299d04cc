"""Rejected lines as records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.errors import BadEvent
from peerwatch.network.rejects import RejectedLine, decode_reject, encode_reject


@given(st.binary().map(lambda raw: raw.replace(b"\n", b"")))
def test_any_bytes_come_back(raw: bytes) -> None:
    """A record is one line of UTF-8 and gives back the original bytes exactly."""
    rejected = RejectedLine("log.json", 7, 123, "not UTF-8", raw)
    record = encode_reject(rejected)
    assert record.count(b"\n") == 1
    assert record.endswith(b"\n")
    assert decode_reject(record) == rejected


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"raw": 5}', b'{"raw_base64": "!", "file": ""}'])
def test_other_lines_are_refused(line: bytes) -> None:
    """What is no record of a rejected line is an error, not a guess."""
    with pytest.raises(BadEvent, match="not a record of a rejected line"):
        decode_reject(line)
