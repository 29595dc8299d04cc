"""The batch log judged as well: one pass over both logs, and everything that reads a run's results knows it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from click.testing import CliRunner, Result
from reference import judge
from support import befriend, purchase

from peerwatch.actors.dispatcher import Dispatcher
from peerwatch.cli.main import cli
from peerwatch.connectors.records import DecisionRow, FlaggedPurchase, payload
from peerwatch.files.log_file import LogFile
from peerwatch.service.decisions import decision_of
from peerwatch.service.labels import PurchaseLabels
from peerwatch.service.service import Service
from peerwatch.settings.model import InputSettings, Settings
from peerwatch.storage.checkpoints import read_checkpoint
from peerwatch.storage.feedback import FEEDBACK

HEADER = b'{"D":"2", "T":"4"}\n'


def lines_of(seed: int, count: int, first: int) -> bytes:
    """Purchases of eight users, some of them large, and friendships that come and go."""
    rng = np.random.default_rng(seed)
    lines = []
    for i in range(first, first + count):
        stamp = f"2017-06-13 {i // 3600:02}:{i // 60 % 60:02}:{i % 60:02}"
        a, b = rng.choice(8, 2, replace=False).tolist()
        if rng.random() < 0.2:
            lines.append(befriend(a, b, "befriend" if rng.random() < 0.7 else "unfriend", stamp))
        else:
            lines.append(purchase(a, "900" if rng.random() < 0.1 else str(rng.integers(5, 20)), stamp))
    return b"".join(lines)


BATCH, STREAM = lines_of(1, 150, 0), lines_of(2, 150, 150)
EXPECTED = judge(BATCH, STREAM, 2, 4, judge_batch=True).flagged
IN_BATCH = EXPECTED.count(b'"log": "batch"')


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with both logs, which are read in small blocks."""
    (tmp_path / "batch").write_bytes(HEADER + BATCH)
    (tmp_path / "stream").write_bytes(STREAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(LogFile.__init__.__kwdefaults__, "chunk", 1000)  # type: ignore[arg-type]
    return tmp_path


def peerwatch(*arguments: str, code: int = 0) -> Result:
    """Run the command in this process."""
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == code, result.output
    return result


def run(*options: str, code: int = 0) -> Result:
    """A run that judges the batch log, too."""
    return peerwatch("run", "batch", "stream", "out", "--judge-batch", *options, code=code)


def test_both_logs_are_judged_in_one_pass(logs: Path) -> None:
    """By an option or by the config; a flagged line of the batch log says so behind all else, one of the stream not."""
    summary = run().stderr
    assert (logs / "out").read_bytes() == EXPECTED
    assert 0 < IN_BATCH < EXPECTED.count(b"\n")
    assert EXPECTED.startswith(b"".join(EXPECTED.splitlines(keepends=True)[:IN_BATCH]))
    assert all(line.endswith(b', "log": "batch"}') for line in EXPECTED.splitlines()[:IN_BATCH])
    bought = (BATCH + STREAM).count(b'"purchase"')
    assert f"{bought}  purchases of both logs, D=2 T=4 k=3\n" in summary
    (logs / "c.yaml").write_text("judge_batch: true\ndetector: {severity: {critical: 5, emergency: 9}}\n")
    peerwatch("run", "-c", "c.yaml", "batch", "stream", "out")
    first = json.loads((logs / "out").read_bytes().splitlines()[0])
    assert [*first][-4:] == ["mean", "sd", "severity", "log"]


def test_without_it_nothing_of_the_batch_log_is_flagged(logs: Path) -> None:
    """The stream's lines are the same with and without."""
    peerwatch("run", "batch", "stream", "out")
    assert (logs / "out").read_bytes() == judge(BATCH, STREAM, 2, 4).flagged
    assert (logs / "out").read_bytes() == b"".join(EXPECTED.splitlines(keepends=True)[IN_BATCH:])


def stopping_after(blocks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a run stop reading after so many blocks."""
    original: Callable[..., Any] = vars(Dispatcher)["_deal_out"]
    left = [blocks]

    async def deal_out(dispatcher: Dispatcher, *arguments: Any) -> None:
        await original(dispatcher, *arguments)
        left[0] -= 1
        if not left[0]:
            dispatcher.stop()

    monkeypatch.setattr(Dispatcher, "_deal_out", deal_out)


def test_a_run_that_stops_within_the_batch_log_goes_on_there(logs: Path) -> None:
    """From a checkpoint in the batch log and in the stream, with other shards; so do output, decisions and ledger."""
    run("--verdicts", "whole.ledger")
    whole, blocks = (logs / "whole.ledger").read_bytes(), (len(BATCH) + len(STREAM)) // 1000
    places = []
    for number in range(blocks + 3):
        with pytest.MonkeyPatch.context() as patch:
            stopping_after(1, patch)
            run("--state", "state", "--verdicts", "ledger", "--shards", str(1 + number % 3), "--force")
        newest = max((logs / "state").glob("checkpoint-*.npz"))
        places.append(read_checkpoint(newest).envelope.facts.judged)
    assert places.count(False) > 5  # the position is in the batch log
    assert places[-1]
    assert (logs / "out").read_bytes() == EXPECTED
    assert (logs / "ledger").read_bytes() == whole


def test_a_state_is_gone_on_with_only_as_it_was_built(logs: Path) -> None:
    """Verdicts are not mixed; both ways out are named."""
    run("--state", "state")
    result = peerwatch("run", "batch", "stream", "out", "--state", "state", code=2)
    assert result.stderr == (
        'peerwatch: default: "judge_batch" is False, but the state in state was built with True; go on with True, or'
        " begin anew with --reset\n"
    )
    peerwatch("run", "batch", "stream", "out", "--state", "state", "--reset")
    result = run("--state", "state", code=2)
    assert '--judge-batch: "judge_batch" is True, but the state in state was built with False' in result.stderr
    assert (logs / "out").read_bytes() == judge(BATCH, STREAM, 2, 4).flagged


def test_an_interrupted_batch_log_lets_no_stream_be_judged(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What had been read of the batch log is judged, and the stream is not begun against half a state."""
    stopping_after(10, monkeypatch)
    run()
    written = (logs / "out").read_bytes()
    assert 0 < written.count(b"\n") < IN_BATCH
    assert EXPECTED.startswith(written)


def seqs() -> list[int]:
    """The numbers of the flagged purchases, by the ledger."""
    entries = [json.loads(line) for line in Path("ledger").read_bytes().splitlines()]
    return [seq for entry in entries for seq, *_ in entry["flagged"]]


@pytest.mark.parametrize("detector", ["sigma", "mad"])
def test_decisions_on_the_batch_log_are_explained(logs: Path, detector: str) -> None:
    """By number, or by user and time; from the state directory, which knows, or as the option says."""
    (logs / "c.yaml").write_text(f"detector: {{name: {detector}}}\n")
    run("-c", "c.yaml", "--state", "state", "--verdicts", "ledger")
    flagged = [json.loads(line) for line in (logs / "out").read_bytes().splitlines()]
    numbered = [(seq, one) for seq, one in zip(seqs(), flagged, strict=True) if one.get("log") == "batch"]
    assert numbered
    for options in (["--state", "state"], ["--judge-batch"]):
        for seq, one in numbered[:: len(numbered) // 3 + 1]:
            command = ("explain", "-c", "c.yaml", *options, "batch", "stream", "--json")
            record = json.loads(peerwatch(*command, "--seq", str(seq)).stdout)
            assert (record["file"], record["verdict"], record["mean"]) == ("batch", "flagged", one["mean"])
            by_time = peerwatch(*command, "--user", one["id"], "--at", one["timestamp"]).stdout
            assert json.loads(by_time) == record
    result = peerwatch("explain", "-c", "c.yaml", "batch", "stream", "--seq", str(numbered[0][0]), code=2)
    assert "is in the batch log, which is not judged unless --judge-batch is given" in result.stderr


def test_verify_judges_both_logs_again(logs: Path) -> None:
    """As the state or the option says; what is wrong is named with the log that it is in."""
    run("--state", "state", "--audit", "1", "--verdicts", "ledger")
    for options in (["--state", "state"], ["--judge-batch"]):
        found = peerwatch("verify", *options, "--audit", "1", "batch", "stream", "out").stdout
        assert "all the same" in found
        assert "every one as in out\n" in found
    lines, places = EXPECTED.splitlines(keepends=True), seqs()
    header = 1
    for place, log, line in (
        (1, "batch", places[1] + header),
        (IN_BATCH + 1, "stream", places[IN_BATCH + 1] - BATCH.count(b"\n")),
    ):
        (logs / "out").write_bytes(b"".join([*lines[:place], *lines[place + 1 :]]))
        found = peerwatch("verify", "--judge-batch", "batch", "stream", "out", code=1).stdout
        assert f"out:{place + 1} differs; it should be event {places[place]}, {log} line {line}, with mean" in found
    assert "should not be there" not in found


def test_a_sweep_counts_both_logs(logs: Path) -> None:
    """Each file is that of a run that judges both; labels name lines of the stream alone."""
    (logs / "labels").write_bytes(b'{"line": 3}\n' if b"purchase" in STREAM.splitlines()[2] else b'{"line": 4}\n')
    arguments = ("sweep", "batch", "stream", "--judge-batch", "--k", "1,3", "--labels", "labels", "--output", "swept")
    record = json.loads(peerwatch(*arguments, "--json").stdout)
    assert (record["judged"], record["labelled"]) == ((BATCH + STREAM).count(b'"purchase"'), 1)
    for k in ("1", "3"):
        run("--k", k)
        assert (logs / "swept" / f"D2-T4-k{k}.json").read_bytes() == (logs / "out").read_bytes()


def test_a_label_that_names_a_line_is_of_the_stream(logs: Path) -> None:
    """A purchase of the batch log in the line of that number is another one."""
    high = purchase(1, "90")
    usual = b"".join(purchase(2, str(9 + i % 3)) for i in range(30))
    (logs / "batch").write_bytes(HEADER + befriend(1, 2) + usual + high)
    (logs / "stream").write_bytes(usual)
    (logs / "c.yaml").write_text("detector: {name: zscore, adapt: {precision: 0.9}}\n")
    run("-c", "c.yaml", "--state", "state")
    assert (logs / "out").read_bytes().count(b"\n") == 1
    line = 1 + 1 + 30 + 1
    peerwatch("feedback", "state", "--line", str(line), "--label", "anomaly")
    peerwatch("feedback", "state", "--seq", str(line - 1), "--label", "anomaly")
    (logs / "stream").write_bytes(usual * 2)
    options = ("--log-file", "log", "--log-level", "info", "--log-format", "json", "--decisions", "none")
    run("-c", "c.yaml", "--state", "state", *options)
    records = [json.loads(text) for text in (logs / "log").read_bytes().splitlines()]
    (heard,) = [record for record in records if record["event"] == "labels"]
    assert (heard["labels"], heard["unknown"]) == (2, 1)


def row(file: str, line: int, seq: int, *, flagged: bool = True) -> DecisionRow:
    """A decision."""
    return DecisionRow(seq, file, line, "1", 0, "10.00", flagged, 2, "1.00", "0.00", 1, None, None, None, None)


async def test_the_service_takes_lines_for_those_of_the_stream(logs: Path) -> None:
    """Labels that name a line, and submitted events, belong to the stream log; a number means either log's event."""
    content = b'{"line":7,"label":"normal"}\n{"seq":5,"label":"anomaly"}\n'
    await anyio.Path(logs / FEEDBACK).write_bytes(content)
    labels = PurchaseLabels(logs, print, "batch")
    rows = [row("batch", 7, 4), row("batch", 8, 5), row("stream", 7, 12)]
    found = await labels.put_on([decision_of(each) for each in rows])
    assert [each.label for each in found] == [None, "anomaly", "normal"]
    service = Service(Settings(follow=True, input=InputSettings(batch="batch", stream="stream")), logs, print)
    heard: list[DecisionRow] = []
    assert service.submissions is not None
    service.submissions.hear = heard.extend  # type: ignore[method-assign, assignment]
    service.heard(rows)
    assert heard == rows[2:]


def test_messages_name_the_log() -> None:
    """A field of an event that is called the same is none of ours."""
    line = b'{"timestamp":"t", "id":"1", "amount":"9", "log": "x", "mean": "1.00", "sd": "0.00"}'
    assert "log" not in payload(FlaggedPurchase(3, line + b"\n"), "run")
    marked = FlaggedPurchase(3, line[:-1] + b', "log": "batch"}\n', in_batch_log=True)
    assert payload(marked, "run")["log"] == "batch"


def test_every_decision_is_written(logs: Path) -> None:
    """Each with the name of its log."""
    (logs / "c.yaml").write_text("sinks: [{to: decisions.json, records: [decisions]}]\n")
    run("-c", "c.yaml")
    rows = [json.loads(line) for line in (logs / "decisions.json").read_bytes().splitlines()]
    assert [each["file"] for each in rows].count("batch") == BATCH.count(b'"purchase"')
    assert sum(each["flagged"] for each in rows if each["file"] == "batch") == IN_BATCH
