"""Each feature has the meaning that is documented: one case for every one of them."""

import math
from typing import Any

import numpy as np
import pytest

from peerwatch.sessions.columns import from_objects, schema_of, sessions_of
from peerwatch.sessions.features import FEATURES, GROUPS, OWN_ABOUT, RISKS, computed, describe
from peerwatch.sessions.own_past import NAMES, PastSessions, compared

PC: dict[str, Any] = {
    "transaction_date": "2024-05-11 18:00:00", "device_type": "PC", "screen_size": "1920x1080", "click_events": 6,
    "scroll_events": 3, "touch_events": 0, "keyboard_events": 3, "form_submissions": 1, "page_views": 4,
    "time_on_page": 60, "session_duration": 120, "avg_session_duration": 240, "bounce_rate": 0.25,
    "conversion_rate": 0.4, "transaction_amount": 90, "mouse_movement": 300, "device_motion": 0.5,
    "timezone_offset": -330,
}  # fmt: skip
"""A Saturday evening, 12 events in a minute."""
PHONE = {**PC, "device_type": "Mobile", "screen_size": "360x640", "touch_events": 8}
CASES: list[tuple[str, dict[str, Any], float]] = [
    ("hour", PC, 18),
    ("hour_sin", PC, -1),
    ("hour_cos", {**PC, "transaction_date": "2024-05-11 12:00:00"}, -1),
    ("day_sin", {**PC, "transaction_date": "2024-05-13"}, 0),
    ("day_cos", {**PC, "transaction_date": "2024-05-13"}, 1),
    ("month_sin", {**PC, "transaction_date": "2024-04-13"}, 1),
    ("month_cos", {**PC, "transaction_date": "2024-07-13"}, -1),
    ("day_of_month", PC, 11),
    ("is_weekend", PC, 1),
    ("is_business_hours", {**PC, "transaction_date": "2024-05-13 16:59:00"}, 1),
    ("is_business_hours", {**PC, "transaction_date": "2024-05-13 17:00:00"}, 0),
    ("is_business_hours", {**PC, "transaction_date": "2024-05-11 12:00:00"}, 0),
    ("is_night", {**PC, "transaction_date": "2024-05-13 22:00:00"}, 1),
    ("is_night", {**PC, "transaction_date": "2024-05-13 06:00:00"}, 0),
    ("is_night", {**PC, "transaction_date": "2024-05-13"}, math.nan),
    *((name, PC, float(PC[name])) for name in (
        "click_events", "scroll_events", "touch_events", "keyboard_events", "form_submissions", "page_views",
        "time_on_page", "session_duration", "avg_session_duration", "bounce_rate", "conversion_rate",
        "transaction_amount", "mouse_movement", "device_motion", "timezone_offset",
    )),
    ("total_events", PC, 12),
    ("total_events", {"click_events": 2, "keyboard_events": None}, 2),
    ("total_events", {"time_on_page": 2}, math.nan),
    ("clicks_per_second", PC, 0.1),
    ("clicks_per_second", {"click_events": 6, "session_duration": 3}, 2),
    ("clicks_per_second", {"click_events": 6, "time_on_page": 0}, 6),
    ("scrolls_per_second", PC, 0.05),
    ("touches_per_second", {**PC, "touch_events": 60}, 1),
    ("keys_per_second", PC, 0.05),
    ("events_per_second", PC, 0.2),
    ("amount_per_second", PC, 1.5),
    ("mouse_per_second", PC, 5),
    ("pages_per_minute", PC, 4),
    ("click_share", PC, 0.5),
    ("scroll_share", PC, 0.25),
    ("touch_share", {**PC, "touch_events": 12}, 0.5),
    ("key_share", PC, 0.25),
    ("mouse_per_click", PC, 50),
    ("clicks_per_page", PC, 1.5),
    ("seconds_per_page", PC, 15),
    ("forms_per_page", PC, 0.25),
    ("duration_to_average", PC, 0.5),
    ("page_to_session", PC, 0.5),
    ("session_efficiency", {**PC, "time_on_page": 36}, 2),
    ("click_efficiency", PC, 15),
    ("event_efficiency", PC, 7.5),
    ("conversion_efficiency", PC, 0.3),
    ("interaction_diversity", PC, 1.5),
    ("kinds_of_events", PC, 3),
    ("dominance", PC, 0.5),
    ("consistency", {**PC, "touch_events": 3, "click_events": 3}, 1),
    ("is_mobile", PHONE, 1),
    ("is_mobile", {"device_type": ""}, math.nan),
    ("touches_on_mobile", PHONE, 8),
    ("touches_elsewhere", {**PC, "touch_events": 8}, 8),
    ("mouse_on_mobile", PHONE, 300),
    ("mouse_elsewhere", PC, 300),
    ("keys_on_mobile", PHONE, 3),
    ("motion_elsewhere", PC, 0.5),
    ("screen_width", PC, 1920),
    ("screen_width", {**PC, "screen_size": "large"}, math.nan),
    ("screen_area", {**PC, "screen_size": "1000x500"}, 500),
    ("screen_aspect", PHONE, 0.5625),
    ("screen_mismatch", PHONE, 0),
    ("screen_mismatch", {**PHONE, "screen_size": "1920x1080"}, 1),
    ("no_events", {"click_events": 0}, 1),
    ("no_clicks", {**PC, "click_events": 0}, 1),
    ("no_keys", {**PC, "keyboard_events": 0}, 1),
    ("very_short", {**PC, "time_on_page": 10}, 1),
    ("very_long", {**PC, "time_on_page": 600}, 1),
    ("very_fast", {**PC, "time_on_page": 2}, 1),
    ("deep_night", {**PC, "transaction_date": "2024-05-13 04:59:00"}, 1),
    ("deep_night", {**PC, "transaction_date": "2024-05-13 05:00:00"}, 0),
    ("mouse_on_a_telephone", PHONE, 1),
    ("mouse_on_a_telephone", PC, 0),
    ("paid_without_a_click", {**PC, "click_events": 0}, 1),
    ("paid_without_a_click", {**PHONE, "click_events": 0}, 0),
    ("risk_flags", {**PHONE, "click_events": 0, "time_on_page": 5}, 2 + 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "session", "expected"), CASES)
