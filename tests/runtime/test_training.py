"""Models in a run: they speak from the same event on, whatever the machine does, and after any restart."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from itertools import count, cycle, islice, pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from learned_tables import QUICK
from support import befriend, judge_files, purchase, running, wait_until
from typical import Typical

from peerwatch import durable
from peerwatch.actors.coordinator import Judges
from peerwatch.actors.judges import LiveJudge, PendingModel
from peerwatch.cli.main import cli
from peerwatch.detectors.registry import DETECTORS, make
from peerwatch.judging.detector_judge import DetectorJudge
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.judging.training import Learner
from peerwatch.runtime import supervisor
from peerwatch.storage import model_store
from peerwatch.storage.journal import Journal, JournalEntry

USERS = 8
BATCH = b"".join(befriend(a, b) for a in range(USERS) for b in range(a)) + purchase(1, "5") + purchase(2, "6")
STREAM = b"".join(
    purchase(i % USERS, f"{10 + 7 * i % 13}", f"2017-06-14 {i // 60 % 24:02}:{i % 60:02}:00")
    + (purchase(i % 5, "99") + b"not an event\n" if i % 31 == 30 else b"")
    for i in range(600)
)
CONFIG = """
D: 1
T: 9
detector:
  name: "typical:Typical"
  training: {rows: 50, every: 100}
"""


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with both logs and a config, and no pause between restarts."""
    (tmp_path / "batch").write_bytes(BATCH)
    (tmp_path / "stream").write_bytes(STREAM)
    (tmp_path / "c.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", 0.0)
    return tmp_path


def until(cut: int) -> bytes:
    """The whole lines of the stream among its first bytes."""
    return STREAM[: STREAM.rfind(b"\n", 0, cut) + 1]


def run(*options: str) -> Result:
    """A run with the config."""
    return peerwatch("run", "--config", "c.yaml", "batch", "stream", "out", *options)


def models_of(flagged: bytes) -> list[int]:
    """Which model spoke on each flagged line."""
    return [int(json.loads(line)["model"]) for line in flagged.splitlines()]


def test_each_flagged_line_names_the_model_that_spoke(logs: Path) -> None:
    """In order; before the first model nothing is flagged."""
    result = run("--log-file", "log", "--log-level", "info", "--log-format", "json", "--decisions", "all")
    assert result.exit_code == 0, result.stderr
    spoke = models_of((logs / "out").read_bytes())
    assert spoke == sorted(spoke)
    assert 1 <= spoke[0] < spoke[-1] == 6
    records = [json.loads(line) for line in (logs / "log").read_bytes().splitlines()]
    decided = [record for record in records if record["event"] == "decision"]
    assert decided[0]["model"] == 0
    pairs = pairwise(record["model"] for record in decided)
    changes = [place for place, (before, after) in enumerate(pairs, 1) if before != after]
    assert changes == [75, 150, 250, 350, 450, 550]


def bench(rows: int = 50, every: int = 100) -> Judges:
    """A detector that learns."""
    return Judges(LiveJudge(DetectorJudge(Typical(), Learner(rows, every))))


@pytest.mark.parametrize(
    ("shards", "walkers", "batch_cap", "chunk"), [(1, 1, 1, 100), (3, 2, 7, 333), (2, 2, 64, 5000)]
)
def test_neither_shards_nor_batches_matter(shards: int, walkers: int, batch_cap: int, chunk: int) -> None:
    """The same bytes, whatever the work is cut into."""
    expected = judge_files(BATCH, STREAM, 1, 9, bench=bench())
    found = judge_files(
        BATCH, STREAM, 1, 9, bench=bench(), shards=shards, walkers=walkers, batch_cap=batch_cap, chunk=chunk
    )
    assert found.flagged == expected.flagged != b""
    assert found.totals.verdicts == expected.totals.verdicts


def expected_of(logs: Path) -> bytes:
    """What a run without a state directory writes."""
    assert run().exit_code == 0
    expected = (logs / "out").read_bytes()
    (logs / "out").unlink()
    return expected


