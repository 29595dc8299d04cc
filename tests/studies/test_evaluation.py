"""Evaluation: figures that can be checked by hand, nothing of the future, the same bytes, each mistake's sentence."""

import json
import math
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, Self

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_tables import DEEP
from numpy.typing import ArrayLike
from reference import event_of, judge, network_of, own_part
from sklearn import metrics as sk
from strategies import COMMANDS, examples, logs
from support import befriend, purchase, running

from peerwatch.cli.console import Console
from peerwatch.cli.main import cli
from peerwatch.cli.options import layers_of
from peerwatch.detectors.base import Context, Detector, Floats, Verdicts
from peerwatch.detectors.control_charts import Spc
from peerwatch.detectors.registry import DETECTORS
from peerwatch.errors import RunError, UsageError
from peerwatch.kernels import Int64s
from peerwatch.studies.datasets.registry import DATASETS
from peerwatch.studies.datasets.table import DatasetOrder
from peerwatch.studies.evaluation import evaluate as work
from peerwatch.studies.evaluation.crossing import LEAST, cross, folds
from peerwatch.studies.evaluation.data import Measures, StreamPurchases
from peerwatch.studies.evaluation.metrics import Margins, labelled, ranked, unlabelled

SILENT = Console(quiet=True, bar=False)


def evaluated(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["evaluate", *arguments])


def judged(*excess: float) -> Margins:
    """Verdicts that are above or below the threshold."""
    values = np.array(excess)
    return Margins(values, values > 0)


def test_figures_by_hand() -> None:
    """Eight rows: two of the three anomalous ones are flagged, and two normal ones.

    By falling score the labels are 1, 0, 1, 0, 1, 0, 0, 0: of the 15 pairs 5 + 4 + 3 are in order, and the average
    precision is (1/1 + 2/3 + 3/5) / 3. In the first half F1 is 4/5 and 3 of 4 pairs are in order, in the second 0 and 2
    of 3.
    """
    verdicts = judged(math.inf, 3, 2, -4, 1, -3, -2, math.nan)
    labels = np.array([1, 0, 1, 0, 0, 0, 1, 0], np.bool_)
    found = labelled(verdicts, labels, [slice(0, 4), slice(4, 8)])
    assert (found.true_positives, found.false_positives, found.false_negatives, found.true_negatives) == (2, 2, 1, 3)
    assert (found.precision, found.recall) == (0.5, 0.666667)
    assert (found.f1, found.accuracy) == (0.571429, 0.625)
    assert found.roc_auc == 0.8
    assert found.pr_auc == round((1 + 2 / 3 + 3 / 5) / 3, 6)
    assert (found.f1_mean, found.f1_sd) == (0.4, 0.4)
    assert found.roc_auc_mean == round((3 / 4 + 2 / 3) / 2, 6)
    assert found.roc_auc_sd == round((3 / 4 - 2 / 3) / 2, 6)


def test_figures_are_those_of_scikit_learn() -> None:
    """On finite scores with ties."""
    rng = np.random.default_rng(3)
    labels, excess = rng.random(400) < 0.1, rng.integers(-9, 4, 400).astype(np.float64)
    found = labelled(Margins(excess, excess > 0), labels, [slice(0, 400)])
    assert found.roc_auc == round(sk.roc_auc_score(labels, excess), 6)
    assert found.pr_auc == round(sk.average_precision_score(labels, excess), 6)
    assert found.f1 == found.f1_mean == round(sk.f1_score(labels, excess > 0), 6)
    assert found.f1_sd == 0


def test_a_share_of_nothing_is_no_figure() -> None:
    """Nothing flagged, nothing labelled, a fold of one class."""
    nothing = labelled(judged(-1, -2), np.array([True, False]), [slice(0, 1), slice(1, 2)])
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.f1_mean, nothing.roc_auc_sd) == (
        None,
        0,
        0,
        None,
        None,
    )
    normal = labelled(judged(1, -2), np.array([False, False]), [slice(0, 2)])
    assert (normal.precision, normal.recall, normal.roc_auc, normal.pr_auc) == (0, None, None, None)
    assert unlabelled(np.array([False, False, False]), np.ones((3, 1))).silhouette is None


