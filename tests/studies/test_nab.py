"""NAB's rules, against published figures and worked examples."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from peerwatch.cli.console import Console
from peerwatch.cli.main import cli
from peerwatch.detectors.base import Floats
from peerwatch.detectors.registry import make
from peerwatch.detectors.series.causal import WINDOW
from peerwatch.errors import UsageError
from peerwatch.studies.evaluation.nab import (
    LAGS,
    PROFILES,
    LabelledSeries,
    Profile,
    best,
    evaluate_series,
    online,
    probation,
    read_series,
    scaled,
    sweep,
    told_once,
    weigh,
)

STANDARD = PROFILES["standard"]
SILENT = Console(quiet=True, bar=False)


def raw(rows: int, windows: list[tuple[int, int]], detected: list[int], profile: Profile = STANDARD) -> float:
    """The unscaled score of one series in which these rows are detected."""
    scores = np.zeros(rows)
    scores[detected] = 1.0
    thresholds, found = sweep(weigh([LabelledSeries("one", scores, windows)]), scores[probation(rows) :], profile)
    return float(found[thresholds == 1.0][0]) if detected else float(found[0])


@pytest.mark.parametrize(
    ("windows", "detected", "published"),
    [
        ([(2000, 2200), (3000, 3200)], [2100], -0.13844919792440225),
        ([(2000, 2402)], [2201], 0.8606718242697022),
        ([(2000, 2402)], [], -1.0),
        ([], [*range(1000, 1012)], -1.32),
        ([(2000, 2093), (3000, 3095)], [700, 800, 900, 1000], -2.44),
    ],
)
def test_published_scores_of_single_series(
    windows: list[tuple[int, int]], detected: list[int], published: float
) -> None:
    """Rows in the middle of a window, none, false ones only: the scores that NAB's results have for such files."""
    assert raw(4032, windows, detected) == pytest.approx(published, abs=1e-12)


def test_the_scale_is_that_of_the_published_scores() -> None:
    """KNN-CAD's sum over 116 windows, and the score that is published for it; nothing is 0, all at once 100."""
    assert scaled(18.54687659285237, 116, STANDARD) == pytest.approx(57.99434335898808)
    for profile in PROFILES.values():
        assert scaled(-profile.missed * 7, 7, profile) == 0.0
        assert scaled(7.0, 7, profile) == pytest.approx(100.0)


def test_the_first_detection_in_a_window_counts_and_its_last_row_is_worth_next_to_nothing() -> None:
    """A detection at the first row earns 1, whatever comes after; just before and just behind the end cancel out."""
    windows = [(700, 799)]
    assert raw(1000, windows, [700]) == pytest.approx(1.0)
    assert raw(1000, windows, [700, 750, 799]) == pytest.approx(1.0)
    assert raw(1000, windows, [750]) > raw(1000, windows, [760])
    profile = Profile(1.0, 1.0)
    assert raw(1000, windows, [799], profile) + raw(1000, windows, [800], profile) + 1 == pytest.approx(0, abs=1e-2)


def test_false_detections_cost_more_the_further_behind_a_window_they_are() -> None:
    """Up to the whole weight three widths behind it, as before any window; probation costs nothing."""
    windows = [(400, 449)]
    costs = [raw(1000, windows, [400, row]) - 1 for row in (455, 470, 500, 540, 596, 900, 300)]
    assert costs[:5] == sorted(costs[:5], reverse=True)
    assert costs[3] > costs[4] + 1e-5
    assert costs[-3:] == [pytest.approx(-0.11, abs=1e-12)] * 3
    assert raw(1000, windows, [400, 149]) == pytest.approx(1.0)
    assert [probation(rows) for rows in (100, 4032, 5000, 22_695)] == [15, 604, 750, 750]


def test_one_threshold_counts_for_all_series_and_the_best_is_found() -> None:
    """By trying every one, on seeded scores with ties and missing ones."""
    rng = np.random.default_rng(1)
    all_series = [
        LabelledSeries(str(place), np.zeros(rows), windows)
        for place, (rows, windows) in enumerate([(300, [(100, 129), (200, 219)]), (200, [(90, 119)]), (150, [])])
    ]
    weighed = weigh(all_series)
    scores = rng.integers(0, 12, len(weighed.window)).astype(np.float64)
    scores[rng.random(len(scores)) < 0.1] = np.nan
    for profile in PROFILES.values():
        tried = {}
        for threshold in range(13):
            flagged = scores >= threshold
            total = profile.false * weighed.weight[flagged & (weighed.window < 0)].sum()
            for window in range(3):
                earned = weighed.weight[flagged & (weighed.window == window)]
                total += earned.max() if len(earned) else -profile.missed
            tried[threshold] = scaled(total, 3, profile)
        found = best(weighed, scores, profile)
        assert found.score == pytest.approx(max(tried.values()), abs=1e-4)
        assert found.threshold is None or tried[int(found.threshold)] == pytest.approx(found.score, abs=1e-4)


def test_an_alarm_is_told_once() -> None:
    """For a fifth of the probation nothing after it is above the threshold; then the next one may be."""
    scores = np.full(1000, np.nan)
    scores[[100, 101, 110, 129, 131, 140, 700]] = [5.0, 9.0, 2.0, 6.0, 7.0, 8.0, 3.0]
    found = told_once(scores, 4.0)
    assert found[[100, 101, 110, 129, 131, 140, 700]].tolist() == [5.0, 4.0, 2.0, 4.0, 7.0, 4.0, 3.0]
    assert np.isnan(found).sum() == 993


