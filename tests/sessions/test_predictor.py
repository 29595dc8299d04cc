"""The class: sessions judged one by one, in batches and from CSV, whatever they look like."""

import csv
import datetime as dt
import decimal
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples

from peerwatch.errors import BadInput, UsageError
from peerwatch.sessions.benchmark import LabelledSessions
from peerwatch.sessions.boosted_trees import BoostedTrees
from peerwatch.sessions.columns import COLUMNS, from_objects, sessions_of
from peerwatch.sessions.models import SESSION_MODELS
from peerwatch.sessions.pipeline import behind_features
from peerwatch.sessions.predictor import SessionModel

SESSION = {
    "user_id": "user_1_1", "session_id": "s", "device_type": "mobile", "screen_size": "1920x1080",
    "browser_info": "Chrome/91.0", "language": "en-US", "geolocation_city": "New York",
    "transaction_date": "2024-01-15",
    "time_on_page": 120, "clicks_count": 5, "scroll_count": 10, "form_submissions": 1, "page_views": 3,
    "session_duration": 300, "bounce_rate": 0.2, "conversion_rate": 0.1, "avg_session_duration": 250,
}  # fmt: skip
"""The other variant of the columns, as a program would send it."""


def objects(sessions: LabelledSessions, count: int) -> list[dict[str, Any]]:
    """Sessions as mappings."""
    columns = sessions.raw.columns
    return [{name: values[row] for name, values in columns.items()} for row in range(count)]


def test_one_by_one_as_in_a_batch_as_from_csv(saved: Path, test: LabelledSessions, tmp_path: Path) -> None:
    """The same verdicts, probabilities and reasons, bit by bit, on either side of what is walked all at once."""
    model = SessionModel.load(saved)
    rows = objects(test, 200)
    batch = model.predict_batch(rows)
    forgetful = [model.predict_single(row) for row in rows]
    assert forgetful == [model.predict_single(row) for row in rows] != batch
    with (tmp_path / "new.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    assert SessionModel.load(saved).predict_from_csv(tmp_path / "new.csv", tmp_path / "out.csv").results() == batch
    written = [*csv.DictReader((tmp_path / "out.csv").read_text().splitlines())]
    assert [*written[0]] == ["session_id", "is_anomaly", "probability", "confidence", "reasons"]
    assert [row["is_anomaly"] == "1" for row in written] == [each.get("is_anomaly") for each in batch]
    assert [model.predict_single(row, remember=True) for row in rows] == batch


def test_the_trees_are_walked_as_scikit_learn_walks_them(model: SessionModel, test: LabelledSessions) -> None:
    """Scores bit by bit; effects are what the score loses with the typical value, for each feature."""
    matrix = model.features_of(sessions_of(test.raw, model.schema))
    behind = behind_features(model.pipeline)
    trees = BoostedTrees(behind, len(model.pipeline[0].names_))
    expected = behind.decision_function(matrix)
    np.testing.assert_array_equal(trees.log_odds(matrix), expected)
    found = model.effects(matrix[:20], expected[:20])
    for column in range(matrix.shape[1]):
        changed = matrix[:20].copy()
        changed[:, column] = model.typical[column]
        effect = expected[:20] - behind.decision_function(changed)
        np.testing.assert_allclose(found[:, column], effect, atol=1e-12)


def test_a_flagged_session_has_its_three_strongest_reasons(model: SessionModel, test: LabelledSessions) -> None:
    """As text with the value and what is typical; others have none."""
    for result in model.judge(test.raw).results():
        assert len(result["reasons"]) == (3 if result["is_anomaly"] else 0)
        assert 0 <= result["probability"] <= 1
        assert 0 <= result["confidence"] <= 1


def test_columns_by_other_names_are_the_same(model: SessionModel) -> None:
    """And one that is missing, or a category that nobody has seen, is no error."""
    usual = {**SESSION, "click_events": SESSION["clicks_count"], "scroll_events": SESSION["scroll_count"]}
    del usual["clicks_count"], usual["scroll_count"]
    assert model.predict_single(SESSION) == model.predict_single(usual)
    assert model.predict_single({})["session_id"] == ""


@pytest.mark.parametrize(
    ("session", "why"),
    [
        ({"click_events": "many"}, '"click_events" is "many"; expected a number'),
        ({"click_events": -1}, '"click_events" is "-1"; expected 0 or more'),
        ({"time_on_page": float("inf")}, '"time_on_page" is "inf"; expected a number'),
        ({"transaction_date": "yesterday"}, "expected a date such as 2024-05-09"),
        ({"transaction_amount": [1]}, '"transaction_amount" is "[1]"; expected a number'),
    ],
)
def test_a_session_that_cannot_be_judged_is_told(model: SessionModel, session: dict[str, Any], why: str) -> None:
    """With the column, the value and what is expected; in a batch the others are judged."""
    with pytest.raises(BadInput) as error:
        model.predict_single(session)
    assert why in str(error.value)
    first, second, third = model.predict_batch([SESSION, {**session, "session_id": "x"}, SESSION | {"session_id": "y"}])
    assert "reasons" in first
    assert "reasons" in third
    assert second["session_id"] == "x"
    assert why in str(second.get("error"))


def test_a_session_that_comes_twice_is_judged_once(model: SessionModel) -> None:
    """The repeat is set apart."""
    assert model.predict_batch([SESSION, SESSION])[1] == {"session_id": "s", "error": "session s is there already"}


class Odd:
    """An object that cannot even be shown."""

    def __str__(self) -> str:
        """Fail."""
        raise ValueError


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4),
    st.sampled_from(["", "nan", "NULL", "1_000", "1e400", "-0", "0x10", "١٢", "1920x1080", "mobile", "2024-05-09",
                     "2024-05-09 25:00", "0001-01-01T00:00:00+14:00", "9999-12-31 23:59:59"]),
    st.sampled_from([Odd(), [], {}, decimal.Decimal("1e999"), dt.datetime(2024, 1, 1),  # noqa: DTZ001
                     dt.date(1, 1, 1), np.float32(3), np.int64(-5), complex(1, 1), 10**400]),
)  # fmt: skip
NAMES = st.sampled_from([column.name for column in COLUMNS] + ["clicks_count", "timestamp", "odd", "USER", " amount "])
TABLES = st.lists(st.one_of(st.dictionaries(NAMES, VALUES, max_size=8), st.none(), st.integers()), max_size=8)