def test_how_far_apart_by_hand() -> None:
    """0 and 2 beside 10 and 12: the indices do not change with the unit."""
    found = unlabelled(np.array([False, False, True, True]), np.array([[0.0], [2], [10], [12]]))
    outer, inner = (11 - 2) / 11, (9 - 2) / 9
    assert found.silhouette == round((outer + inner) / 2, 6)
    assert found.calinski_harabasz == pytest.approx((100 / 1) / (4 / 2))
    assert found.davies_bouldin == pytest.approx((1 + 1) / 10)


def test_ranks_order_what_is_infinite_or_missing() -> None:
    """Equal scores share a rank, no score is the lowest."""
    assert ranked(np.array([math.inf, 1, 1, math.nan, -math.inf, math.inf])).tolist() == [2, 1, 1, 0, 0, 2]


class Past(Detector):
    """A learned detector that remembers what it was fitted on: all rows it has ever been given."""

    name = "past"
    fits: list[tuple[ArrayLike, object]] = []  # noqa: RUF012 (the test's)

    @property
    def trains(self) -> bool:
        """It does."""
        return True

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Remember."""
        self.fits.append((X, y))
        self.highest_ = float(np.asarray(X)[:, 0].max())
        return self

    def judge(self, offsets: Int64s, window: Floats, amount: Floats, context: Context | None = None) -> Verdicts:
        """Above everything before."""
        assert context is not None
        assert len(offsets) == len(amount) + 1 == len(context.own_offsets)
        assert len(window) == offsets[-1]
        threshold = np.full(len(amount), self.highest_)
        return Verdicts(amount, threshold, amount > threshold)

    def score_samples(self, X: ArrayLike) -> Floats:
        """The first column, negated."""
        return -np.asarray(X, np.float64)[:, 0]

    def decision_function(self, X: ArrayLike) -> Floats:
        """How far below everything before."""
        return self.highest_ + self.score_samples(X)

    def look_back(self, X: ArrayLike) -> Verdicts:
        """Not asked for."""
        raise NotImplementedError


@pytest.fixture
def past(monkeypatch: pytest.MonkeyPatch) -> type[Past]:
    """The registry knows it, and its rows are the amounts."""

    def features(offsets: Int64s, window: Floats, amount: Floats, context: Context) -> Floats:
        assert len(offsets) == len(amount) + 1
        assert len(window) == offsets[-1]
        assert len(context.since) == len(amount)
        return amount[:, None]

    monkeypatch.setitem(sys.modules, "learned", SimpleNamespace(Past=Past))
    monkeypatch.setattr("peerwatch.studies.evaluation.data.features", features)
    monkeypatch.setitem(DETECTORS, "past", "learned:Past")
    monkeypatch.setattr(Past, "fits", [])
    return Past


def test_a_learned_detector_knows_the_past_alone(past: type[Past]) -> None:
    """In a table: fitted on the rows before each fold, without labels; the verdicts follow, told in thresholds."""
    values = np.random.default_rng(1).random((62, 2))
    data = Measures("t", values, np.arange(62) % 2 == 1, [""] * 62)
    crossed = cross(data, ["past"], {}, lambda _: None)
    assert [(np.asarray(X).shape, y) for X, y in past.fits] == [((n, 2), None) for n in (12, 22, 32, 42, 52)]
    highest = np.repeat([values[:begin, 0].max() for begin in (12, 22, 32, 42, 52)], 10)
    assert crossed.judged["past"].flagged.tolist() == (values[12:, 0] > highest).tolist()
    assert crossed.judged["past"].excess == pytest.approx((values[12:, 0] - highest) / highest)
    assert (crossed.section.rows, crossed.section.judged, crossed.section.anomalous) == (62, 50, 25)


def test_scores_that_depend_on_the_rows_before_are_told_in_thresholds() -> None:
    """A chart with a memory: each fold's rows follow on those before it, and its threshold is the chart's limit."""
    values = np.random.default_rng(2).normal(10, 1, (60, 1))
    crossed = cross(
        Measures("t", values, np.arange(60) % 2 == 1, [""] * 60), ["spc"], {"chart": "cusum"}, lambda _: None
    )
    chart = Spc(chart="cusum")
    expected = [-chart.fit(values[:begin]).decision_function(values[begin : begin + 10]) for begin in range(10, 60, 10)]
    assert crossed.judged["spc"].excess == pytest.approx(np.concatenate(expected) / chart.limit)


def test_a_learned_detector_takes_part_in_purchases(past: type[Past], tmp_path: Path) -> None:
    """As in a run: fitted on those before each fold whose windows say something, judged with their context."""
    (tmp_path / "batch").write_bytes(b'{"D":"1", "T":"9"}\n' + befriend(1, 2) + purchase(2, "9") + purchase(2, "8"))
    amounts = np.random.default_rng(1).integers(1, 99, 60)
    buyers = ["1", "a stranger"] * 30
    lines = [purchase(buyer, str(amount)) for buyer, amount in zip(buyers, amounts, strict=True)]
    (tmp_path / "stream").write_bytes(b"".join(lines))
    data = work.logs("s", layers_of((str(tmp_path / "batch"), str(tmp_path / "stream")), None, {}, output=False), None)
    crossed = cross(data, ["past"], {}, lambda _: None)
    training_sets = [amounts[:begin:2] for begin in (10, 20, 30, 40, 50)]
    assert [np.asarray(X)[:, 0].tolist() for X, _ in past.fits] == [
        training_set.tolist() for training_set in training_sets
    ]
    highest = np.repeat([training_set.max() for training_set in training_sets], 10)
    assert crossed.judged["past"].flagged.tolist() == (amounts[10:] > highest).tolist()


def test_a_detector_that_fails_is_named(past: type[Past], monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's own code that raises anything ends it with a sentence."""

    def fail(_: Past, X: ArrayLike) -> Floats:
        raise KeyError(len(np.asarray(X)))

    monkeypatch.setattr(past, "score_samples", fail)
    with pytest.raises(RunError, match="the detector past failed: KeyError: 10"):
        cross(Measures("t", np.zeros((60, 1)), None, [""] * 60), ["past"], {}, lambda _: None)


