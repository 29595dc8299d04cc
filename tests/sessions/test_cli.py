"""The commands as a user types them."""

import csv
import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from peerwatch.cli.main import cli


def peerwatch(*arguments: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["sessions", *map(str, arguments)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sessions to train on, others of the same users, others of other users, and a model."""
    folder = tmp_path_factory.mktemp("sessions")
    for name, options in (
        ("train", ["--rows", 600, "--anomalies", 0.4]),
        ("same", ["--rows", 300, "--anomalies", 0.1, "--seed", 2, "--users", 24]),
        ("test", ["--rows", 300, "--anomalies", 0.1, "--seed", 3, "--users-seed", 2]),
    ):
        assert peerwatch("generate", folder / f"{name}.csv", *options).exit_code == 0
    options = ["--label", "label", "--set", "max_iter=30", "--own-past", "on", "--expect", 0.1]
    result = peerwatch("train", folder / "train.csv", *options, "--save", folder / "model.skops", "--force",
                       "--test", folder / "test.csv", "--metrics", folder / "metrics.json")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "train.csv, cross-validated: 600 sessions, 240 of them anomalous" in result.stdout
    return folder


def test_figures_of_the_test_are_written(folder: Path) -> None:
    """As JSON, by the data that they are of."""
    found = json.loads((folder / "metrics.json").read_text())
    assert [name.rpartition("/")[2] for name in found] == ["train.csv, cross-validated", "test.csv"]
    assert found[f"{folder}/test.csv"]["sessions"] == 300
    assert found[f"{folder}/test.csv"]["roc_auc"] > 0.8


def test_new_sessions_are_judged(folder: Path) -> None:
    """A verdict a line; rows that cannot be judged go to a file of their own, and are told."""
    rows = [*csv.reader((folder / "test.csv").read_text().splitlines())]
    rows[3][4] = "many"
    rows[7].append("one too many")
    with (folder / "new.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    result = peerwatch("predict", folder / "model.skops", folder / "new.csv", "--output", folder / "out.csv")
    assert result.exit_code == 0, result.output
    assert "2 of the 300 rows" in result.stderr
    assert "of 298 sessions flagged" in result.stderr
    verdicts = [*csv.DictReader((folder / "out.csv").read_text().splitlines())]
    assert len(verdicts) == 298
    assert all(row["reasons"].count(";") == 2 for row in verdicts if row["is_anomaly"] == "1")
    rejected = [*csv.DictReader((folder / "out.rejects.csv").read_text().splitlines())]
    assert [row["line"] for row in rejected] == ["4", "8"]
    again = peerwatch("predict", folder / "model.skops", folder / "new.csv", "--output", folder / "out.csv")
    assert again.exit_code == 2
    assert "--force" in again.stderr
    printed = peerwatch("predict", folder / "model.skops", folder / "new.csv")
    assert printed.stdout == (folder / "out.csv").read_text()


def test_leaks_are_refused_before_any_figure(folder: Path) -> None:
    """By train and by evaluate; --allow-leak computes the figures, and still tells."""
    model, train = folder / "model.skops", folder / "train.csv"
    for arguments in (
        ["evaluate", model, train, "--label", "label"],
        ["train", train, "--label", "label", "--test", train],
    ):
        result = peerwatch(*arguments)
        assert result.exit_code == 2
        assert "600 of the 600 rows" in result.stderr
        assert result.stdout == ""
    result = peerwatch("evaluate", model, train, "--label", "label", "--allow-leak")
    assert result.exit_code == 0, result.output
    assert "600 of the 600 rows" in result.stderr
    assert "600 sessions" in result.stdout


def test_known_users_are_told_and_can_be_left_out(folder: Path) -> None:
    """--unseen-users judges the others; --hold-out keeps some out of the training."""
    model = folder / "model.skops"
    result = peerwatch("evaluate", model, folder / "same.csv", "--label", "label")
    assert result.exit_code == 0, result.output
    assert "24 users of" in result.stderr
    result = peerwatch("evaluate", model, folder / "same.csv", "--label", "label", "--unseen-users")
    assert result.exit_code == 2
    assert "--hold-out" in result.stderr
    result = peerwatch("evaluate", model, folder / "test.csv", "--label", "label", "--unseen-users")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    options = ["--label", "label", "--set", "max_iter=10", "--own-past", "off", "--hold-out", 0.3]
    result = peerwatch("train", folder / "train.csv", *options, "--test", folder / "same.csv", "--unseen-users")
    assert result.exit_code == 0, result.output
    assert "users held out of" in result.stdout
    assert "users that were not in the training data" in result.stdout


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_pictures_are_drawn(folder: Path) -> None:
    """Five of them with labels, two without; they are not overwritten."""
    options = [folder / "model.skops", folder / "test.csv", "--label", "label", "--pictures", folder / "pictures"]
    result = peerwatch("evaluate", *options)
    assert result.exit_code == 0, result.output
    names = {path.name for path in (folder / "pictures").iterdir()}
    assert names == {"confusion.png", "roc.png", "precision_recall.png", "scores.png", "importance.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (folder / "pictures").iterdir())
    assert peerwatch("evaluate", *options).exit_code == 2
    options = ["--model", "isolation_forest", "--set", "n_estimators=10", "--without", "label", "--without", "risk"]
    result = peerwatch("train", folder / "train.csv", *options, "--pictures", folder / "plain")
    assert result.exit_code == 0, result.output
    assert "30 of 600 sessions flagged" in result.stdout
    assert {path.name for path in (folder / "plain").iterdir()} == {"scores.png", "importance.png"}


def test_a_model_says_what_it_is(folder: Path) -> None:
    """For people and for programs."""
    text = peerwatch("info", folder / "model.skops").stdout
    assert "hist_gradient_boosting" in text
    assert "own_change_click_events" in text
    assert re.search(r"^probability_threshold +0\.", text, re.MULTILINE)
    assert json.loads(peerwatch("info", folder / "model.skops", "--json").stdout)["known_users"] == 24
    assert peerwatch("models").stdout.count("\n") == 5
    assert peerwatch("features").stdout.count("\n") >= 50


def test_mistakes_are_told(folder: Path) -> None:
    """In one sentence, with exit code 2 and nothing written."""
    train, other = folder / "train.csv", folder / "other"
    other.write_text("something else")
    for arguments, why in (
        (["train", train], "needs labels"),
        (["train", train, "--label", "x"], 'has no column "x"'),
        (["train", folder / "absent", "--label", "x"], "cannot read the sessions"),
        (["train", other, "--label", "x"], 'has no column "x"'),
        (["train", train, "--label", "label", "--threshold", "f3"], "expected f1, share, recall"),
        (["train", train, "--label", "label", "--without", "x"], 'has no column "x"'),
        (["train", train, "--label", "label", "--model", "x"], "there is no session model"),
        (["train", train, "--test", train], "--label"),
        (["train", train, "--hold-out", "0.5"], "--label"),
        (["train", train, "--label", "label", "--save", other], "is there and no session model"),
        (["train", train, "--label", "label", "--save", other / "x"], "Not a directory"),
        (["train", train, "--label", "label", "--metrics", folder / "no" / "x"], "does not exist; create it first"),
        (["train", train, "--label", "label", "--contamination", "0.2"], "--contamination is for sessions without"),
        (["predict", other, train], "is not a session model"),
        (["generate", train], "exists"),
        (["benchmark", "--only", "x"], "there is no part x"),
        (["benchmark", folder, "--only", "held-out"], "needs multifeature_40.csv"),
        (["follow", folder / "model.skops", "log", "out", "--reset"], "--state"),
        (["follow", folder / "model.skops", folder, "out", "--idle-exit", "0"], "is a directory"),
    ):
        result = peerwatch(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert why in result.stderr, arguments
        assert result.stderr.count("\n") == 1
    assert other.read_text() == "something else"


def test_a_training_is_tracked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters, figures and the model's file, where MLflow is installed; where it is not, a sentence says so."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (folder / "runs").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    options = ["--label", "label", "--set", "max_iter=5", "--own-past", "off", "--save", folder / "tracked.skops"]
    result = peerwatch("train", folder / "train.csv", *options, "--mlflow", "sessions")
    if find_spec("mlflow") is None:
        assert result.exit_code == 2
        assert "pip install 'peerwatch[mlflow]'" in result.stderr
        assert not (folder / "tracked.skops").exists()
        return
    assert result.exit_code == 0, result.output
    found = {path.name for path in (folder / "runs").rglob("*") if path.is_file()}
    assert {"roc_auc", "max_iter", "tracked.skops"} <= found
