"""What the published tables are, where they lie beside the checkout; elsewhere these tests are skipped."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from peerwatch.cli.main import cli
from peerwatch.sessions.benchmark import BenchmarkRow, held_out, real_people
from peerwatch.sessions.columns import read_sessions

DATA = Path(__file__).parents[3] / "shared" / "data" / "sessions"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"the tables are not here: no {DATA}")


def train(table: str, *options: object) -> Result:
    """Train on a table."""
    return CliRunner().invoke(cli, ["sessions", "train", str(DATA / table), "--label", "label", *map(str, options)])


@pytest.mark.parametrize(
    ("table", "test", "why"),
    [
        ("balanced_40.csv", "behavior_4.csv", "5,000 of the 5,000 rows"),
        ("multifeature_40.csv", "multifeature_5.csv", "3,257 of the 5,000 rows"),
        ("web_behavior_4.csv", None, 'the column "anomaly_score"'),
    ],
)
def test_leaking_data_is_refused(table: str, test: str | None, why: str) -> None:
    """The published protocol and its like, before any figure."""
    result = train(table, *(("--test", DATA / test) if test else ()))
    assert result.exit_code == 2
    assert why in result.stderr
    assert result.stdout == ""


def test_labels_without_a_cause_are_told() -> None:
    """Those of the published training table have nothing to do with its columns."""
    result = train("balanced_40.csv", "--set", "max_iter=15", "--own-past", "off")
    assert result.exit_code == 0
    assert "no feature explains the labels" in result.stderr


def test_users_held_out_pass() -> None:
    """A real signal, and nothing shared: no warning."""
    options = ["--set", "max_iter=15", "--own-past", "off", "--hold-out", "0.3", "--test", DATA / "multifeature_5.csv"]
    result = train("multifeature_40.csv", *options, "--unseen-users")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""


def by_name(rows: list[BenchmarkRow]) -> dict[str, BenchmarkRow]:
    """Rows by the model's name."""
    return {row.name.partition(",")[0]: row for row in rows}


@pytest.mark.skipif(
    "config.getoption('--hypothesis-profile') != 'soak'",
    reason="takes minutes; --hypothesis-profile=soak runs it",
)
def test_the_figures_hold() -> None:
    """Users held out: F1 .92 and AUC .99; real people: .90 without labels and .94 with."""
    found = by_name([*held_out([read_sessions(DATA / f"multifeature_{share}.csv") for share in (40, 5)], 1)])
    best = found["hist_gradient_boosting"]
    assert (best.f1 or 0) >= 0.92
    assert (best.roc_auc or 0) >= 0.99
    people = by_name([*real_people([read_sessions(DATA / "balabit_sessions.csv")], 1)])
    assert (people["isolation_forest"].roc_auc or 0) >= 0.90
    assert (people["hist_gradient_boosting"].roc_auc or 0) >= 0.94
