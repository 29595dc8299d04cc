"""Rejected lines as records that a person can act on and a program can read back."""

import base64
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import orjson

from peerwatch.errors import BadEvent

POISON: Final = "brought the run down twice"
"""How the reason begins where a line has done so."""
BEGINNINGS: Final = {
    "not UTF-8": "encoding",
    "not valid JSON": "json",
    "not a JSON object": "not_an_object",
    'unknown "': "event_type",
    POISON: "poison",
}
ENDINGS: Final = {
    "is missing": "missing_field",
    "is not YYYY-MM-DD HH:MM:SS": "timestamp",
    "is not a date and time that exists": "timestamp",
    "is not a finite decimal number": "amount",
    "is negative": "amount",
    "is not finite (1e308 or more)": "amount",
    "has more than 6 decimals": "amount",
    "is neither a non-empty string nor an integer": "id",
    "is not a string of Unicode characters": "encoding",
    "a friendship needs two": "friendship",
}
"""The class of a reason by how it begins or ends; between the two stands what the line holds."""
OTHER: Final = "other"
REASON_CLASSES: Final = (*sorted({*BEGINNINGS.values(), *ENDINGS.values()}), OTHER)


def reason_class(reason: str) -> str:
    """The class of the reason why a line was rejected: one of few words, whatever the line holds."""
    for begin, name in BEGINNINGS.items():
        if reason.startswith(begin):
            return name
    return next((name for end, name in ENDINGS.items() if reason.endswith(end)), OTHER)


class RejectTally(msgspec.Struct):
    """The rejected lines of one process by class of reason.

    A line that is read again after a restart, with a number up to `through`, is not counted again.
    """

    through: int = 0
    by_class: Counter[str] = msgspec.field(default_factory=Counter)

    def add(self, first: int, reasons: Sequence[str]) -> None:
        """Count the lines that were rejected for these reasons; the first of them has the number `first`."""
        for number, reason in enumerate(reasons, first):
            if number > self.through:
                self.by_class[reason_class(reason)] += 1
                self.through = number


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
