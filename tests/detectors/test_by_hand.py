"""docs/by-hand.md: what detectors give as they are often written by hand, and what those here give."""

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics
from sklearn.ensemble import IsolationForest as Forest
from sklearn.svm import OneClassSVM
from statsmodels.tsa.seasonal import seasonal_decompose

from peerwatch.detectors.base import Floats, Mask
from peerwatch.detectors.ensemble import Ensemble
from peerwatch.detectors.learned.isolation_forest import IsolationForest
from peerwatch.detectors.learned.one_class_svm import OneClassSvm
from peerwatch.detectors.rules import Iqr, Mad, ZScore
from peerwatch.detectors.seasonal import Seasonal
from peerwatch.judging.online import Online
from peerwatch.studies.evaluation.metrics import Margins, labelled

PAGE = Path(__file__).parents[2] / "docs" / "by-hand.md"


def amounts() -> Floats:
    """A thousand normal amounts, of which the fifty-first is odd."""
    values = np.random.default_rng(28).normal(100, 15, 1000)
    values[50] = 200
    return values


def mostly_zero() -> Floats:
    """940 zeros, 60 values from 1 to 3, and one 500."""
    return np.concatenate([np.zeros(940), np.linspace(1, 3, 60), [500.0]])


def spikes(height: float = 4.5) -> tuple[Floats, Mask]:
    """600 normal values, of which every fiftieth from the twenty-first on is some deviations above the mean."""
    values = np.random.default_rng(29).normal(100, 15, 600)
    odd = np.zeros(600, np.bool_)
    odd[20::50] = True
    values[odd] = 100 + height * 15
    return values, odd


def hours() -> tuple[pd.Series, Mask]:
    """Thirty days of hours with a season that grows with its level, of which eight rows are a third too high."""
    at = np.arange(720)
    values = 100 * np.exp(2 * at / 720) * (1 + 0.4 * np.sin(2 * np.pi * at / 24))
    values *= 1 + np.random.default_rng(30).normal(0, 0.02, 720)
    odd = np.zeros(720, np.bool_)
    odd[[5, 100, 200, 300, 400, 500, 600, 715]] = True
    values[odd] *= 4 / 3
    return pd.Series(values, index=pd.date_range("2026-01-01", periods=720, freq="h")), odd


def row(name: str) -> list[str]:
    """The cells of a row of the page's table."""
    (line,) = re.findall(rf"^\| {re.escape(name)} \|(.*)\|$", PAGE.read_text(), re.MULTILINE)
    return [cell.strip() for cell in line.split("|")]


def flagged(rows: Mask, odd: Mask | None = None) -> str:
    """How many rows are flagged; with labels how many of those are odd."""
    count = f"{int(rows.sum())} flagged"
    return count if odd is None else f"{count}, {int((rows & odd).sum())} of {int(odd.sum())} odd ones"


def fences(values: Floats, factor: float) -> Mask:
    """Outside the quartiles by `factor` of the range between them."""
    low, high = np.percentile(values, (25, 75))
    return np.asarray((values < low - factor * (high - low)) | (values > high + factor * (high - low)))


