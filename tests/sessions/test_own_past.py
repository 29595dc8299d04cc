"""A session is compared with its user's past only: with nothing that comes later, and nobody else's sessions."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from peerwatch.sessions.columns import SessionTable, from_objects, schema_of, sessions_of
from peerwatch.sessions.live import pieces
from peerwatch.sessions.own_past import PAST, PastSessions, compared

HOURS = st.integers(0, 40)
SESSIONS = st.lists(
    st.fixed_dictionaries({
        "user_id": st.sampled_from(["a", "b", "c", None]),
        "hour": st.one_of(HOURS, st.none()),
        "click_events": st.one_of(st.integers(0, 9), st.none()),
        "transaction_amount": st.integers(0, 1000),
        "device_type": st.sampled_from(["PC", "Mobile", None]),
    }),
    max_size=60,
)  # fmt: skip


def table_of(sessions: list[dict[str, Any]], *, timed: bool = True) -> SessionTable:
    """The sessions as a table, each hour a moment."""
    rows = []
    for session in sessions:
        row = {key: value for key, value in session.items() if key != "hour"}
        hour = session["hour"]
        if timed:
            row["transaction_date"] = None if hour is None else f"2024-05-{1 + hour // 24:02} {hour % 24:02}:00:00"
        rows.append(row)
    keys = ("user_id", "click_events", "transaction_amount", "device_type", *(["transaction_date"] if timed else []))
    raw = from_objects([dict.fromkeys(keys), *rows])
    return sessions_of(raw, schema_of(raw)).taken(np.arange(1, len(rows) + 1))


@given(sessions=SESSIONS, later=SESSIONS)
@settings(max_examples=examples(100))
def test_later_sessions_change_no_earlier_feature(sessions: list[dict[str, Any]], later: list[dict[str, Any]]) -> None:
    """Whatever comes after all of them, of the same users or others, at the last moment or behind it."""
    hours = [session["hour"] for session in sessions if session["hour"] is not None]
    last = max(hours, default=0)
    behind = [{**each, "hour": None if each["hour"] is None else last + each["hour"]} for each in later]
    alone, _ = compared(table_of(sessions), PastSessions())
    together, _ = compared(table_of([*sessions, *behind]), PastSessions())
    np.testing.assert_array_equal(alone, together[: len(sessions)])


@given(sessions=SESSIONS)
@settings(max_examples=examples(100))
def test_other_users_change_nothing(sessions: list[dict[str, Any]]) -> None:
    """A user's features are the same without everybody else."""
    all_of_them, _ = compared(table_of(sessions), PastSessions())
    own = [row for row, session in enumerate(sessions) if session["user_id"] == "a"]
    alone, _ = compared(table_of([sessions[row] for row in own]), PastSessions())
    np.testing.assert_array_equal(all_of_them[own], alone)


@given(sessions=SESSIONS, timed=st.booleans())
@settings(max_examples=examples(100))
def test_in_portions_as_one_by_one(sessions: list[dict[str, Any]], timed: bool) -> None:
    """A live log gives the same features however it is cut, late sessions and equal moments included."""
    table, single, cut = table_of(sessions, timed=timed), PastSessions(), PastSessions()
    one_by_one = np.empty((0, 27))
    for row in range(len(table)):
        found, later = compared(table.taken(np.array([row])), single)
        single.add(later)
        one_by_one = np.vstack([one_by_one, found])
    portions = np.empty((0, 27))
    for rows in pieces(table, cut):
        found, later = compared(table.taken(rows), cut)
        cut.add(later)
        portions = np.vstack([portions, found])
    np.testing.assert_array_equal(portions, one_by_one)
    assert all(len(rows) <= 2 * PAST for rows in single.by_user.values())


def test_sessions_known_to_be_anomalous_belong_to_no_past() -> None:
    """They are compared, but nothing is compared with them."""
    sessions = [{"user_id": "a", "hour": hour, "click_events": 5, "transaction_amount": 1, "device_type": "PC"}
                for hour in range(4)]  # fmt: skip
    table = table_of(sessions)
    found, past = compared(table, PastSessions(), np.array([True, False, False, True]))
    assert found[:, -2].tolist() == [0, 1, 1, 1]
    assert len(past.by_user["a"]) == 2


def test_what_is_remembered_survives_as_columns() -> None:
    """As a model file and a checkpoint hold it."""
    sessions = [{"user_id": user, "hour": hour, "click_events": hour, "transaction_amount": 1, "device_type": "PC"}
                for hour in range(40) for user in "ba"]  # fmt: skip
    _, past = compared(table_of(sessions), PastSessions())
    again = PastSessions.of(*past.columns())
    assert again.by_user.keys() == past.by_user.keys() == {"a", "b"}
    for user, rows in past.by_user.items():
        np.testing.assert_array_equal(again.by_user[user], rows)
