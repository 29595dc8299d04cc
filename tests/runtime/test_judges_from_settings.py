"""Another detector by a line of YAML: it judges what the reference's windows hold, and mistakes are named."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_explanation import World, events_of
from strategies import examples
from strategies import logs as random_logs
from support import befriend, purchase

from peerwatch.cli.main import cli
from peerwatch.detectors.base import Detector
from peerwatch.detectors.registry import make

BATCH = befriend(1, 2) + b"".join(purchase(2, f"{10 + 7 * i % 13 / 5:.2f}") for i in range(40))
STREAM = purchase(1, "11.5") + purchase(1, "500") + purchase(1, "0.01")


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a batch and a stream log; it is the working directory."""
    (tmp_path / "batch").write_bytes(b'{"D":"1", "T":"40"}\n' + BATCH)
    (tmp_path / "stream").write_bytes(STREAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(logs: Path, detector: str, *options: str) -> Result:
    """Run with a detector's section of the config."""
    (logs / "c.yaml").write_text(f"detector: {detector}\n")
    return peerwatch("run", "--config", "c.yaml", "batch", "stream", "out", *options)


@pytest.mark.parametrize("name", ["zscore", "iqr", "mad", "spc", "{name: seasonal, parameters: {period: 4}}"])
def test_a_line_of_yaml_picks_another_detector(logs: Path, name: str) -> None:
    """Both the dear and the cheap one are flagged, with the score, the threshold and who spoke."""
    result = run(logs, name if name.startswith("{") else f"{{name: {name}}}")
    assert result.exit_code == 0, result.stderr
    flagged = [json.loads(line) for line in (logs / "out").read_bytes().splitlines()]
    assert [line["amount"] for line in flagged] == ["500", "0.01"]
    for line in flagged:
        assert line["detector"] in name
        assert float(line["score"]) > float(line["score_threshold"])
        assert {"mean", "sd"} < line.keys()


def naive(batch: bytes, stream: bytes, D: int, T: int, detector: Detector) -> list[int]:
    """The stream lines that a detector flags, one window at a time."""
    world, seq, found = World(), 0, []
    for content in (batch, stream):
        for line, _, event in events_of(content):
            seq += 1
            if event[0] == "purchase" and content is stream:
                members = world.hops(event[2], D)
                window = [
                    one.amount / 10**6 for one in sorted(one for one in world.purchases if one.user in members)[-T:]
                ]
                offsets = np.array([0, len(window)])
                _, _, flagged = detector.judge(offsets, np.array(window, np.float64), np.array([event[3] / 10**6]))
                found += [line] * bool(flagged[0])
            world.apply(event, seq, "", line)
    return found


@settings(max_examples=examples(40))
@given(random_logs(), random_logs(), st.sampled_from(["zscore", "iqr", "mad", "spc"]), st.integers(1, 3))
def test_a_detector_gets_the_windows_in_order_of_time(batch: bytes, stream: bytes, name: str, shards: int) -> None:
    """The same lines are flagged as when each purchase is judged on its own, at any number of shards."""
    with tempfile.TemporaryDirectory() as directory:
        paths = [Path(directory) / part for part in ("batch", "stream", "out", "c.yaml")]
        paths[0].write_bytes(batch)
        paths[1].write_bytes(stream)
        paths[3].write_text(f"detector: {{name: {name}}}\n")
        result = peerwatch(
            "run", "--config", str(paths[3]), *map(str, paths[:3]), "--D", "2", "--T", "9", "--shards", str(shards),
            "--verdicts", str(Path(directory) / "ledger"),
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr
        entries = [json.loads(line) for line in (Path(directory) / "ledger").read_bytes().splitlines()]
        lines = [line for entry in entries for _, line, _, _ in entry["flagged"]]
        assert lines == naive(batch, stream, 2, 9, make(name, {}))


def test_a_users_own_detector_judges(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its import path."""
    (logs / "mine.py").write_text(
        "from peerwatch.detectors.rules import ZScore\nclass Strict(ZScore):\n    name = 'strict'\n"
    )
    monkeypatch.syspath_prepend(logs)
    assert run(logs, "{name: 'mine:Strict', parameters: {k: 0.1}}").exit_code == 0
    assert (logs / "out").read_bytes().count(b'"detector": "strict"') == 3


OWN = """
from peerwatch.detectors.rules import ZScore
class Fails(ZScore):
    name = "fails"
    def score_amounts(self, summary, amount):
        raise KeyError("oops")
class Needs(ZScore):
    name = "needs"
    def __init__(self, *, k):
        self.k = k
class Nameless(ZScore):
    name = None
"""


def test_a_users_own_detector_that_fails_ends_the_run(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, with exit code 1: trying again would not help. One that cannot be made is a usage error."""
    (logs / "own.py").write_text(OWN)
    (logs / "broken.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(logs)
    result = run(logs, "{name: 'own:Fails'}")
    assert (result.exit_code, result.stderr) == (1, "peerwatch: the detector fails failed: KeyError: 'oops'\n")
    assert run(logs, "{name: 'own:Needs', parameters: {k: 0.1}}").exit_code == 0
    for name, sentence in (
        ("own:Needs", "cannot be made: TypeError"), ("own:Nameless", "has no name"), ("own:", "cannot be imported"),
        ("broken:X", "cannot be imported: SystemExit"), (":X", "cannot be imported"), (".own:X", "cannot be imported"),
    ):  # fmt: skip
        result = run(logs, f"{{name: '{name}'}}", "--force")
        assert (result.exit_code, result.stdout) == (2, ""), name
        assert sentence in result.stderr


MISSHAPEN = """
from peerwatch.detectors.rules import ZScore
class Misshapen(ZScore):
    name = "misshapen"
    def judge(self, offsets, window, amount, context=None):
        score, threshold, flagged = super().judge(offsets, window, amount, context)
        return {}
"""


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        ("None", "judge returned no scores, thresholds and flags: cannot unpack"),
        ("score[1:], threshold[1:], flagged[1:]", "of shapes [[2], [2], [2]]; expected [3] each"),
        ("score[:, None], threshold, flagged", "of shapes [[3, 1], [3], [3]]; expected [3] each"),
        ("score, 3.0, flagged", "of shapes [[3], [], [3]]; expected [3] each"),
        ("score, threshold, flagged.astype(int)", "judge returned flags of type int64; expected bool"),
    ],
)
def test_what_a_users_own_detector_returns_is_looked_at(
    logs: Path, monkeypatch: pytest.MonkeyPatch, returned: str, sentence: str
) -> None:
    """Arrays of another shape would judge the wrong purchases, or none; no line is to blame for them."""
    (logs / "misshapen.py").write_text(MISSHAPEN.format(returned))
    monkeypatch.syspath_prepend(logs)
    monkeypatch.delitem(sys.modules, "misshapen", raising=False)
    result = run(logs, "{name: 'misshapen:Misshapen'}")
    assert result.exit_code == 1
    assert result.stderr.startswith("peerwatch: the detector misshapen failed: BadInput: judge returned")
    assert sentence in result.stderr
    assert (logs / "out.rejects.json").read_bytes() == b""


@pytest.mark.parametrize(
    ("detector", "options", "sentence"),
    [
        ("{name: sigmoid}", [], 'c.yaml:1: there is no detector "sigmoid"; known are sigma, zscore'),
        ("{name: iqr, parameters: {kk: 1}}", [], 'c.yaml:1: iqr has no parameter "kk"; it has k'),
        ("{name: iqr, parameters: {k: -1}}", [], 'c.yaml:1: iqr: "k" is -1; expected a number above 0'),
        ("{name: iqr, parameters: {k: .nan}}", [], "use finite numbers"),
        ("{name: iqr, parameters: 3}", [], '"detector.parameters" is 3; expected'),
        ("{name: sigma, parameters: {k: 3}}", [], 'sigma has no "detector.parameters"; its k is set as "detector.k"'),
        (
            "{name: iqr}",
            ["--k", "2"],
            '--k: "detector.k" is for sigma only; set the parameters of iqr in "detector.parameters"',
        ),
        ("{name: iqr}", ["--audit", "0.5"], "--audit: an audit can only recompute sigma"),
        ("{name: 'nowhere:Rule'}", [], 'the detector "nowhere:Rule" cannot be imported'),
    ],
)
def test_each_mistake_gets_its_sentence(logs: Path, detector: str, options: list[str], sentence: str) -> None:
    """Exit code 2, and nothing has been written."""
    result = run(logs, detector, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr
    assert not (logs / "out").exists()


def test_a_state_directory_belongs_to_its_detector(logs: Path) -> None:
    """With another detector or other parameters it is refused; `explain` goes by what it was built with."""
    assert run(logs, "{name: iqr}", "--state", "state").exit_code == 0
    assert run(logs, "{name: iqr}", "--state", "state").exit_code == 0
    for other in ("{name: mad}", "{name: iqr, parameters: {k: 2}}"):
        result = run(logs, other, "--state", "state")
        assert result.exit_code == 2
        assert "was built with" in result.stderr
    result = peerwatch("explain", "batch", "stream", "--seq", "42", "--state", "state")
    assert result.exit_code == 0, result.stderr
    assert "by iqr with D=" in result.stdout
    (logs / "c.yaml").write_text("detector: {name: iqr}\n")
    result = peerwatch("sweep", "batch", "stream", "--config", "c.yaml", "--k", "2,3")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "comparing settings works with the detector sigma only, not with iqr" in result.stderr


def test_decisions_are_logged_with_the_detectors_words(logs: Path) -> None:
    """Score and threshold are its own."""
    options = ["--log-level", "info", "--log-format", "json", "--log-file", "log", "--decisions", "all"]
    assert run(logs, "{name: mad}", *options).exit_code == 0
    records = [json.loads(line) for line in (logs / "log").read_bytes().splitlines()]
    decisions = [record for record in records if record["event"] == "decision"]
    assert [record["verdict"] for record in decisions] == ["normal", "flagged", "flagged"]
    assert {record["detector"] for record in decisions} == {"mad"}
    assert {(record["threshold"], record["score_threshold"]) for record in decisions} == {(None, "3.5")}
    assert float(decisions[1]["score"]) > 3.5 > float(decisions[0]["score"])
    assert records[0]["detector"] == "mad"


HEAVY = {
    "sklearn", "river", "skops", "statsmodels", "scipy", "matplotlib", "pandas", "pyarrow",
    "redis", "nats", "confluent_kafka", "asyncpg", "httpx", "sqlite3",
}  # fmt: skip
LOADED = """
import os
import sys
from peerwatch.cli.main import main
os._exit = sys.exit  # as which a run ends if a thread is still at its end
sys.argv[0] = "peerwatch"
try:
    main()
finally:
    print(*sorted(set(sys.modules) & set({heavy})))
"""


@pytest.mark.parametrize(("name", "loaded"), [("sigma", set()), ("mad", set()), ("half_space_trees", {"river"})])
def test_heavy_libraries_load_only_where_a_detector_needs_them(logs: Path, name: str, loaded: set[str]) -> None:
    """A run by sigma or a rule imports none of them."""
    (logs / "c.yaml").write_text(f"detector: {{name: {name}}}\n")
    command = [sys.executable, "-c", LOADED.format(heavy=HEAVY), "run", "--config", "c.yaml", "batch", "stream", "out"]
    result = subprocess.run(command, cwd=logs, capture_output=True, text=True, check=True)
    found = set(result.stdout.split())
    assert found == loaded if not loaded else found >= loaded
