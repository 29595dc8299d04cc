"""The seasonal rule."""

import numpy as np
import pandas as pd
import pytest
from statsmodels.tsa.seasonal import STL

from peerwatch.detectors.base import Floats
from peerwatch.detectors.seasonal import Seasonal
from peerwatch.errors import BadInput


@pytest.mark.parametrize("method", ["stl", "classical"])
@pytest.mark.parametrize("base", [[10.0, 20, 30, 40, 50, 60, 70], [12.34, 9.99, 3.1, 100.7, 5.5, 6.6, 7.7]])
def test_what_goes_on_as_it_always_did_is_normal(method: str, base: list[float]) -> None:
    """A season repeated exactly leaves nothing but rounding, which is no spread to measure by."""
    series = np.array(base * 5)
    rule = Seasonal(method=method)
    offsets = np.array([0, 35, 70])
    _, _, flagged = rule.judge(offsets, np.tile(series, 2), np.array([base[0], base[0] + 5]))
    assert flagged.tolist() == [False, True]
    assert not rule.look_back(series[:, None]).flagged.any()
    line = np.array([1.1 * place for place in range(35)])
    assert rule.judge(np.array([0, 35]), line, np.array([35 * 1.1])).flagged.tolist() == [False]


def hours(days: int = 30, growth: float = 0.0) -> pd.Series:
    """An hourly season of days with noise, which may grow by a factor from the first to the last."""
    at = np.arange(24 * days)
    level = 100 * np.exp(growth * at / len(at))
    season = 1 + 0.4 * np.sin(2 * np.pi * at / 24) + 0.2 * np.cos(4 * np.pi * at / 24)
    noise = np.random.default_rng(4).normal(0, 0.03, len(at))
    return pd.Series(level * (season + noise), index=pd.date_range("2026-01-01", periods=len(at), freq="h"))


@pytest.mark.parametrize("method", ["stl", "classical"])
def test_row_i_is_forecast_i_steps_ahead(method: str) -> None:
    """Of the hours of five days to come, all normal, hardly one is flagged; of those turned upside down most are."""
    series = hours()
    rule = Seasonal(method=method, period=24).fit(series[:600].to_frame())
    assert (rule.predict(series[600:].to_frame()) == -1).mean() < 0.03
    assert (rule.predict(series[600:].to_numpy()[:, None]) == -1).mean() < 0.03
    assert (rule.predict(200 - series[600:].to_frame()) == -1).mean() > 0.9
    late = rule.score_samples(series[610:].to_frame())
    np.testing.assert_array_equal(late, rule.score_samples(series[600:].to_frame())[10:])


def test_the_next_row_is_judged_as_in_a_window() -> None:
    """As an estimator the first row has the score that it has as a purchase."""
    series = hours()[:200].to_numpy()
    rule = Seasonal(period=24)
    judged = rule.judge(np.array([0, 199]), series[:199], series[199:])
    np.testing.assert_array_equal(-rule.fit(series[:199, None]).score_samples(series[199:, None]), judged.score)


def test_missing_rows_are_filled_in_where_there_are_times() -> None:
    """The rows that are left have about the scores that they had among all; their places are those of the table."""
    series = hours()
    series.iloc[[250, 333, 500]] += 300
    gone = np.random.default_rng(8).choice(np.setdiff1d(np.arange(30, 700), [250, 333, 500]), 14, replace=False)
    left = series.drop(series.index[gone])
    rule = Seasonal(period=24, k=4)
    whole, gaps = rule.look_back(series.to_frame()), rule.look_back(left.to_frame())
    assert len(gaps.score) == len(left)
    assert (gaps.flagged != np.delete(whole.flagged, gone)).sum() <= 3
    odd = left.index.get_indexer(series.index[[250, 333, 500]])
    assert gaps.flagged[odd].all()
    timeless = rule.look_back(left.to_numpy()[:, None])
    by_times, without = (np.abs(found.score - np.delete(whole.score, gone)).mean() for found in (gaps, timeless))
    assert 2 * by_times < without
    np.testing.assert_array_equal(rule.fit(left.to_frame()).labels_, gaps.flagged)
    assert rule.looking_back(left.to_frame(), np.array([5])).shape == (1, 1)


@pytest.mark.parametrize(
    ("places", "sentence"),
    [
        ([*range(50), 49], "row 51 is not later than the row before it; sort the rows by their time"),
        ([*range(50, 100), *range(50)], "row 51 is not later"),
        ([*range(40), 200, 201], "rows at regular times 160 are missing"),
    ],
)
def test_rows_without_order_or_too_few_are_refused(places: list[int], sentence: str) -> None:
    """With the first row that is wrong."""
    with pytest.raises(BadInput, match=sentence):
        Seasonal(period=12).fit(hours().iloc[places].to_frame())


def test_irregular_times_are_refused() -> None:
    """Months are regular, whatever their days; a row between two steps is not."""
    months = pd.DataFrame({"x": np.arange(60.0)}, index=pd.date_range("2020-01-01", periods=60, freq="MS"))
    assert Seasonal(period=12).fit(months).decision_scores_.shape == (60,)
    shifted = hours()[:60].to_frame()
    shifted.index = shifted.index.where(np.arange(60) != 30, shifted.index + pd.Timedelta("25min"))
    with pytest.raises(BadInput, match=r"row 31 comes 1\.417 steps of 3600 s after the row before it"):
        Seasonal(period=12).fit(shifted)
    with pytest.raises(BadInput, match="row 1 comes 0 steps"):
        Seasonal(period=12).fit(hours()[:60].to_frame()).predict(hours()[59:60].to_frame())


