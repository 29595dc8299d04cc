"""An ensemble counts votes, or combines scores."""

from typing import Any

import numpy as np
import pytest
from learned_tables import tables
from sklearn.base import clone

from peerwatch.detectors.base import Floats
from peerwatch.detectors.checks import context, keeps_the_contract, ready, windows
from peerwatch.detectors.ensemble import MEMBERS, Ensemble
from peerwatch.detectors.learned.histograms import Hbos
from peerwatch.detectors.learned.tails import rarities
from peerwatch.detectors.registry import make
from peerwatch.errors import BadInput
from peerwatch.kernels import Int64s

THREE: list[dict[str, Any]] = [
    {"name": "zscore", "parameters": {"k": 2.0}},
    {"name": "mad", "weight": 2},
    {"name": "spc"},
]

LEARNED: list[dict[str, Any]] = [{"name": "knn"}, {"name": "hbos", "weight": 3}, {"name": "ecod"}]


def judged() -> tuple[Int64s, Floats, Floats]:
    """Purchases with windows of 1 to 30, about every third of them odd."""
    rng = np.random.default_rng(1)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(1, 30, 300))])
    return offsets, rng.lognormal(3, 0.5, offsets[-1]), rng.lognormal(3.5, 0.8, 300)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.74])
def test_votes_are_counted_by_weight(threshold: float) -> None:
    """Of the members with an answer; those whose window is too small have none."""
    found = Ensemble(members=THREE, threshold=threshold).judge(*judged())
    votes = [make(each["name"], each.get("parameters", {})).judge(*judged()) for each in THREE]
    for place in range(300):
        given = against = 0.0
        for weight, vote in zip((1, 2, 1), votes, strict=True):
            if not np.isnan(vote.score[place]):
                given += weight
                against += weight * vote.flagged[place]
        share = against / given if given else np.nan
        np.testing.assert_equal(found.score[place], share)
        assert found.flagged[place] == (share > threshold)
    assert (found.threshold == threshold).all()
    assert np.isnan(found.score).any()
    assert np.isin([0, 0.25, 0.5, 0.75, 1], found.score).all()


def test_members_that_have_learned_nothing_do_not_vote() -> None:
    """Until it has been fitted, an ensemble is its rules."""
    mixed = Ensemble(members=[{"name": "one_class_svm", "weight": 9}, {"name": "mad"}])
    assert mixed.trains
    assert mixed.wants_context
    mad = make("mad", {}).judge(*windows())
    found = mixed.judge(*windows(), context())
    np.testing.assert_array_equal(found.flagged, mad.flagged)
    np.testing.assert_array_equal(found.score, np.where(np.isnan(mad.score), np.nan, mad.flagged))
    svm = ready(make("one_class_svm", {})).judge(*windows(), context())
    np.testing.assert_array_equal(ready(mixed).judge(*windows(), context()).flagged, svm.flagged)
    assert not Ensemble(members=THREE).trains
    assert not Ensemble(members=THREE).wants_context


def test_ensembles_may_hold_ensembles() -> None:
    """And keep the contract, with members that learn and members that do not."""
    inner = {
        "name": "ensemble",
        "parameters": {"members": [{"name": "one_class_svm"}, {"name": "zscore"}], "threshold": 0.0},
    }
    keeps_the_contract(Ensemble(members=[inner, {"name": "mad"}, {"name": "iqr", "parameters": {"k": 3.0}}]))


def test_looking_back_is_every_member_looking_back() -> None:
    """One vote a member and row."""
    series = np.random.default_rng(2).normal(50, 3, (80, 1))
    series[40] = 99
    found = Ensemble(members=THREE).look_back(series)
    assert np.flatnonzero(found.flagged).tolist() == [40]
    np.testing.assert_array_equal(Ensemble(members=THREE).fit_predict(series) == -1, found.flagged)


