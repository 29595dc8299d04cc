"""Labels come back whole, checked, and beside a run that is going on."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from support import befriend, purchase, running, wait_until

from peerwatch import durable
from peerwatch.cli.main import cli
from peerwatch.judging.labels import Label
from peerwatch.storage import feedback
from peerwatch.storage.feedback import FEEDBACK, FeedbackEntry, append_feedback, read_feedback

EVENTS = 6


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


def warned(sentence: str) -> None:
    """No warning is expected."""
    raise AssertionError(sentence)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory of a run that has ended; the working directory is the one it is in."""
    monkeypatch.chdir(tmp_path)
    Path("stream").write_bytes(befriend(1, 2) + purchase(2, "1") * 3 + purchase(1, "5") * 2)
    result = peerwatch("run", "stream", "out", "--D", "1", "--T", "3", "--state", "state", "--quiet")
    assert result.exit_code == 0, result.output
    return Path("state")


def test_labels_are_added_by_number_and_by_line(state: Path) -> None:
    """One whole line each, in the order given; the reader hands them out once."""
    result = peerwatch("feedback", "state", "--seq", "5", "--seq", "6", "--line", "2", "--label", "anomaly")
    assert (result.exit_code, result.output) == (0, "3 labels added to state/feedback.jsonl\n")
    labels, offset = read_feedback(state / FEEDBACK, 0, warned)
    assert labels == [Label(5, None, anomaly=True), Label(6, None, anomaly=True), Label(None, 2, anomaly=True)]
    result = peerwatch("feedback", "state", "--seq", "5", "--label", "normal")
    assert (result.exit_code, result.output) == (0, "1 label added to state/feedback.jsonl\n")
    lines = (state / FEEDBACK).read_bytes().splitlines()
    assert lines[2:] == [b'{"seq":null,"line":2,"label":"anomaly"}', b'{"seq":5,"line":null,"label":"normal"}']
    labels, offset = read_feedback(state / FEEDBACK, offset, warned)
    assert labels == [Label(5, None, anomaly=False)]
    assert read_feedback(state / FEEDBACK, offset, warned) == ([], offset)


@pytest.mark.parametrize("source", ["labels.jsonl", "-"])
def test_many_labels_come_from_a_file_or_standard_input(state: Path, source: str) -> None:
    """Blank lines and a last line without its end are fine."""
    content = '{"seq": 5, "label": "anomaly"}\n\n{"line": 6, "label": "normal"}'
    Path("labels.jsonl").write_text(content)
    command = [sys.executable, "-m", "peerwatch", "feedback", "state", source]
    result = subprocess.run(command, input=content, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("2 labels added to state/feedback.jsonl\n", "")
    expected = [Label(5, None, anomaly=True), Label(None, 6, anomaly=False)]
    assert read_feedback(state / FEEDBACK, 0, warned)[0] == expected


FORM = 'expected {"seq": N, "label": "anomaly"}, or "line" for "seq", or "normal"'


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "labels.jsonl holds no labels"),
        ("\n \n", "labels.jsonl holds no labels"),
        ("nonsense", f"labels.jsonl:2: {FORM}: JSON is malformed: invalid character (byte 4)"),
        ('{"seq": 5}', f"labels.jsonl:2: {FORM}: Object missing required field label"),
        ('{"seq": 5, "label": "odd"}', f"labels.jsonl:2: {FORM}: Invalid enum value 'odd' - at $.label"),
        ('{"seq": 0, "label": "normal"}', f"labels.jsonl:2: {FORM}: Expected int >= 1 - at $.seq"),
        ('{"seq": 5, "label": "normal", "by": 1}', f"labels.jsonl:2: {FORM}: Object contains unknown field by"),
        ('{"label": "normal"}', 'labels.jsonl:2: name the purchase either by "seq" or by "line"'),
        ('{"seq": 5, "line": 5, "label": "normal"}', 'labels.jsonl:2: name the purchase either by "seq" or by "line"'),
        ('{"seq": 7, "label": "normal"}', "the state in state has come to event 6, and there is a label of event 7"),
    ],
)
def test_one_bad_line_and_nothing_is_added(state: Path, content: str, sentence: str) -> None:
    """Exit code 2, one sentence with file and line, and no feedback file."""
    good = '{"seq": 5, "label": "anomaly"}\n'
    Path("labels.jsonl").write_text(good + content if content.strip() else content)
    result = peerwatch("feedback", "state", "labels.jsonl")
    ending = "; nothing has been added" if content.strip() else ""
    assert (result.exit_code, result.output) == (2, f"peerwatch: {sentence}{ending}\n")
    assert not (state / FEEDBACK).exists()


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere", "--seq", "1", "--label", "normal"], "no state directory nowhere: it does not exist"),
        (["stream", "--seq", "1", "--label", "normal"], "no state directory stream: it is a file"),
        ([".", "--seq", "1", "--label", "normal"], "no state directory .: it has no checkpoint that can be read"),
        (["state"], "name a FILE of labels, or purchases by --seq or --line and their --label"),
        (["state", "--seq", "1"], "name a FILE of labels, or purchases by --seq or --line and their --label"),
        (["state", "stream", "--seq", "1"], "name a FILE of labels, or purchases by --seq or --line and their --label"),
        (["state", "stream", "--label", "normal"], "name a FILE of labels, or purchases by --seq or --line and their"),
    ],
)
def test_mistakes_are_told_in_a_sentence(arguments: list[str], sentence: str) -> None:
    """Exit code 2."""
    result = peerwatch("feedback", *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"peerwatch: {sentence}")