def test_folds_are_in_order_of_time() -> None:
    """Five of them, one behind the other, up to the end; the first part is judged by nobody."""
    found = folds(Measures("t", np.zeros((LEAST + 1, 1)), None, []))
    assert [(fold.start, fold.stop) for fold in found] == [(5, 9), (9, 13), (13, 17), (17, 21), (21, 25)]
    with pytest.raises(UsageError, match="t has 23 rows; cross-validation in time order needs at least 24"):
        folds(Measures("t", np.zeros((LEAST - 1, 1)), None, []))


class Naive(NamedTuple):
    """What is known of one purchase."""

    window: list[int]
    own: list[int]
    since: float | None
    hour: float
    members: int


def naive(batch: bytes, stream: bytes, D: int, T: int, *, directed: bool) -> Iterator[Naive]:
    """Of each stream purchase, by lists and sets."""
    friends: dict[str, set[str]] = {}
    bought: list[tuple[Any, int, str, int]] = []
    for log, content in enumerate((batch, stream)):
        for line in content.split(b"\n"):
            try:
                kind, when, a, b = event_of(own_part(line).removesuffix(b"\r"))
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            if kind == "purchase":
                if log:
                    members = network_of(friends, a, D)
                    own = sorted(each for each in bought if each[2] == a)[-T:]
                    yield Naive(
                        [each[3] for each in sorted(each for each in bought if each[2] in members)[-T:]],
                        [each[3] for each in own],
                        max(0.0, (when - own[-1][0]).total_seconds()) if own else None,
                        when.astimezone(when.tzinfo).timestamp() % 86_400 / 3_600,
                        len(members),
                    )
                bought.append((when, len(bought), a, b))
            elif kind == "befriend":
                friends.setdefault(a, set()).add(b)
                if not directed:
                    friends.setdefault(b, set()).add(a)
            else:
                friends.get(a, set()).discard(b)
                if not directed:
                    friends.get(b, set()).discard(a)


