"""Public benchmarks: figures that scikit-learn gives as well, beside those of others, and each mistake's sentence."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sklearn.metrics import average_precision_score, roc_auc_score

from peerwatch.cli.main import cli
from peerwatch.detectors.base import Floats
from peerwatch.detectors.registry import DETECTORS, make
from peerwatch.studies.evaluation.benchmarks import SLOW


def evaluated(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["evaluate", "--benchmarks", *arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tables of 60 rows, of which every tenth is odd, in `adbench`, and PyOD's figures for one of them."""
    rng = np.random.default_rng(1)
    place = tmp_path / "public" / "adbench"
    place.mkdir(parents=True)
    for name, count in (("1_small", 2), ("2_wide", 5)):
        rows, labels = rng.normal(size=(60, count)), np.arange(60) % 10 == 0
        rows[labels] *= 3
        np.savez(place / f"{name}.npz", X=rows, y=labels.astype(np.int64))
    (place / "measured.csv").write_text(
        "set,rows,method,auc,ap\n1_small,60,od:KNN,0.75,0.5\n1_small,60,od:LODA,0.7,0.4\n1_small,60,mad,0.1,0.1\n"
        "3_other,60,od:KNN,0.1,0.1\n",
        encoding="utf-8",
    )
    return tmp_path / "public"


@pytest.fixture(autouse=True)
def _without_pyod(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pyod", "pyod.models", "pyod.models.knn"):
        monkeypatch.setitem(sys.modules, module, None)


def test_each_detector_scores_the_whole_table(folder: Path) -> None:
    """The areas are those of its scores looking back; PyOD's figures that lie beside the tables stand beside them."""
    record = json.loads(evaluated(str(folder), "--method", "knn", "--method", "mad", "--json").stdout)
    assert record["tables"] == ["1_small", "2_wide"]
    found = {(each["table"], each["method"]): (each["roc_auc"], each["pr_auc"]) for each in record["results"]}
    assert list(found) == [
        ("1_small", "knn"), ("1_small", "mad"), ("2_wide", "knn"), ("2_wide", "mad"),
        ("1_small", "PyOD KNN"), ("1_small", "PyOD LODA"),
    ]  # fmt: skip
    assert found["1_small", "PyOD KNN"] == (0.75, 0.5)
    for (table, method), areas in list(found.items())[:4]:
        with np.load(folder / "adbench" / f"{table}.npz") as archive:
            score, labels = make(method, {}).look_back(archive["X"]).score, archive["y"]
        assert areas == pytest.approx((roc_auc_score(labels, score), average_precision_score(labels, score)), abs=1e-6)


@pytest.mark.usefixtures("registry")
def test_what_takes_minutes_is_measured_if_it_is_named(folder: Path) -> None:
    """Without names every other detector is."""
    for name in [name for name in DETECTORS if name not in {"mad", *SLOW}]:
        del DETECTORS[name]
    record = json.loads(evaluated(str(folder), "--json").stdout)
    assert {each["method"] for each in record["results"] if not each["method"].startswith("PyOD")} == {"mad"}


def test_an_installed_pyod_is_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its defaults and our seed; its figures in the folder are not used then, and where it fails it is said."""
    seeds = []

    class KNN:
        def __init__(self, random_state: int = 0) -> None:
            seeds.append(random_state)

        def fit(self, X: Floats) -> Self:
            if X.shape[1] > 2:
                raise ValueError("too wide")
            self.decision_scores_ = np.abs(X).sum(axis=1)
            return self

    monkeypatch.setitem(sys.modules, "pyod", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "pyod.models", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "pyod.models.knn", SimpleNamespace(KNN=KNN))
    record = json.loads(evaluated(str(folder), "--method", "knn", "--json").stdout)
    found: dict[Any, Any] = {(each["table"], each["method"]): each for each in record["results"]}
    assert seeds == [1, 1]
    assert found["1_small", "PyOD KNN"]["roc_auc"] == pytest.approx(0.777778)
    assert found["2_wide", "PyOD KNN"]["failed"] == "ValueError: too wide"
    text = evaluated(str(folder), "--method", "knn").stdout
    assert "PyOD KNN is left out of 2_wide: ValueError: too wide" in text


def test_a_page_is_written(folder: Path, tmp_path: Path) -> None:
    """With the means and each table's figures, and the same figures as JSON; not over an existing one."""
    out = tmp_path / "out"
    result = evaluated(str(folder), "--method", "knn", "--method", "hbos", "--write", str(out))
    assert result.exit_code == 0
    page = (out / "benchmarks.md").read_text(encoding="utf-8")
    assert "| detector | ROC-AUC | PR-AUC | PyOD's ROC-AUC | PyOD's PR-AUC |" in page
    assert "| table | knn | hbos |" in page
    assert json.loads((out / "evaluation" / "benchmarks.json").read_bytes())["tables"] == ["1_small", "2_wide"]
    again = evaluated(str(folder), "--method", "knn", "--write", str(out))
    assert again.exit_code == 2
    assert "exists" in again.stderr


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({}, "no benchmark table with the arrays X and y"),
        ({"X": np.zeros((3, 1)), "y": np.array([0, 1])}, "and y with a 0 or 1 for each row"),
        ({"X": np.zeros(3), "y": np.array([0, 1, 1])}, "expected X of shape [rows, columns]"),
        ({"X": np.zeros((2, 1)), "y": np.array([0, 0])}, "and y with a 0 or 1 for each row"),
        ({"X": np.array([[None], [1]]), "y": np.array([0, 1])}, "Object arrays cannot be loaded"),
    ],
)
def test_what_is_no_table_is_named(arrays: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    """With what is expected."""
    np.savez(tmp_path / "t.npz", **arrays)
    result = evaluated(str(tmp_path))
    assert result.exit_code == 2
    assert f"{tmp_path / 't.npz'}" in result.stderr
    assert sentence in result.stderr


def test_other_mistakes_get_a_sentence_each(folder: Path, tmp_path: Path) -> None:
    """An empty folder, options for something else, an unknown detector, other columns in `measured.csv`."""
    empty = tmp_path / "empty"
    empty.mkdir()
    (folder / "measured.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (folder / "adbench" / "measured.csv").unlink()
    for arguments, sentence in (
        ((str(empty),), "holds no benchmark: expected tables as .npz files with the arrays X and y"),
        ((str(folder), "--dataset", "cards"), "--dataset is for the data sets; this is about the benchmarks"),
        ((str(folder), "--method", "nonsense"), 'there is no detector "nonsense"'),
        ((str(folder), "--method", "mad"), "expected the columns set, method, auc and ap"),
        ((str(folder), str(folder / "adbench" / "1_small.npz")), "names the folder of the tables; leave"),
    ):
        result = evaluated(*arguments)
        assert result.exit_code == 2
        assert sentence in result.stderr