@given(table=TABLES)
@settings(max_examples=examples(150))
def test_any_table_is_judged_or_told(model: SessionModel, table: list[Any]) -> None:
    """Holes, unseen categories, odd types, repeats: a verdict or one sentence for each row, never a crash."""
    found = model.predict_batch(table)
    assert len(found) == len(table)
    for result in found:
        error = result.get("error")
        assert error is None or (isinstance(error, str) and error and "\n" not in error.strip())
        share = result.get("probability", 0.5)
        assert isinstance(share, float)
        assert 0 <= share <= 1


COLUMN = st.lists(st.one_of(st.none(), st.integers(0, 3), st.text("ab1", max_size=2)), min_size=24, max_size=24)


@given(columns=st.dictionaries(NAMES, COLUMN, max_size=4), kind=st.sampled_from([*SESSION_MODELS]), data=st.data())
@settings(max_examples=examples(40))
def test_any_table_is_learned_or_told(columns: dict[str, list[Any]], kind: str, data: st.DataObject) -> None:
    """Training on a small table of holes either works or ends with one sentence."""
    rows: list[dict[str, Any]] = [{name: column[row] for name, column in columns.items()} for row in range(24)]
    labelled = data.draw(st.booleans())
    for number, row in enumerate(rows):
        row["label"] = number % 2
    small = {
        "hist_gradient_boosting": {"max_iter": 2}, "random_forest": {"n_estimators": 2},
        "isolation_forest": {"n_estimators": 2}, "autoencoder": {"epochs": 1, "hidden": (2,)}, "one_class_svm": {},
    }  # fmt: skip
    with suppress(BadInput, UsageError):
        model = SessionModel(model=kind, parameters=small[kind], own_past=True)
        assert len(model.fit(rows, "label" if labelled else None).predict_batch(rows)) == 24


def test_what_is_wrong_with_the_training_is_told(train: LabelledSessions) -> None:
    """Parameters, labels and sizes, each in a sentence that says what is expected."""
    for options, label, why in (
        ({"model": "magic"}, "label", "there is no session model"),
        ({"parameters": {"depth": 3}}, "label", "has no parameter"),
        ({"parameters": {"max_iter": -1}}, "label", "cannot be fitted"),
        ({"expect": 2}, "label", "expected share is 2"),
        ({}, None, "needs labels"),
        ({}, "price", 'has no column "price"'),
        ({"without": ("no such",)}, "label", "there is no feature or group"),
    ):
        with pytest.raises((BadInput, UsageError), match=why):
            SessionModel(**options).fit(train.with_label(), label)
    with pytest.raises(BadInput, match="options are"):
        SessionModel(modle="x")
    with pytest.raises(BadInput, match="has not been fitted"):
        SessionModel().predict_single({})
    with pytest.raises(BadInput, match="a model needs 20"):
        SessionModel(model="isolation_forest").fit(objects(train, 10))


def test_a_search_is_no_worse_than_the_defaults(train: LabelledSessions) -> None:
    """The best of the parameters that were tried by average precision on unseen rows, each reported."""
    told: list[int] = []
    plain = SessionModel(own_past=True, parameters={"max_iter": 20}).fit(train.with_label(), "label")
    found = SessionModel(own_past=True, parameters={"max_iter": 20}, search=2)
    found.fit(train.with_label(), "label", moved=lambda number, _: told.append(number))
    assert told == [1, 2]
    assert found.facts["unseen_pr_auc"] >= plain.facts["unseen_pr_auc"]
    assert json.dumps(found.get_model_info())


def test_features_can_be_left_out(train: LabelledSessions) -> None:
    """One by name or a group; the own past as a whole."""
    found = SessionModel(own_past=False, without=("risk", "hour"), parameters={"max_iter": 5}).fit(
        train.with_label(), "label"
    )
    names = found.get_model_info()["features"]
    assert not {"hour", "no_clicks", "own_change"} & {*names}
    assert "click_events" in names


def test_columns_that_nobody_knows_are_used(train: LabelledSessions) -> None:
    """Numbers as logarithms, text as a category unless there are too many values; a note says what is ignored."""
    raw = train.with_label()
    raw.columns["typing_speed"] = [str(number % 7) for number in range(600)]
    raw.columns["plan"] = ["free" if number % 3 else "paid" for number in range(600)]
    raw.columns["comment"] = [f"text {number}" for number in range(600)]
    found = SessionModel(own_past=False, parameters={"max_iter": 5}).fit(raw, "label")
    assert {"column typing_speed", "plan"} <= {*found.get_model_info()["features"]}
    assert found.get_model_info()["ignored_columns"] == ["comment"]


def test_what_is_no_mapping_is_told(model: SessionModel) -> None:
    """A row that is a number or text."""
    rows: list[Any] = [5]
    assert model.predict_batch(rows) == [
        {"session_id": "", "error": "a int; expected an object with the columns as keys"},
    ]
    assert from_objects([]).columns == {}
