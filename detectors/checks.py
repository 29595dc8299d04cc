"""What every detector promises, as checks that take a detector: for those here, and for a user's own.

In the way of river's and scikit-learn's estimator checks: each check raises an AssertionError that says what is wrong.
"""

from collections.abc import Callable

import numpy as np
import pytest

from peerwatch.detectors.base import Detector, Floats, Rule
from peerwatch.network.errors import BadInput
from peerwatch.network.kernels import Int64s

SIZES = (0, 1, 2, 3, 14, 50, 50, 7, 120)


def windows(seed: int = 1) -> tuple[Int64s, Floats, Floats]:
    """Offsets, windows and amounts of purchases with windows of many sizes."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(SIZES)])
    return offsets, rng.lognormal(3, 0.5, offsets[-1]), rng.lognormal(3, 2.0, len(SIZES))


def check_verdicts_are_scores_above_thresholds(detector: Detector) -> None:
    """Arrays of shape [q]; flagged where the score is above the threshold, never where it is NaN."""
    offsets, window, amount = windows()
    score, threshold, flagged = detector.judge(offsets, window, amount)
    assert score.shape == threshold.shape == flagged.shape == (len(SIZES),)
    assert flagged.dtype == np.bool_
    np.testing.assert_array_equal(flagged, score > threshold)
    assert np.isnan(score[0]), "an empty window judges nothing"
    assert not np.isnan(score[-1])


def check_batches_do_not_matter(detector: Detector) -> None:
    """One by one, in any order, all at once: the same."""
    offsets, window, amount = windows(2)
    together = detector.judge(offsets, window, amount)
    for i in range(len(SIZES)):
        part = window[offsets[i] : offsets[i + 1]]
        alone = detector.judge(np.array([0, len(part)]), part, amount[i : i + 1])
        for one, all_ in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one[0], all_[i])


def check_nothing_given_is_changed(detector: Detector) -> None:
    """The arrays are as before, and the second answer is the first."""
    given = windows(3)
    copies = [array.copy() for array in given]
    first, second = detector.judge(*given), detector.judge(*given)
    for array, copy in zip(given, copies, strict=True):
        np.testing.assert_array_equal(array, copy)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def check_what_is_usual_is_normal_and_what_is_absurd_is_flagged(detector: Detector) -> None:
    """A value from the middle of a steady window, and a million times that."""
    rng = np.random.default_rng(4)
    window = 100 + rng.normal(0, 5, 140)
    offsets = np.array([0, 70, 140])
    _, _, flagged = detector.judge(offsets, window, np.array([float(np.median(window[:70])), 1e8]))
    assert flagged.tolist() == [False, True]


def check_constant_windows_have_an_answer(detector: Detector) -> None:
    """The same amount again is normal, any other is flagged; zeros are as good as anything."""
    for value in (0.0, 0.1, 12.34, 1e15):
        window = np.full(120, value)
        _, _, flagged = detector.judge(np.array([0, 60, 120]), window, np.array([value, 2 * value + 1]))
        assert flagged.tolist() == [False, True], value


def check_tiny_differences_do_not_overflow(detector: Detector) -> None:
    """Amounts near the smallest and the largest floats that money has."""
    for scale in (1e-6, 1e12):
        window = np.array([scale * (1 + 7 * i % 11) for i in range(60)])
        score, _, _ = detector.judge(np.array([0, 60]), window, np.array([3 * scale]))
        assert np.isfinite(score).all()


def check_only_finite_numbers_are_judged(detector: Detector) -> None:
    """NaN and infinities, in windows, amounts and tables: a clear error."""
    offsets, window, amount = windows(5)
    for bad in (np.nan, np.inf, -np.inf):
        for given in (window, amount):
            spoilt = given.copy()
            spoilt[3] = bad
            with pytest.raises(BadInput, match="only finite numbers"):
                detector.judge(offsets, *((spoilt, amount) if given is window else (window, spoilt)))
        with pytest.raises(BadInput, match="only finite numbers"):
            detector.fit(np.full((60, 1), bad))


def check_parameters_are_those_of_the_constructor(detector: Detector) -> None:
    """get_params and set_params agree, an unknown one is refused, a copy is made of them alone."""
    params = detector.get_params()
    assert type(detector)(**params).get_params() == params
    assert detector.set_params(**params) is detector
    with pytest.raises(BadInput, match="no parameter"):
        detector.set_params(nonsense=1)
    for name, value in params.items():
        if isinstance(value, float):
            with pytest.raises(BadInput, match=name):
                type(detector)(**params | {name: -1.0}).check()


def check_it_is_an_estimator(detector: Detector) -> None:
    """Fit returns itself; predict is -1 where decision_function is below 0; scores are of shape [n]."""
    rng = np.random.default_rng(6)
    train, test = rng.normal(50, 3, (80, 2)), np.array([[50.0, 50.0], [50.0, 1e6], [1e6, 50.0]])
    assert detector.fit(train) is detector
    decision = detector.decision_function(test)
    assert decision.shape == detector.score_samples(test).shape == (3,)
    np.testing.assert_array_equal(detector.predict(test), np.where(decision < 0, -1, 1))
    assert detector.predict(test).tolist() == [1, -1, -1]
    assert detector.fit_predict(np.vstack([train, test])).shape == (83,)
    for wrong in (train[:, 0], train[:, :0], train[:0]):
        with pytest.raises(BadInput):
            detector.fit(wrong)
    with pytest.raises(BadInput, match="columns"):
        detector.predict(test[:, :1])
    with pytest.raises(BadInput, match="fit"):
        type(detector)(**detector.get_params()).predict(test)


def check_scikit_learn_takes_it(detector: Detector) -> None:
    """Its clone, its pipeline and its search."""
    from sklearn.base import clone
    from sklearn.metrics import make_scorer, recall_score
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    copy = clone(detector)
    assert copy is not detector
    assert copy.get_params() == detector.get_params()
    rng = np.random.default_rng(7)
    X = rng.normal(50, 3, (120, 1))
    y = np.ones(120, np.int64)
    X[::20], y[::20] = 1e6, -1
    pipeline = make_pipeline(FunctionTransformer(np.log1p), clone(detector)).fit(X[y == 1])
    assert (pipeline.predict(X[y == -1]) == -1).all()
    numbers = {name: [value, 2 * value] for name, value in detector.get_params().items() if name == "k"}
    if numbers:
        search = GridSearchCV(clone(detector), numbers, scoring=make_scorer(recall_score, pos_label=-1), cv=2)
        assert search.fit(X, y).best_params_.keys() == numbers.keys()


def check_a_rule_looks_along_a_series(detector: Detector) -> None:
    """Along the series: one score for each value, and the one that jumps is among those flagged."""
    if isinstance(detector, Rule):
        rng = np.random.default_rng(8)
        series = rng.normal(50, 3, 90)
        series[60] = 1e4
        scores = detector.along(series)
        assert scores.shape == (90,)
        assert scores[60] > detector.threshold


def checks() -> list[Callable[[Detector], None]]:
    """All of them."""
    return [check for name, check in globals().items() if name.startswith("check_")]