def test_a_season_that_grows_with_its_level_is_multiplicative() -> None:
    """Added to the trend it fits badly; amounts that have no logarithm are refused, or have no score in a window."""
    series = hours(growth=3.0)
    series.iloc[[200, 640]] *= 1.6
    added, multiplied = (
        Seasonal(period=24, model=model, k=6).look_back(series.to_frame()) for model in ("additive", "multiplicative")
    )
    assert multiplied.flagged[[200, 640]].all()
    assert added.flagged.sum() > 4 * multiplied.flagged.sum()
    growing = Seasonal(period=24, model="multiplicative", k=6).fit(series[:600].to_frame())
    assert (growing.predict(series[600:640].to_frame()) == -1).sum() <= 2
    with pytest.raises(BadInput, match="a multiplicative season needs values above 0, got -1"):
        Seasonal(model="multiplicative").fit(np.linspace(-1, 5, 50)[:, None])
    score, _, flagged = Seasonal(model="multiplicative").judge(
        np.array([0, 20]), np.linspace(0, 5, 20), np.array([3.0])
    )
    assert np.isnan(score).all()
    assert not flagged.any()


def residual_ranks(residual: Floats) -> set[int]:
    """The places of the two largest residuals."""
    return {*np.argsort(-np.abs(residual))[:2].tolist()}


def test_a_long_season_is_interpolated_between_jumps() -> None:
    """STL smooths every few points only; what is left is what it leaves without jumps, but for a small part."""
    at = np.arange(96 * 10)  # ten seasons, fewer than what the default smooths over
    series = 50 + 10 * np.sin(2 * np.pi * at / 96) + np.random.default_rng(9).normal(0, 1, len(at))
    series[[300, 700]] += 15
    rule = Seasonal(period=96)
    _, _, residual = rule._decomposed(series, two_sided=True)  # noqa: SLF001 (statsmodels without jumps is the reference)
    exact = STL(series, period=96, robust=True).fit().resid
    assert np.abs(residual - exact).max() < 0.2
    assert residual_ranks(residual) == residual_ranks(exact) == {300, 700}
    assert rule.look_back(series[:, None]).flagged[[300, 700]].all()


def test_most_residuals_may_be_nothing() -> None:
    """A season that is repeated exactly but for some rows: scores are finite, and keep the order."""
    series = np.array([10.0, 20, 30, 40, 50, 60, 70] * 8)
    series[[10, 30, 40]] += [5.0, 10.0, 20.0]
    score = Seasonal().fit(series[:, None]).decision_scores_
    assert np.isfinite(score).all()
    assert score[10] < score[30] < score[40]


def test_a_single_outlier_is_not_taken_for_a_change_of_season() -> None:
    """The season is smoothed over enough seasons, wherever in the series the outlier is."""
    series = hours().to_numpy()
    for place in (30, 100, 110, 130, 250, 690):
        odd = series.copy()
        odd[place] += 300
        assert np.argmax(Seasonal(period=24).fit(odd[:, None]).decision_scores_) == place


def wandering(rows: int, seed: int = 3) -> Floats:
    """A slow cycle of 350 rows, which is no season of 7, with noise."""
    noise = np.random.default_rng(seed).normal(0, 1, rows)
    return 20 + 10 * np.sin(2 * np.pi * np.arange(rows) / 350) + noise


def test_rows_far_ahead_are_not_held_against_where_the_trend_happens_to_end() -> None:
    """Whatever the cycle's place at the end: of the rows to come hardly one is flagged, and those far outside are."""
    for end in (1000, 1090, 1175, 1260):
        rows = wandering(end + 600)
        rule = Seasonal().fit(rows[:end, None])
        assert (rule.predict(rows[end:, None]) == -1).mean() < 0.03
        assert (rule.predict(rows[end + 100 :: 50, None] + 200) == -1).all()


def test_the_farther_ahead_the_less_is_known() -> None:
    """A value of a random walk that lies off by as much scores no higher farther ahead."""
    walk = np.random.default_rng(5).normal(0, 1, 400).cumsum()
    rule = Seasonal().fit(walk[:, None])
    level, _, season, *_ = rule.summary_
    for sign in (-1, 1):
        score = -rule.score_samples(np.full((300, 1), walk.mean() + sign * 1000.0))
        assert score[0] > score[1:].max()
        middles = [score[2**k - 1 : 2 ** (k + 1) - 1].mean() for k in range(1, 8)]
        assert middles == sorted(middles, reverse=True)
    assert np.isfinite(level).all()
    assert season.shape == (1, 7)


def test_noise_far_ahead_is_judged_about_its_mean() -> None:
    """The last value of a trend that follows noise is forgotten: above and below the same distance scores the same."""
    uneven = []
    for seed in range(8, 12):
        rule = Seasonal().fit(np.random.default_rng(seed).normal(0, 1, (500, 1)))
        high, low = (-rule.score_samples(np.full((350, 1), 20.0 * sign))[70:].mean() for sign in (1, -1))
        uneven.append(abs(high - low) / high)
    assert np.mean(uneven) < 0.01


def test_what_an_earlier_version_saved_forecasts_as_it_did() -> None:
    """It knows one level and one pair of fences, for whatever distance."""
    series = hours()[:200].to_numpy()
    rule = Seasonal(period=24).fit(series[:, None])
    arrays = {
        name: array[:, 0] if name in {"summary0", "summary3", "summary4", "summary5"} else array
        for name, array in rule.arrays().items()
    }
    old = Seasonal(period=24).restore(arrays)
    level, slope, season, low, high, spread, _, strength = (arrays[f"summary{place}"] for place in range(8))
    steps = np.arange(60)
    rest = series[:60] - level - slope * steps - np.where(steps > 0, strength, 1) * season[0, steps % 24]
    expected = np.maximum(np.maximum(low - rest, rest - high), 0) / spread
    np.testing.assert_allclose(-old.score_samples(series[:60, None]), expected)
