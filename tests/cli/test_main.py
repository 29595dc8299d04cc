"""The command line: what users do first, right or wrong."""

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from reference import judge
from support import befriend, purchase, running, wait_until

from peerwatch import kernels
from peerwatch.cli.main import cli
from peerwatch.network.rejects import decode_reject
from peerwatch.network.stretches import link_all
from peerwatch.settings.model import PATHS

HEADER = b'{"D":"2", "T":"3"}\n'
BATCH = befriend(1, 2) + befriend(2, 3) + purchase(2, "10") + purchase(3, "12") + purchase(3, "11")
STREAM = purchase(1, "11") + purchase(1, "50") + befriend(1, 4) + purchase(4, "700") + purchase(1, "12")
FLAGGED = judge(BATCH, STREAM, 2, 3).flagged


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a batch and a stream log; it is the working directory."""
    (tmp_path / "batch").write_bytes(HEADER + BATCH)
    (tmp_path / "stream").write_bytes(STREAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


def test_a_run_writes_flagged_purchases_and_a_summary(logs: Path) -> None:
    """Exit code 0, the exact output, an empty rejects file, and the figures a person wants."""
    result = peerwatch("run", "batch", "stream", "out.json")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (logs / "out.json").read_bytes() == FLAGGED
    assert FLAGGED.count(b"\n") == 2
    assert (logs / "out.rejects.json").read_bytes() == b""
    words = result.stderr.split()
    assert [words[words.index(name) + 1] for name in ("events", "judged", "flagged", "rejected")] == [
        "10",
        "4",
        "2",
        "0",
    ]
    assert "D=2 T=3 k=3" in result.stderr


@pytest.mark.parametrize("shards", ["1", "4", "7"])
def test_options_beat_config_beats_header(logs: Path, shards: str) -> None:
    """D from the command line, T from the config, the header overruled; the same as the reference says."""
    (logs / "c.yaml").write_text(
        f"D: 3\nT: 2\nshards: {shards}\n"
        "input: {batch: batch, stream: stream}\noutput:\n  flagged: out\n  rejects: bad\n"
    )
    result = peerwatch("run", "--config", "c.yaml", "--D", "1", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    assert (logs / "out").read_bytes() == judge(BATCH, STREAM, 1, 2).flagged
    assert (logs / "bad").exists()


def test_no_batch_log_is_fine_when_both_are_set(logs: Path) -> None:
    """The stream alone is judged from an empty state; k is exact."""
    assert peerwatch("run", "stream", "out", "--D", "1", "--T", "2", "--k", "0.5").exit_code == 0
    assert (logs / "out").read_bytes() == judge(None, STREAM, 1, 2, k=Fraction(1, 2)).flagged


def test_a_batch_log_without_header_is_fine_when_both_are_set(logs: Path) -> None:
    """A first line that is an event is an event."""
    (logs / "batch").write_bytes(BATCH)
    assert peerwatch("run", "batch", "stream", "out", "--D", "2", "--T", "3").exit_code == 0
    assert (logs / "out").read_bytes() == FLAGGED


def test_empty_logs_are_judged_too(logs: Path) -> None:
    """An empty stream gives an empty output that exists."""
    (logs / "stream").write_bytes(b"")
    (logs / "batch").write_bytes(b"")
    assert peerwatch("run", "batch", "stream", "out", "--D", "2", "--T", "3").exit_code == 0
    assert (logs / "out").read_bytes() == b""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run"],
            '"input.stream" is not set: name the stream log as STREAM on the command line, or set it in the config',
        ),
        (
            ["run", "one"],
            "name BATCH STREAM OUTPUT, or STREAM OUTPUT without a batch log, or none with --config; got 1",
        ),
        (["run", "no", "stream", "out"], "cannot read the log no: No such file or directory"),
        (["run", "batch", ".", "out"], ". is a directory; name the log file in it"),
        (["run", "batch", "stream", "."], "cannot write .: it is a directory; name a file in it"),
        (["run", "batch", "stream", "no/out"], "cannot write no/out: the directory no does not exist; create it first"),
        (["run", "batch", "stream", "stream"], "stream is named for the output and for the stream log; name two files"),
        (
            ["run", "batch", "stream", "out", "--rejects", "batch"],
            "batch is named for the rejects file and for the batch log; name two files",
        ),
        (
            ["run", "batch", "stream", "out", "--rejects", "./out"],
            "./out is named for the rejects file and for the output; name two files",
        ),
        (
            ["run", "batch", "stream", "out", "--log-file", "out"],
            "out is named for the log file and for the output; name two files",
        ),
        (
            ["run", "-", "-", "out"],
            "the batch log and the stream log cannot both be standard input; name a file for one of them",
        ),
        (
            ["run", "batch", "stream", "-", "--verdicts", "-"],
            "the output and the ledger cannot both be standard output; name a file for one of them",
        ),
        (
            ["run", "batch", "stream", "/dev/stdout", "--rejects", "-"],
            "the output and the rejects file cannot both be standard output; name a file for one of them",
        ),
        (
            ["run", "batch", "stream", "out", "--rejects", "-", "--verdicts", "/dev/fd/1"],
            "the rejects file and the ledger cannot both be standard output; name a file for one of them",
        ),
        (
            ["run", "batch", "stream", "-", "--log-file", "/dev/stdout"],
            "the output and the log file cannot both be standard output; name a file for one of them",
        ),
        (
            ["run", "--D", "1", "--T", "2", "batch", "stream"],
            "stream holds something that peerwatch has not written; name another file, or add --force",
        ),
        (
            ["run", "batch", "stream", "out", "--reset"],
            "--reset forgets the checkpoints of a state directory; name one with --state",
        ),
        (
            ["run", "stream", "out"],
            '"D" is not set: give --D, set it in the config, or name a batch log with a header line',
        ),
        (
            ["run", "stream", "out", "--D", "1"],
            '"T" is not set: give --T, set it in the config, or name a batch log with a header line',
        ),
        (
            ["run", "stream", "batch", "out"],
            'stream:1: no header like {"D":"3", "T":"50"} (the line is an event); add one, or set D and T elsewhere',
        ),
        (["run", "no", "stream", "out", "--log-file", "log"], "cannot read the log no: No such file or directory"),
        (["run", "batch", "stream", "out", "--k", "-1"], '--k: "detector.k" is -1.0; expected float >= 0.0'),
        (["run", "batch", "stream", "out", "--shards", "999"], '--shards: "shards" is 999; expected int <= 256'),
        (["run", "-c", "no.yaml"], "cannot read the config no.yaml: No such file or directory"),
        (["rejects", "show", "no"], "no: No such file or directory"),
        (["rejects", "show", "stream"], "stream:1: not a record of a rejected line"),
        (["generate", "stream"], "cannot make the directory stream: File exists"),
        (
            ["generate", "x", "--users", "50", "--mean-degree", "4", "--batch-events", "5"],
            "--mean-degree 4 of 50 users takes 100 befriendings, but --batch-events is 5; raise it or lower the degree",
        ),
    ],
)
def test_every_usage_error_is_one_sentence_and_writes_nothing(logs: Path, arguments: list[str], message: str) -> None:
    """Exit code 2, one line on standard error, and the directory as it was."""
    before = {path.name: path.read_bytes() for path in logs.iterdir()}
    result = peerwatch(*arguments)
    assert (result.exit_code, result.stderr) == (2, f"peerwatch: {message}\n")
    assert {path.name: path.read_bytes() for path in logs.iterdir()} == before


@pytest.mark.parametrize(
    "arguments", [["run", "--T", "1", "a", "b"], ["run", "--shard", "3"], ["rum"], ["run", "--D", "x"]]
)
def test_mistyped_options_are_explained_by_the_command_line(arguments: list[str]) -> None:
    """Exit code 2 and what would be right."""
    result = peerwatch(*arguments)
    assert result.exit_code == 2
    assert "Error: " in result.stderr


def test_bad_headers_are_usage_errors(logs: Path) -> None:
    """Also when the command line would overrule the value."""
    (logs / "batch").write_bytes(b'{"D":"two", "T":"50"}\n' + BATCH)
    for options in ([], ["--D", "1", "--T", "2"]):
        result = peerwatch("run", "batch", "stream", "out", *options)
        assert result.exit_code == 2
        assert result.stderr == 'peerwatch: batch:1: the header\'s "D" is "two"; expected an integer like "50"\n'
    (logs / "batch").write_bytes(b'{"D":"1", "T":"1"}\n' + BATCH)
    assert peerwatch("run", "batch", "stream", "out").stderr == 'peerwatch: batch:1: "T" is 1; expected int >= 2\n'
    assert not (logs / "out").exists()


def test_bad_lines_are_rejected_and_can_be_read_back(logs: Path) -> None:
    """The run goes on, the verdicts stay, and `rejects show --raw` prints the lines' own bytes."""
    bad = [b"\xff\xfe\x00", b'{"event_type":"purchase"', b"\ttrailing\r", b'{"event_type":"gift"}']
    (logs / "stream").write_bytes(bad[0] + b"\n" + STREAM + b"\n".join(bad[1:]))
    result = peerwatch("run", "batch", "stream", "out")
    assert result.exit_code == 0
    assert (logs / "out").read_bytes() == FLAGGED
    records = [decode_reject(line) for line in (logs / "out.rejects.json").read_bytes().splitlines()]
    assert [(record.file, record.line, record.raw) for record in records] == [
        ("stream", line, raw) for line, raw in zip((1, 7, 8, 9), bad, strict=True)
    ]
    shown = peerwatch("rejects", "show", "--raw", "out.rejects.json")
    assert shown.stdout_bytes == b"".join(line + b"\n" for line in bad)
    assert "stream:9 (byte " in peerwatch("rejects", "show", "out.rejects.json").stdout


