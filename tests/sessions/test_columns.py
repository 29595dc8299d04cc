"""Columns are known by many names, values are what they say, and what cannot be read is set apart with a sentence."""

import datetime as dt
import decimal
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from peerwatch.errors import UsageError
from peerwatch.sessions.columns import (
    COLUMNS,
    MISSING,
    SessionTable,
    from_objects,
    known_name,
    labels_of,
    read_sessions,
    schema_of,
    sessions_of,
)


def table_of(*objects: Any) -> SessionTable:
    """Sessions given as mappings, as columns."""
    raw = from_objects(objects)
    return sessions_of(raw, schema_of(raw))


@given(
    name=st.sampled_from([each for column in COLUMNS for each in (column.name, *column.aliases)]),
    spaces=st.integers(0, 3), big=st.booleans(), joined=st.booleans(),
)  # fmt: skip
@settings(max_examples=examples(100))
def test_a_column_is_known_by_any_of_its_names(name: str, spaces: int, big: bool, joined: bool) -> None:
    """In any case, with spaces around it or for underscores within it."""
    written = " " * spaces + (name.upper() if big else name) + " " * spaces
    written = written if joined else written.replace("_", " ")
    assert known_name(written) in {column.name for column in COLUMNS}


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), st.integers(0, 6), st.integers(0, 6))
@settings(max_examples=examples(100))
def test_spaces_around_an_id_do_not_count(name: str, left: int, right: int) -> None:
    """However long it is: the sessions are of one user, and the second of one name is a repeat."""
    padded = " " * left + name + " " * right
    table = table_of({"user_id": padded, "session_id": 1}, {"user_id": name, "session_id": "1 "})
    assert table.user.tolist() == ["" if name.lower() in MISSING else name]
    assert [(bad.line, bad.reason) for bad in table.bad] == [(2, "session 1 is there already")]


@pytest.mark.parametrize(
    "nothing", [None, "", " ", "      ", math.nan, np.float32("nan"), "NaN", " null ", "N/A", "<NA>"]
)
def test_what_stands_for_nothing_is_missing(nothing: Any) -> None:
    """In a column of each kind; a session without a name is nobody's repeat."""
    row = dict.fromkeys(("user_id", "session_id", "transaction_date", "clicks", "device", "amount"), nothing)
    table = table_of(row, row)
    assert table.user.tolist() == table.session.tolist() == table.text("device_type").tolist() == ["", ""]
    assert np.isnan([*table.number("click_events"), *table.number("transaction_amount"), *table.seconds]).all()
    assert table.bad == []


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("clicks", "five", '"click_events" is "five"; expected a number'),
        ("clicks", "1_000", '"click_events" is "1_000"; expected a number'),
        ("clicks", -1, '"click_events" is "-1"; expected 0 or more'),
        ("clicks", "inf", '"click_events" is "inf"; expected a number'),
        ("amount", 1e31, '"transaction_amount" is "9999999999999999635896294965248"; expected a number'),
        ("amount", [1], '"transaction_amount" is "[1]"; expected a number'),
        ("date", "9 May", '"transaction_date" is "9 May"; expected a date such as 2024-05-09 or 2024-05-09 18:30:00'),
        ("date", 5, '"transaction_date" is "5"; expected a date such as 2024-05-09 or 2024-05-09 18:30:00'),
    ],
)
def test_a_value_that_cannot_be_read_sets_its_row_apart(column: str, value: Any, reason: str) -> None:
    """The others are judged; the sentence has the value, and its session's name if it has one."""
    table = table_of({"session": "x", column: value}, {"session": "y", column: None})
    assert table.session.tolist() == ["y"]
    assert [tuple(bad) for bad in table.bad] == [(1, "x", reason)]


def test_numbers_may_be_of_any_type() -> None:
    """As JSON, CSV, pandas and the decimal module have them."""
    values = [3, 3.0, "3", " 3.0 ", np.int64(3), np.float32(3), decimal.Decimal("3.0"), True]
    table = table_of(*({"clicks": value} for value in values))
    assert table.number("click_events").tolist() == [3.0] * 7 + [1.0]


def test_moments_with_and_without_a_zone() -> None:
    """They are ordered by UTC; the hour is that of the clock on the user's wall, and a date has none."""
    zone = dt.timezone(dt.timedelta(hours=2))
    table = table_of(
        {"date": "2024-05-09"}, {"date": "2024-05-09 01:00:00+02:00"},
        {"date": dt.datetime(2024, 5, 9, 1, tzinfo=zone)}, {"date": dt.date(2024, 5, 9)},
    )  # fmt: skip
    midnight = dt.datetime(2024, 5, 9, tzinfo=dt.UTC).timestamp()
    assert (table.seconds - midnight).tolist() == [0.0, -3600.0, -3600.0, 0.0]
    np.testing.assert_array_equal(table.wall - midnight, [math.nan, 3600.0, 3600.0, math.nan])
    assert set((table.day - midnight).tolist()) == {0.0}


def test_of_two_columns_that_are_the_same_one_counts() -> None:
    """The one with the known name, in whatever order they stand."""
    for row in ({"clicks": 1, "click_events": 2}, {"click_events": 2, "clicks": 1}):
        raw = from_objects([row])
        assert raw.columns == {"click_events": [2]}
        assert raw.notes == ['the sessions: "clicks" is left out, because "click_events" is the same column']


def test_unknown_columns_are_what_their_values_are() -> None:
    """Numbers, categories of few values, or ignored; what is no mapping is set apart."""
    rows = [{"level": str(row), "plan": "ab"[row % 2], "note": f"text {row}"} for row in range(200)]
    raw = from_objects([*rows, "text"])
    schema = schema_of(raw)
    assert (schema.numbers, schema.categories, schema.ignored) == (("level",), ("plan",), ("note",))
    assert [tuple(bad) for bad in raw.bad] == [(201, "", "a str; expected an object with the columns as keys")]


def test_a_label_is_0_or_1() -> None:
    """In its usual spellings; other rows are set apart, and without any label nothing can be learned."""
    raw = from_objects([{"bad": value} for value in (0, "1", True, " FALSE ", 1.0, 2, None, "yes")])
    rest, labels = labels_of(raw, "bad")
    assert labels.tolist() == [False, True, True, False, True]
    assert (rest.lines, rest.columns) == ([1, 2, 3, 4, 5], {})
    assert [bad.reason for bad in rest.bad] == [f'"bad" is "{each}"; expected 0 or 1' for each in (2, None, "yes")]
    with pytest.raises(UsageError, match='the sessions: no row has 0 or 1 in "bad"'):
        labels_of(from_objects([{"bad": "x"}]), "bad")
    with pytest.raises(UsageError, match='has no column "worse"; there are bad'):
        labels_of(raw, "worse")


def test_rows_of_a_file_that_are_too_long_or_short_are_set_apart(tmp_path: Path) -> None:
    """With their lines, also behind a field that spans several."""
    path = tmp_path / "s.csv"
    path.write_text('session,language\na,en\nb\n"c\n2",de\nd,fr,1\n\ne,es\n')
    raw = read_sessions(path)
    assert raw.columns == {"session_id": ["a", "c\n2", "e"], "language": ["en", "de", "es"]}
    assert [tuple(bad) for bad in raw.bad] == [
        (3, "", "1 fields; the header has 2"), (6, "", "3 fields; the header has 2"),
    ]  # fmt: skip
    assert raw.lines == [2, 5, 8]