def test_parameters_are_kept_as_given() -> None:
    """So that scikit-learn can copy them; others make other members."""
    given = Ensemble(members=THREE)
    assert given.get_params()["members"] is THREE
    assert clone(given).get_params() == given.get_params()
    given.judge(*windows())
    given.set_params(members=THREE[:1])
    np.testing.assert_array_equal(given.judge(*windows()).flagged, make("zscore", {"k": 2.0}).judge(*windows()).flagged)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"members": []}, 'ensemble: "members" is []; expected a list'),
        ({"members": "mad"}, "ensemble: \"members\" is 'mad'; expected a list"),
        ({"members": ["mad"]}, "ensemble: member 1 is 'mad'; expected a name"),
        ({"members": [{"name": "mad"}, {"parameters": {}}]}, "member 2 is {'parameters': {}}; expected a name"),
        ({"members": [{"name": "mad", "k": 3}]}, "expected a name, and perhaps parameters and a weight"),
        ({"members": [{"name": "mad", "parameters": 3}]}, "member 1: parameters are names with values"),
        ({"members": [{"name": "mad", "weight": 0}]}, 'member 1: "weight" is 0; expected a number above 0'),
        ({"members": [{"name": "mad", "parameters": {"k": 0}}]}, 'mad: "k" is 0'),
        ({"members": [{"name": "sigma"}]}, "sigma judges the windows of a run only"),
        ({"members": LEARNED, "combine": "sum"}, "\"combine\" is 'sum'; expected one of vote, mean, max, tail,"),
        (
            {"members": [*LEARNED, {"name": "mad"}], "combine": "tail"},
            'member 4, mad, does not learn from rows, so its scores cannot be combined with others: set "combine" to',
        ),
        ({"members": LEARNED, "contamination": 0.7}, 'ensemble: "contamination" is 0.7; expected at most 0.5'),
        ({"members": THREE, "threshold": 1}, '"threshold" is 1; expected a number that is at least 0 and below 1'),
    ],
)
def test_each_mistake_gets_its_sentence(parameters: dict[str, Any], sentence: str) -> None:
    """When it is made."""
    with pytest.raises(BadInput) as caught:
        make("ensemble", parameters)
    assert sentence in str(caught.value)


def test_what_is_restored_must_be_what_was_kept() -> None:
    """Each member's own, and nothing else."""
    X = np.random.default_rng(3).normal(size=(40, 2))
    kept = Ensemble(members=THREE).fit(X).arrays()
    assert sorted(name for name in kept if "fit." not in name) == [
        "0.summary0",
        "0.summary1",
        "1.summary0",
        "1.summary1",
        "2.summary0",
        "2.summary1",
        "2.summary2",
    ]
    for wrong in (
        kept | {"3.summary0": kept["0.summary0"]},
        kept | {"summary0": kept["0.summary0"]},
        {name: array for name, array in kept.items() if not name.startswith("1")},
    ):
        with pytest.raises(BadInput, match="has learned"):
            Ensemble(members=THREE).restore(wrong)


def test_the_probability_of_a_score_is_counted() -> None:
    """The share of the learned scores that are as high; above all of them it falls with the distance."""
    learned = np.array([1.0, 2, 2, 5, 9])
    found = np.exp(-rarities(np.array([0.0, 2, 3, 9, 16, 23, np.nan]), learned))
    np.testing.assert_allclose(found, [1, 4 / 5, 2 / 5, 1 / 5, 1 / 10, 1 / 15, np.nan])
    many = rarities(np.linspace(-3, 99, 500), learned)
    assert (np.diff(many) >= 0).all()
    assert np.isfinite(rarities(np.array([4.0, 4.1]), np.full(3, 4.0))).all()