def test_strict_stops_at_the_first_bad_line(logs: Path) -> None:
    """Exit code 1, the sentence names the line, what came before is judged, that one line is among the rejects."""
    lines = STREAM.splitlines(keepends=True)
    (logs / "stream").write_bytes(b"".join(lines[:2]) + b"oops\n" + b"".join(lines[2:]) + b"oops\n")
    result = peerwatch("run", "batch", "stream", "out", "--strict", "--quiet")
    assert (result.exit_code, result.stderr) == (1, "peerwatch: stream:3: not valid JSON: invalid character (byte 0)\n")
    assert (logs / "out").read_bytes() == judge(BATCH, b"".join(lines[:2]), 2, 3).flagged != b""
    assert (logs / "out.rejects.json").read_bytes().count(b"\n") == 1


def test_config_show_prints_every_setting_with_its_origin(logs: Path) -> None:
    """Its output is a config that gives the same settings."""
    (logs / "c.yaml").write_text("shards: 4\nlogs: {users: [7, anna]}\n")
    result = peerwatch(
        "config", "show", "batch", "stream", "out", "-c", "c.yaml", "--k", "1e-5", "--log-format", "json"
    )
    lines = {
        line.split(":")[0].strip(): line.split("#")[1].strip()
        for line in reversed(result.stdout.splitlines())  # of two k the detector's, not the challenger's
        if "#" in line
    }
    assert result.exit_code == 0
    assert {key: lines[key] for key in ("D", "shards", "k", "format", "users", "batch", "strict")} == {
        "D": "batch:1", "shards": "c.yaml:1", "k": "--k", "format": "--log-format", "users": "c.yaml:2",
        "batch": "command line", "strict": "default",
    }  # fmt: skip
    (logs / "shown.yaml").write_text(result.stdout)
    again = peerwatch("config", "show", "-c", "shown.yaml").stdout
    assert [line.split("#")[0] for line in again.splitlines()] == [
        line.split("#")[0] for line in result.stdout.splitlines()
    ]