def test_a_feature_means_what_is_documented(name: str, session: dict[str, Any], expected: float) -> None:
    """Computed from one session whose columns are known."""
    raw = from_objects([session])
    (found,) = computed(sessions_of(raw, schema_of(raw)), [name])
    assert found.tolist() == pytest.approx([expected], abs=1e-9, nan_ok=True)


OWN = [
    {**PC, "user_id": "u", "transaction_date": f"2024-05-{day:02} 10:00:00", "language": "en",
     "browser_info": "Edge", "geolocation_city": "Pune", "click_events": clicks}
    for day, clicks in ((1, 5), (2, 6), (3, 7))
]  # fmt: skip
NOW = {**OWN[0], "transaction_date": "2024-05-03 12:00:00", "click_events": 13, "browser_info": "Safari"}


def own(session: dict[str, Any]) -> dict[str, float]:
    """The features of a session against three of the same user, at 10 o'clock with 5, 6 and 7 clicks."""
    raw = from_objects([*OWN, session])
    found, _ = compared(sessions_of(raw, schema_of(raw)), PastSessions())
    return dict(zip(NAMES, found[-1].tolist(), strict=True))


AS_ALWAYS = ("scroll_events", "touch_events", "keyboard_events", "seconds", "transaction_amount", "mouse_movement")
SAME = {f"own_{what}_{name}": 0.0 for what in ("deviation", "change") for name in AS_ALWAYS}
CHANGE = math.log(14 / 7)
SPREAD = 1.4826 * math.log(8 / 7) + 0.15  # the median of |log 6/7|, 0 and log 8/7 is log 8/7
TOTAL_CHANGE = math.log(20 / 13)
TOTAL_SPREAD = 1.4826 * math.log(14 / 13) + 0.15
EXPECTED = {
    **SAME,
    "own_change_click_events": CHANGE, "own_deviation_click_events": CHANGE / SPREAD,
    "own_change_total_events": TOTAL_CHANGE, "own_deviation_total_events": TOTAL_CHANGE / TOTAL_SPREAD,
    "own_mean_deviation": (CHANGE / SPREAD + TOTAL_CHANGE / TOTAL_SPREAD) / 8,
    "own_largest_deviation": CHANGE / SPREAD,
    "own_change": math.sqrt((CHANGE**2 + TOTAL_CHANGE**2) / 8),
    "own_hour_distance": 2.0,
    "own_share_device_type": 1.0, "own_share_browser_info": 0.0, "own_share_language": 1.0,
    "own_share_geolocation_city": 1.0, "own_share_screen_size": 1.0,
    "own_sessions": 3.0, "own_since": math.log(3),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_feature_of_the_own_past_means_what_is_documented(name: str) -> None:
    """Thirteen clicks at noon with another browser, where 5 to 7 at 10 o'clock are usual; all else is as always."""
    assert own(NOW)[name] == pytest.approx(EXPECTED[name], abs=1e-9)


def test_a_first_session_has_no_past() -> None:
    """Nothing is known of a new user but that nothing is known."""
    found = own({**NOW, "user_id": "new"})
    assert found["own_sessions"] == 0
    assert {name for name, value in found.items() if not math.isnan(value)} <= {"own_sessions", "own_largest_deviation"}


def test_there_are_at_least_fifty_each_documented_and_tested() -> None:
    """The table names each once; a case above looks at each."""
    names = [feature.name for feature in FEATURES]
    assert len(set(names)) == len(names)
    assert len(describe()) == len(names) + len(NAMES) >= 50
    assert set(OWN_ABOUT) == set(NAMES) == set(EXPECTED)
    assert set(names) == {name for name, *_ in CASES}
    assert all(describe().values())
    assert set(GROUPS) == set(describe())
    assert len(RISKS) >= 8


def test_a_missing_column_is_no_error() -> None:
    """Without any column each feature is unknown, except that no flag is set."""
    raw = from_objects([{"user_id": "u"}])
    table = sessions_of(raw, schema_of(raw))
    for feature, found in zip(FEATURES, computed(table, [each.name for each in FEATURES]), strict=True):
        assert found.shape == (1,)
        assert np.isnan(found[0]) or feature.name == "risk_flags"
