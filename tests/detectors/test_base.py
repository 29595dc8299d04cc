"""What all detectors share as estimators: scikit-learn's and PyOD's names, tables with names, and reasons."""

import math
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from learned_tables import DEEP, QUICK
from scipy import sparse, special
from sklearn.exceptions import NotFittedError

from peerwatch.detectors.base import Detector, Floats, ratio
from peerwatch.detectors.checks import ready
from peerwatch.detectors.control_charts import Spc
from peerwatch.detectors.registry import DETECTORS, make
from peerwatch.detectors.rules import Iqr, Mad, ZScore
from peerwatch.errors import BadInput, NotFitted
from peerwatch.kernels import Int64s
from peerwatch.storage.models import facts, load, save

ALL = [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in DETECTORS]
SMALLER = {"isolation_forest": {"trees": 20}, "autoencoder": {"epochs": 20}, "half_space_trees": {"trees": 10}}
NAMES = ["amount", "hour", "items"]


def made(name: str) -> Detector:
    """A detector of the registry, quick to fit."""
    return make(name, SMALLER.get(name, {}))


def table(rows: int = 120) -> pd.DataFrame:
    """Rows without a season; the last one is odd in its second column."""
    values = np.random.default_rng(3).normal(50, 3, (rows, 3))
    values[-1, 1] = 400
    return pd.DataFrame(values, columns=NAMES)


@pytest.mark.parametrize("name", DETECTORS)
def test_what_has_not_been_fitted_says_so_in_everybodys_words(name: str) -> None:
    """As our own error, as scikit-learn's, and as the AttributeError that makes hasattr False."""
    detector = made(name)
    for ask in (detector.predict, detector.decision_function, detector.score_samples, detector.predict_proba):
        for expected in (NotFitted, NotFittedError, ValueError, AttributeError):
            with pytest.raises(expected, match="has not been fitted; call fit first"):
                ask(table())
    for attribute in ("decision_scores_", "labels_", "threshold_", "offset_", "feature_names_in_", "n_features_in_"):
        assert not hasattr(detector, attribute)


@pytest.mark.parametrize("name", ALL)
def test_it_has_the_attributes_that_users_of_pyod_and_scikit_learn_expect(name: str) -> None:
    """The scores and labels of the rows it was fitted on are those of looking back; the offset is the threshold."""
    X = table()
    detector = made(name).fit(X)
    back = detector.look_back(X)
    np.testing.assert_array_equal(detector.decision_scores_, back.score)
    np.testing.assert_array_equal(detector.labels_, back.flagged.astype(int))
    np.testing.assert_array_equal(detector.fit_predict(X), 1 - 2 * detector.labels_)
    assert detector.labels_[-1] == 1 or name in {
        "one_class_svm",
        "autoencoder",
        "ecod",
    }  # they have learned the odd row, too
    assert (back.threshold == detector.threshold_).all()
    np.testing.assert_allclose(detector.score_samples(X) - detector.offset_, detector.decision_function(X), atol=1e-12)
    assert detector.n_features_in_ == 3
    assert detector.feature_names_in_.tolist() == NAMES
    assert not hasattr(made(name).fit(X.to_numpy()), "feature_names_in_")


@pytest.mark.parametrize("name", ["mad", "isolation_forest", "ensemble"])
def test_probabilities_are_those_of_pyod(name: str) -> None:
    """`linear` is the place between lowest and highest score fitted on, `unify` that in a normal distribution."""
    X, new = table(), table(60)
    detector = made(name).fit(X)
    known, score = detector.decision_scores_, -detector.score_samples(new)
    linear = np.clip((score - known.min()) / (known.max() - known.min()), 0, 1)
    unify = np.clip(special.erf((score - known.mean()) / (known.std() * math.sqrt(2))), 0, 1)
    for method, expected in (("linear", linear), ("unify", unify)):
        found = detector.predict_proba(new, method)
        np.testing.assert_allclose(found, np.column_stack([1 - expected, expected]), atol=1e-12)
    with pytest.raises(BadInput, match="expected linear or unify"):
        detector.predict_proba(new, "softmax")


@pytest.mark.parametrize("name", ALL)
def test_columns_in_another_order_are_refused(name: str) -> None:
    """Whatever is asked; the same names in the same order are well, and so are rows without names."""
    X = table()
    detector = made(name).fit(X)
    for ask in (detector.predict, detector.decision_function, detector.score_samples, detector.predict_proba):
        with pytest.raises(BadInput, match="Feature names must be in the same order as they were in fit"):
            ask(X[NAMES[::-1]])
        with pytest.raises(BadInput, match="Feature names unseen at fit time:\n- price\n"):
            ask(X.rename(columns={"amount": "price"}))
        ask(X)
        ask(X.to_numpy())


@pytest.mark.parametrize("name", ALL)
def test_what_is_no_table_of_numbers_is_refused(name: str) -> None:
    """Nothing is lost on the way: no imaginary part, no mask, no zone of time."""
    X = table().to_numpy()
    times = np.full((60, 1), np.datetime64("2026-01-01"))
    masked = np.ma.masked_array(X, mask=X > 100)
    for wrong, sentence in (
        (X + 1j, "Complex data not supported"),
        (sparse.csr_array(X), "Sparse data is not supported"),
        (masked, "masked values are not judged"),
        (times, "expected numbers, got times"),
        ([[{"amount": 1}], [2]], "expected numbers"),
        ([["a"], ["b"]], "expected numbers"),
    ):
        with pytest.raises(BadInput, match=sentence):
            made(name).fit(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in ALL if name != "change_points"])  # one value is no change yet