def modified(values: Floats) -> Floats:
    """Modified z-scores; without a spread they are infinite, or none."""
    off = values - np.median(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores: Floats = np.abs(0.6745 * off / np.median(np.abs(off)))
    return scores


def test_rules_flag_the_same_rows_as_by_hand() -> None:
    """z-score, quartiles and modified z-score of ordinary amounts."""
    values = amounts()
    for name, by_hand, rule in (
        ("z-score", np.abs(stats.zscore(values)) > 3, ZScore(k=3)),
        ("quartiles", fences(values, 1.5), Iqr(k=1.5)),
        ("modified z-score", modified(values) > 3.5, Mad(k=3.5)),
    ):
        ours = rule.fit(values[:, None]).labels_ == 1
        np.testing.assert_array_equal(ours, by_hand)
        assert row(name)[:2] == [flagged(by_hand), flagged(ours)]


def test_without_a_spread_the_rules_by_hand_have_no_scores() -> None:
    """More than half of the values are the same."""
    values = mostly_zero()
    by_hand = modified(values)
    assert np.isinf(by_hand[940:]).all()
    assert np.isnan(by_hand[:940]).all()
    for name, hand, rule in (
        ("quartiles, mostly zeros", fences(values, 1.5), Iqr(k=1.5)),
        ("modified z-score, mostly zeros", by_hand > 3.5, Mad(k=3.5)),
    ):
        ours = rule.fit(values[:, None])
        assert row(name)[:2] == [flagged(hand), flagged(ours.labels_ == 1)]
        assert len(np.unique(ours.decision_scores_)) == 62


@pytest.mark.parametrize(("name", "offset"), [("isolation forest", 0.0), ("isolation forest, offset 1e9", 1e9)])
def test_an_isolation_forest_finds_the_odd_row_whatever_the_offset(name: str, offset: float) -> None:
    """By hand 32-bit floats blind it."""
    rows = amounts()[:, None] + offset
    forest = Forest(contamination=0.1, random_state=42, n_estimators=100).fit(rows)
    ours = IsolationForest(contamination=0.1, seed=42).fit(rows)
    scores = (-forest.score_samples(rows), ours.decision_scores_)
    masks = (forest.predict(rows) == -1, ours.labels_ == 1)
    expected = [
        f"{flagged(mask)}, {len(np.unique(score))} scores, the odd row ranks {int((score > score[50]).sum()) + 1}"
        for mask, score in zip(masks, scores, strict=True)
    ]
    assert row(name)[:2] == expected


def test_a_one_class_svm_flags_as_many_as_it_is_asked_to() -> None:
    """By hand nu is both: how smooth the boundary is, and about how many lie outside."""
    rows, new = amounts()[:, None], np.random.default_rng(31).normal(100, 15, (1000, 1))
    svm = OneClassSVM(kernel="rbf", gamma="scale", nu=0.1).fit(rows)
    ours = OneClassSvm(contamination=0.01).fit(rows)
    expected = [
        f"{flagged(back)}; of new rows {flagged(ahead)}"
        for back, ahead in (
            (svm.predict(rows) == -1, svm.predict(new) == -1),
            (ours.labels_ == 1, ours.predict(new) == -1),
        )
    ]
    assert row("one-class SVM")[:2] == expected


def test_a_percentile_of_the_errors_flags_a_twentieth_of_anything() -> None:
    """Whatever the errors are: a threshold taken from the rows that are judged says nothing of them."""
    errors = np.random.default_rng(32).gamma(2, 1, 1000)
    by_hand = errors > np.percentile(errors, 95)
    assert row("autoencoder")[0] == flagged(by_hand)


def test_a_control_chart_by_hand_judges_a_row_by_itself_too() -> None:
    """The rolling window holds the row itself, and there is none for the first rows."""
    values, odd = spikes()
    rolling = pd.Series(values).rolling(window=30)
    mean, sd = rolling.mean(), rolling.std()
    by_hand = ((values > mean + 3 * sd) | (values < mean - 3 * sd)).to_numpy()
    ours = Online(ZScore(k=3), window=30).update_many(values[:, None]).flagged
    assert row("control chart, window 30")[:2] == [flagged(by_hand, odd), flagged(ours, odd)]


def test_a_decomposition_by_hand_judges_no_ends_and_fails_on_times() -> None:
    """Moving averages have no ends; what is written to places by times is an error."""
    series, odd = hours()
    residual = seasonal_decompose(series, model="multiplicative", period=24).resid.dropna()
    with pytest.raises(IndexError):
        np.zeros(len(series))[residual.index] = 1
    by_hand = np.zeros(len(series), np.bool_)
    by_hand[series.index.get_indexer(residual.index)] = fences(residual.to_numpy(), 1.5)
    ours = Seasonal(period=24, model="multiplicative").look_back(series.to_frame()).flagged
    assert row("seasons")[:2] == [flagged(by_hand, odd), flagged(ours, odd)]
    with pytest.raises(ValueError, match="not appropriate for zero and negative values"):
        seasonal_decompose(series - 200, model="multiplicative", period=24)


def test_votes_are_counted_as_by_hand() -> None:
    """More than half of the weight."""
    values = amounts()
    votes = 2.0 * (np.abs(stats.zscore(values)) > 2) + fences(values, 1.5) + (modified(values) > 3.5)
    by_hand = votes / 4 > 0.5
    members: list[dict[str, Any]] = [
        {"name": "zscore", "parameters": {"k": 2}, "weight": 2},
        {"name": "iqr"},
        {"name": "mad"},
    ]
    ours = Ensemble(members=members).fit(values[:, None])
    np.testing.assert_array_equal(ours.decision_scores_, votes / 4)
    np.testing.assert_array_equal(ours.labels_ == 1, by_hand)
    assert row("votes")[:2] == [flagged(by_hand), flagged(ours.labels_ == 1)]


def test_figures_are_those_of_scikit_learn_where_there_are_any() -> None:
    """Where nothing is flagged there is no precision; by hand it is 0, with a warning."""
    values, odd = spikes(3.5)
    values += np.random.default_rng(34).normal(0, 8, 600)
    scores = np.abs(stats.zscore(values))
    found = labelled(Margins(scores - 3, scores > 3), odd, [])
    texts = []
    for figures in (
        (metrics.precision_score(odd, scores > 3), metrics.recall_score(odd, scores > 3),
         metrics.f1_score(odd, scores > 3), metrics.roc_auc_score(odd, scores)),
        (found.precision, found.recall, found.f1, found.roc_auc),
    ):  # fmt: skip
        precision, recall, f1, auc = (round(float(figure or 0), 3) for figure in figures)
        texts.append(f"precision {precision}, recall {recall}, F1 {f1}, AUC {auc}")
    assert row("figures")[:2] == texts
    nothing = scores > 99
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert metrics.precision_score(odd, nothing) == 0
    assert caught
    assert labelled(Margins(scores - 99, nothing), odd, []).precision is None


def test_thresholds_by_hand_only_rise() -> None:
    """By a hundredth whenever the last five figures are a tenth worse than those before; good ones change nothing."""
    threshold, history = 3.5, [0.9] * 10
    for figure in [0.5] * 30 + [0.9] * 100:
        if np.mean(history[-5:]) < 0.9 * np.mean(history[:-5]):
            threshold *= 1.01
        history.append(figure)
    online = Online(Mad(), window=200, flag_rate=0.01)
    quiet, wild = np.random.default_rng(33).normal(0, 1, (2, 4096))
    thresholds = [online.update_many(part[:, None]).threshold[-1] for part in (quiet, 8 * wild**3, quiet, quiet)]
    assert thresholds[1] > 2 * thresholds[0]
    assert thresholds[-1] < 1.5 * thresholds[0]
    assert row("adaptive threshold")[:2] == [
        f"{threshold:.2f} after a bad month and good ones",
        " to ".join(f"{value:.1f}" for value in thresholds),
    ]