def written(directory: Path, values: Floats, windows: list[list[str]]) -> None:
    """A copy of NAB's data with one series of a value a minute."""
    times = np.datetime64("2014-04-01T00:00") + np.arange(len(values)).astype("m8[m]")
    rows = [f"{str(time).replace('T', ' ')}:00,{value}" for time, value in zip(times, values, strict=True)]
    (directory / "group").mkdir()
    (directory / "group" / "series.csv").write_text("\n".join(["timestamp,value", *rows]))
    (directory / "windows.json").write_text(json.dumps({"group/series.csv": windows}))


WHOLE = [["2014-04-01 06:00:00.000000", "2014-04-01 06:30:00.000000"]]


def test_detectors_are_scored_on_a_folder(tmp_path: Path) -> None:
    """A jump within the window: rules find it, and so does what learns; slow ones are left out."""
    values = np.random.default_rng(2).normal(50, 2, 600)
    values[361] = 500
    written(tmp_path, values, WHOLE)
    (tmp_path / "published_scores.json").write_text('{"null": {"standard": 0.0}}')
    methods = ["zscore", "change_points", "half_space_trees", "autoencoder"]
    record = evaluate_series(tmp_path, methods, {}, SILENT)
    assert (record.series, record.values, record.windows) == (1, 600, 1)
    assert record.published == {"null": {"standard": 0.0}}
    found = {result.method: result for result in record.results}
    assert found["seasonal"].skipped is not None
    for name in ("zscore", "zscore, told once", "change_points", "half_space_trees", "autoencoder"):
        assert found[name].scores["standard"].score > 80, name
        assert found[name].scores.keys() == PROFILES.keys()


@pytest.mark.parametrize("name", ["zscore", "spot", "change_points", "isolation_forest"])
def test_no_value_is_judged_by_those_after_it(name: str) -> None:
    """Whatever comes later, the scores before it stay the same."""
    detector = make(name, {"trees": 5} if name == "isolation_forest" else {})
    values = np.random.default_rng(3).normal(50, 2, WINDOW + 200)
    changed = values.copy()
    changed[1100:] *= 3
    before = online(detector, values)
    np.testing.assert_array_equal(online(detector, changed)[:1100], before[:1100])
    assert np.isnan(before[:LAGS]).any()


@pytest.mark.parametrize(
    ("windows", "rows", "sentence"),
    [
        (None, "timestamp,value\n", "cannot read"),
        ("[]", "timestamp,value\n", "windows.json: Expected `object`"),
        ("{}", "", "names no series"),
        ('{"group/series.csv": []}', "timestamp,amount\n1,2\n", 'expected the columns "timestamp" and "value"'),
        ('{"group/other.csv": []}', "timestamp,value\n", "cannot read"),
        (
            '{"group/series.csv": [["2014-04-01 00:00:00", "2014-04-01 00:05:00"]]}',
            "timestamp,value\n2014-04-01 00:00:00,1\n",
            "begins or ends at a time that has no row",
        ),
    ],
)
def test_a_folder_that_is_no_copy_of_nab_is_refused(
    tmp_path: Path, windows: str | None, rows: str, sentence: str
) -> None:
    """With the file, and what is wrong with it."""
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "series.csv").write_text(rows)
    if windows is not None:
        (tmp_path / "windows.json").write_text(windows)
    with pytest.raises(UsageError, match=sentence):
        read_series(tmp_path)


def test_the_command_writes_a_page_beside_the_published_scores(tmp_path: Path) -> None:
    """Of a folder with series alone, or in its folder nab; the best detector comes first."""
    (tmp_path / "all" / "nab").mkdir(parents=True)
    values = np.random.default_rng(2).normal(50, 2, 600)
    values[361] = 500
    written(tmp_path / "all" / "nab", values, WHOLE)
    published = {"windowedGaussian": {"standard": 39.6, "reward_low_FP_rate": 20.9, "reward_low_FN_rate": 47.4}}
    (tmp_path / "all" / "nab" / "published_scores.json").write_text(json.dumps(published))
    command = ["evaluate", "--benchmarks", str(tmp_path / "all"), "--method", "zscore", "--method", "iqr"]
    result = CliRunner().invoke(cli, [*command, "--write", str(tmp_path / "report")])
    assert result.exit_code == 0, result.output
    assert "NAB: 1 series of 600 values, 1 labelled windows" in result.stdout
    page = (tmp_path / "report" / "nab.md").read_text()
    assert "| published: windowedGaussian | 39.6 | 20.9 | 47.4 |" in page
    assert page.index("| zscore |") < page.index("| published: windowedGaussian |")
    record = json.loads((tmp_path / "report" / "evaluation" / "nab.json").read_bytes())
    assert [each["method"] for each in record["results"]][:2] == ["zscore", "zscore, told once"]
    found = json.loads(CliRunner().invoke(cli, [*command, "--json"]).stdout)
    assert found == record
    again = CliRunner().invoke(cli, [*command, "--write", str(tmp_path / "report")])
    assert again.exit_code == 2
    assert "nab.md" in again.output