@settings(COMMANDS, max_examples=examples(40))
@given(batch=logs(), stream=logs(max_size=60), D=st.integers(1, 3), T=st.integers(2, 6), directed=st.booleans())
def test_windows_and_contexts_are_what_the_reference_says(
    batch: bytes, stream: bytes, D: int, T: int, *, directed: bool
) -> None:
    """Messy logs: every window and context as lists and sets have it, and sigma's verdicts are the reference's."""
    expected = [*naive(batch, stream, D, T, directed=directed)]
    with tempfile.TemporaryDirectory() as name:
        paths = Path(name, "batch"), Path(name, "stream")
        for path, content in zip(paths, (b'{"D":"1", "T":"2"}\n' + batch, stream), strict=True):
            path.write_bytes(content)
        options = {"D": D, "T": T, "friendships": "directed" if directed else "mutual"}
        if not expected:
            with pytest.raises(UsageError, match="holds no purchase"):
                work.logs("s", layers_of((str(paths[0]), str(paths[1])), None, options, output=False), None)
            return
        data = work.logs("s", layers_of((str(paths[0]), str(paths[1])), None, options, output=False), None)
    assert isinstance(data, StreamPurchases)
    exact = data.case.windows.amount.tolist()
    assert exact == [amount for each in expected for amount in each.window]
    assert np.diff(data.case.windows.offsets).tolist() == [len(each.window) for each in expected]
    assert data.given.window == pytest.approx([amount / 10**6 for amount in exact])
    assert data.given.context is not None
    assert data.given.context.own == pytest.approx([amount / 10**6 for each in expected for amount in each.own])
    assert np.diff(data.given.context.own_offsets).tolist() == [len(each.own) for each in expected]
    since = [math.nan if each.since is None else each.since for each in expected]
    assert data.given.context.since == pytest.approx(since, nan_ok=True)
    assert data.given.context.hour == pytest.approx([each.hour for each in expected])
    assert data.given.context.members.tolist() == [each.members for each in expected]
    verdicts = data.judging("sigma", {})(0, len(data))
    assert verdicts.flagged.sum() == judge(batch, stream, D, T, directed=directed).flagged.count(b"\n")
    assert np.isnan(verdicts.excess).tolist() == [len(each.window) < 2 for each in expected]


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.slow
@pytest.mark.parametrize("name", ["social", "sensors"])
@pytest.mark.usefixtures("registry")
def test_every_detector_takes_part(name: str, deep: bool) -> None:
    """Whatever the registry has, in tables and in windows; none is left out."""
    for each in DEEP if not deep else ():
        del DETECTORS[each]
    (crossed,) = work.evaluate([work.data_set(name, DatasetOrder(rows=240))], [], {}, SILENT)
    methods = [result.method for result in crossed.section.results]
    assert methods == [*(["sigma"] if name == "social" else []), *DETECTORS]
    assert [result.skipped for result in crossed.section.results] == [None] * len(methods)
    for result in crossed.section.results:
        assert result.labelled is not None
        found = result.labelled
        assert found.true_positives + found.false_positives == result.flagged
        assert found.true_positives + found.false_negatives == crossed.section.anomalous
        assert sum(kind.rows for kind in result.kinds) == crossed.section.anomalous


def test_the_kinds_are_those_that_are_found() -> None:
    """The figures by hand from the data set's own columns, for a rule that needs no more."""
    data = work.data_set("traffic", DatasetOrder(rows=1200))
    crossed = cross(data, ["zscore"], {"k": 6.0}, lambda _: None)
    assert isinstance(data, Measures)
    flagged = []
    for begin in range(200, 1200, 200):
        before, now = data.values[:begin], data.values[begin : begin + 200]
        flagged += (np.abs(now - before.mean(axis=0)) / before.std(axis=0) > 6).any(axis=1).tolist()
    for found in crossed.section.results[0].kinds:
        places = [place for place in range(200, 1200) if data.kinds[place] == found.kind]
        assert (found.rows, found.flagged) == (len(places), sum(flagged[place - 200] for place in places))
    assert crossed.section.results[0].flagged == sum(flagged)