@pytest.mark.usefixtures("state")
@pytest.mark.parametrize(
    "arguments", [["--seq", "0", "--label", "normal"], ["--seq", "1", "--label", "odd"], ["state"]]
)
def test_click_refuses_the_rest(arguments: list[str]) -> None:
    """No event 0, no other label, a directory for a file, no file."""
    result = peerwatch("feedback", "state", *arguments)
    assert result.exit_code == 2
    assert "Error: Invalid value for" in result.stderr


def test_the_status_of_a_run_that_is_ahead_of_its_checkpoint_counts(state: Path) -> None:
    """Nor need there be a checkpoint already; without either there is no state."""
    status = json.loads((state / "status.json").read_bytes())
    (state / "status.json").write_text(json.dumps(status | {"through": 100}))
    append_feedback(state, [FeedbackEntry(seq=100, label="normal")])
    for checkpoint in state.glob("checkpoint-*"):
        checkpoint.unlink()
    append_feedback(state, [FeedbackEntry(seq=100, label="normal")])
    (state / "status.json").write_text("{")
    result = peerwatch("feedback", "state", "--seq", "1", "--label", "normal")
    assert result.output == "peerwatch: no state directory state: it has no checkpoint that can be read\n"


def test_a_full_disk_takes_all_or_nothing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it took of the lines is taken back; exit code 1."""
    append_feedback(state, [FeedbackEntry(seq=1, label="normal")])
    before = (state / FEEDBACK).read_bytes()
    room = 50

    def full(descriptor: int, data: bytes) -> int:
        nonlocal room
        taken = min(room, len(data))
        room -= taken
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(descriptor, bytes(data)[:taken])

    monkeypatch.setattr(feedback, "write", full)
    result = peerwatch("feedback", "state", "--seq", "1", "--seq", "2", "--label", "anomaly")
    sentence = "cannot write state/feedback.jsonl: No space left on device; nothing has been added"
    assert (result.exit_code, result.output) == (1, f"peerwatch: {sentence}\n")
    assert (state / FEEDBACK).read_bytes() == before
    monkeypatch.setattr(feedback, "write", durable.write)
    append_feedback(state, [FeedbackEntry(seq=2, label="anomaly")])
    assert [label.seq for label in read_feedback(state / FEEDBACK, 0, warned)[0]] == [1, 2]


def test_a_torn_line_waits_and_a_damaged_one_is_passed_over(state: Path) -> None:
    """A line without its end is not read; the next writer ends it, and then it is told to be damaged, once."""
    file = state / FEEDBACK
    append_feedback(state, [FeedbackEntry(seq=1, label="normal")])
    with file.open("ab") as torn:
        torn.write(b'{"seq":2,"line":nu')
    labels, offset = read_feedback(file, 0, warned)
    assert labels == [Label(1, None, anomaly=False)]
    assert read_feedback(file, offset, warned) == ([], offset)
    append_feedback(state, [FeedbackEntry(seq=3, label="anomaly")])
    sentences: list[str] = []
    labels, end = read_feedback(file, offset, sentences.append)
    assert (labels, end) == ([Label(3, None, anomaly=True)], file.stat().st_size)
    (sentence,) = sentences
    assert sentence.startswith(f"the label at byte {offset} of state/feedback.jsonl is damaged (expected ")
    assert sentence.endswith("); it is left out")


def test_without_a_file_there_are_no_labels(tmp_path: Path) -> None:
    """Nobody has given any yet."""
    assert read_feedback(tmp_path / FEEDBACK, 0, warned) == ([], 0)


@given(cuts=st.lists(st.integers(0, 900), max_size=8).map(sorted))
def test_a_file_read_while_it_grows_gives_every_label_once(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    """However much of it is there at each look."""
    content = b"".join(b'{"seq":%d,"line":null,"label":"normal"}\n' % seq for seq in range(1, 21))
    file = tmp_path_factory.mktemp("growing") / FEEDBACK
    labels, offset = [], 0
    for cut in [*cuts, len(content)]:
        file.write_bytes(content[:cut])
        more, offset = read_feedback(file, offset, warned)
        labels += more
    assert (labels, offset) == ([Label(seq, None, anomaly=False) for seq in range(1, 21)], len(content))


def test_two_processes_at_once_lose_nothing(state: Path) -> None:
    """Each adds 200 times two labels that stay beside each other."""
    code = (
        "import sys; from pathlib import Path; from peerwatch.storage.feedback import FeedbackEntry, append_feedback\n"
        "mine = [FeedbackEntry(line=int(sys.argv[1]), label='normal')] * 2\n"
        "for _ in range(200): append_feedback(Path('state'), mine)\n"
    )
    first, second = ([sys.executable, "-c", code, number] for number in ("1", "2"))
    with running(first) as one, running(second) as other:
        assert (one.wait(), other.wait()) == (0, 0)
    labels, _ = read_feedback(state / FEEDBACK, 0, warned)
    assert len(labels) == 800
    assert labels[::2] == labels[1::2]
    assert sum(label.line == 1 for label in labels) == 400


def test_a_run_that_is_going_on_is_left_alone(state: Path) -> None:
    """Its lock is never touched: labels are added while it is held, and the next run goes on as ever."""
    command = [sys.executable, "-m", "peerwatch", "run", "stream", "out", "--D", "1", "--T", "3", "--follow"]
    with running([*command, "--state", "state"], stderr=subprocess.PIPE) as process:
        wait_until(lambda: bool(json.loads((state / "status.json").read_bytes())["running"]), process)
        result = peerwatch("feedback", "state", "--seq", str(EVENTS), "--label", "anomaly")
        process.terminate()
        assert process.wait() == 0
    assert (result.exit_code, result.output) == (0, "1 label added to state/feedback.jsonl\n")
    assert read_feedback(state / FEEDBACK, 0, warned)[0] == [Label(EVENTS, None, anomaly=True)]
