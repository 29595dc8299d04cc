"""One row at a time."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from peerwatch.detectors.base import Detector, Floats
from peerwatch.detectors.ensemble import Ensemble
from peerwatch.detectors.registry import make
from peerwatch.detectors.rules import Mad, ZScore
from peerwatch.errors import BadInput
from peerwatch.judging.online import FIRST, Online

CASES: list[Any] = [
    ("zscore", {}),
    ("mad", {}),
    ("spc", {"chart": "cusum"}),
    ("one_class_svm", {}),
    pytest.param("ensemble", {}, marks=pytest.mark.slow),
    ("ensemble", {"members": [{"name": "mad"}, {"name": "spc", "parameters": {"chart": "ewma"}}]}),
]


def series(rows: int = 300) -> Floats:
    """Two columns, with a jump of the first at row 200."""
    values = np.random.default_rng(5).normal([50, 10], [3, 1], (rows, 2))
    values[200, 0] = 90
    return values


def by_hand(detector: Detector, X: Floats, window: int, every: int) -> list[float]:
    """The score of each row by a detector fitted on the rows before, as the schedule says; rules on each window."""
    scores, model, due, since = [], None, min(FIRST, window), 0
    for place in range(len(X)):
        if not detector.trains and not isinstance(detector, Ensemble):
            before = X[max(0, place - window) : place]
            fresh = type(detector)(**detector.get_params())
            try:
                scores.append(-fresh.fit(before).score_samples(X[place : place + 1])[0])
            except BadInput:
                scores.append(np.nan)
            continue
        if place == due:
            model = type(detector)(**detector.get_params()).fit(X[max(0, place - window) : place])
            due, since = min(2 * place, place + every), place
        scores.append(np.nan if model is None else -model.score_samples(X[since : place + 1])[-1])
    return scores


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=str)
@pytest.mark.parametrize(
    ("window", "every"), [(50, 40), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((50, 200), (1000, 40)))]
)
def test_each_row_is_judged_by_the_window_before_it(
    name: str, parameters: dict[str, Any], window: int, every: int
) -> None:
    """One by one, many at once or in pieces: the same scores, those of a detector fitted on the rows before."""
    detector, X = make(name, parameters), series()
    expected = by_hand(detector, X, window, every)
    one, many, pieces = (Online(detector, window=window, every=every) for _ in range(3))
    verdicts = [one.update(row) for row in X]
    np.testing.assert_array_equal([verdict.score for verdict in verdicts], expected)
    found = many.update_many(X)
    np.testing.assert_array_equal(found.score, expected)
    np.testing.assert_array_equal(found.flagged, [verdict.flagged for verdict in verdicts])
    np.testing.assert_array_equal(
        np.concatenate([pieces.update_many(X[a : a + 7]).score for a in range(0, 300, 7)]), expected
    )
    assert verdicts[200].flagged
    assert [verdict.number for verdict in verdicts] == [*range(1, 301)]


def test_river_can_ask_it() -> None:
    """A row is a mapping; to score one learns nothing, and before there is a score it is 0."""
    online, X = Online(Mad(), window=100), series()
    for place, (amount, size) in enumerate(X.tolist()):
        row = {"amount": amount, "size": size}
        score = online.score_one(row)
        assert score == online.score_one({"size": size, "amount": amount})
        assert score == 0.0 if place < 2 else score >= 0
        online.learn_one(row)
    assert online.count == 300
    with pytest.raises(BadInput, match="a row has the columns amount; expected amount, size"):
        online.update({"amount": 1.0})
    with pytest.raises(BadInput, match="only finite numbers"):
        online.update([np.nan, 1.0])


def test_a_number_is_a_row_and_a_table_has_names() -> None:
    """Columns in another order, or more of them, are refused."""
    online = Online(ZScore())
    assert np.isnan(online.update(3).score)
    with pytest.raises(BadInput, match="the rows before had 1 columns, this one has 2"):
        online.update([1, 2])
    named = Online(ZScore())
    table = pd.DataFrame(series(), columns=["amount", "size"])
    verdicts, alarms, reasons = named.explained(table)
    assert [reason.name for reason in reasons[200]] == ["amount"]
    assert not any(reasons[place] for place in np.flatnonzero(~verdicts.flagged))
    np.testing.assert_array_equal(alarms, verdicts.flagged)
    with pytest.raises(BadInput, match="same order"):
        named.update_many(table[["size", "amount"]])


def test_what_is_alarmed_about_is_told_once() -> None:
    """Within the quiet time after an alarm there is none; what is flagged stays flagged."""
    X = np.random.default_rng(6).normal(50, 3, 400)
    X[[200, 201, 205, 214, 300]] = 150
    online = Online(Mad(), quiet=10)
    verdicts = [online.update(x) for x in X.tolist()]
    assert [place for place, verdict in enumerate(verdicts) if verdict.alarm and place >= 200] == [200, 214, 300]
    assert all(verdicts[place].flagged for place in (200, 201, 205, 214, 300))
    together = Online(Mad(), quiet=10).explained(X[:, None])[1]
    np.testing.assert_array_equal(together, [verdict.alarm for verdict in verdicts])


def test_a_threshold_follows_a_flag_rate_or_labels() -> None:
    """With a rate about that share is flagged, whatever the detector's own threshold; labels raise it."""
    X = np.random.default_rng(7).standard_cauchy(6000)
    rate = Online(Mad(), window=200, flag_rate=0.02)
    flagged = rate.update_many(X[:, None]).flagged
    assert 0.01 < flagged[2048:].mean() < 0.03
    assert Online(Mad(), window=200).update_many(X[:, None]).flagged.mean() > 0.1
    labelled = Online(Mad(), window=200, precision=0.9)
    for number in np.flatnonzero(labelled.update_many(X[:2000, None]).flagged)[:200].tolist():
        labelled.label(number + 1, anomaly=abs(X[number]) > 50)
    assert labelled.update(30.0).threshold > 3.5
    with pytest.raises(BadInput, match="labels are for a threshold that follows a precision"):
        rate.label(3, anomaly=True)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"window": 1}, '"window" is 1; expected a whole number of at least 2'),
        ({"every": 0}, '"every" is 0'),
        ({"quiet": -1}, '"quiet" is -1'),
        ({"flag_rate": 0.1, "precision": 0.9}, "not both"),
        ({"flag_rate": 2}, '"flag_rate" is 2'),
    ],
)
def test_a_wrong_parameter_is_named(parameters: dict[str, Any], sentence: str) -> None:
    """With what is expected."""
    with pytest.raises(BadInput, match=sentence):
        Online(Mad(), **parameters)
    with pytest.raises(BadInput, match="has no threshold of its own"):
        Online(make("one_class_svm", {}), precision=0.9)
