"""What all learned detectors share: what they have learned is theirs alone."""

import sys
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from learned_tables import tables
from strategies import examples

from peerwatch.detectors.base import Detector, Floats
from peerwatch.detectors.features import FEATURES, features
from peerwatch.detectors.learned.half_space_trees import HalfSpaceTrees
from peerwatch.detectors.learned.isolation_forest import IsolationForest
from peerwatch.detectors.learned.local_outlier_factor import LocalOutlierFactor
from peerwatch.detectors.learned.one_class_svm import OneClassSvm
from peerwatch.detectors.registry import make
from peerwatch.errors import BadInput, TiedScores

SMALL: dict[str, dict[str, Any]] = {
    "isolation_forest": {"trees": 10},
    "one_class_svm": {},
    "lof": {},
    "half_space_trees": {"trees": 5, "height": 5},
    "autoencoder": {"hidden": [4], "epochs": 20},
    "knn": {},
    "mcd": {},
    "gmm": {"components": 2},
    "pca": {},
    "hbos": {},
    "ecod": {},
    "copod": {},
    "inne": {"samples": 20},
}
"""Every learned detector, quick to fit."""


@pytest.mark.parametrize(("name", "parameters"), SMALL.items())
def test_about_its_contamination_of_new_rows_is_flagged(name: str, parameters: dict[str, Any]) -> None:
    """When they come from where the training rows came from."""
    rng = np.random.default_rng(2)
    detector = make(name, parameters | {"contamination": 0.1}).fit(rng.normal(size=(1000, 3)))
    assert 0.05 < (detector.predict(rng.normal(size=(1000, 3))) == -1).mean() < 0.17


NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, 1.0, 1e300, -1e300, 5e-324])
)


@pytest.mark.parametrize(("name", "parameters"), SMALL.items())
@effort(max_examples=examples(25))
@given(train=arrays(np.float64, st.tuples(st.integers(2, 30), st.just(2)), elements=NUMBERS), data=st.data())
def test_any_finite_rows_can_be_learned_and_scored(
    name: str, parameters: dict[str, Any], train: Floats, data: st.DataObject
) -> None:
    """Also the largest and the smallest floats: the score is finite, and alone it is what it is among others."""
    detector = make(name, parameters).fit(train)
    rows = data.draw(arrays(np.float64, (5, 2), elements=NUMBERS))
    scores = detector.score_samples(rows)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal([detector.score_samples(row[None, :])[0] for row in rows], scores)


@pytest.mark.parametrize(("name", "parameters"), SMALL.items())
def test_the_order_of_an_array_in_memory_does_not_matter(name: str, parameters: dict[str, Any]) -> None:
    """By columns or by rows, every second row or all: the same bits."""
    train, test = tables()
    detector, other = make(name, parameters).fit(train), make(name, parameters).fit(np.asfortranarray(train))
    scores = detector.score_samples(test)
    np.testing.assert_array_equal(other.score_samples(np.asfortranarray(test)), scores)
    np.testing.assert_array_equal(detector.score_samples(test[::2, :]), scores[::2])


@pytest.mark.parametrize(("name", "parameters"), SMALL.items())
def test_what_is_restored_must_be_what_was_kept(name: str, parameters: dict[str, Any]) -> None:
    """Without a part, of another shape or type, of other parameters, with bytes changed: BadInput or a model."""
    train, test = tables()
    kept = make(name, parameters).fit(train).arrays()
    for place, array in kept.items():
        for wrong in (
            array.astype(np.float32),
            array[..., None],
            array[:0] if array.ndim else array * np.nan,
            array[None],
        ):
            refused(name, parameters, kept | {place: wrong})
        refused(name, parameters, {key: value for key, value in kept.items() if key != place})
    refused(name, parameters, kept | {"scale": kept["scale"] * 0})
    rng = np.random.default_rng(3)
    for place, array in kept.items():
        for _ in range(15):
            raw = np.frombuffer(array.tobytes(), np.uint8).copy()
            raw[rng.integers(0, len(raw), 3)] = rng.integers(0, 256, 3)
            changed = raw.view(array.dtype).reshape(array.shape)
            try:
                found = make(name, parameters).restore(kept | {place: changed})
            except BadInput:
                continue
            assert found.score_samples(test).shape == (len(test),)


def refused(name: str, parameters: dict[str, Any], wrong: dict[str, Any]) -> None:
    """Restoring is, and nothing has been learned by it."""
    detector = make(name, parameters)
    with pytest.raises(BadInput, match=f"not what a {name} has learned"):
        detector.restore(wrong)
    with pytest.raises(BadInput, match="has not been fitted"):
        detector.arrays()


def test_a_window_of_two_is_judged_by_its_features() -> None:
    """As a row of them is; a smaller window is not."""
    rng = np.random.default_rng(4)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 9, 400))])
    window, amount = rng.lognormal(3, 1, offsets[-1]), rng.lognormal(3, 1, 400)
    rows = features(offsets, window, amount, None)
    detector = LocalOutlierFactor().fit(rows)
    score, threshold, _ = detector.judge(offsets, window, amount)
    enough = np.diff(offsets) >= 2
    np.testing.assert_array_equal(score, np.where(enough, -detector.score_samples(rows), np.nan))
    assert (threshold == detector.threshold_).all()


def test_one_fitted_on_something_else_judges_no_purchases() -> None:
    """It says how many columns each has."""
    detector = OneClassSvm().fit(np.random.default_rng(5).normal(size=(50, 2)))
    with pytest.raises(BadInput, match=f"was fitted on 2 columns, purchases have {len(FEATURES)}"):
        detector.judge(np.array([0, 2]), np.array([1.0, 2]), np.array([3.0]))


def test_looking_back_forgets_nothing_and_learns_nothing() -> None:
    """What it was fitted on stays."""
    train, test = tables()
    detector = OneClassSvm().fit(train)
    before = detector.score_samples(test)
    flagged = detector.look_back(test).flagged
    np.testing.assert_array_equal(detector.score_samples(test), before)
    np.testing.assert_array_equal(flagged, OneClassSvm().fit_predict(test) == -1)


@pytest.mark.parametrize(
    ("detector", "module", "package"),
    [
        (OneClassSvm(), "sklearn.svm", "scikit-learn"),
        (HalfSpaceTrees(), "river.anomaly", "river"),
        (IsolationForest(), "skops.io", "skops"),
    ],
)
def test_a_missing_library_is_named(
    detector: Detector, module: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the extra that has it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BadInput, match=rf"needs {package}, which is not installed: pip install 'peerwatch\[learn\]'"):
        detector.check()


@pytest.mark.parametrize("name", ["isolation_forest", "one_class_svm", "half_space_trees"])
def test_ties_at_the_threshold_are_told(name: str) -> None:
    """Where a quarter of the rows share the highest score, a fifth of them cannot be flagged, and a warning says so."""
    rows = np.concatenate([np.ones(37), -np.ones(13)])[:, None]
    expected = r"\d+ of 50 rows share one score at the threshold, so 0 are flagged where a contamination of 0\.2 asks"
    for ask in ("fit", "fit_predict", "look_back"):
        with pytest.warns(TiedScores, match=f"{name}: {expected}"):
            getattr(make(name, SMALL[name] | {"contamination": 0.2}), ask)(rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TiedScores)
        make(name, SMALL[name] | {"contamination": 0.1}).fit(np.random.default_rng(1).normal(size=(200, 2)))
        if name != "one_class_svm":  # to which all fifty are on the boundary
            assert (make(name, SMALL[name] | {"contamination": 0.3}).fit_predict(rows) == -1).sum() == 13
