"""Rejected lines as records."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from peerwatch.errors import BadEvent
from peerwatch.network.events import parse_event
from peerwatch.network.rejects import (
    REASON_CLASSES,
    RejectedLine,
    RejectTally,
    decode_reject,
    encode_reject,
    reason_class,
)


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


STAMP = '"timestamp": "2017-06-13 11:33:01"'


def reason_of(line: str) -> str:
    """Why a line is rejected."""
    with pytest.raises(BadEvent) as caught:
        parse_event(line.encode("utf-8", "surrogateescape"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("\udcff", "encoding"),
        ("hello", "json"),
        ("[1]", "not_an_object"),
        ("{}", "missing_field"),
        ('{"event_type": "gift"}', "event_type"),
        ('{"event_type": "purchase", "timestamp": "now"}', "timestamp"),
        ('{"event_type": "purchase", "timestamp": "2017-02-29 11:33:01"}', "timestamp"),
        (f'{{"event_type": "purchase", {STAMP}, "id": ""}}', "id"),
        (f'{{"event_type": "purchase", {STAMP}, "id": "\\ud800"}}', "json"),
        (f'{{"event_type": "purchase", {STAMP}, "id": "1", "amount": "x"}}', "amount"),
        (f'{{"event_type": "purchase", {STAMP}, "id": "1", "amount": "-1"}}', "amount"),
        (f'{{"event_type": "purchase", {STAMP}, "id": "1", "amount": 1e308}}', "amount"),
        (f'{{"event_type": "purchase", {STAMP}, "id": "1", "amount": 1e-9}}', "amount"),
        (f'{{"event_type": "befriend", {STAMP}, "id1": "1", "id2": "1"}}', "friendship"),
    ],
)
def test_reasons_have_few_classes(line: str, expected: str) -> None:
    """Each kind of mistake has a class of its own."""
    assert reason_class(reason_of(line)) == expected
    assert expected in REASON_CLASSES


def test_a_line_that_brought_the_run_down_has_a_class() -> None:
    """Its reason goes on with a traceback, which may hold anything."""
    assert reason_class("brought the run down twice: ValueError: is missing\n...") == "poison"


@given(st.text(max_size=40), st.sampled_from(["id", "amount", "timestamp", "event_type"]))
def test_what_a_line_holds_does_not_choose_its_class(text: str, field: str) -> None:
    """Whatever stands in a field: the class is one of those that belong to the field, and never `other`."""
    event = {"event_type": "purchase", "timestamp": "2017-06-13 11:33:01", "id": "1", "amount": "1"} | {field: text}
    line = orjson.dumps(event)
    reason = None
    try:
        parse_event(line)
    except BadEvent as error:
        reason = reason_class(str(error))
    assert reason in {None, field, "missing_field"}


def test_a_line_that_is_read_again_counts_once() -> None:
    """After a restart from a checkpoint lines come again with the numbers that they had."""
    tally = RejectTally()
    tally.add(1, ["not a JSON object", "not UTF-8 at byte 1 of the line"])
    tally.add(3, ["not a JSON object"])
    tally.add(2, ["not UTF-8 at byte 1 of the line", "not a JSON object", '"id" is missing'])
    assert tally.by_class == {"not_an_object": 2, "encoding": 1, "missing_field": 1}
