"""Every detector keeps the contract."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from learned_tables import DEEP

from peerwatch.detectors.base import Detector, Floats, Rule, Summary
from peerwatch.detectors.checks import (
    SCIKIT_LEARN_EXCEPTIONS,
    checks,
    keeps_the_contract,
    passes_scikit_learns_checks,
)
from peerwatch.detectors.control_charts import CHARTS
from peerwatch.detectors.registry import DETECTORS, find, make
from peerwatch.detectors.seasonal import METHODS
from peerwatch.errors import BadInput

SMALLER: dict[str, dict[str, Any]] = {
    "isolation_forest": {"trees": 20},
    "autoencoder": {"epochs": 60},
    "inne": {"samples": 50},
    "ensemble": {"members": [{"name": "knn"}, {"name": "hbos"}], "combine": "tail"},
}
"""What a promise takes as well, in less time; the defaults are evaluated."""
CASES = [
    *((name, SMALLER.get(name, {})) for name in DETECTORS if name not in DEEP),
    *(pytest.param(name, {"epochs": 20}, marks=pytest.mark.slow) for name in DEEP),
    *(("spc", {"chart": chart}) for chart in CHARTS[1:]),
    *(("seasonal", {"method": method, "period": 5}) for method in METHODS),
    ("ensemble", {"members": [{"name": "mad"}, {"name": "iqr", "parameters": {"k": 3.0}, "weight": 2}]}),
    ("ensemble", {"members": [{"name": "one_class_svm"}, {"name": "lof"}]}),
    ("ensemble", {"members": [{"name": "ecod"}, {"name": "gmm"}], "combine": "mean"}),
    ("ensemble", {"members": [{"name": "ecod"}, {"name": "gmm"}], "combine": "max"}),
]


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.__name__)
@pytest.mark.parametrize(("name", "parameters"), CASES, ids=str)
def test_every_detector_keeps_the_contract(
    name: str, parameters: dict[str, Any], check: Callable[[Detector], None]
) -> None:
    """Whatever its parameters."""
    check(make(name, parameters))


LONG = {
    "seasonal", "isolation_forest", "one_class_svm", "lof", "half_space_trees", "autoencoder", "ensemble",
    "random_cut_forest", *DEEP,
}  # fmt: skip
"""Detectors that take seconds for all of scikit-learn's checks."""
QUICK = {
    "isolation_forest": {"trees": 10},
    "random_cut_forest": {"trees": 10},
    "autoencoder": {"epochs": 5},
    "inne": {"samples": 20},
} | {name: {"epochs": 1} for name in DEEP}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in DETECTORS]
)
def test_every_detector_passes_the_checks_of_scikit_learn(name: str) -> None:
    """But for the exceptions, which are listed with their reasons, and which all are needed."""
    passes_scikit_learns_checks(make(name, QUICK.get(name, {})))


def test_what_does_not_pass_scikit_learns_checks_is_named() -> None:
    """Neither may a check fail that is not listed, nor may one be listed that passes."""
    with pytest.raises(AssertionError, match="mad does not pass scikit-learn's check_outliers"):
        passes_scikit_learns_checks(make("mad", {}), {})
    more = {**SCIKIT_LEARN_EXCEPTIONS["mad"], "check_fit1d": "it does"}
    with pytest.raises(AssertionError, match="mad passes scikit-learn's check_fit1d, which is listed as an exception"):
        passes_scikit_learns_checks(make("mad", {}), more)


class Above(Rule):
    """A user's own rule: more than the largest so far."""

    name = "above"

    def check(self) -> None:
        """It has no parameters."""

    @property
    def threshold(self) -> float:
        """The largest."""
        return 1.0

    def summarise(self, window: Floats) -> Summary:
        """The largest."""
        return (window.max(axis=1),)

    def score_amounts(self, summary: Summary, amount: Floats) -> Floats:
        """As a multiple of the largest."""
        return amount / summary[0]


class Forgetful(Above):
    """A user's own rule that does not keep what it promises: it flags the usual, not the absurd."""

    name = "forgetful"

    def score_amounts(self, summary: Summary, amount: Floats) -> Floats:
        """The wrong way round."""
        return 2 * summary[0] / amount


def test_a_users_own_detector_can_be_checked() -> None:
    """All at once; what is wrong is said."""
    keeps_the_contract(make("mad", {}))
    with pytest.raises(AssertionError, match="the median of a steady window is flagged"):
        keeps_the_contract(Forgetful())