def test_the_same_command_writes_the_same_bytes(tmp_path: Path) -> None:
    """Page, figures and pictures; no path and no time of day in them; overwritten only when that is asked for."""
    small = ["--rows", "600", "--dataset", "social", "--dataset", "cards", "--method", "sigma", "--method", "iqr"]
    results = [evaluated(*small, "--write", str(tmp_path / name)) for name in ("a", "b")]
    assert [result.exit_code for result in results] == [0, 0], results[0].stderr
    assert results[0].stdout == results[1].stdout
    names = sorted(str(path.relative_to(tmp_path / "a")) for path in (tmp_path / "a").rglob("*") if path.is_file())
    pictures = ["evaluation/cards.png", "evaluation/social.png"]
    assert names == ["evaluation.md", pictures[0], "evaluation/results.json", pictures[1]]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    page = (tmp_path / "a" / "evaluation.md").read_text()
    assert all(f"({name})" in page for name in pictures)
    assert "600 rows" in page
    assert str(tmp_path) not in page
    social, cards = json.loads((tmp_path / "a" / "evaluation" / "results.json").read_bytes())["sections"]
    assert [result["skipped"] for result in social["results"]] == [None, None]
    assert cards["results"][0]["skipped"].startswith("sigma judges the windows of a run only")
    assert page.count("sigma is left out: ") == 1
    again = evaluated(*small, "--write", str(tmp_path / "a"))
    assert (again.exit_code, again.stdout) == (2, "")
    assert again.stderr.endswith("already exists; name another directory or add --force\n")
    forced = evaluated(*small[:2], "--dataset", "cards", "--method", "mad", "--write", str(tmp_path / "a"), "--force")
    assert forced.exit_code == 0
    assert (tmp_path / "a" / "evaluation.md").read_text() != page


def test_the_page_is_that_of_its_data() -> None:
    """docs/evaluation.md is about every data set; its tables are the figures that lie beside it."""
    docs = Path(__file__).parents[2] / "docs"
    page, record = (docs / "evaluation.md").read_text(), json.loads((docs / "evaluation" / "results.json").read_bytes())
    assert [section["data"] for section in record["sections"]] == [*DATASETS]
    for section in record["sections"]:
        assert (docs / "evaluation" / f"{section['data']}.png").exists()
        for result in (each for each in section["results"] if each["skipped"] is None):
            figures = [result["labelled"][name] for name in ("precision", "recall", "f1", "accuracy", "roc_auc")]
            shown = ["-" if figure is None else f"{figure:.3f}" for figure in figures]
            assert f"| {' | '.join([result['method'], *shown])} |" in page


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with tables of 120 rows of which each tenth is odd, and logs; it is the working directory."""
    rng = np.random.default_rng(1)
    odd = np.arange(120) % 10 == 9
    rows = [
        f"2024-01-01T00:00:{place % 60:02}Z,{place},{50 + rng.normal() + 30 * odd[place]:.3f},{rng.normal():.3f},x"
        for place in range(120)
    ]
    header = "timestamp,id,heat,noise,note"
    for name, labels in (("t", odd.astype(int)), ("none", [0] * 120), ("all", [1] * 120), ("bad", ["maybe"] * 120)):
        lines = [f"{row},{label}\n" for row, label in zip(rows, labels, strict=True)]
        (tmp_path / f"{name}.csv").write_text(f"{header},fraud\n{''.join(lines)}")
    (tmp_path / "few.csv").write_text("a,b\n" + "1,2\n" * 23)
    (tmp_path / "words.csv").write_text("a\n" + "x\n" * 30)
    (tmp_path / "head.csv").write_text("a,b\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "late.csv").write_text("a\n" + "1\n" * 30 + "x\n")
    friends = befriend(1, 2) + purchase(2, "9") + purchase(2, "10") + purchase(2, "11")
    (tmp_path / "batch").write_bytes(b'{"D":"1", "T":"9"}\n' + friends)
    (tmp_path / "stream").write_bytes(b"".join(purchase(1, "99" if odd[place] else "10") for place in range(60)))
    (tmp_path / "labels").write_text("".join(f'{{"line": {line}, "label": "dear"}}\n' for line in range(10, 61, 10)))
    (tmp_path / "wrong").write_text('{"line": 61}\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [("0.0", "1.0"), ("False", "true"), ("normal", "Anomaly"), ("no", "yes"), ("1", "-1"), ("inlier", "outlier")],
)
def test_labels_may_be_words(directory: Path, words: tuple[str, str]) -> None:
    """As other tools write them; in a column with -1 that is the anomaly, as in scikit-learn's predictions."""
    head, *rows = (directory / "t.csv").read_text().splitlines()
    written = [f"{row.rpartition(',')[0]},{words[row.endswith(',1')]}" for row in rows]
    (directory / "words.csv").write_text("\n".join([head, *written]))
    arguments = "--label", "fraud", "--method", "mad", "--json"
    expected, found = (json.loads(evaluated(name, *arguments).stdout) for name in ("t.csv", "words.csv"))
    assert found["sections"][0]["results"] == expected["sections"][0]["results"]


