"""Thresholds that adapt, drift that is told, labels that are heard, and levels: in a run, and through restarts."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support import befriend, purchase

from peerwatch.cli.main import cli
from peerwatch.runtime import supervisor

USERS = 6
BATCH = b"".join(befriend(a, b) for a in range(USERS) for b in range(a)) + purchase(1, "50") + purchase(2, "60")


def stream(count: int = 3000, turn: int = 10**9) -> bytes:
    """Purchases whose amounts lie about 50; from number `turn` on every fourth is ten times that."""
    amounts = np.random.default_rng(5).lognormal(4, 0.3, count)
    amounts[turn::4] *= 10
    return b"".join(purchase(place % USERS, f"{amount:.2f}") for place, amount in enumerate(amounts))


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with both logs, and no pause between restarts."""
    (tmp_path / "batch").write_bytes(b'{"D":"1", "T":"30"}\n' + BATCH)
    (tmp_path / "stream").write_bytes(stream())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", 0.0)
    return tmp_path


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


def run(detector: str, *options: str) -> Result:
    """A run with a detector's section of the config."""
    Path("c.yaml").write_text(f"detector: {detector}\n")
    return peerwatch("run", "--config", "c.yaml", "batch", "stream", "out", *options)


def flagged(logs: Path) -> list[dict[str, str]]:
    """What the run has flagged."""
    return [json.loads(line) for line in (logs / "out").read_bytes().splitlines()]


def in_pieces(logs: Path, content: bytes, detector: str) -> None:
    """Stopped and started anew a few times, with other numbers of shards."""
    lines = content.splitlines(keepends=True)
    (logs / "out").unlink()
    for number, end in enumerate((1, 700, 1500, 1530, len(lines))):
        (logs / "stream").write_bytes(b"".join(lines[:end]))
        result = run(detector, "--state", "state", "--shards", str(1 + number % 3))
        assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    "learning", ["", "name: half_space_trees, parameters: {trees: 5}, training: {rows: 200, every: 500}, "]
)
def test_a_flag_rate_is_held_through_restarts(logs: Path, learning: str) -> None:
    """From the 1,024th purchase on by another threshold, the same bytes in one run and in many."""
    detector = f"{{{learning or 'name: zscore, '}adapt: {{flag_rate: 0.05}}}}"
    assert run(detector).exit_code == 0
    expected = (logs / "out").read_bytes()
    thresholds = {line["score_threshold"] for line in flagged(logs)}
    assert len(thresholds) >= 3
    in_pieces(logs, stream(), detector)
    assert (logs / "out").read_bytes() == expected
    if learning:
        return  # each model has its own threshold before the flag rate has one
    late = [line for line in flagged(logs) if line["score_threshold"] != "3"]
    assert 0.02 < len(late) / 2000 < 0.1


def test_drift_is_told_and_hurries_the_next_model(logs: Path) -> None:
    """A record names the event, who found it and the means; whoever learns does so sooner."""
    content = stream(8000, 4000)
    (logs / "stream").write_bytes(content)
    options = ("--log-file", "log", "--log-level", "info", "--log-format", "json", "--decisions", "none")
    detector = "{name: half_space_trees, parameters: {trees: 5}, training: {rows: 200, every: 5000}, drift: true}"
    assert run(detector, *options).exit_code == 0
    expected = (logs / "out").read_bytes()
    records = [json.loads(line) for line in (logs / "log").read_bytes().splitlines()]
    drifts = [record for record in records if record["event"] == "drift"]
    assert drifts
    assert {"seq", "judged", "series", "by", "before", "after"} < drifts[0].keys()
    assert all(record["level"] == "warning" and record["who"] == "champion" for record in drifts)
    models = [record["seq"] for record in records if record["event"] == "model"]
    (logs / "log").unlink()
    assert run(detector.replace("drift: true", "drift: false"), *options).exit_code == 0
    records = [json.loads(line) for line in (logs / "log").read_bytes().splitlines()]
    assert len(models) > len([record for record in records if record["event"] == "model"])
    in_pieces(logs, content, detector)
    assert (logs / "out").read_bytes() == expected