@pytest.mark.parametrize("cuts", [[100], [5000, 5100, 20000], [9000, 30000]])
def test_a_log_judged_in_pieces_has_the_same_models(logs: Path, cuts: list[int]) -> None:
    """Stopped and started anew at any line, with a lesson half gathered or half learned."""
    expected = expected_of(logs)
    for number, cut in enumerate([*cuts, len(STREAM)]):
        (logs / "stream").write_bytes(until(cut))
        result = run("--state", "state", "--shards", str(1 + number % 3))
        assert result.exit_code == 0, result.stderr
    assert (logs / "out").read_bytes() == expected != b""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::peerwatch.errors.TiedScores")
@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_says_the_same_after_crashes(logs: Path, name: str) -> None:
    """In another number of shards each time, from the checkpoint before the last one: lines are judged twice."""
    parameters = dict(QUICK.get(name, {}))
    detector = make(name, parameters)
    parameters |= {"contamination": 0.1} if "contamination" in detector.parameters() else {}
    training = {"training": {"rows": 50, "every": 100}} if detector.trains else {}
    detector_of = {"name": name, "parameters": parameters, **training}
    (logs / "c.yaml").write_text(json.dumps({"D": 1, "T": 25, "state": {"events": 50}, "detector": detector_of}))
    expected = expected_of(logs)
    for number, cut in enumerate((9000, 20000, 30000, len(STREAM))):
        (logs / "stream").write_bytes(until(cut))
        assert run("--state", "state", "--shards", str(1 + number % 3)).exit_code == 0
        max((logs / "state").glob("checkpoint-*.npz")).unlink()
    assert run("--state", "state").exit_code == 0
    assert (logs / "out").read_bytes() == expected != b""


def test_a_model_that_has_spoken_is_not_learned_again(logs: Path) -> None:
    """A restart behind it takes it from the state directory."""
    (logs / "stream").write_bytes(until(20000))
    assert run("--state", "state").exit_code == 0
    Typical.trained.clear()
    (logs / "stream").write_bytes(STREAM)
    assert run("--state", "state").exit_code == 0
    assert 0 < len(Typical.trained) < 6
    assert set(Typical.trained) == {50}