@pytest.mark.usefixtures("directory")
def test_a_table_of_ones_own() -> None:
    """With labels the odd rows are found in the columns that are numbers; without, how far apart they lie."""
    found = evaluated("t.csv", "--label", "fraud", "--method", "mad", "--set", "k=6", "--json")
    assert found.exit_code == 0, found.stderr
    (section,) = json.loads(found.stdout)["sections"]
    assert (section["data"], section["rows"], section["judged"], section["anomalous"]) == ("t.csv", 120, 100, 10)
    (result,) = section["results"]
    assert (result["labelled"]["f1"], result["labelled"]["roc_auc"], result["kinds"]) == (1, 1, [])
    text = evaluated("t.csv", "--column", "heat", "--method", "mad", "--set", "k=6").stdout
    assert text.startswith("t.csv: 120 rows, the last 100 judged, without labels\n")
    assert text.splitlines()[-1].split()[:3] == ["mad", "10", "0"]
    nothing = evaluated("t.csv", "--column", "noise", "--method", "mad", "--set", "k=99").stdout
    assert nothing.splitlines()[-1].split() == ["mad", "0", "0", "-", "-", "-"]


@pytest.mark.usefixtures("directory")
def test_logs_of_ones_own() -> None:
    """Judged in windows; the labels' kinds are told."""
    found = evaluated(
        "batch", "stream", "--labels", "labels", "--method", "sigma", "--set", "k=2", "--write", "report", "--json"
    )
    assert found.exit_code == 0, found.stderr
    (section,) = json.loads(found.stdout)["sections"]
    assert (section["data"], section["rows"], section["judged"], section["anomalous"]) == ("stream", 60, 50, 5)
    assert section["results"][0]["kinds"] == [{"kind": "dear", "rows": 5, "flagged": 5}]
    assert Path("report/evaluation/stream.png").stat().st_size > 0
    assert "from stream; sigma with k=2." in Path("report/evaluation.md").read_text()
    other = evaluated(
        "batch", "stream", "--labels", "labels", "--method", "sigma", "--set", "k=1000", "--T", "2", "--json"
    )
    assert json.loads(other.stdout)["sections"][0]["results"][0]["flagged"] == 0


