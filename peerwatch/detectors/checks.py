"""What every detector promises, as checks that take one: for those here, and for a user's own.

In the way of river's and scikit-learn's estimator checks: each raises an AssertionError that says what is wrong.
"""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import numpy as np

from peerwatch.detectors.base import Context, Detector, Floats, Rule, Verdicts
from peerwatch.detectors.ensemble import Ensemble
from peerwatch.detectors.features import features
from peerwatch.errors import BadInput
from peerwatch.kernels import Int64s

UNFLAGGED: Final = "three blobs hold nothing beyond the limit, and a rule flags no share of the rows"
FOLLOWING: Final = "rows follow on those fitted on, so the same row has another score in another place"
TWO_PERIODS: Final = "its ten or twelve rows are not two periods"
TOO_FEW: Final = "its ten to fifteen rows are fewer than it needs"
ALONE: Final = "the rows fitted on are scored without themselves, new ones that equal them are not"
SCIKIT_LEARN_EXCEPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    **{
        name: {"check_outliers_fit_predict": UNFLAGGED, "check_outliers_train": UNFLAGGED}
        for name in ("zscore", "iqr", "mad", "spc", "change_points")
    },
    "seasonal": {
        "check_outliers_train": UNFLAGGED,
        "check_outliers_fit_predict": FOLLOWING,
        "check_methods_sample_order_invariance": FOLLOWING,
        "check_methods_subset_invariance": FOLLOWING,
        "check_estimators_nan_inf": TWO_PERIODS,
        "check_classifier_data_not_an_array": TWO_PERIODS,
        "check_fit2d_1feature": TWO_PERIODS,
    },
    **{name: {"check_outliers_train": ALONE} for name in ("lof", "knn", "ensemble")},
    **{
        name: {
            "check_n_features_in_after_fitting": TOO_FEW,
            "check_estimators_nan_inf": TOO_FEW,
            "check_classifier_data_not_an_array": TOO_FEW,
            "check_fit2d_1feature": TOO_FEW,
        }
        | more
        for name, more in (
            ("spot", {}),
            ("matrix_profile", {"check_outliers_fit_predict": UNFLAGGED, "check_outliers_train": UNFLAGGED}),
        )
    },
    "random_cut_forest": {"check_outliers_fit_predict": ALONE, "check_outliers_train": ALONE},
}
"""The checks of scikit-learn's `check_estimator` that a detector does not pass, by its name, each with the reason."""
SIZES = (0, 1, 2, 3, 14, 50, 50, 7, 120)
ORDINARY = 400
"""Purchases that a detector learns from here."""


def keeps_the_contract(detector: Detector) -> None:
    """Run every check, each on an unfitted detector with the same parameters.

    Raises:
        AssertionError: a promise is not kept.
    """
    for check in checks():
        check(fresh(detector))


def passes_scikit_learns_checks(detector: Detector, exceptions: Mapping[str, str] | None = None) -> None:
    """Run scikit-learn's `check_estimator`. `exceptions` are checks that must fail, each with the reason.

    Those of the detectors here are SCIKIT_LEARN_EXCEPTIONS.

    Raises:
        AssertionError: another check fails, or one of these does not.
    """
    from sklearn.utils.estimator_checks import check_estimator  # noqa: PLC0415 (an extra)

    expected = SCIKIT_LEARN_EXCEPTIONS.get(detector.name, {}) if exceptions is None else exceptions
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it derives from no class of scikit-learn's, which says so at each check
        results = check_estimator(fresh(detector), on_fail=None, on_skip=None)
    failed = {each["check_name"]: each["exception"] for each in results if each["status"] == "failed"}
    for name, error in failed.items():
        _expect(name in expected, f"{detector.name} does not pass scikit-learn's {name}: {error}")
    for name in expected:
        _expect(name in failed, f"{detector.name} passes scikit-learn's {name}, which is listed as an exception")


def checks() -> list[Callable[[Detector], None]]:
    """All checks."""
    return [check for name, check in globals().items() if name.startswith("check_")]


def fresh(detector: Detector) -> Detector:
    """An unfitted detector with the same parameters."""
    return type(detector)(**detector.get_params())


def ready(detector: Detector) -> Detector:
    """A detector that can judge: if it trains, fitted on ordinary purchases with steady and other windows."""
    if not detector.trains:
        return detector
    rng = np.random.default_rng(9)
    sizes = rng.integers(2, 120, ORDINARY)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    middle, spread = rng.lognormal(3, 1, ORDINARY), rng.uniform(0.02, 0.6, ORDINARY)
    window = np.repeat(middle, sizes) * rng.lognormal(0, np.repeat(spread, sizes))
    return fresh(detector).fit(features(offsets, window, middle * rng.lognormal(0, spread), None))