def test_labels_raise_a_threshold_until_it_is_precise(logs: Path) -> None:
    """They are heard at the next start, before an event that is written down, and there again after a crash."""
    lines = stream(4000).splitlines(keepends=True)
    detector = "{name: zscore, parameters: {k: 1.5}, adapt: {precision: 0.9}}"
    (logs / "stream").write_bytes(b"".join(lines[:2000]))
    result = run(detector, "--state", "state", "--verdicts", "ledger")
    assert result.exit_code == 0, result.stderr
    assert {line["score_threshold"] for line in flagged(logs)} == {"1.5"}
    entries = [json.loads(line) for line in (logs / "ledger").read_bytes().splitlines()]
    places = [place for entry in entries for place in entry["flagged"]]
    scores = [float(line["score"]) for line in flagged(logs)]
    labels = [
        json.dumps({"seq": seq, "label": "anomaly" if score > 2.5 else "normal"})
        for (seq, *_), score in zip(places, scores, strict=True)
    ]
    (logs / "labels").write_text("\n".join(labels) + "\n")
    assert peerwatch("feedback", "state", "labels").exit_code == 0
    (logs / "stream").write_bytes(b"".join(lines))
    options = ("--log-file", "log", "--log-level", "info", "--log-format", "json", "--decisions", "none")
    assert run(detector, "--state", "state", "--verdicts", "ledger", *options).exit_code == 0
    expected = (logs / "out").read_bytes()
    adapted = {float(line["score_threshold"]) for line in flagged(logs)} - {1.5}
    assert len(adapted) == 1
    assert 2 < adapted.pop() < 2.6
    (heard,) = [
        record for record in map(json.loads, (logs / "log").read_bytes().splitlines()) if record["event"] == "labels"
    ]
    assert (heard["labels"], heard["unknown"]) == (len(labels), 0)
    newest = max((logs / "state").glob("checkpoint-*.npz"))
    newest.unlink()
    assert peerwatch("feedback", "state", "--line", "3", "--label", "normal").exit_code == 0
    assert run(detector, "--state", "state", "--verdicts", "ledger").exit_code == 0
    assert (logs / "out").read_bytes() == expected, "the newer label is heard later"


def test_levels_are_written_with_what_is_flagged(logs: Path) -> None:
    """By score, also for sigma; without levels no such field."""
    (logs / "stream").write_bytes(stream(2000, 1000))
    for name in ("sigma", "zscore"):
        assert run(f"{{name: {name}, severity: {{critical: 5, emergency: 20}}}}").exit_code == 0
        found = flagged(logs)
        assert {line["severity"] for line in found} == {"warning", "critical", "emergency"}
        for line in found:
            score = (float(line["amount"]) - float(line["mean"])) / float(line["sd"])
            level = "emergency" if score > 20 else "critical" if score > 5 else "warning"
            assert line["severity"] == level or abs(score - 5) < 0.01 or abs(score - 20) < 0.05
    assert run("{name: sigma}").exit_code == 0
    assert not any("severity" in line for line in flagged(logs))


@pytest.mark.parametrize(
    ("detector", "sentence"),
    [
        ("{adapt: {flag_rate: 0.01}}", 'c.yaml:1: "detector.adapt.flag_rate": sigma gives no scores; use zscore'),
        ("{drift: true}", 'c.yaml:1: "detector.drift": sigma gives no scores'),
        ("{name: mad, adapt: {flag_rate: 2}}", '"detector.adapt.flag_rate" is 2; expected `float` < 1.0'),
        ("{name: mad, adapt: {flag_rate: 0.1, precision: 0.9}}", 'set "flag_rate" or "precision"'),
        ("{name: lof, adapt: {precision: 0.9}}", "lof has no fixed threshold; use a rule"),
        ("{severity: {critical: 5}}", 'set both "critical" and "emergency"'),
        ("{severity: {critical: 5, emergency: 4}}", 'severity: "critical" is 5.0; expected at most 4.0'),
        ("{name: mad, training: {rows: 3}}", '"detector.training.rows" is 3; expected'),
        ("{name: lof, training: {every: 300}}", '"detector.training.every" is 300; expected at least 1000'),
        ("{name: mad}\nchallenger: {k: 2}", 'c.yaml:2: "challenger.k" is set, but there is no challenger; set'),
    ],
)
def test_what_does_not_go_together_is_told(logs: Path, detector: str, sentence: str) -> None:
    """Before anything is written."""
    result = run(detector)
    assert result.exit_code == 2
    assert sentence.replace("`", "") in result.stderr
    assert not (logs / "out").exists()