@pytest.mark.usefixtures("directory", "registry")
def test_what_cannot_judge_is_named() -> None:
    """A detector that needs more rows than the first part has is left out, and that is said."""
    for name in set(DETECTORS) - {"seasonal", "zscore"}:
        del DETECTORS[name]
    rows = Path("t.csv").read_text().splitlines(keepends=True)
    Path("t.csv").write_text("".join(rows[:31]))
    text = evaluated("t.csv", "--column", "heat").stdout
    assert "\nseasonal is left out: seasonal needs at least 14 rows, got 5 (n_samples=5)\n" in text
    assert "\nzscore " in text
    alone = evaluated("t.csv", "--method", "seasonal")
    assert (alone.exit_code, alone.stderr) == (
        2,
        "peerwatch: t.csv: seasonal needs at least 14 rows, got 5 (n_samples=5)\n",
    )


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("gone.csv", "cannot read the table gone.csv: No such file or directory"),
        (".", "cannot read the table .: Is a directory"),
        ("empty.csv", "empty.csv has no rows"),
        ("empty.csv --label a", "empty.csv has no rows"),
        ("head.csv --column a", "head.csv has no rows"),
        ("few.csv", "few.csv has 23 rows; cross-validation in time order needs at least 24"),
        ("words.csv", "words.csv: no column begins with a number; name those to judge with --column"),
        ("late.csv", 'late.csv:32: "a" is "x"; expected a finite number'),
        ("t.csv --column note", 't.csv:2: "note" is "x"; expected a finite number'),
        ("t.csv --column a", 't.csv:1: there is no column "a"; there are timestamp, id, heat, noise, note, fraud'),
        ("t.csv --label a", 't.csv:1: there is no column "a"; there are timestamp, id, heat, noise, note, fraud'),
        ("bad.csv --label fraud", 'bad.csv:2: "fraud" is "maybe"; a label is 0 or 1'),
        (
            "none.csv --label fraud",
            "none.csv: of the 100 rows that are judged (those after the first 20) none is labelled",
        ),
        (
            "all.csv --label fraud",
            "all.csv: of the 100 rows that are judged (those after the first 20) every one is labelled",
        ),
        ("t.csv --method no", 'there is no detector "no"; known are sigma, '),
        ("t.csv --method sigma", "sigma judges the windows of a run only; here are "),
        ("t.csv --method mad --set k=x", "mad: \"k\" is 'x'; expected a number above 0"),
        ("t.csv --set k=1", "--set is for one detector; name it with --method, and no other"),
        ("t.csv --rows 900", "--rows is for the data sets; this is about a table"),
        ("batch stream --label a", "--label is for a table; this is about logs"),
        ("--labels labels", "--labels is for logs; this is about the data sets"),
        ("a b c", "name FILE.csv, or BATCH STREAM, or nothing for the data sets; got 3"),
        ("--dataset no", "there is no data set no; there are social, "),
        ("batch stream --labels gone", "cannot read the labels gone: No such file or directory"),
        ("batch stream --labels wrong", "wrong:1: line 61 of stream is not a judged purchase"),
        ("batch stream --method sigma --set k=-1", 'sigma: "k" is -1; expected a number of at least 0'),
        ("batch stream --method sigma --set c=1", 'sigma has no parameter "c"; it has k'),
        ("t.csv --method iqr --write t.csv", "cannot make the directory t.csv: File exists"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments: str, sentence: str) -> None:
    """Exit code 2, nothing on standard output."""
    result = evaluated(*arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"peerwatch: {sentence}"), result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize(
    ("library", "arguments", "sentence"),
    [
        ("sklearn", "t.csv", "evaluate needs scikit-learn, which is not installed: pip install scikit-learn, or"),
        (
            "matplotlib",
            "t.csv --write report",
            "pictures need matplotlib, which is not installed: pip install matplotlib",
        ),
    ],
)
def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch, library: str, arguments: str, sentence: str) -> None:
    """Before any work, and no directory is made for nothing."""
    monkeypatch.setitem(sys.modules, library, None)
    result = evaluated(*arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"peerwatch: {sentence}")
    assert not Path("report").exists()


@pytest.mark.usefixtures("directory")
def test_what_may_not_be_written_is_told_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory, or a file that is to be overwritten."""
    Path("report/evaluation").mkdir(parents=True)
    Path("report/evaluation.md").touch()
    monkeypatch.setattr(work, "evaluate", None)
    for barred in ("report", "report/evaluation", "report/evaluation.md"):
        monkeypatch.setattr("os.access", lambda path, _, barred=barred: str(path) != barred)
        result = evaluated("t.csv", "--write", "report", "--force")
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"peerwatch: {barred} may not be written; name another directory\n"


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("name", ["evaluation.md", "evaluation/results.json", "evaluation/t.png"])
def test_a_full_disk_is_told_in_a_sentence(name: str) -> None:
    """Whichever file it is that does not fit; the figures have been printed."""
    Path("report/evaluation").mkdir(parents=True)
    Path("report", name).symlink_to("/dev/full")
    result = evaluated("t.csv", "--label", "fraud", "--method", "mad", "--write", "report", "--force")
    assert (result.exit_code, result.stderr) == (1, "peerwatch: cannot write into report: No space left on device\n")
    assert "\nmad " in result.stdout


LEARNS_FOR_EVER = """
import sys
from peerwatch.detectors.learned.autoencoder import Autoencoder
from peerwatch.cli import main as cli
def fit(*_):
    print("learning", file=sys.stderr, flush=True)
    while True:
        pass
Autoencoder.fit = fit
cli.main()
"""


def test_an_interrupt_ends_it_at_once() -> None:
    """In the middle of the work, without a traceback."""
    command = [sys.executable, "-c", LEARNS_FOR_EVER, "evaluate", "--dataset", "cards", "--method", "autoencoder"]
    with running(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"learning\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate() == (b"", b"")
    assert process.returncode == -signal.SIGINT