@pytest.mark.parametrize("base", [Above, make("mad", {}).__class__, Rule])
def test_a_rule_with_the_earlier_name_of_its_method_is_refused(base: type[Rule]) -> None:
    """Nothing would call it, and a rule derived from another would judge by that one's scores."""

    def score(_: Rule, summary: Summary, amount: Floats) -> Floats:
        return amount - summary[0]

    with pytest.raises(BadInput, match=r"^Old defines score\(\), which is now called score_amounts\(\): rename"):
        type("Old", (base,), {"score": score})
    with pytest.raises(BadInput, match=r"^Old defines score\(\)"):
        type("Old", (type("Mixed", (), {"score": score}), base), {})


def test_a_rule_may_have_a_score_of_its_own_beside_score_amounts() -> None:
    """As scikit-learn means it."""

    class Both(Above):
        """It has both."""

        def score(self, X: Floats) -> float:
            """The mean of its scores."""
            return float(self.score_samples(X).mean())

        def score_amounts(self, summary: Summary, amount: Floats) -> Floats:
            """The other rule's."""
            return super().score_amounts(summary, amount)

    class Derived(Both):
        """And what derives from it."""

    X = np.array([[1.0], [2.0], [4.0]])
    assert Derived().fit(X).score(X[2:]) == -1


def test_a_users_own_detector_is_found_by_its_import_path() -> None:
    """And by nothing that is none."""
    assert find(f"{__name__}:Above") is Above
    for name, sentence in (
        ("z-score", 'there is no detector "z-score"; known are'),
        ("nowhere.at_all:Rule", "cannot be imported"),
        ("peerwatch.detectors.rules:Nothing", "has no attribute 'Nothing'"),
        ("pathlib:Path", "is not a detector"),
    ):
        with pytest.raises(BadInput, match=sentence):
            find(name)


@pytest.mark.parametrize(
    ("name", "parameters", "sentence"),
    [
        ("iqr", {"k": 0}, 'iqr: "k" is 0; expected a number above 0'),
        ("iqr", {"k": "3"}, "expected a number above 0"),
        ("iqr", {"kk": 3}, 'iqr has no parameter "kk"; it has k'),
        ("spc", {"chart": "pie"}, "spc: \"chart\" is 'pie'; expected one of individuals, ewma"),
        ("spc", {"chart": "ewma", "weight": 1.5}, "expected at most 1"),
        ("seasonal", {"period": 1}, "expected a whole number above 1"),
        ("seasonal", {"method": "x11"}, "expected one of stl, classical"),
        ("isolation_forest", {"trees": 0}, 'isolation_forest: "trees" is 0; expected a whole number from 1'),
        ("isolation_forest", {"seed": -1}, '"seed" is -1; expected a whole number from 0'),
        ("isolation_forest", {"contamination": 0.6}, '"contamination" is 0.6; expected at most 0.5'),
        ("one_class_svm", {"nu": 1.1}, '"nu" is 1.1; expected at most 1'),
        ("lof", {"neighbours": 2.5}, '"neighbours" is 2.5; expected a whole number from 1'),
        ("knn", {"neighbours": 0}, 'knn: "neighbours" is 0; expected a whole number from 1'),
        ("gmm", {"components": 1.5}, '"components" is 1.5; expected a whole number from 1'),
        ("mcd", {"seed": -1}, '"seed" is -1; expected a whole number from 0'),
        ("mcd", {"ridge": 0}, '"ridge" is 0; expected a number above 0'),
        ("pca", {"whitening": 1.5}, '"whitening" is 1.5; expected a number from 0 to 1'),
        ("hbos", {"bins": 0}, '"bins" is 0; expected a whole number from 1'),
        ("ecod", {"contamination": 0}, '"contamination" is 0; expected a number above 0'),
        ("inne", {"size": 1}, '"size" is 1; expected a whole number from 2'),
        ("half_space_trees", {"height": True}, '"height" is True; expected a whole number from 1'),
        ("random_cut_forest", {"sample": 0}, '"sample" is 0; expected a whole number from 1'),
        ("autoencoder", {"hidden": 3}, '"hidden" is 3; expected the sizes of layers'),
        ("autoencoder", {"hidden": [3, 0]}, '"hidden" is 0; expected a whole number from 1'),
    ],
)
def test_a_wrong_parameter_is_named(name: str, parameters: dict[str, Any], sentence: str) -> None:
    """With what is expected."""
    with pytest.raises(BadInput, match=sentence):
        make(name, parameters)
