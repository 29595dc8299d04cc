"""`peerwatch detect` on plain tables, and each mistake's sentence."""

import gzip
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from peerwatch.cli.main import cli
from peerwatch.storage.models import facts
from peerwatch.studies.csv_table import read_csv_table
from peerwatch.studies.table_rows import TableOptions, rows_of


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
    assert header == "who,amount,score,unusual"
    *_, score, unusual = row.split(",")
    assert row.startswith('"user, 30",99.0,')
    assert float(score) > 4
    assert re.fullmatch(r"amount \+\d+(\.\d+)?", unusual)
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
    assert saved.stdout.startswith("amount,other,hour,score,unusual\n")
    assert facts(table / "may.npz") == {"columns": ["amount", "hour"], "rows": 90}
    result = detect("june.csv", *columns, "--model", "may.npz")
    assert result.exit_code == 0, result.stderr
    told = [row.split(",") for row in result.stdout.splitlines()]
    assert [row[:2] for row in told] == [["hour", "amount"], ["-500", "12"], ["12", "500"]]
    assert [row[3].partition(" ")[0] for row in told] == ["unusual", "hour", "amount"]
    (table / "none.csv").write_text("hour,amount\n")
    assert detect("none.csv", *columns, "--model", "may.npz").stdout == "hour,amount,score,unusual\n"
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
    header, row = result.stdout.splitlines()
    assert (header, row.rpartition(",")[0]) == ("who,amount,score,unusual", '"user, 30",99.0,1')


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
        (["empty"], "empty:1: no column begins with a number; name those to judge"),
        (["t.csv", "--columns", "who..price"], 't.csv:1: there is no column "price"'),
        (["t.csv", "--columns", "..who"], "t.csv:1: no column from ..who begins with a number"),
        (["t.csv", "--quiet-time", "soon"], "--quiet-time soon: expected a number of rows, or a time as 90s"),
        (["t.csv", "--quiet-time", "5m"], "--quiet-time 5m: there are no times; name their column with --time"),
        (["t.csv", "--time", "who"], 't.csv:2: "who" is "user, 0"; expected a time, as 2026-01-31 12:00:00'),
        (["t.csv", "--by", "user"], 't.csv:1: there is no column "user"'),
        (
            ["t.csv", "--window", "5", "--save", "m"],
            "--window and --by train many models",
        ),
        (["gap", "--column", "a"], 'gap:3: "a" has no value; --impute fills in what is missing'),
        (["gap", "--column", "b", "--impute", "median"], 'gap:2: "b" has no value in any row'),
        (["half.gz", "--column", "a"], "half.gz is damaged"),
        (["half.parquet", "--column", "a"], "half.parquet is no whole Parquet file"),
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
    (table / "gap").write_text("a,b\n1,NA\n,?\n3,\n")
    (table / "half.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 99)[:-9])
    (table / "half.parquet").write_bytes(b"PAR1 and no more")
    (table / "binary").write_bytes(b"\xff\xfe\x00")
    result = detect(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


def written(table: Path, separator: str) -> bytes:
    """The table of the fixture with another separator; with semicolons its numbers have decimal commas."""
    lines = [line for line in (table / "t.csv").read_text().splitlines() if line]
    rows = [line.replace("user, ", "user ").replace('"', "").split(",") for line in lines]
    comma = separator == ";"
    return "".join(
        separator.join([who, amount.replace(".", ",") if comma else amount]) + "\n" for who, amount in rows
    ).encode()


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_table_may_have_other_separators(table: Path, separator: str) -> None:
    """What is printed has the table's own, and its own decimal commas."""
    (table / "other.txt").write_bytes(written(table, separator))
    result = detect("other.txt", "--method", "mad", "--set", "k=9")
    header, row = result.stdout.splitlines()
    assert header.split(separator) == ["who", "amount", "score", "unusual"]
    assert row.split(separator)[:2] == ["user 30", "99,0" if separator == ";" else "99.0"]


@pytest.mark.parametrize("kind", ["gzip", "parquet", "stdin", "gzip on stdin"])
def test_a_table_may_be_compressed_or_parquet_or_standard_input(table: Path, kind: str) -> None:
    """Whatever its name: its first bytes say what it is."""
    plain = (table / "t.csv").read_bytes()
    expected = detect("t.csv", "--method", "mad")
    given = gzip.compress(plain) if "gzip" in kind else plain
    if kind == "parquet":
        sheet = read_csv_table(table / "t.csv")
        columns = {"who": sheet.texts("who"), "amount": sheet.numbers("amount"), "new": [True] * 59 + [None]}
        pq.write_table(pa.table(columns), table / "table.bin")
        result = detect("table.bin", "--columns", "amount", "--method", "mad")
        assert [re.sub(",1,", ",", row) for row in result.stdout.splitlines()[1:]] == expected.stdout.splitlines()[1:]
    else:
        (table / "table.bin").write_bytes(given)
        name, data = ("-", given) if "stdin" in kind else ("table.bin", None)
        result = CliRunner().invoke(cli, ["detect", name, "--method", "mad"], input=data)
        assert result.stdout == expected.stdout
    assert result.stderr == expected.stderr
    assert len(expected.stdout.splitlines()) > 1


def test_columns_may_be_ranges_and_are_all_numeric_ones_by_default(table: Path) -> None:
    """A range leaves out what is no number; timestamp, id, label and kind are not judged unless they are named."""
    rng = np.random.default_rng(3)
    rows = [f"{place},{a:.3f},x,{b:.3f},{c:.3f},0" for place, (a, b, c) in enumerate(rng.normal(50, 2, (60, 3)))]
    rows[7] = "7,50,x,999,50,0"
    (table / "wide.csv").write_text("\n".join(["id,a,text,b,c,label", *rows]))
    every = detect("wide.csv", "--method", "mad").stdout
    assert "7,50,x,999,50,0" in every
    assert detect("wide.csv", "--method", "mad", "--columns", "a..c").stdout == every
    assert detect("wide.csv", "--method", "mad", "--columns", "..").stdout == every
    assert detect("wide.csv", "--method", "mad", "--column", "a", "--columns", "text..b,c").stdout == every
    assert "999" not in detect("wide.csv", "--method", "mad", "--columns", "a,c").stdout
    assert "999" not in detect("wide.csv", "--method", "mad", "--columns", "c..").stdout


def test_the_columns_that_are_unusual_are_named(table: Path) -> None:
    """The one that matters most first, with how far it lies from the median; in a model's verdicts as well."""
    rng = np.random.default_rng(4)
    values = rng.normal([50, 10, 7], [2, 1, 3], (200, 3))
    values[[20, 90]] = [[50, 10, 100], [90, 1, 7]]
    (table / "odd.csv").write_text("\n".join(["a,b,c", *(",".join(f"{x:.4f}" for x in row) for row in values)]))
    for method in ("mad", "isolation_forest", "lof"):
        rows = detect("odd.csv", "--method", method, "--save", "m.npz").stdout.splitlines()
        told = {row.split(",")[2]: row.rpartition(",")[2] for row in rows}
        assert re.fullmatch(r"c \+\d\d\.\d", told["100.0000"]), method
        assert re.fullmatch(r"(a \+\d\d(\.\d)?|b -[\d.]+)(; (a|b) [+-][\d.]+)?", told["7.0000"]), method
        assert detect("odd.csv", "--model", "m.npz").stdout.splitlines()[1:]


def test_each_row_is_judged_by_its_own_ids_past(table: Path) -> None:
    """In a window of its own: what is usual for one is unusual for another. Times put the rows in order."""
    rng = np.random.default_rng(5)
    rows = [(f"2026-01-01 {place // 60:02}:{place % 60:02}:00", "ab"[place % 2]) for place in range(400)]
    amounts = [rng.normal(10 if who == "a" else 1000, 1) for _, who in rows]
    amounts[301] = 10.0
    lines = [f"{at},{who},{amount:.2f}" for (at, who), amount in zip(rows, amounts, strict=True)]
    shuffled = [lines[place] for place in rng.permutation(400)]
    (table / "two.csv").write_text("\n".join(["timestamp,who,amount", *shuffled]))
    for method, more in (("zscore", ["--set", "k=9"]), ("one_class_svm", ["--every", "50"])):
        arguments = "two.csv", "--method", method, *more
        told = detect(*arguments, "--by", "who", "--window", "100").stdout
        assert f"{lines[301]}," in told
        assert detect(*arguments, "--by", "who").stdout.count(lines[301]) == 1
    assert detect("two.csv", "--method", "zscore", "--window", "100").stdout == "timestamp,who,amount,score,unusual\n"


def test_earlier_values_may_be_columns(table: Path) -> None:
    """A value that is usual, but not after the one before it, is found; the first rows have no score."""
    series = np.tile([0.0, 10.0], 100) + np.random.default_rng(6).normal(0, 0.3, 200)
    series[120] = 10.1
    (table / "turns.csv").write_text("\n".join(["x", *(f"{x:.3f}" for x in series)]))
    arguments = "turns.csv", "--method", "lof", "--set", "contamination=0.015"
    assert "10.100" not in detect(*arguments).stdout
    result = detect(*arguments, "--lags", "1", "--save", "m.npz")
    assert "10.100" in result.stdout
    assert "x 1 before" in result.stdout
    assert facts(table / "m.npz") == {"columns": ["x"], "rows": 199, "lags": 1}
    assert detect("turns.csv", "--model", "m.npz").exit_code == 0


@pytest.mark.parametrize(
    ("impute", "expected"),
    [("median", [3.0, 1.0, 3.0, 5.0]), ("previous", [1.0, 1.0, 1.0, 5.0]), ("linear", [1.0, 1.0, 3.0, 5.0])],
)
def test_missing_values_are_filled_in_where_asked(tmp_path: Path, impute: str, expected: list[float]) -> None:
    """By the median, the value before, or what lies between; in order of time."""
    (tmp_path / "t.csv").write_text("timestamp,x\n3,NA\n1,\n2,1\n4,5\n")
    options = TableOptions(impute=impute)
    ((places, values),) = rows_of(read_csv_table(tmp_path / "t.csv"), ["x"], options, in_order=True).groups
    assert places.tolist() == [1, 2, 0, 3]
    assert values[:, 0].tolist() == expected


def test_repeated_alarms_are_told_once(table: Path) -> None:
    """Within a quiet time, in rows or by the clock, and per id."""
    amounts = np.random.default_rng(7).normal(50, 2, 120)
    odd = [40, 41, 42, 47, 90]
    amounts[odd] = 99
    rows = [f"{60 * place},{'ab'[place % 2]},{amount:.2f}" for place, amount in enumerate(amounts)]
    (table / "burst.csv").write_text("\n".join(["timestamp,who,amount", *rows]))

    def told(*more: str) -> list[int]:
        result = detect("burst.csv", "--columns", "amount", "--method", "mad", "--set", "k=12", *more)
        assert re.search(r"\d+ of 120 rows flagged, \d of them told\n", result.stderr) or not more
        places = [int(row.split(",")[0]) // 60 for row in result.stdout.splitlines()[1:]]
        return [place for place in places if place >= 40]  # of two or three rows before it anything may be unusual

    assert told() == odd
    assert told("--quiet-time", "5") == [40, 47, 90]
    assert told("--quiet-time", "10") == [40, 90]
    assert told("--quiet-time", "6m") == [40, 47, 90]
    assert told("--quiet-time", "1h") == [40]
    assert told("--quiet-time", "10", "--by", "who") == [40, 41, 90]


def test_ties_are_told(table: Path) -> None:
    """On standard error, as a sentence."""
    (table / "tied.csv").write_text("\n".join(["x", *["1"] * 37, *["-1"] * 13]))
    result = detect("tied.csv", "--method", "one_class_svm", "--set", "contamination=0.2")
    assert "50 rows share one score at the threshold, so 0 are flagged" in result.stderr
    assert result.stdout == "x,score,unusual\n"


def test_times_lead_a_season(table: Path) -> None:
    """Rows are put in order, and missing hours filled in, before a season is looked for."""
    rng = np.random.default_rng(8)
    lines = [
        f"2026-01-{1 + hour // 24:02}T{hour % 24:02}:00:00Z,{50 + 20 * np.sin(hour * np.pi / 12) + rng.normal():.3f}"
        for hour in range(24 * 20)
    ]
    lines[333] = lines[333].partition(",")[0] + ",99"
    kept = np.setdiff1d(np.arange(480), rng.integers(30, 330, 9))
    (table / "hours.csv").write_text("\n".join(["timestamp,load", *(lines[place] for place in rng.permutation(kept))]))
    arguments = "--method", "seasonal", "--set", "period=24"
    told = detect("hours.csv", *arguments)
    assert lines[333] in told.stdout
    assert len(told.stdout.splitlines()) < 10
    assert detect("hours.csv", *arguments, "--save", "m.npz").exit_code == 0
    later = [f"2026-01-21T{hour:02}:00:00Z,{50 + 20 * np.sin(hour * np.pi / 12):.3f}" for hour in range(3, 24)]
    (table / "later.csv").write_text("\n".join(["timestamp,load", *later]))
    assert detect("later.csv", "--model", "m.npz").stderr == "0 of 21 rows flagged\n"
    (table / "again.csv").write_text("\n".join(["timestamp,load", *lines[:60], lines[5]]))
    assert "is not later than the row before it" in detect("again.csv", *arguments).stderr
