"""Any detector's decisions are explained as the run has made them: the same score, threshold, model and verdict."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from naive_explanation import Bought, World, events_of, features, shared
from numpy.typing import ArrayLike
from support import befriend, purchase
from typical import Typical

from peerwatch.actors.judges import PendingModel
from peerwatch.cli.main import cli
from peerwatch.detectors.base import Floats, columns_of
from peerwatch.runtime import supervisor
from peerwatch.runtime.pipeline import Pipeline
from peerwatch.storage import model_store

D, T, USERS = 2, 9, 12


def made(seed: int, count: int) -> Iterator[bytes]:
    """Lines of a stream: purchases, a few of them high, late or huge, friendships that change, what is no event."""
    random = Random(seed)
    for i in range(count):
        minute = max(0, i - 40 * (random.random() < 0.05))
        stamp = f"2017-06-14 {minute // 60 % 24:02}:{minute % 60:02}:00"
        a, b = random.sample(range(USERS), 2)
        kind = random.random()
        if kind < 0.06:
            yield befriend(a, b, random.choice(["befriend", "unfriend"]), stamp)
        elif kind < 0.08:
            yield b"not an event\n"
        else:
            high = random.random() < 0.06
            yield purchase(a, f"{10**14 if kind > 0.997 else random.lognormvariate(5 if high else 2, 0.4):.2f}", stamp)


BATCH = b"".join(befriend(a, (a + step) % USERS) for a in range(USERS) for step in (1, 3)) + purchase(1, "5")
STREAM = b"".join(made(1, 700))
LEARNING = 'name: "typical:Typical"\n  training: {rows: 50, every: 100}'
LOGGED = ("--log-file", "log", "--log-level", "info", "--log-format", "json", "--decisions", "all")
DETECTORS = {
    "mad": "name: mad\n  parameters: {k: 4}\n  severity: {critical: 6, emergency: 10}",
    "zscore": "name: zscore",
    "spc": "name: spc\n  parameters: {chart: ewma}",
    "ensemble": "name: ensemble\n  parameters: {members: [{name: zscore}, {name: iqr}, {name: mad}]}",
    "flag rate": "name: iqr\n  adapt: {flag_rate: 0.05}",
    "typical": LEARNING,
    "typical, flag rate, drift": f"{LEARNING}\n  adapt: {{flag_rate: 0.05}}\n  drift: true",
}


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


def cap_batches(monkeypatch: pytest.MonkeyPatch, cap: int) -> None:
    """Let batches hold `cap` events at most."""
    defaults = {**(Pipeline.__init__.__kwdefaults__ or {}), "batch_cap": cap}
    monkeypatch.setattr(Pipeline.__init__, "__kwdefaults__", defaults)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with both logs, and no pause between restarts."""
    (tmp_path / "batch").write_bytes(BATCH)
    (tmp_path / "stream").write_bytes(STREAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", 0.0)
    cap_batches(monkeypatch, 64)
    return tmp_path


def configure(detector: str, *, keep: int = 2, more: str = "") -> None:
    """Write the config; a checkpoint may be taken behind each block."""
    state = f"state: {{events: 1, keep: {keep}}}\n"
    Path("c.yaml").write_text(f"D: {D}\nT: {T}\n{state}detector:\n  {detector}\n{more}")


def run(*options: str, until: int = len(STREAM)) -> bytes:
    """Run over the first bytes of the stream; returns all that has been flagged."""
    Path("stream").write_bytes(STREAM[: STREAM.rfind(b"\n", 0, until) + 1])
    result = peerwatch("run", "--config", "c.yaml", "batch", "stream", "out", *LOGGED, *options)
    assert result.exit_code == 0, result.stderr
    return Path("out").read_bytes()


def decisions() -> dict[int, dict[str, Any]]:
    """What the runs have logged of each event, the last word on it."""
    records = [json.loads(line) for line in Path("log").read_bytes().splitlines()]
    return {record["seq"]: record for record in records if record["event"] == "decision"}


def explain(seq: int, *options: str) -> Result:
    """Explain a decision."""
    return peerwatch("explain", "--config", "c.yaml", "batch", "stream", "--seq", str(seq), "--json", *options)


def check(seqs: list[int], *options: str) -> None:
    """Explanations say what the decision log does."""
    logged = decisions()
    for seq in seqs:
        result = explain(seq, *options)
        assert result.exit_code == 0, result.stderr
        record, said = json.loads(result.stdout), logged[seq]
        for key in ("detector", "verdict", "score", "score_threshold", "mean", "sd", "threshold", "amount", "line"):
            assert record[key] == said[key], (seq, key)
        assert (record["model"], record["severity"]) == (said.get("model"), said.get("severity"))
        assert (record["n"], len(record["network"])) == (said["window_size"], said["network_size"])
        first = min((one for one in logged if said.get("model") and logged[one]["model"] == said["model"]), default=0)
        assert (record["model_since"] or 0) <= first or not first


def some(count: int, seed: int = 1) -> list[int]:
    """Some decisions: a half of them flagged, if there are so many."""
    logged = decisions()
    flagged = [seq for seq, record in logged.items() if record["verdict"] == "flagged"]
    random = Random(seed)
    return [*random.sample(flagged, min(count // 2, len(flagged))), *random.sample(sorted(logged), count // 2)]


def content_of(directory: Path) -> dict[str, tuple[bytes, int]]:
    """All files, with when they were written."""
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in directory.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize("detector", DETECTORS.values(), ids=DETECTORS.keys())
def test_an_explanation_says_what_the_run_has_logged(detector: str) -> None:
    """From the beginning without a state directory, from its nearest checkpoint with one; nothing is written there."""
    if "drift" in detector:
        pytest.importorskip("river")
    configure(detector, keep=100)
    for cut in (9000, 30000, 51000, len(STREAM)):
        assert run("--state", "state", until=cut)
    before = content_of(Path("state"))
    check(some(8))
    check(some(8, seed=2), "--state", "state")
    assert content_of(Path("state")) == before


def worlds() -> Iterator[tuple[World, Bought]]:
    """Each stream purchase with the world before it."""
    world, seq = World(), 0
    for name in ("batch", "stream"):
        for line, _, event in events_of(Path(name).read_bytes()):
            seq += 1
            if event[0] == "purchase" and name == "stream":
                yield world, Bought(event[1], seq, event[2], event[3], name, line)
            world.apply(event, seq, name, line)


@pytest.mark.usefixtures("logs")
def test_what_a_decision_rests_on_is_that_of_a_plain_recomputation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Network, window and features; and the features are those that the model has been given."""
    given = set[tuple[float, ...]]()
    original = Typical.score_samples

    def score_samples(detector: Typical, X: ArrayLike) -> Floats:
        given.update(map(tuple, columns_of(X).tolist()))
        return original(detector, X)

    configure(LEARNING)
    monkeypatch.setattr(Typical, "score_samples", score_samples)
    run()
    monkeypatch.setattr(Typical, "score_samples", original)
    logged, compared = decisions(), 0
    huge = [seq for seq, said in logged.items() if said["amount"].startswith("1000000000")]
    chosen = {*some(16), *huge[:1], min(logged)}
    for world, this in worlds():
        if this.seq in chosen:
            record = json.loads(explain(this.seq).stdout)
            expected = shared(world, this, D, T)
            assert {key: record[key] for key in expected} == expected
            seen = features(world, this, D, T)
            assert list(record["features"]) == list(seen)
            assert np.allclose(list(record["features"].values()), list(seen.values()), rtol=1e-9, atol=1e-9)
            assert record["model"] == 0 or tuple(record["features"].values()) in given
            compared += 1
    assert compared == len(chosen)


@pytest.mark.usefixtures("logs")
def test_only_sigma_has_an_inequality() -> None:
    """What is sigma's is null; a rule has no model and no features; the parameters are told with their defaults."""
    configure("name: mad")
    run()
    record = json.loads(explain(200).stdout)
    assert {key for key, value in record.items() if value is None} == {
        "k", "threshold", "d", "left", "right", "flips_at", "cents_away", "without",
        "model", "model_since", "severity", "features",
    }  # fmt: skip
    assert record["parameters"] == {"k": 3.5}


@pytest.fixture
def live(logs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that follows has been stopped, killed and restarted; models were taken up at every seventh ask."""
    asked = [0]

    def ready(_: PendingModel) -> bool:
        asked[0] += 1
        return asked[0] % 7 == 0

    monkeypatch.setattr(PendingModel, "ready", property(ready))
    cap_batches(monkeypatch, 5)
    configure(LEARNING, more="follow: true\nidle_exit: 0\n")
    for cut in (20000, 40000, len(STREAM)):
        run("--state", "state", until=cut)
        if cut == 40000:
            max((logs / "state").glob("checkpoint-*.npz")).unlink()  # as if it had been killed
    return logs


def test_a_live_run_is_explained_by_its_record(live: Path) -> None:
    """Each model speaks where it spoke, be it from a checkpoint or from the beginning; nothing is written."""
    logged = decisions()
    changes = [
        number for number, pair in enumerate(pairwise(logged.values()), 1) if pair[0]["model"] != pair[1]["model"]
    ]
    assert len(changes) >= 3
    assert not {75, 150, 250, 350} & set(changes), "the models should not speak where a batch run has them"
    edges = [seq for one, other in pairwise(logged) for seq in (one, other)
             if logged[one]["model"] != logged[other]["model"]]  # fmt: skip
    before = content_of(live / "state")
    check([*edges, *some(4)], "--state", "state")
    assert content_of(live / "state") == before


@pytest.mark.parametrize("detector", ["name: mad", LEARNING])
def test_a_followed_log_is_explained_through_its_rotations(logs: Path, detector: str) -> None:
    """From the checkpoint, whose file has another name by now, and from the beginning; so is it verified."""
    configure(detector, more="follow: true\nidle_exit: 0\n")
    half = STREAM.rfind(b"\n", 0, len(STREAM) // 2) + 1
    run("--state", "state", until=half)
    (logs / "stream").rename("stream.1")
    (logs / "stream").write_bytes(STREAM[half:])
    options = ["--config", "c.yaml", "batch", "stream", "out", *LOGGED, "--state", "state"]
    assert peerwatch("run", *options).exit_code == 0
    for seq in (60, 300, max(decisions())):
        check([seq], "--state", "state")
    result = verify("--state", "state")
    assert result.exit_code == 0, result.stdout + result.stderr


def test_a_live_run_without_its_record_is_not_explained(live: Path) -> None:
    """Not without the state directory, not with that of other settings, and not what it has not judged yet."""
    result = explain(300)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "only the state directory of this run records when each of its models became active" in result.stderr
    with (live / "stream").open("ab") as stream:
        stream.write(purchase(1, "13", "2017-06-15 00:00:00"))
    last = max(seq for seq in decisions()) + 1
    result = explain(last, "--state", "state")
    assert (result.exit_code, result.stdout) == (2, "")
    assert re.search(rf"has come to event \d+; how it will judge event {last} is not known yet", result.stderr)
    configure(LEARNING.replace("50", "60"), more="follow: true\n")
    result = explain(300, "--state", "state")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "name it, with the settings of the run" in result.stderr


@pytest.mark.usefixtures("logs")
def test_what_a_batch_run_will_say_is_known_before() -> None:
    """Its models come at fixed counts, so purchases behind its last are explained as the next run judges them."""
    configure(LEARNING)
    run("--state", "state", until=30000)
    judged = max(decisions())
    Path("stream").write_bytes(STREAM)
    later = json.loads(explain(judged + 200, "--state", "state").stdout)
    run("--state", "state")
    check([judged + 200], "--state", "state")
    assert json.loads(explain(judged + 200).stdout) == later


@pytest.mark.usefixtures("logs")
def test_thresholds_that_labels_have_moved_are_known() -> None:
    """Labels count from the event before which they were heard."""
    configure("name: zscore\n  parameters: {k: 1.5}\n  adapt: {precision: 0.9}")
    run("--state", "state", until=30000)
    flagged = [seq for seq, record in decisions().items() if record["verdict"] == "flagged"]
    for place, seq in enumerate(flagged[-24:]):
        label = "normal" if place % 3 else "anomaly"
        assert peerwatch("feedback", "state", "--seq", str(seq), "--label", label).exit_code == 0
    run("--state", "state", until=45000)
    assert peerwatch("feedback", "state", "--seq", str(flagged[-1]), "--label", "anomaly").exit_code == 0
    run("--state", "state")
    logged = decisions()
    assert len({record["score_threshold"] for record in logged.values()}) > 1
    edges = [seq for one, other in pairwise(logged) for seq in (one, other)
             if logged[one]["score_threshold"] != logged[other]["score_threshold"]]  # fmt: skip
    check([*edges, *some(8)], "--state", "state")
    result = explain(flagged[0])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "only the state directory of this run records which labels had been read" in result.stderr
    labels = Path("state/feedback.jsonl")
    labels.write_bytes(labels.read_bytes().splitlines(keepends=True)[0])
    result = explain(max(logged), "--state", "state")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.search(r"labels that were read before event \d+ are not in state/feedback.jsonl any more", result.stderr)


@pytest.mark.usefixtures("logs")
def test_a_model_that_has_been_let_go_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the oldest checkpoint it would be needed; a batch run's is learned again without the state directory."""
    monkeypatch.setattr(model_store, "KEPT", 1)
    configure(LEARNING)
    for cut in (10000, 20000, 30000, 40000, 50000, len(STREAM)):
        run("--state", "state", until=cut)
    assert not Path("state/models/champion-00000001.npz").exists()
    early = next(seq for seq, record in decisions().items() if record["model"] == 1)
    result = explain(early, "--state", "state")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "this cannot be judged again without model 1, which was active then: cannot read the model" in result.stderr
    check([early])
    check([max(decisions())], "--state", "state")


@pytest.mark.usefixtures("logs")
def test_another_rule_than_the_runs_judges_from_the_beginning() -> None:
    """What the state directory remembers is no other rule's."""
    configure("name: mad")
    run("--state", "state")
    configure("name: iqr\n  adapt: {flag_rate: 0.05}")
    for seq in some(4):
        found = explain(seq, "--state", "state")
        assert found.exit_code == 0, found.stderr
        assert found.stdout == explain(seq).stdout


@pytest.mark.usefixtures("logs")
def test_a_challenger_changes_nothing() -> None:
    """What it wants to know a champion that does not want it is not told."""
    configure(LEARNING.replace("Typical", "Unaware"))
    alone = run()
    Path("out").unlink()
    configure(LEARNING.replace("Typical", "Unaware"), more="challenger: {name: 'typical:Typical'}\n")
    assert run("--state", "state") == alone != b""
    check(some(4))
    check(some(4, seed=2), "--state", "state")


@pytest.mark.usefixtures("logs")
def test_no_code_is_run_because_a_state_directory_names_it() -> None:
    """A detector of one's own has to be named by a person; others a state directory may name."""
    for detector, named in ((LEARNING, "detector.name"), ("name: mad", None)):
        configure(detector)
        run("--state", "state", "--reset")
        result = peerwatch("explain", "batch", "stream", "--seq", "200", "--state", "state")
        if named is not None:
            assert (result.exit_code, result.stdout) == (2, "")
            assert f'was built with code of your own: set "{named}" in the config as the run did' in result.stderr
        else:
            assert "by mad with D=2 T=9 k=3.5" in result.stdout
    members = "name: ensemble\n  parameters: {members: [{name: mad}, {name: 'typical:Typical'}]}"
    configure(members)
    run("--state", "state", "--reset")
    result = peerwatch("explain", "batch", "stream", "--seq", "200", "--state", "state")
    assert 'set "detector.parameters" in the config' in result.stderr
    check([200], "--state", "state")


@pytest.mark.usefixtures("logs")
def test_a_person_reads_what_was_unusual() -> None:
    """Score, threshold, model and features; or why there is no score. A picture is drawn as well."""
    configure(f"{LEARNING}\n  severity: {{critical: 3, emergency: 6}}")
    run("--state", "state")
    logged = decisions()
    bad = next(seq for seq, record in logged.items() if record.get("severity") == "critical")
    command = ["explain", "--config", "c.yaml", "batch", "stream", "--state", "state", "--seq"]
    result = peerwatch(*command, str(bad), "--plot", "why.svg")
    assert result.exit_code == 0, result.stderr
    for part in (
        "FLAGGED by typical:Typical with D=2 T=9 k=2.0", f"score      {logged[bad]['score']}; above 2 a purchase is",
        f"model      {logged[bad]['model']}, active from event ", "severity   critical", "features   deviations",
        "to own mean",
    ):  # fmt: skip
        assert part in result.stdout
    assert "score" in Path("why.svg").read_text()
    assert "score      none: nothing had been learned yet" in peerwatch(*command, str(min(logged))).stdout
    configure("name: spc")
    text = peerwatch("explain", "--config", "c.yaml", "batch", "stream", "--seq", str(min(logged))).stdout
    assert "score      none: the window is too small, or its numbers too large" in text


@pytest.mark.usefixtures("logs")
def test_the_state_of_a_user_names_no_bound_that_is_not_sigmas() -> None:
    """Friends, network, purchases and window are known whoever judges."""
    configure("name: mad")
    command = ["state", "--config", "c.yaml", "batch", "stream", "--user", "1", "--at", "300"]
    found = json.loads(peerwatch(*command, "--json").stdout)
    assert (found["k"], found["threshold"], found["window_size"]) == (None, None, T)
    text = peerwatch(*command).stdout
    assert f"{T} purchases, mean {found['mean']}, sd {found['sd']}\n" in text
    configure("name: sigma")
    ours = json.loads(peerwatch(*command, "--json").stdout)
    assert ours["k"] == "3"
    assert found == ours | {"k": None, "threshold": None}


def verify(*options: str) -> Result:
    """Verify the output."""
    return peerwatch("verify", "--config", "c.yaml", "batch", "stream", "out", *options)


def check_verified(*options: str) -> None:
    """What the run has written verifies; a changed line is named, and so is one that is missing."""
    right = Path("out").read_bytes()
    lines = right.splitlines(keepends=True)
    result = verify(*options)
    assert result.exit_code == 0, result.stdout + result.stderr
    assert "every one as in out" in result.stdout
    assert "recomputed" not in result.stdout
    seqs = [seq for seq, record in decisions().items() if record["verdict"] == "flagged"]
    for place in (0, len(lines) // 2, len(lines) - 1):
        changed = re.sub(rb'"score": "', b'"score": "1', lines[place])
        for other in (changed, b""):
            Path("out").write_bytes(b"".join([*lines[:place], other, *lines[place + 1 :]]))
            result = verify(*options)
            assert result.exit_code == 1
            assert re.search(
                rf"out:{place + 1} (differs|is missing); it should be event {seqs[place]}, ", result.stdout
            )
    Path("out").write_bytes(right)


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize("detector", [DETECTORS["mad"], DETECTORS["flag rate"], LEARNING])
def test_an_output_verifies_and_a_changed_line_is_named(detector: str) -> None:
    """With and without the state directory, of a run in pieces."""
    configure(detector)
    for cut in (20000, len(STREAM)):
        run("--state", "state", until=cut)
    before = content_of(Path("state"))
    check_verified()
    check_verified("--state", "state")
    assert content_of(Path("state")) == before
    result = verify("--audit", "0.5")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--audit: an audit can only recompute sigma" in result.stderr


def test_a_live_run_verifies_by_its_record(live: Path) -> None:
    """Not without it."""
    before = content_of(live / "state")
    check_verified("--state", "state")
    assert content_of(live / "state") == before
    result = verify()
    assert (result.exit_code, result.stdout) == (2, "")
    assert "only the state directory of this run records when each of its models became active" in result.stderr


@pytest.mark.usefixtures("logs")
def test_sigmas_severity_verifies() -> None:
    """A flagged line's level is judged again, too."""
    configure("name: sigma\n  severity: {critical: 5, emergency: 10}")
    assert b'"severity"' in run()
    result = verify()
    assert result.exit_code == 0, result.stdout
    assert "recomputed by brute force, all the same" in result.stdout