def test_a_live_run_says_the_same_after_a_crash(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a model was ready is written down, and it speaks there again when the events are judged anew."""
    expected = expected_of(logs)
    asks = count()
    monkeypatch.setattr(PendingModel, "ready", property(lambda _: next(asks) % 3 == 2))  # ready at the third look
    for cut in (9000, 20000, len(STREAM)):
        (logs / "stream").write_bytes(until(cut))
        assert run("--state", "state", "--follow", "--idle-exit", "0").exit_code == 0
    said = (logs / "out").read_bytes()
    assert models_of(said)[-1] > 2
    assert said != expected
    checkpoints = sorted((logs / "state").glob("checkpoint-*.npz"))
    journal = (logs / "state" / "journal.jsonl").read_bytes()
    checkpoints[-1].unlink()  # as if the run had died before it was written
    monkeypatch.setattr(PendingModel, "ready", property(lambda _: True))
    assert run("--state", "state", "--follow", "--idle-exit", "0").exit_code == 0
    assert (logs / "out").read_bytes() == said
    again = (logs / "state" / "journal.jsonl").read_bytes()
    assert again.startswith(journal)
    assert b'"what":"read"' in again, "no other model may speak where verdicts have been read"
    with (logs / "stream").open("ab") as stream:
        stream.write(STREAM)
    assert run("--state", "state", "--follow", "--idle-exit", "0").exit_code == 0
    assert models_of((logs / "out").read_bytes())[-1] > models_of(said)[-1], "what is new may have new models"


def test_a_torn_line_of_the_journal_is_cut_off_and_a_damaged_one_told(logs: Path) -> None:
    """A crash may leave a part of the last line; nothing else is guessed at."""
    expected = expected_of(logs)
    (logs / "stream").write_bytes(until(20000))
    assert run("--state", "state").exit_code == 0
    journal = logs / "state" / "journal.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"seq":9')
    (logs / "stream").write_bytes(STREAM)
    assert run("--state", "state").exit_code == 0
    assert (logs / "out").read_bytes() == expected
    assert journal.read_bytes().startswith(whole + b'{"seq"')
    journal.write_bytes(b"x" + journal.read_bytes())
    result = run("--state", "state")
    assert result.exit_code == 2
    assert re.search(r"journal.jsonl:1: the journal is damaged .* --reset", result.stderr)


def test_a_model_that_is_gone_or_damaged_is_told(logs: Path) -> None:
    """With the way out; --reset begins anew."""
    expected = expected_of(logs)
    assert run("--state", "state").exit_code == 0
    newest = logs / "state" / "models" / "champion-00000006.npz"
    content = newest.read_bytes()
    newest.write_bytes(content[: len(content) // 2])
    result = run("--state", "state")
    assert result.exit_code == 1
    assert "model 6, which this state needs, cannot be used" in result.stderr
    newest.write_bytes((logs / "state" / "models" / "champion-00000005.npz").read_bytes())
    assert "champion-00000006.npz holds model 5; bring it back" in run("--state", "state").stderr
    newest.unlink()
    assert "bring it back, or begin anew with --reset" in run("--state", "state").stderr
    assert run("--state", "state", "--reset").exit_code == 0
    assert (logs / "out").read_bytes() == expected


def test_a_run_that_begins_anew_knows_nothing_of_an_earlier_one(logs: Path) -> None:
    """Neither models nor the journal, even where a --reset was killed behind the last checkpoint."""
    assert run("--state", "state").exit_code == 0
    (logs / "c.yaml").write_text(CONFIG.replace("every: 100", "every: 200"))
    expected = expected_of(logs)
    for checkpoint in (logs / "state").glob("checkpoint-*"):
        checkpoint.unlink()
    assert run("--state", "state").exit_code == 0
    assert (logs / "out").read_bytes() == expected


def test_other_lessons_are_refused(logs: Path) -> None:
    """A state directory belongs to its settings."""
    assert run("--state", "state").exit_code == 0
    (logs / "c.yaml").write_text(CONFIG.replace("every: 100", "every: 200"))
    result = run("--state", "state")
    assert result.exit_code == 2
    assert 'c.yaml:6: "detector.training.every" is 200, but the state in state was built with 100' in result.stderr


def test_models_that_nobody_needs_are_let_go(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest are kept, and what the kept checkpoints need."""
    monkeypatch.setattr(model_store, "KEPT", 1)
    for cut in (5000, 20000, 30000, len(STREAM)):
        (logs / "stream").write_bytes(until(cut))
        assert run("--state", "state").exit_code == 0
    kept = sorted(path.name for path in (logs / "state" / "models").iterdir())
    assert kept[-1] == "champion-00000007.npz", "learned, though it does not speak yet"
    assert 2 <= len(kept) < 7
    max((logs / "state").glob("checkpoint-*.npz")).unlink()  # the one before it needs older ones
    assert run("--state", "state").exit_code == 0


def test_models_are_there_after_a_power_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their directory as well: the journal would name models that are gone with it."""
    synced: list[Path] = []
    monkeypatch.setattr(durable, "sync_directory", synced.append)
    journal = Journal(tmp_path)
    journal.add(JournalEntry(1, "batch", 1))
    synced.clear()
    model_store.ModelStore(tmp_path, journal, "champion").keep(1, Typical().fit([[1.0], [2.0]]))
    assert synced == [tmp_path, tmp_path / "models"]


def test_a_detector_that_cannot_learn_ends_the_run(logs: Path) -> None:
    """With a sentence."""
    (logs / "c.yaml").write_text(CONFIG.replace("Typical", "Hopeless"))
    result = run()
    assert result.exit_code == 1
    assert "the detector hopeless could not be trained (model 1): ValueError: nothing to be learned" in result.stderr


CHALLENGED = CONFIG + ("challenger: {name: zscore, parameters: {k: 2.0}}\nsinks: [{to: notices, records: [notices]}]\n")


def test_disagreements_are_logged_and_counted(logs: Path) -> None:
    """Each purchase that only one of the two flags, with what both have said; the champion's output is its own."""
    expected = expected_of(logs)
    (logs / "c.yaml").write_text(CHALLENGED)
    result = run("--log-file", "log", "--log-level", "info", "--log-format", "json", "--decisions", "flagged")
    assert result.exit_code == 0, result.stderr
    assert (logs / "out").read_bytes() == expected
    records = [json.loads(line) for line in (logs / "log").read_bytes().splitlines()]
    differ = [record for record in records if record["event"] == "disagreement"]
    assert differ
    for record in differ:
        assert record["champion"]["verdict"] != record["challenger"]["verdict"]
        assert (record["champion"]["detector"], record["challenger"]["detector"]) == ("typical:Typical", "zscore")
        assert "model" in record["champion"]
    notices = [json.loads(line) for line in (logs / "notices").read_bytes().splitlines()]
    told = [notice for notice in notices if notice["notice"] == "disagreement"]
    assert [notice["event"] for notice in told] == [record["seq"] for record in differ]
    for notice, record in zip(told, differ, strict=True):
        assert notice["who"] == ("champion" if record["champion"]["verdict"] == "flagged" else "challenger")
        assert notice["details"]["amount"] == record["amount"]
        assert f"{notice['details']['challenger']['score']:.6g}" == record["challenger"]["score"]
    alone = sum(record["champion"]["verdict"] == "flagged" for record in differ)
    finished = records[-1]
    assert (finished["champion_alone"], finished["challenger_alone"]) == (alone, len(differ) - alone)
    assert f"{alone:,} flagged by typical:Typical alone, {len(differ) - alone:,} by zscore alone" in result.stderr


def test_sigma_may_be_challenged_and_challenge(logs: Path) -> None:
    """With a model that learns on either side; restarts do not matter."""
    (logs / "c.yaml").write_text(
        "D: 1\nT: 9\nchallenger: {name: 'typical:Typical'}\ndetector: {training: {rows: 50, every: 100}}\n"
    )
    whole = run("--state", "other")
    assert whole.exit_code == 0, whole.stderr
    sigma = (logs / "out").read_bytes()
    assert sigma == judge_files(BATCH, STREAM, 1, 9, bench=Judges(LiveJudge(SigmaJudge(Sigma(3))))).flagged  # type: ignore[arg-type]
    (alone,) = re.findall(r"disagreed .*", whole.stderr)
    (logs / "out").unlink()
    for cut in (7000, len(STREAM)):
        (logs / "stream").write_bytes(until(cut))
        result = run("--state", "state", "--shards", "2")
        assert result.exit_code == 0, result.stderr
    assert (logs / "out").read_bytes() == sigma
    assert alone in result.stderr
    (logs / "c.yaml").write_text("D: 1\nT: 9\nchallenger: {name: sigma, k: 2}\ndetector: {name: iqr}\n")
    assert run().exit_code == 0


@pytest.mark.slow
def test_what_a_killed_live_run_has_said_stays_said(logs: Path) -> None:
    """Killed with SIGKILL while models come in: whatever could be read is in the output of the runs after it."""
    sources = os.pathsep.join(str(Path(__file__).parents[up] / name) for up, name in ((2, ""), (1, "")))
    command = [
        sys.executable,
        "-m",
        "peerwatch",
        "run",
        "--config",
        "c.yaml",
        "batch",
        "stream",
        "out",
        "--state",
        "state",
    ]
    environment = os.environ | {"PYTHONPATH": sources}
    lines = cycle(STREAM.splitlines(keepends=True))
    out, said = logs / "out", [b""]

    def has_said(size: int) -> bool:
        """Whether there is so much output; if not, the log grows."""
        with (logs / "stream").open("ab") as stream:
            stream.write(b"".join(islice(lines, 20)))
        return out.exists() and out.stat().st_size >= size

    for more, seconds in ((300, 0.3), (900, 0.3), (200, 0.3), (1500, 0.3), (700, 1000)):  # the last dies without one
        (logs / "c.yaml").write_text(CONFIG.replace("Typical", "Slow") + f"state: {{seconds: {seconds}}}\n")
        with running([*command, "--follow"], cwd=logs, env=environment, stderr=subprocess.DEVNULL) as process:
            wait_until(partial(has_said, len(said[-1]) + more), process)
        said.append(out.read_bytes())
    refused = subprocess.run(command, cwd=logs, env=environment, check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "followed the log and crashed" in refused.stderr
    assert out.read_bytes() == said[-1]
    follow = [*command, "--follow", "--idle-exit", "0"]
    subprocess.run(follow, cwd=logs, env=environment, check=True, capture_output=True)
    final = (logs / "out").read_bytes()
    assert models_of(final)[-1] >= 1
    for written in said:
        assert final.startswith(written)
