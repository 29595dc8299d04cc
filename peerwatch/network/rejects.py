"""Rejected lines as records that a person can act on and a program can read back."""

import base64
from typing import NamedTuple

import orjson

from peerwatch.errors import BadEvent


class RejectedLine(NamedTuple):
    """A line that is not an event: where it stands (line from 1, offset in bytes), why, and its bytes."""

    file: str
    line: int
    offset: int
    reason: str
    raw: bytes


def encode_reject(rejected: RejectedLine) -> bytes:
    """One NDJSON line. The bytes are `raw` where they are UTF-8 text, else `raw_base64`."""
    record: dict[str, str | int] = rejected._replace(raw=b"")._asdict()
    del record["raw"]
    try:
        record["raw"] = rejected.raw.decode()
    except UnicodeDecodeError:
        record["raw_base64"] = base64.b64encode(rejected.raw).decode()
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def decode_reject(line: bytes) -> RejectedLine:
    """The inverse of `encode_reject`.

    Raises:
        BadEvent: the line is not such a record.
    """
    try:
        record = orjson.loads(line)
        raw = record["raw"].encode() if "raw" in record else base64.b64decode(record["raw_base64"], validate=True)
        return RejectedLine(record["file"], record["line"], record["offset"], record["reason"], raw)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadEvent("not a record of a rejected line") from None