def test_help_is_there_for_every_command() -> None:
    """Each command has a help text, with the exit codes at `run`."""
    for arguments in (
        [],
        ["run"],
        ["config"],
        ["config", "show"],
        ["generate"],
        ["demo"],
        ["rejects"],
        ["rejects", "show"],
        ["verify"],
        ["bisect"],
    ):
        result = peerwatch(*arguments, "--help")
        assert result.exit_code == 0
        assert len(result.stdout) > 100
    text = peerwatch("run", "-h").stdout
    assert "\\b" not in text
    for line in (
        "  peerwatch run batch_log.json stream_log.json flagged_purchases.json",
        "  Exit codes:",
        "    130, 143  ",
    ):
        assert any(shown.startswith(line) for shown in text.splitlines()), line


COMMAND = [sys.executable, "-m", "peerwatch"]


def test_standard_output_and_standard_input(logs: Path) -> None:
    """- reads the stream from a pipe and writes flagged purchases, and nothing else, to standard output."""
    result = subprocess.run([*COMMAND, "run", "batch", "-", "-"], input=STREAM, capture_output=True, check=True)
    assert result.stdout == FLAGGED
    assert b"flagged" in result.stderr
    assert sorted(path.name for path in logs.iterdir()) == ["batch", "stream"]


def test_any_one_output_can_be_standard_output(logs: Path) -> None:
    """Rejected lines, or the ledger, may go there instead of the flagged purchases."""
    (logs / "stream").write_bytes(STREAM + b"oops\n")
    command = [*COMMAND, "run", "batch", "stream", "out", "--rejects", "bad", "--verdicts", "ledger"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b""
    for option, name in (("--rejects", "bad"), ("--verdicts", "ledger")):
        printed = subprocess.run([*command, option, "-"], capture_output=True, check=True).stdout
        assert printed == (logs / name).read_bytes() != b""


@pytest.mark.usefixtures("logs")
def test_a_reader_that_goes_away_ends_the_run() -> None:
    """As with `| head -0`: exit code 1 and one sentence, no traceback."""
    arguments = [*COMMAND, "run", "batch", "-", "-"]
    with running(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(STREAM)
        process.stdin.close()
        assert process.stderr.read() == b"peerwatch: cannot write standard output: its reader has gone\n"
        assert process.wait() == 1


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_it_has_read(number: signal.Signals) -> None:
    """A signal while the log waits: what came is judged and written, the summary is shown, exit code 128 + signal."""
    arguments = [*COMMAND, "run", "batch", "-", "-"]
    with running(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(STREAM)
        process.stdin.flush()
        flagged = [process.stdout.readline(), process.stdout.readline()]  # the run is under way and waits for more
        process.send_signal(number)
        assert process.wait() == 128 + number
        assert b"".join(flagged) + process.stdout.read() == FLAGGED
        assert process.stderr is not None
        assert (
            b"Stopping: what has been read is still being judged; a second signal ends the run at once."
            in process.stderr.read()
        )


def test_a_second_signal_ends_a_run_that_cannot_write(logs: Path) -> None:
    """With nobody reading its output the run cannot finish; a second signal ends it at once."""
    flood = (purchase(2, "1") * 3 + purchase(1, "50")) * 1500  # more flagged text than a pipe holds
    (logs / "stream").write_bytes(STREAM + flood)
    assert len(judge(BATCH, STREAM + flood, 2, 3).flagged) > 2 * 65536
    arguments = [*COMMAND, "run", "batch", "stream", "-"]
    with running(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert os.read(process.stdout.fileno(), 1) == b"{"  # everything has been read; nobody reads its output on
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith(b"Stopping:")
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert b"Ended at once" in process.stderr.read()


RECOMPUTES_FOR_EVER = """
import sys
from peerwatch.judging.audit import BruteForce
from peerwatch.cli import main as cli
def decide(*_):
    print("recomputing", file=sys.stderr, flush=True)
    while True:
        pass
BruteForce.decide = decide
cli.main()
"""


@pytest.mark.usefixtures("logs")
def test_a_second_signal_ends_a_run_that_has_much_to_recompute() -> None:
    """After the first, brute force is still at what has been read; the second does not wait for it."""
    command = [sys.executable, "-c", RECOMPUTES_FOR_EVER, "run", "batch", "stream", "out", "--audit", "1"]
    with running(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == b"recomputing\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.readline().startswith(b"Stopping:")
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stderr.read() == b"Ended at once: the output stops where it was.\n"


@pytest.mark.usefixtures("logs")
def test_an_interrupt_in_the_batch_log_judges_nothing() -> None:
    """Against half a batch log every verdict would be false: the stream is not begun."""
    arguments = [*COMMAND, "run", "-", "stream", "out", "--strict"]
    with running(arguments, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(HEADER + BATCH + purchase(2, "10") * 10_000)
        process.stdin.flush()  # a pipe holds far less: the run is under way and reads
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143
        assert Path("out").read_bytes() == b""


def test_an_interrupt_while_a_pipe_has_no_writer_ends_the_process(logs: Path) -> None:
    """Opening a pipe waits for its other end; Ctrl-C does not, and leaves no traceback."""
    os.mkfifo(logs / "pipe")
    command = [*COMMAND, "run", "pipe", "stream", "out", "--log-file", "log"]
    with running(command, stderr=subprocess.PIPE) as process:
        wait_until((logs / "log").exists, process)  # the log file is opened before the logs are
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        assert (process.returncode, said) == (-signal.SIGINT, b"")
    assert not (logs / "out").exists()


def test_two_runs_on_one_output_do_not_mix(logs: Path) -> None:
    """The second is refused with exit code 2 and changes nothing."""
    command = [*COMMAND, "run", "--quiet", "batch", "-", "out"]
    with running(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        assert first.stdin is not None
        first.stdin.write(STREAM)
        first.stdin.flush()
        wait_until(lambda: (logs / "out").exists() and (logs / "out").read_bytes() == FLAGGED, first)
        second = peerwatch("run", "batch", "stream", "out")
        assert second.exit_code == 2
        assert second.stderr == "peerwatch: out is being written by another peerwatch; name another file\n"
        first.stdin.close()
        assert first.wait() == 0
    assert (logs / "out").read_bytes() == FLAGGED


def test_a_full_disk_is_one_sentence(logs: Path) -> None:
    """Exit code 1, and nothing is made beside a device or in the working directory."""
    result = peerwatch("run", "batch", "stream", "/dev/full")
    assert result.exit_code == 1
    assert result.stderr == "peerwatch: cannot write /dev/full: No space left on device; fix that and run again\n"
    assert sorted(path.name for path in logs.iterdir()) == ["batch", "stream"]


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "batch", "stream", "--line", "1"],
        ["sweep", "batch", "stream", "--k", "2,3"],
        ["verify", "batch", "stream", "out"],
        ["config", "show"],
        ["rejects", "show", "out.rejects.json"],
        ["rejects", "show", "--raw", "out.rejects.json"],
        ["datasets", "list"],
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["rejects", "show", "-h"],
    ],
)
def test_a_standard_output_that_takes_nothing_is_told(logs: Path, arguments: list[str]) -> None:
    """From every command that prints one sentence: exit code 1 for a full disk, 2 if it is closed; none for a pipe."""
    (logs / "stream").write_bytes(STREAM + b"junk\n")
    assert peerwatch("run", "batch", "stream", "out").exit_code == 0
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, check=False)
    said = b"peerwatch: cannot write standard output: No space left on device\n"
    assert (result.returncode, result.stderr) == (1, said)
    result = subprocess.run(closed(1, *arguments), stderr=subprocess.PIPE, check=False)
    assert (result.returncode, result.stderr) == (2, b"peerwatch: cannot write standard output: it is closed\n")
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([*COMMAND, *arguments], stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (1, b"")


def test_a_mistake_is_a_mistake_where_nobody_can_read_it(logs: Path) -> None:
    """Standard error on a full disk, or closed: the exit code stays 2, and nothing is written."""
    for arguments in (["run", "--shard", "3"], ["run", "no", "stream", "out"]):
        with Path("/dev/full").open("wb") as full:
            assert subprocess.run([*COMMAND, *arguments], stderr=full, check=False).returncode == 2
        assert subprocess.run(closed(2, *arguments), check=False).returncode == 2
    assert not (logs / "out").exists()


def closed(number: int | str, *arguments: str) -> list[str]:
    """A command that is started with a closed descriptor, or several: `0 1`."""
    close = " ".join(f"{each}>&-" for each in str(number).split())
    return ["sh", "-c", f'exec "$@" {close}', "sh", *COMMAND, *arguments]


@pytest.mark.parametrize("number", ["0", "1", "2", "0 2", "0 1 2"])
@pytest.mark.parametrize("options", [["--follow", "--idle-exit", "0", "--state", "state"], ["--log-level", "info"]])
def test_a_run_needs_no_standard_descriptors(logs: Path, number: str, options: list[str]) -> None:
    """Whoever starts it may close any of them: no file that it opens takes their place."""
    command = closed(number, "run", "batch", "stream", "out", "--log-file", "log", "--quiet", *options)
    assert subprocess.run(command, check=False).returncode == 0
    assert (logs / "out").read_bytes() == FLAGGED
    assert ((logs / "log").read_bytes().count(b"decision") >= 2) == ("--log-level" in options)


@pytest.mark.parametrize(
    ("number", "arguments", "sentence"),
    [
        (1, ["batch", "stream", "-"], "the output is standard output, which is not open for writing"),
        (1, ["batch", "stream", "/dev/stdout"], "the output is standard output, which is not open for writing"),
        (1, ["batch", "stream", "out", "--rejects", "-"], "the rejects file is standard output, which is not open for"),
        (
            1,
            ["batch", "stream", "out", "--verdicts", "-"],
            "the ledger is standard output, which is not open for writing",
        ),
        (2, ["batch", "stream", "out", "--log-file", "/dev/stderr"], ""),
        (2, ["batch", "stream", "/dev/stderr"], ""),
        (0, ["batch", "-", "out"], "the stream log is standard input, which is not open for reading"),
        (0, ["batch", "-", "out", "--follow"], "the stream log is standard input, which is not open for reading"),
        (0, ["-", "stream", "out"], "the batch log is standard input, which is not open for reading"),
        (0, ["batch", "/dev/stdin", "out"], "the stream log is standard input, which is not open for reading"),
        (3, ["batch", "/dev/fd/3", "out"], "the stream log is /dev/fd/3, which is not open for reading"),
        (3, ["batch", "stream", "/dev/fd/3"], "the output is /dev/fd/3, which is not open for writing"),
    ],
)
def test_what_is_named_must_be_open(logs: Path, number: int, arguments: list[str], sentence: str) -> None:
    """A closed descriptor as log or output is a usage error; nothing is judged into nowhere, nothing is made."""
    command = closed(number, "run", *arguments, "--log-level", "info")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(f"peerwatch: {sentence}" if sentence else "")
    assert sorted(path.name for path in logs.iterdir()) == ["batch", "stream"]


@pytest.mark.usefixtures("logs")
def test_input_from_a_closed_descriptor_is_told() -> None:
    """Commands that read standard input say so in a sentence, too."""
    result = subprocess.run(closed(0, "rejects", "requeue", "-", "stream"), capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert result.stderr.startswith("peerwatch: ")


BAD = STREAM + b"".join(b"junk %d\n" % number for number in range(12))
REJECTED = "".join(
    f"peerwatch: {{0}}:{line}: rejected: not valid JSON: invalid character (byte 0)\n" for line in (6, 7, 8)
)
"""What is said of the first of them, in a log of that name."""
UNKEPT = "peerwatch: 12 lines were rejected and are not kept in a file; --rejects FILE keeps them\n"


def test_rejected_lines_of_a_pipeline_are_told(logs: Path) -> None:
    """Without a file beside the output the first are named, all are counted, quiet or not; no file is made anywhere."""
    command = [*COMMAND, "run", "--quiet", "batch", "-", "-"]
    result = subprocess.run(command, input=BAD, capture_output=True, check=True)
    assert (result.stdout, result.stderr.decode()) == (FLAGGED, REJECTED.format("standard input") + UNKEPT)
    assert sorted(path.name for path in logs.iterdir()) == ["batch", "stream"]
    result = subprocess.run([*command, "--rejects", "bad"], input=BAD, capture_output=True, check=True)
    assert (result.stdout, result.stderr) == (FLAGGED, b"")
    assert (logs / "bad").read_bytes().count(b"\n") == 12


@pytest.mark.parametrize("output", ["-", "/dev/stdout", "/dev/stderr", "/dev/null", "pipe", "/dev/fd/1"])
def test_an_output_that_is_no_file_has_no_rejects_file(logs: Path, output: str) -> None:
    """Devices, pipes and descriptors: nothing is made in /dev, in the working directory or beside a pipe."""
    (logs / "stream").write_bytes(BAD)
    os.mkfifo(logs / "pipe")
    reader = os.open(logs / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    result = subprocess.run(
        [*COMMAND, "run", "batch", "stream", output, "--quiet"], capture_output=True, check=True, text=True
    )
    piped = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert REJECTED.format("stream") in result.stderr.replace(FLAGGED.decode(), "")
    assert result.stderr.endswith(UNKEPT)
    assert (result.stdout + result.stderr + piped).count('"mean"') == (0 if output == "/dev/null" else 2)
    assert sorted(path.name for path in logs.iterdir()) == ["batch", "pipe", "stream"]


WHOLE = purchase(1, "11") * 50
OTHER_KINDS = {
    "gzip": (
        gzip.compress(WHOLE),
        r"none of the \d+ lines read from {} is an event: it looks like a file compressed with",
    ),
    "UTF-16": (
        WHOLE.decode().encode("utf-16"),
        "none of the 50 lines read from {} is an event: it looks like UTF-16 text",
    ),
    "CR": (
        WHOLE.replace(b"\n", b"\r"),
        "the only line read from {} is not an event: it looks like text whose lines end in CR",
    ),
    "array": (
        b"[" + WHOLE.replace(b"\n", b",")[:-1] + b"]",
        "the only line read from {} is not an event: it looks like a JSON",
    ),
    "long array": (
        b"[\n" + WHOLE.replace(b"\n", b",\n")[:-2] + b"\n]\n",
        "only 1 of the 52 lines read from {} is an eve",
    ),
    "junk": (
        b"junk\n" * 3,
        "none of the 3 lines read from {} is an event; the first bad line: not valid JSON: inva",
    ),
}


@pytest.mark.parametrize("which", ["stream", "batch", "follow"])
@pytest.mark.parametrize(("content", "sentence"), OTHER_KINDS.values(), ids=OTHER_KINDS.keys())
def test_a_log_of_another_kind_is_no_silence(logs: Path, content: bytes, sentence: str, which: str) -> None:
    """Also with --quiet one sentence says what it looks like, and what to do; the exit code stays what it is."""
    name = "batch" if which == "batch" else "stream"
    (logs / name).write_bytes(content)
    options = ["--quiet", "--D", "2", "--T", "3", *(["--follow", "--idle-exit", "0"] if which == "follow" else [])]
    result = peerwatch("run", "batch", "stream", "out", *options)
    assert result.exit_code == 0
    *holes, said = result.stderr.splitlines()
    assert re.match(f"peerwatch: {sentence.format(name)}", said)
    assert all("NUL byte" in hole for hole in holes)
    assert (logs / "out.rejects.json").read_bytes() != b""


def test_a_batch_log_of_another_kind_has_no_header(logs: Path) -> None:
    """What it looks like is the reason."""
    (logs / "batch").write_bytes(gzip.compress(WHOLE))
    result = peerwatch("run", "batch", "stream", "out")
    said = "batch looks like a file compressed with gzip, not like a log; unpack it first, as with gunzip or zcat"
    assert (result.exit_code, result.stderr) == (2, f"peerwatch: {said}\n")


def test_what_stands_before_lines_is_no_part_of_them(logs: Path) -> None:
    """Holes and byte-order marks in the middle of logs: the same output, and offsets of rejected lines behind them."""
    before = b"\0" * 9 + b"\xef\xbb\xbf"
    lines = [before + line for line in (STREAM + b"junk\n").splitlines(keepends=True)]
    (logs / "stream").write_bytes(b"".join(lines))
    (logs / "batch").write_bytes(HEADER + before + BATCH)
    result = peerwatch("run", "batch", "stream", "out", "--quiet")
    assert (result.exit_code, (logs / "out").read_bytes()) == (0, FLAGGED)
    assert result.stderr.count("\n") == result.stderr.count("a truncation has left 9 NUL bytes before the line") == 1
    (record,) = map(decode_reject, (logs / "out.rejects.json").read_bytes().splitlines())
    assert (record.raw, record.offset) == (b"junk", sum(map(len, lines)) - len(b"junk\n"))
    assert (record.line, record.file) == (len(lines), "stream")


def test_a_strict_pipeline_names_its_line_once(logs: Path) -> None:
    """The sentence it ends with is enough."""
    (logs / "stream").write_bytes(BAD)
    result = subprocess.run(
        [*COMMAND, "run", "batch", "stream", "-", "-q", "--strict"], capture_output=True, check=False
    )
    assert (result.returncode, result.stdout) == (1, FLAGGED)
    assert result.stderr == b"peerwatch: stream:6: not valid JSON: invalid character (byte 0)\n"


def test_pipelines_in_one_directory_do_not_collide(logs: Path) -> None:
    """Two at once, the first of them held up by its reader; and in a directory that cannot be written."""
    (logs / "stream").write_bytes(BAD)
    with subprocess.Popen([*COMMAND, "run", "batch", "-", "-", "-q"], stdin=-1, stdout=-1, stderr=-1) as first:
        assert first.stdin is not None
        assert first.stdout is not None
        first.stdin.write(STREAM)
        first.stdin.flush()
        lines = [first.stdout.readline(), first.stdout.readline()]  # it is under way
        second = subprocess.run([*COMMAND, "run", "batch", "stream", "-", "-q"], capture_output=True, check=True)
        assert second.stdout == b"".join(lines) == FLAGGED
        first.communicate()
        assert first.returncode == 0
    logs.chmod(0o555)
    try:
        result = subprocess.run([*COMMAND, "run", "batch", "stream", "-", "-q"], capture_output=True, check=True)
    finally:
        logs.chmod(0o755)
    assert result.stdout == FLAGGED


def test_standard_error_may_be_a_file_with_words_in_it(logs: Path) -> None:
    """/dev/stderr is what it is, not a file to be overwritten, for outputs as for rejects."""
    (logs / "stream").write_bytes(BAD)
    with (logs / "words").open("wb") as words:
        words.write(b"words\n")
        words.flush()
        options = ["--rejects", "/dev/stderr", "--quiet"]
        subprocess.run([*COMMAND, "run", "batch", "stream", "out", *options], stderr=words, check=True)
    first, *records = (logs / "words").read_bytes().splitlines()
    assert first == b"words"
    assert [decode_reject(record).line for record in records] == [*range(6, 18)]


@pytest.mark.parametrize("content", [b" ", b"\n\n", b" \r\n\t\n"])
def test_a_file_of_white_space_is_empty(logs: Path, content: bytes) -> None:
    """As an output, a rejects file or a ledger it is no loss."""
    for name in ("out", "bad", "ledger"):
        (logs / name).write_bytes(content)
    assert peerwatch("run", "batch", "stream", "out", "--rejects", "bad", "--verdicts", "ledger").exit_code == 0
    assert (logs / "out").read_bytes() == FLAGGED
    (logs / "out").write_bytes(content * (1 << 20) + b"precious")
    assert peerwatch("run", "batch", "stream", "out").exit_code == 2
    assert (logs / "out").read_bytes().endswith(b"precious")


@pytest.mark.parametrize("way", ["arguments", "config"])
def test_a_tilde_is_home_in_every_path(logs: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In options, where no shell has expanded it, and in configs."""
    home = logs / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("batch", "stream"):
        (logs / name).rename(home / name)
    paths = {
        "input.batch": "batch", "input.stream": "stream", "output.flagged": "out", "output.rejects": "bad",
        "output.verdicts": "ledger", "output.decisions": "all", "logs.file": "log", "state.directory": "state",
    }  # fmt: skip
    assert {*paths} == PATHS - {"input.rotated", "serve.token_file"}  # the service has tests of its own
    if way == "config":
        sections: dict[str, dict[str, str]] = {}
        for key, name in paths.items():
            section, _, rest = key.partition(".")
            sections.setdefault(section, {})[rest] = f"~/{name}"
        (home / "c.yaml").write_text(json.dumps(sections))
        arguments = ["--config=~/c.yaml"]
    else:
        arguments = [
            "~/batch", "~/stream", "~/out", "--rejects=~/bad", "--verdicts=~/ledger", "--log-file=~/log",
            "--state=~/state", "--decisions-file=~/all",
        ]  # fmt: skip
    assert peerwatch("run", *arguments).exit_code == 0
    assert (home / "out").read_bytes() == FLAGGED
    assert {path.name for path in home.iterdir()} >= {*paths.values()}
    assert [*logs.iterdir()] == [home]
    assert peerwatch("status", "~/state").exit_code == 0


def test_a_tilde_is_home_in_a_pattern_too(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rotated files elsewhere are found there."""
    monkeypatch.setenv("HOME", str(logs / "home"))
    (logs / "home" / "old").mkdir(parents=True)
    (logs / "c.yaml").write_text('input: {rotated: "~/old/*"}')
    arguments = ["run", "batch", "stream", "out", "--follow", "--idle-exit", "0", "--state", "state", "-c", "c.yaml"]
    lines = STREAM.splitlines(keepends=True)
    (logs / "stream").write_bytes(lines[0])
    assert peerwatch(*arguments).exit_code == 0
    (logs / "stream").rename(logs / "home" / "old" / "1")
    (logs / "home" / "old" / "1").write_bytes(b"".join(lines[:3]))
    (logs / "stream").write_bytes(b"".join(lines[3:]))
    assert peerwatch(*arguments).exit_code == 0
    assert (logs / "out").read_bytes() == FLAGGED


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["", "stream", "out"], "command line: \"input.batch\" is '', which is empty; name a file"),
        (["batch", "", "out"], "command line: \"input.stream\" is '', which is empty; name a file"),
        (["batch", "stream", ""], "command line: \"output.flagged\" is '', which is empty; name a file"),
        (
            ["batch", "stream", "o/"],
            "command line: \"output.flagged\" is 'o/', which is a directory's name; name a file",
        ),
        (
            ["batch", "stream/", "o"],
            "command line: \"input.stream\" is 'stream/', which is a directory's name; name a file",
        ),
        (["batch", "stream", "o", "--rejects="], "--rejects: \"output.rejects\" is '', which is empty; name a file"),
        (["batch", "stream", "o", "--verdicts="], "--verdicts: \"output.verdicts\" is '', which is empty; name a file"),
        (["batch", "stream", "o", "--log-file="], "--log-file: \"logs.file\" is '', which is empty; name a file"),
        (["batch", "stream", "o", "--state="], "--state: \"state.directory\" is '', which is empty; name a directory"),
        (["-c", "c.yaml"], "c.yaml:1: \"logs.file\" is 'a\\x00b', which holds a NUL byte; name a file"),
        (
            ["batch", "stream", "dangling"],
            "cannot write dangling: the directory {}/nowhere does not exist; create it first",
        ),
        (
            ["batch", "stream", "o", "--log-file", "no/log"],
            "cannot write the log file no/log: the directory no does not exist; create it first",
        ),
    ],
)
def test_a_path_that_can_be_none_is_refused(logs: Path, arguments: list[str], sentence: str) -> None:
    """Exit code 2, one sentence that names the key and the way out, nothing written."""
    (logs / "dangling").symlink_to("nowhere/x")
    (logs / "c.yaml").write_text('logs: {file: "a\\0b"}\n')
    before = sorted(logs.iterdir())
    result = peerwatch("run", *arguments)
    assert (result.exit_code, result.stderr) == (2, f"peerwatch: {sentence.format(logs)}\n")
    assert sorted(logs.iterdir()) == before


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "-c", ""], ["status", ""], ["feedback", "", "--seq", "1", "--label", "normal"],
        ["explain", "--plot", ""], ["sweep", "--labels", ""], ["sweep", "-o", ""], ["bisect", "", "x"],
        ["detect", "", "--column", "a"], ["detect", "t", "--column", "a", "--save", "x/"], ["evaluate", ""],
        ["evaluate", "--write", ""], ["rejects", "show", ""], ["rejects", "requeue", "-", ""], ["generate", ""],
        ["datasets", "make", "cards", ""], ["datasets", "stats", ""], ["verify", "batch", "stream", ""],
        ["state", "", "--user", "1", "--at", "1"],
    ],
)  # fmt: skip
def test_no_command_takes_an_empty_path(arguments: list[str]) -> None:
    """Nor a directory's name for a file to be written: exit code 2 and words about it."""
    result = peerwatch(*arguments)
    assert result.exit_code == 2
    assert "is empty" in result.stderr or "is a directory's name" in result.stderr


def test_a_damaged_kernel_cache_is_done_without(logs: Path) -> None:
    """One flipped bit in a kernel's machine code: it is compiled anew, with a word, and the verdicts are right."""
    cache, common = logs / "cache" / "peerwatch", kernels.facts()
    cache.mkdir(parents=True)
    for each in kernels.registered:
        shutil.copy(kernels.cache_directory() / kernels.key(each, common), cache)
    damaged = cache / kernels.key(link_all, common)  # type: ignore[arg-type]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    command = [*COMMAND, "run", "batch", "stream", "out"]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(logs / "cache")}
    compiled = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert compiled.stderr.startswith("Compiling the kernels for this machine")
    assert (logs / "out").read_bytes() == FLAGGED
    assert len([*cache.iterdir()]) == len(kernels.registered)
    assert (
        "Compiling" not in subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stderr
    )
    assert (logs / "out").read_bytes() == FLAGGED


def test_file_names_of_any_kind(logs: Path) -> None:
    """Not UTF-8, with brackets that a terminal library might take for markup, linked: all are names like others."""
    odd = os.fsdecode(b"str\xffeam[red]")
    (logs / odd).write_bytes(STREAM + b"junk\n")
    (logs / "link").symlink_to("o[bold]ut")
    result = subprocess.run([*COMMAND, "run", "batch", odd, "link"], capture_output=True, check=True)
    assert b"link (50.00% of judged)" in result.stderr
    assert (logs / "o[bold]ut").read_bytes() == FLAGGED
    (record,) = (logs / "link.rejects.json").read_bytes().splitlines()
    assert decode_reject(record).file == "str\\xffeam[red]"


def test_a_dangling_link_survives_a_mistake(logs: Path) -> None:
    """A usage error leaves the link, and no file behind it."""
    (logs / "link").symlink_to("target")
    assert peerwatch("run", "batch", "stream", "link", "--log-file", "no/log").exit_code == 2
    assert (logs / "link").is_symlink()
    assert not (logs / "target").exists()


def test_strict_does_not_wait_for_more(logs: Path) -> None:
    """A bad line on a pipe that stays open ends the run at once."""
    command = [*COMMAND, "run", "--strict", "--D", "1", "--T", "2", "-", "out"]
    with running(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(purchase(1, "1") + b"bad\n")
        process.stdin.flush()
        assert process.wait() == 1
    assert (logs / "out").exists()