def windows(seed: int = 1) -> tuple[Int64s, Floats, Floats]:
    """Offsets, windows and amounts of purchases with windows of many sizes."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(SIZES)])
    return offsets, rng.lognormal(3, 0.5, offsets[-1]), rng.lognormal(3, 2.0, len(SIZES))


def context(seed: int = 1) -> Context:
    """The context of those purchases, for buyers who have bought nothing before."""
    rng = np.random.default_rng(seed)
    count = np.arange(len(SIZES))
    offsets = np.concatenate([[0], np.cumsum(count)])
    since = np.where(count > 0, rng.exponential(1e5, len(SIZES)), np.nan)
    hour, members = rng.uniform(0, 24, len(SIZES)), rng.integers(1, 99, len(SIZES))
    return Context(offsets, rng.lognormal(3, 0.5, offsets[-1]), since, hour, members)


def check_verdicts_are_scores_above_thresholds(detector: Detector) -> None:
    """Arrays of shape [q]; flagged where the score is above the threshold, never where it is NaN."""
    score, threshold, flagged = ready(detector).judge(*windows())
    shape = (len(SIZES),)
    _expect(
        score.shape == threshold.shape == flagged.shape == shape, "scores, thresholds or flags are not of shape [q]"
    )
    _expect(flagged.dtype == np.bool_, "flags are not booleans")
    _same(flagged, score > threshold, "flagged is not what scores above its threshold")
    _expect(bool(np.isnan(score[0])), "an empty window has a score")
    _expect(not np.isnan(score[-1]), f"a window of {SIZES[-1]} has no score")
    nothing = ready(detector).judge(np.zeros(1, np.int64), np.empty(0), np.empty(0))
    _expect([len(part) for part in nothing] == [0, 0, 0], "no purchases have verdicts")


def check_what_has_learned_nothing_judges_nothing(detector: Detector) -> None:
    """Before it has been fitted, one that trains has no score and flags nothing."""
    if detector.trains and not isinstance(detector, Ensemble):  # a member that learns nothing has an answer
        score, _, flagged = detector.judge(*windows())
        _expect(bool(np.isnan(score).all()) and not flagged.any(), "it judges before it has learned anything")


def check_batches_do_not_matter(detector: Detector) -> None:
    """One by one or all at once, with a context and without: the same bits."""
    detector = ready(detector)
    offsets, window, amount = windows(2)
    known = context(2)
    for given in (None, known):
        together = detector.judge(offsets, window, amount, given)
        for i in range(len(SIZES)):
            part, own = window[offsets[i] : offsets[i + 1]], known.own[known.own_offsets[i] : known.own_offsets[i + 1]]
            last = known.since[i : i + 1], known.hour[i : i + 1], known.members[i : i + 1]
            one = given and Context(np.array([0, len(own)]), own, *last)
            alone = detector.judge(np.array([0, len(part)]), part, amount[i : i + 1], one)
            for single, all_ in zip(alone, together, strict=True):
                _same(single[0], all_[i], "a purchase judged alone comes out differently from one among others")


def check_nothing_given_is_changed(detector: Detector) -> None:
    """The arrays are as before, and the second answer is the first."""
    detector = ready(detector)
    given = windows(3)
    copies = [array.copy() for array in given]
    first, second = detector.judge(*given), detector.judge(*given)
    for array, copy in zip(given, copies, strict=True):
        _same(array, copy, "judge changes what it is given")
    _same_verdicts(first, second, "judged twice, a purchase comes out differently")


def check_what_is_usual_is_normal_and_what_is_absurd_is_flagged(detector: Detector) -> None:
    """A value from the middle of a steady window, and a million times that."""
    rng = np.random.default_rng(4)
    window = 100 + rng.normal(0, 5, 140)
    amount = np.array([float(np.median(window[:70])), 1e8])
    _, _, flagged = ready(detector).judge(np.array([0, 70, 140]), window, amount)
    _expect(not flagged[0], "the median of a steady window is flagged")
    _expect(bool(flagged[1]), "a million times the median of a steady window is not flagged")


def check_constant_windows_have_an_answer(detector: Detector) -> None:
    """To a rule the same amount again is normal, any other is flagged; what has learned answers as it has learned."""
    detector = ready(detector)
    for value in (0.0, 0.1, 12.34, 1e15):
        offsets, window = np.array([0, 60, 120]), np.full(120, value)
        score, _, flagged = detector.judge(offsets, window, np.array([value, 2 * value + 1]))
        if isinstance(detector, Rule):
            _expect(not flagged[0], f"{value} is flagged in a window of nothing else")
            _expect(bool(flagged[1]), f"{2 * value + 1} is not flagged in a window of {value} alone")
        _expect(not detector.trains or not np.isinf(score).any(), f"a score is infinite in a window of {value} alone")


def check_tiny_differences_do_not_overflow(detector: Detector) -> None:
    """Amounts near the smallest and the largest floats that money has."""
    detector = ready(detector)
    for scale in (1e-6, 1e12):
        window = np.array([scale * (1 + 7 * i % 11) for i in range(60)])
        score, _, _ = detector.judge(np.array([0, 60]), window, np.array([3 * scale]))
        _expect(bool(np.isfinite(score).all()), f"amounts of about {scale} have no score, or an infinite one")


def check_only_finite_numbers_are_judged(detector: Detector) -> None:
    """NaN and infinities, in windows, amounts and tables: a clear error, fitted or not."""
    offsets, window, amount = windows(5)
    for judge in (detector.judge, ready(detector).judge):
        for bad in (np.nan, np.inf, -np.inf):
            spoilt_window, spoilt_amount = window.copy(), amount.copy()
            spoilt_window[3] = spoilt_amount[3] = bad
            with _refused("only finite numbers"):
                judge(offsets, spoilt_window, amount)
            with _refused("only finite numbers"):
                judge(offsets, window, spoilt_amount)
            with _refused("only finite numbers"):
                detector.fit(np.full((60, 1), bad))


def check_parameters_are_those_of_the_constructor(detector: Detector) -> None:
    """get_params and set_params agree, an unknown one is refused, a copy is made of them alone."""
    params = detector.get_params()
    _expect(fresh(detector).get_params() == params, "a detector made of get_params() has others")
    _expect(detector.set_params(**params) is detector, "set_params does not return the detector")
    with _refused("no parameter"):
        detector.set_params(nonsense=1)
    for name, value in params.items():
        if isinstance(value, float):
            with _refused(name):
                type(detector)(**params | {name: -1.0}).check()


def check_it_is_an_estimator(detector: Detector) -> None:
    """Fit returns itself; predict is -1 where decision_function is below 0; scores are of shape [n]."""
    rng = np.random.default_rng(6)
    other = 1e6 if detector.trains else 50.0  # an isolation forest needs to see it in both columns
    train, test = rng.normal(50, 3, (80, 2)), np.array([[50.0, 50.0], [other, 1e6], [1e6, other]])
    _expect(detector.fit(train) is detector, "fit does not return the detector")
    decision = detector.decision_function(test)
    _expect(decision.shape == detector.score_samples(test).shape == (3,), "scores are not of shape [n]")
    _same(detector.predict(test), np.where(decision < 0, -1, 1), "predict is not decision_function below 0")
    _expect(detector.predict(test).tolist() == [1, -1, -1], "the middle is flagged, or what is far from it is not")
    _expect(detector.fit_predict(np.vstack([train, test])).shape == (83,), "fit_predict is not of shape [n]")
    _expect(detector.look_back(train).score.shape == (80,), "look_back is not of shape [n]")
    for wrong in (train[:, 0], train[:, :0], train[:0]):
        with _refused(""):
            detector.fit(wrong)
    with _refused("columns"):
        detector.predict(test[:, :1])
    with _refused("fit"):
        fresh(detector).predict(test)


def check_what_was_learned_can_be_kept(detector: Detector) -> None:
    """Fitted twice, it says the same; so does what is restored from its arrays, which hold no objects."""
    rng = np.random.default_rng(10)
    train, test = rng.normal(50, 3, (90, 3)), rng.normal(50, 9, (20, 3))
    fitted, again = fresh(detector).fit(train), fresh(detector).fit(train)
    scores = fitted.score_samples(test)
    _same(again.score_samples(test), scores, "fitted twice on the same rows, it scores differently")
    kept = fitted.arrays()
    _expect(not any(array.dtype.hasobject for array in kept.values()), "its arrays hold objects")
    restored = fresh(detector).restore(kept)
    _same(restored.score_samples(test), scores, "restored, it scores differently")
    _same(restored.decision_function(test), fitted.decision_function(test), "restored, it has another threshold")
    ready_, judged = ready(detector), windows(11)
    if detector.trains:
        copy = fresh(detector).restore(ready_.arrays())
        _same_verdicts(copy.judge(*judged), ready_.judge(*judged), "restored, it judges differently")
    with _refused("fit"):
        fresh(detector).arrays()
    for wrong in ({}, {"nonsense": np.zeros(3)}, kept | {"nonsense": np.zeros(3)}):
        with _refused(""):
            fresh(detector).restore(wrong)


def check_what_is_all_the_same_can_be_learned(detector: Detector) -> None:
    """Constant columns, and rows that are there many times: scores are numbers or infinite."""
    rng = np.random.default_rng(12)
    constant, repeated = np.full((60, 2), 7.5), np.repeat(rng.normal(50, 3, (4, 2)), 15, axis=0)
    for rows in (constant, repeated):
        score = detector.fit(rows).score_samples(np.vstack([rows[:1], rows[:1] + 1]))
        _expect(not np.isnan(score).any(), "fitted on rows that are all the same, it has no score")


def check_there_may_be_more_columns_than_rows(detector: Detector) -> None:
    """Fitted on 24 rows of 30 columns it judges them and others, what is far off in every column as unusual."""
    rows = np.random.default_rng(13).normal(50, 3, (24, 30))
    fitted = detector.fit(rows)
    _expect(fitted.predict(rows[:1] + 1e6).tolist() == [-1], "what is far off in every column is not flagged")
    _expect(bool(np.isfinite(fitted.score_samples(rows)).all()), "a row of 30 columns has no score")


def check_numbers_beyond_squares_do_not_end_it(detector: Detector) -> None:
    """Amounts of 1e200, which no float can square, in windows and tables: a score or none, and no failure."""
    window = np.full(60, 10.0)
    window[[7, 30]] = 1e200, -1e200
    offsets, amounts = np.array([0, 60, 120]), np.array([10.0, 1e200])
    ready(detector).judge(offsets, np.concatenate([window, np.full(60, 10.0)]), amounts)
    rows = np.column_stack([window, window[::-1]])
    with np.errstate(over="ignore", invalid="ignore"):
        detector.fit(rows).predict(rows)


def check_scikit_learn_takes_it(detector: Detector) -> None:
    """Its clone, its pipeline and its search."""
    from sklearn.base import clone  # noqa: PLC0415 (an extra)
    from sklearn.metrics import make_scorer, recall_score  # noqa: PLC0415
    from sklearn.model_selection import GridSearchCV  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import FunctionTransformer  # noqa: PLC0415

    copy = clone(detector)
    _expect(copy is not detector and copy.get_params() == detector.get_params(), "its clone has other parameters")
    rng = np.random.default_rng(7)
    X = rng.normal(50, 3, (120, 1))
    y = np.ones(120, np.int64)
    X[::20], y[::20] = 1e6, -1
    pipeline = make_pipeline(FunctionTransformer(np.log1p), clone(detector)).fit(X[y == 1])
    _expect(bool((pipeline.predict(X[y == -1]) == -1).all()), "what is absurd is not flagged in a pipeline")
    numbers = {name: [value, 2 * value] for name, value in detector.get_params().items() if name == "k"}
    if numbers:
        search = GridSearchCV(clone(detector), numbers, scoring=make_scorer(recall_score, pos_label=-1), cv=2)
        _expect(search.fit(X, y).best_params_.keys() == numbers.keys(), "a search does not find its parameters")


def check_a_rule_looks_along_a_series(detector: Detector) -> None:
    """Along the series: one score for each value, and the one that jumps is among those flagged."""
    if isinstance(detector, Rule):
        rng = np.random.default_rng(8)
        series = rng.normal(50, 3, 90)
        series[60] = 1e4
        scores = detector.along(series)
        _expect(scores.shape == (90,), "along() is not of shape [n]")
        _expect(bool(scores[60] > detector.threshold), "looking along a series, it does not flag what jumps")


def _expect(kept: bool, otherwise: str) -> None:  # noqa: FBT001
    if not kept:
        raise AssertionError(otherwise)


def _same(one: object, other: object, otherwise: str) -> None:
    """Whether two arrays have the same bits; NaN equals NaN."""
    np.testing.assert_array_equal(one, other, err_msg=otherwise)


def _same_verdicts(one: Verdicts, other: Verdicts, otherwise: str) -> None:
    for part, expected in zip(one, other, strict=True):
        _same(part, expected, otherwise)


@contextmanager
def _refused(sentence: str) -> Iterator[None]:
    """Check that a BadInput is raised whose message has these words."""
    try:
        yield
    except BadInput as error:
        _expect(re.search(sentence, str(error)) is not None, f'"{error}" says nothing of "{sentence}"')
    else:
        raise AssertionError(f'there is no BadInput that says "{sentence}"')