def test_a_reason_names_the_column_that_is_unusual(name: str) -> None:
    """With how far it lies from what is usual; of the rows fitted on, and of new ones."""
    X = table()
    detector = made(name).fit(X)
    odd = X.iloc[-1:] if not detector.in_order else pd.concat([X.iloc[:1], X.iloc[-1:]])
    for reasons in (detector.reasons(X, np.array([119]), back=True)[0], detector.reasons(odd)[-1]):
        assert (reasons[0].column, reasons[0].name, reasons[0].value) == (1, "hour", 400.0)
        assert 60 < reasons[0].distance < 200
    assert detector.reasons(X.to_numpy()[-1:])[0][0].name in {"hour", "x1"}


@pytest.mark.parametrize("name", ALL)
def test_what_was_kept_of_the_rows_is_saved_as_well(name: str, tmp_path: Path) -> None:
    """Probabilities, reasons and names are the same after loading; the path may be a string."""
    X = table()
    detector, path = made(name).fit(X), str(tmp_path / "m.npz")
    save(detector, path, rows=len(X))
    found = load(path)
    assert facts(path) == {"rows": 120}
    np.testing.assert_array_equal(found.predict_proba(X), detector.predict_proba(X))
    np.testing.assert_array_equal(found.labels_, detector.labels_)
    assert found.reasons(X)[-1] == detector.reasons(X)[-1]
    with pytest.raises(BadInput, match="same order"):
        found.predict(X[NAMES[::-1]])


def test_without_the_usual_spread_the_mean_deviation_takes_its_place() -> None:
    """More than half of the rows are 0, so MAD and interquartile range are: scores are finite, and keep the order."""
    rng = np.random.default_rng(1)
    series = np.concatenate([np.zeros(940), rng.uniform(1, 3, 60), [500.0]])[:, None]
    for rule in (Mad(), Iqr()):
        scores = rule.fit(series).decision_scores_
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(np.argsort(scores[940:]), np.argsort(series[940:, 0]))
        assert (scores[:940] == 0).all()
    by_mean = np.abs(series[:, 0]).mean() * 1.253314
    np.testing.assert_allclose(Mad().fit(series).decision_scores_, series[:, 0] / by_mean)
    np.testing.assert_allclose(Iqr().fit(series).decision_scores_, series[:, 0] / (2 * 0.6745 * by_mean))


@pytest.mark.parametrize("rule", [ZScore(), Mad(), Iqr(), Spc(), Spc(chart="ewma"), Spc(chart="cusum")])
def test_without_any_spread_what_is_further_away_scores_higher(rule: Any) -> None:
    """Beside a constant window, all other amounts are flagged, with finite scores in the order of their distances."""
    amounts = np.array([12.34, 12.35, 13.0, 1e6, 1e100])
    score, _, flagged = rule.judge(np.arange(6) * 60, np.full(300, 12.34), amounts)
    assert np.isfinite(score).all()
    assert (np.diff(score) > 0).all()
    assert flagged.tolist() == [False, True, True, True, True]
    assert ratio(np.array([0.0, 2.0]), np.array([0.0, 4.0])).tolist() == [0.0, 0.5]


def test_a_control_chart_goes_on_where_it_stopped() -> None:
    """What a chart adds up goes on over the rows that are predicted, as it would over one series."""
    rng = np.random.default_rng(2)
    series = np.concatenate([rng.normal(50, 2, 100), rng.normal(53, 2, 40)])
    for chart in ("individuals", "ewma", "cusum", "western electric"):
        rule = Spc(chart=chart).fit(series[:100, None])
        one_by_one = [
            float(rule.score_amounts(rule.summary_, series[100:101])[0]),
            *(-rule.score_samples(series[100 : 101 + i, None])[-1] for i in range(1, 40)),
        ]
        np.testing.assert_array_equal(-rule.score_samples(series[100:, None]), one_by_one)
    assert (Spc(chart="cusum").fit(series[:100, None]).predict(series[100:, None])[-20:] == -1).all()


@pytest.mark.parametrize("name", [name for name in ALL if name != "seasonal"])  # it decomposes each window
def test_more_purchases_take_no_more_steps_of_python(name: str) -> None:
    """What a batch costs is spread over its purchases: each adds arithmetic in arrays alone."""
    detector = ready(make(name, QUICK.get(name, {})))
    detector.judge(*equal_windows(200))  # what is imported or compiled is, now

    def steps(purchases: int) -> int:
        taken, batch = 0, equal_windows(purchases)

        def count(_frame: FrameType, event: str, _value: object) -> None:
            nonlocal taken
            taken += event in {"call", "c_call"}

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            detector.judge(*batch)
        finally:
            sys.setprofile(before)
        return taken

    assert steps(400) - steps(200) < 200 / 2


def equal_windows(purchases: int) -> tuple[Int64s, Floats, Floats]:
    """Purchases with windows of 50."""
    rng = np.random.default_rng(5)
    return np.arange(purchases + 1) * 50, rng.lognormal(3, 0.5, 50 * purchases), rng.lognormal(3, 1, purchases)