@pytest.mark.parametrize("combine", ["mean", "max", "tail", "quadratic"])
def test_scores_are_combined_as_probabilities(combine: str) -> None:
    """Of members that each score in units of their own; a row is flagged above all but the contamination."""
    train, test = tables()
    found = Ensemble(members=LEARNED, combine=combine, contamination=0.05).fit(train)
    rarity = []
    for each in LEARNED:
        member = make(each["name"], {}).fit(train)
        rarity.append(rarities(-member.score_samples(test), np.sort(member.decision_scores_)))
    expected = {
        "mean": np.average(-np.expm1(-np.array(rarity)), axis=0, weights=[1, 3, 1]),
        "max": np.max(rarity, axis=0),
        "tail": np.average(rarity, axis=0, weights=[1, 3, 1]),
        "quadratic": np.sqrt(np.average(np.square(rarity), axis=0, weights=[1, 3, 1])),
    }[combine]
    np.testing.assert_allclose(-found.score_samples(test), expected)
    np.testing.assert_array_equal(found.predict(test) == -1, found.decision_function(test) < 0)
    flagged = Ensemble(members=LEARNED, combine=combine, contamination=0.05).fit_predict(train) == -1
    assert 20 < flagged.sum() <= 30  # scores may be tied
    np.testing.assert_array_equal(found.look_back(train).flagged, flagged)


def test_a_member_without_an_answer_is_left_out() -> None:
    """The others are combined; without any there is no score."""
    mixed = Ensemble(members=[*LEARNED[:2], {"name": f"{__name__}:Silent"}], combine="tail").fit(tables()[0])
    without = Ensemble(members=LEARNED[:2], combine="tail").fit(tables()[0])
    np.testing.assert_array_equal(mixed.score_samples(tables()[1]), without.score_samples(tables()[1]))
    silent = Ensemble(members=[{"name": f"{__name__}:Silent"}], combine="max").fit(tables()[0])
    assert np.isnan(silent.score_samples(tables()[1])).all()


class Silent(Hbos):
    """A user's own that has learned and says nothing of new rows."""

    name = "silent"

    def _score(self, model: Any, rows: Floats) -> Floats:
        return super()._score(model, rows) if len(rows) == len(tables()[0]) else np.full(len(rows), np.nan)


def test_by_default_it_learns_and_combines_tails_by_their_root_mean_square() -> None:
    """Members that are named vote, as long as nothing else is said."""
    assert Ensemble().trains
    train, test = tables()
    found, same = Ensemble().fit(train), Ensemble(members=MEMBERS, combine="quadratic").fit(train)
    np.testing.assert_array_equal(found.score_samples(test), same.score_samples(test))
    assert np.isin(-Ensemble(members=LEARNED).fit(train).score_samples(test), [0, 0.2, 0.4, 0.6, 0.8, 1]).all()
    assert np.isnan(Ensemble().judge(*windows()).score).all()


@pytest.mark.parametrize("columns", [5, 10])
def test_a_row_that_is_far_off_in_one_column_alone_is_flagged(columns: int) -> None:
    """Ten standard deviations, in whichever column: two members see it, and those that do not cannot outvote them."""
    rng = np.random.default_rng(columns)
    found = Ensemble().fit(rng.normal(size=(500, columns)))
    rows = rng.normal(size=(columns, columns))
    np.fill_diagonal(rows, 10.0)
    assert (found.predict(rows) == -1).all()
    assert (found.predict(np.zeros((1, columns))) == 1).all()


def test_the_calibration_must_be_what_was_kept() -> None:
    """A row a member, sorted."""
    kept = Ensemble(members=LEARNED, combine="tail").fit(tables()[0]).arrays()
    calibration = kept["calibration"]
    for wrong in (
        calibration[:2],
        calibration[:, ::-1],
        calibration[:, :0],
        calibration.astype(np.float32),
        calibration * np.nan,
    ):
        with pytest.raises(BadInput, match="these are not what an ensemble of 3 has learned"):
            Ensemble(members=LEARNED, combine="tail").restore(kept | {"calibration": wrong})
    with pytest.raises(BadInput, match="these are not what an ensemble of 3 has learned"):
        Ensemble(members=LEARNED, combine="tail").restore({name: kept[name] for name in kept if name != "threshold"})
