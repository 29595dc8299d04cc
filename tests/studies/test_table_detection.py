"""`peerwatch detect` on plain tables, and each mistake's sentence."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from peerwatch.cli.main import cli
from peerwatch.storage.models import facts


def detect(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, ["detect", *arguments])


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a table of 60 rows, of which the 31st is odd; it is the working directory."""
    amounts = np.random.default_rng(1).normal(50, 2, 60).round(2)
    amounts[30] = 99
    rows = "".join(f'"user, {place}",{amount}\n' for place, amount in enumerate(amounts))
    (tmp_path / "t.csv").write_text(f"who,amount\n{rows}\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("method", ["zscore", "iqr", "mad", "spc"])
def test_the_odd_row_is_printed(method: str) -> None:
    """As CSV, with its score; how many on standard error."""
    result = detect("t.csv", "--column", "amount", "--method", method, "--set", "k=4")
    assert result.exit_code == 0, result.stderr
    header, row = result.stdout.splitlines()
    assert header == "who,amount,score"
    assert row.startswith('"user, 30",99.0,')
    assert float(row.rpartition(",")[2]) > 4
    assert result.stderr == "1 of 60 rows flagged\n"


@pytest.mark.parametrize("method", ["iqr", "one_class_svm"])
def test_a_saved_model_judges_another_table(table: Path, method: str) -> None:
    """By two columns; the rows it learned from it judges as its scores say."""
    spread = np.random.default_rng(2).normal(12, 2, (90, 2))
    rows = ["amount,other,hour", *(f"{amount:.2f},x,{hour:.2f}" for amount, hour in spread)]
    (table / "may.csv").write_text("\n".join(rows))
    (table / "june.csv").write_text("hour,amount\n12,12\n-500,12\n12,500\n")
    columns = "--column", "amount", "--column", "hour"
    saved = detect("may.csv", *columns, "--method", method, "--save", "may.npz")
    assert saved.exit_code == 0, saved.stderr
    assert saved.stdout.startswith("amount,other,hour,score\n")
    assert facts(table / "may.npz") == {"columns": ["amount", "hour"], "rows": 90}
    result = detect("june.csv", *columns, "--model", "may.npz")
    assert result.exit_code == 0, result.stderr
    assert [row.rpartition(",")[0] for row in result.stdout.splitlines()] == ["hour,amount", "-500,12", "12,500"]
    (table / "none.csv").write_text("hour,amount\n")
    assert detect("none.csv", *columns, "--model", "may.npz").stdout == "hour,amount,score\n"
    for wrong, sentence in (
        (["june.csv", "--column", "amount"], "was fitted on the columns ['amount', 'hour'], not on ['amount']"),
        (["june.csv", *columns, "--set", "k=3"], "--model has its own method and parameters"),
        (["june.csv", *columns, "--save", "x"], "--model has its own method and parameters"),
    ):
        refused = detect(*wrong, "--model", "may.npz")
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert sentence in refused.stderr


@pytest.mark.usefixtures("table")
def test_a_parameter_may_be_a_list() -> None:
    """Written as JSON."""
    members = '[{"name": "mad", "parameters": {"k": 4}}, {"name": "iqr", "weight": 2}, {"name": "zscore"}]'
    result = detect("t.csv", "--column", "amount", "--method", "ensemble", "--set", f"members={members}")
    assert result.stdout.splitlines() == ["who,amount,score", '"user, 30",99.0,1']


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["t.csv", "--column", "price"], 't.csv:1: there is no column "price"; there are who, amount'),
        (["t.csv", "--column", "who"], 't.csv:2: "who" is "user, 0"; expected a finite number'),
        (["t.csv", "--column", "amount", "--method", "zzz"], 'there is no detector "zzz"'),
        (["t.csv", "--column", "amount", "--set", "k"], "--set k: expected NAME=VALUE"),
        (["t.csv", "--column", "amount", "--set", "k=x"], "iqr: \"k\" is 'x'; expected a number above 0"),
        (["t.csv", "--column", "amount", "--set", "q=1"], 'iqr has no parameter "q"; it has k'),
        (["t.csv", "--column", "amount", "--column", "amount"], "--column amount: given twice"),
        (["t.csv", "--column", "amount", "--save", "no/m"], "cannot write the model no/m: No such file or directory"),
        (["t.csv", "--column", "amount", "--save", "t.csv"], "t.csv is not a model that peerwatch saved"),
        (["t.csv", "--column", "amount", "--model", "t.csv"], "t.csv is not a model that peerwatch saved"),
        (["t.csv", "--column", "amount", "--model", "no"], "cannot read the model no: No such file or directory"),
        (["none.csv", "--column", "amount"], "cannot read the table none.csv: No such file or directory"),
        ([".", "--column", "amount"], "cannot read the table .: Is a directory"),
        (["empty", "--column", "amount"], 'empty:1: there is no column "amount"; there are none'),
        (["short", "--column", "a"], "iqr needs at least 2 rows, got 1"),
        (["binary", "--column", "a"], "binary is not CSV text"),
        (["twice", "--column", "a"], 'twice:1: 2 columns are called "a"; rename all but one'),
        (["ragged", "--column", "a"], "ragged:5: 1 fields; the header has 2"),
        (["ragged", "--column", "b", "--method", "sigma"], "ragged:5"),
        (
            ["t.csv", "--column", "amount", "--method", "sigma"],
            "sigma judges the windows of a run only; here are zscore",
        ),
    ],
)
def test_each_mistake_gets_its_sentence(table: Path, arguments: list[str], sentence: str) -> None:
    """Exit code 2, nothing on standard output."""
    (table / "empty").touch()
    (table / "short").write_text("a\n1\n")
    (table / "twice").write_text("a,a\n1,2\n")
    (table / "ragged").write_text("a,b\n\n1,2\n\n3\n")
    (table / "binary").write_bytes(b"\xff\xfe\x00")
    result = detect(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
