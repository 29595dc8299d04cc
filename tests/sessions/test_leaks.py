"""Data whose figures would say nothing is refused or warned of, before any figure."""

import numpy as np
import pytest

from peerwatch.errors import LeakError
from peerwatch.sessions import leaks
from peerwatch.sessions.benchmark import LabelledSessions
from peerwatch.sessions.columns import RawSessions, schema_of, sessions_of
from peerwatch.sessions.predictor import SessionModel

SMALL = {"max_iter": 8}


def with_column(sessions: LabelledSessions, name: str, values: list[object]) -> RawSessions:
    """Labelled sessions with one more column."""
    raw = sessions.with_label()
    raw.columns[name] = values
    return raw


def test_shared_rows_are_a_leak(model: SessionModel, train: LabelledSessions) -> None:
    """Whatever the sessions are called, and whatever their labels say."""
    raw = train.taken(np.arange(600) < 100).raw
    raw.columns["session_id"] = [f"other {number}" for number in range(100)]
    report = model.compared_with_training(sessions_of(raw, model.schema), "new")
    assert report.leaks == ["100 of the 100 rows of new are rows that the model was trained on"]
    with pytest.raises(LeakError, match="--allow-leak"):
        report.refuse()


def test_shared_users_are_told(model: SessionModel, train: LabelledSessions) -> None:
    """Other sessions of known users are no leak, but the figures are for known users."""
    raw = train.taken(np.arange(600) < 100).raw
    raw.columns["click_events"] = [str(int(each) + 1) for each in raw.columns["click_events"]]
    table = sessions_of(raw, model.schema)
    report = model.compared_with_training(table, "new")
    assert report.leaks == []
    assert "users of new were in the training data" in report.warnings[0]
    assert model.is_seen(table).all()


def test_other_users_are_neither(model: SessionModel, test: LabelledSessions) -> None:
    """Nothing is shared, so nothing is said."""
    table = sessions_of(test.raw, model.schema)
    assert model.compared_with_training(table, "new") == ([], [])
    assert not model.is_seen(table).any()


def test_equal_rows_may_be_a_coincidence() -> None:
    """Where many rows are the same anyway, the same rows elsewhere are warned of and not refused."""
    raw = RawSessions("x", {"click_events": [*map(str, [1, 2] * 50)]}, list(range(100)))
    table = sessions_of(raw, schema_of(raw))
    report = leaks.shared(table, leaks.row_digests(table), np.empty(0, np.uint64), "x")
    assert report.leaks == []
    assert "coincidence" in report.warnings[0]


@pytest.mark.parametrize("kind", ["number", "category", "band", "missing"])
def test_a_column_that_gives_the_label_away_is_a_leak(train: LabelledSessions, kind: str) -> None:
    """Higher, in a band, by its text, or by being missing."""
    rng = np.random.default_rng(1)
    values: list[object] = {
        "number": (train.labels + rng.random(600) * 0.9).tolist(),
        "category": [f"{'bad' if label else 'good'} {rng.integers(2)}" for label in train.labels],
        "band": np.where(train.labels, 5.0, rng.choice([1.0, 9.0], 600)).tolist(),
        "missing": [None if label else 1.0 for label in train.labels],
    }[kind]
    with pytest.raises(LeakError, match=r'the column "hint" of .* gives the label away'):
        SessionModel(parameters=SMALL, own_past=False).fit(with_column(train, "hint", values), "label")
    allowed = SessionModel(parameters=SMALL, own_past=False)
    allowed.fit(with_column(train, "hint", values), "label", allow_leak=True)
    assert any('"hint"' in sentence for sentence in allowed.warnings)


def test_labels_that_nothing_explains_are_told(train: LabelledSessions) -> None:
    """Shuffled labels are learned by heart by every model; true ones are not warned of."""
    shuffled = LabelledSessions(train.raw, np.random.default_rng(1).permutation(train.labels))
    for name, parameters in (("hist_gradient_boosting", {"max_iter": 10}), ("one_class_svm", {})):
        found = SessionModel(model=name, parameters=parameters, own_past=False).fit(shuffled.with_label(), "label")
        assert any("no feature explains the labels" in sentence for sentence in found.warnings)
        right = SessionModel(model=name, parameters=parameters, own_past=False).fit(train.with_label(), "label")
        assert right.warnings == []
