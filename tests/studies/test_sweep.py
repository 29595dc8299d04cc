"""Sweeping: every cell is what a run with that setting writes."""

import csv
import io
import itertools
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import judge
from strategies import COMMANDS, examples, logs
from support import befriend, purchase, running, wait_until

from peerwatch.cli.console import Console
from peerwatch.cli.main import cli
from peerwatch.cli.options import layers_of
from peerwatch.errors import SinkError, UsageError
from peerwatch.judging import engine
from peerwatch.studies import sweep as work
from peerwatch.studies.generate import Recipe, write_logs
from peerwatch.studies.sweep_table import Setting, SettingGrid, SweepRecord

HEADER = b'{"D":"2", "T":"3"}\n'
BATCH = befriend(1, 2) + befriend(2, 3) + purchase(2, "10") + purchase(3, "12") + purchase(3, "11")
STREAM = purchase(1, "11") + purchase(1, "50") + befriend(1, 4) + purchase(4, "700") + purchase(1, "12")


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a batch and a stream log; it is the working directory."""
    (tmp_path / "batch").write_bytes(HEADER + BATCH)
    (tmp_path / "stream").write_bytes(STREAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


def swept(directory: Path, grid: SettingGrid, paths: tuple[str, ...], output: Path, **options: Any) -> SweepRecord:
    """Sweep the logs in a directory."""
    layers = layers_of(tuple(str(directory / path) for path in paths), None, options, output=False)
    record = anyio.run(partial(work.sweep, layers, grid, Console(quiet=True, bar=False), output=output))
    assert isinstance(record, SweepRecord)
    return record


@settings(COMMANDS, max_examples=examples(60))
@given(
    batch=st.one_of(st.none(), logs()),
    stream=logs(max_size=100),
    D=st.sets(st.integers(1, 4), min_size=1, max_size=3),
    T=st.sets(st.integers(2, 6) | st.integers(2, 60), min_size=1, max_size=3),
    k=st.sets(st.sampled_from([0.0, 0.5, 2.0, 2.1, 3.0]), min_size=1, max_size=3),
    cap=st.integers(1, 9) | st.just(4096),
    bound=st.integers(1, 200) | st.just(1 << 20),
    directed=st.booleans(),
    judge_batch=st.booleans(),
)
def test_every_cell_is_what_the_reference_says(
    batch: bytes | None, stream: bytes, D: set[int], T: set[int], k: set[float], cap: int, bound: int,
    *, directed: bool, judge_batch: bool,
) -> None:  # fmt: skip
    """Messy logs, any grid, any size of slices and answers: each file's bytes, each count, each overlap."""
    grid = SettingGrid(sorted(D), sorted(T), sorted(k))
    expected = {
        Setting(d, t, each): judge(
            batch, stream, d, t, Fraction(repr(each)), directed=directed, judge_batch=judge_batch
        ).flagged
        for d, t, each in itertools.product(*grid)
    }
    options = {"friendships": "directed" if directed else "mutual", "judge_batch": judge_batch}
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        directory = Path(name)
        patch.setattr(work, "BATCH_CAP", cap)
        for limit in ("WINDOW_PURCHASES", "MOST_PLACES"):
            patch.setattr(engine, limit, bound)
        for log, content in (("batch", batch), ("stream", stream)):
            (directory / log).write_bytes(content or b"")
        try:
            record = swept(directory, grid, ("batch", "stream")[batch is None :], directory / "out", **options)
        except UsageError as error:
            assert str(error).endswith("holds no purchase: there is nothing to judge")  # noqa: PT017 (it need not come)
            assert not any(expected.values())
            return
        written = {path.name: path.read_bytes() for path in (directory / "out").iterdir()}
    assert written == {setting.file_name: flagged for setting, flagged in expected.items()}
    assert [cell.flagged for cell in record.settings] == [flagged.count(b"\n") for flagged in expected.values()]


def test_every_file_is_that_of_a_run(directory: Path) -> None:
    """Thousands of events, rejected lines and huge amounts among them, slices and blocks that end anywhere."""
    write_logs(directory, Recipe(users=300, batch_events=4000, stream_events=9000, mean_degree=6), force=True)
    stream = (directory / "stream_log.json").read_bytes().splitlines(keepends=True)
    for place in range(0, len(stream), 97):
        stream[place] = stream[place][: place % 60] + b"\n"
    for place in range(50, len(stream), 501):
        stream[place] = purchase(place % 300 + 1, f"{place}e25", "2017-06-13 12:33:01")
    (directory / "stream_log.json").write_bytes(b"".join(stream))
    logs = ("batch_log.json", "stream_log.json")
    result = peerwatch("sweep", *logs, "--D", "1,3", "--T", "2,50,20", "--k", "3,0.1,2.5", "--output", "out", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    counts = [cell["flagged"] for cell in json.loads(result.stdout)["settings"]]
    settings = [Setting(*each) for each in itertools.product((1, 3), (2, 20, 50), (0.1, 2.5, 3.0))]
    assert {path.name for path in (directory / "out").iterdir()} == {setting.file_name for setting in settings}
    for setting, count in zip(settings, counts, strict=True):
        options = ["--D", str(setting.D), "--T", str(setting.T), "--k", str(setting.k)]
        assert peerwatch("run", "--quiet", *options, *logs, "run.json").exit_code == 0
        alone = (directory / "run.json").read_bytes()
        assert (directory / "out" / setting.file_name).read_bytes() == alone
        assert alone.count(b"\n") == count > 0


def test_the_overlap_and_the_labels_are_counted_as_sets(directory: Path) -> None:
    """Shared counts, Jaccard, precision and recall are those of the sets of lines in the files; CSV and text agree."""
    write_logs(directory, Recipe(users=200, batch_events=3000, stream_events=3000, anomalies=0.05), force=True)
    arguments = ("sweep", "batch_log.json", "stream_log.json", "--T", "10,50", "--k", "2,3", "--labels", "labels.json")
    result = peerwatch(*arguments, "--output", "out", "--json")
    record = json.loads(result.stdout)
    stream = {line[:-1]: number for number, line in enumerate(_lines(directory / "stream_log.json"), 1)}
    labelled = {json.loads(line)["line"] for line in _lines(directory / "labels.json")}
    names = ["D2-T10-k2.json", "D2-T10-k3.json", "D2-T50-k2.json", "D2-T50-k3.json"]
    sets = [{stream[line.partition(b', "mean"')[0]] for line in _lines(directory / "out" / name)} for name in names]
    assert record["current"] == 3  # the header's D and T, the default k
    assert (record["judged"], record["labelled"]) == (sum(b"purchase" in line for line in stream), len(labelled))
    assert record["shared"] == [[len(a & b) for b in sets] for a in sets]
    assert record["jaccard"] == [[len(a & b) / len(a | b) for b in sets] for a in sets]
    for cell, flagged in zip(record["settings"], sets, strict=True):
        assert (cell["flagged"], cell["share"]) == (len(flagged), len(flagged) / record["judged"])
        assert (cell["shared"], cell["jaccard"]) == (
            len(flagged & sets[3]),
            len(flagged & sets[3]) / len(flagged | sets[3]),
        )
        assert cell["precision"] == len(flagged & labelled) / len(flagged)
        assert cell["recall"] == len(flagged & labelled) / len(labelled)
    rows = list(csv.DictReader(io.StringIO(peerwatch(*arguments, "--csv").stdout)))
    assert [{name: float(value) for name, value in row.items()} for row in rows] == record["settings"]
    table = peerwatch(*arguments).stdout.splitlines()
    assert table[0] == f"{record['judged']:,} purchases judged, {len(labelled):,} of them labelled"
    assert [line.endswith("current") for line in table[3:]] == [False, False, False, True]
    assert [line.split()[3] for line in table[3:]] == [f"{len(flagged):,}" for flagged in sets]


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


def test_what_is_not_listed_is_what_is_set(directory: Path) -> None:
    """Lists are merged and sorted; D comes from the config, T from the header, k is 3; the current one is marked."""
    (directory / "c.yaml").write_text("D: 1\ninput: {batch: batch, stream: stream}\n")
    record = json.loads(peerwatch("sweep", "-c", "c.yaml", "--k", "4, 3,3.0,1e1", "--json").stdout)
    assert [(cell["D"], cell["T"], cell["k"]) for cell in record["settings"]] == [(1, 3, 3), (1, 3, 4), (1, 3, 10)]
    assert record["current"] == 0
    record = json.loads(peerwatch("sweep", "-c", "c.yaml", "--D", "2,1", "--T", "2,3", "--json").stdout)
    assert [(cell["D"], cell["T"], cell["k"]) for cell in record["settings"]] == [
        (1, 2, 3), (1, 3, 3), (2, 2, 3), (2, 3, 3),
    ]  # fmt: skip
    assert record["current"] == 1


def test_lists_serve_where_nothing_is_set(directory: Path) -> None:
    """Without a header, or a batch log, the lists are enough; without T it is missing, as for a run."""
    (directory / "batch").write_bytes(BATCH)
    for paths in (("batch", "stream"), ("stream",)):
        result = peerwatch("sweep", *paths, "--D", "2,1", "--T", "2,3")
        assert (result.exit_code, result.stdout.splitlines()[3].endswith("current")) == (0, True)
    missing = peerwatch("sweep", "stream", "--D", "2")
    assert missing.exit_code == 2
    assert '"T" is not set: give --T' in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--D 2,x", "Invalid value for '--D': 'x' in '2,x': expected int, and commas between them"),
        ("--D 0", "Invalid value for '--D': '0' in '0': expected int >= 1, and commas between them"),
        ("--T 5,1", "Invalid value for '--T': '1' in '5,1': expected int >= 2, and commas between them"),
        ("--k nan", "Invalid value for '--k': 'nan' in 'nan': expected float >= 0.0, and commas between them"),
        (
            "--k 1,inf",
            "Invalid value for '--k': 'inf' in '1,inf': expected float <= 1000000.0, and commas between them",
        ),
        ("--k 1,,2", "Invalid value for '--k': '' in '1,,2': expected float, and commas between them"),
        ("--csv --json", "peerwatch: --csv and --json are two ways to print the same; choose one"),
        ("--plot x.gif", "peerwatch: x.gif: a picture's name ends in .svg or .png"),
        ("--labels none", "peerwatch: cannot read the labels none: No such file or directory"),
        (
            "--labels bad",
            'peerwatch: bad:2: no label; expected an object that names a line of STREAM, like {"line": 188}',
        ),
        ("--labels early", "peerwatch: early:2: line 3 of stream is not a judged purchase"),
        ("--labels late", "peerwatch: late:1: line 99 of stream is not a judged purchase"),
        ("--output full", "peerwatch: full/D2-T3-k3.json already exists; name another directory, or add --force"),
        ("--output stream", "peerwatch: cannot write into stream: File exists"),
    ],
)
def test_mistakes_are_told_in_a_sentence_and_leave_nothing(directory: Path, arguments: str, sentence: str) -> None:
    """Exit code 2, nothing on standard output, no file, no directory."""
    (directory / "bad").write_text(f'{{"line": 1}}\n{{"line": {10**20}}}\n')
    (directory / "early").write_text('{"line": 1}\n{"line": 3}\n')
    (directory / "late").write_text('{"line": 99}\n{"line": 3}\n')
    (directory / "full").mkdir()
    (directory / "full" / "D2-T3-k3.json").write_text("precious")
    files = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    result = peerwatch("sweep", "batch", "stream", *(["--output", "out"] if "--output" not in arguments else []),
                       *arguments.split())  # fmt: skip
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1].removeprefix("Error: ") == sentence
    assert not (directory / "out").exists()
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == files


def test_blank_lines_among_the_labels_are_skipped(directory: Path) -> None:
    """As in the logs; what is wrong behind them is still named by its line."""
    (directory / "labels").write_bytes(b'\n{"line": 2}\r\n \t\n\r\n{"line": 4}\n\n')
    record = json.loads(peerwatch("sweep", "batch", "stream", "--labels", "labels", "--json").stdout)
    assert record["labelled"] == 2
    (directory / "labels").write_bytes(b"\n\nx\n")
    assert "labels:3: no label" in peerwatch("sweep", "batch", "stream", "--labels", "labels").stderr


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        ("none", "cannot read the log none: No such file or directory"),
        (".", ". is a directory; name the log file in it"),
        ("empty", "empty holds no purchase: there is nothing to judge"),
        ("-", "- cannot be read again; name a log that is a file"),
    ],
)
def test_a_log_that_cannot_be_judged_is_named(directory: Path, stream: str, sentence: str) -> None:
    """Missing, a directory, empty, or gone once it is read; directories made for the output go again."""
    (directory / "empty").touch()
    result = peerwatch("sweep", "batch", stream, "--k", "2,3", "--output", "deep/out")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"peerwatch: {sentence}\n")
    assert not (directory / "deep").exists()


def test_force_overwrites(directory: Path) -> None:
    """The files of an earlier sweep are replaced only when that is asked for."""
    (directory / "out").mkdir()
    (directory / "out" / "D2-T3-k3.json").write_text("old")
    assert peerwatch("sweep", "batch", "stream", "--output", "out", "--force").exit_code == 0
    assert (directory / "out" / "D2-T3-k3.json").read_bytes() == judge(BATCH, STREAM, 2, 3).flagged


def test_force_does_not_overwrite_a_directory(directory: Path) -> None:
    """It is refused before the work: that there is nothing to judge would be found only by going through the logs."""
    (directory / "out" / "D2-T3-k3.json").mkdir(parents=True)
    (directory / "empty").touch()
    for force in ([], ["--force"]):
        result = peerwatch("sweep", "batch", "empty", "--output", "out", *force)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == "peerwatch: cannot write out/D2-T3-k3.json: it is a directory; name another DIR\n"
    assert [path.name for path in (directory / "out").iterdir()] == ["D2-T3-k3.json"]


def test_a_file_that_cannot_get_its_name_is_told(directory: Path) -> None:
    """What comes into the way during the work is no mistake of the command: a SinkError, and nothing unfinished."""
    files = work.FlaggedFiles(directory / "out", [Setting(2, 3, 3.0)])
    files.begin(force=True)
    (directory / "out" / "D2-T3-k3.json").mkdir()
    with pytest.raises(SinkError, match=r"D2-T3-k3.json: Is a directory; fix that and sweep again"):
        files.finish()
    files.discard()
    assert [path.name for path in (directory / "out").iterdir()] == ["D2-T3-k3.json"]


SWEEPS_FOR_EVER = """
from peerwatch.cli import main as cli
from peerwatch.studies import sweep
parts = sweep.parts
async def endless(*arguments):
    async for part in parts(*arguments):
        yield part
    while True:
        part = part._replace(seq=part.seq + len(part.events))
        yield part
sweep.parts = endless
cli.main()
"""


@contextmanager
def endless_sweep() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that is in the midst of a sweep into `out` of a log without end, with all its files begun."""
    options = ["--D", "1,2,3,4", "--T", "50,100,200", "--k", "1,2,3", "--output", "out"]
    command = [sys.executable, "-c", SWEEPS_FOR_EVER, "sweep", "batch", "stream", *options]
    with running(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        wait_until(Path("out/D4-T200-k3.json.part").exists, process)
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(directory: Path, number: signal.Signals) -> None:
    """Ctrl-C or kill: exit code 128 + signal, one sentence, no unfinished file, no directory made for nothing."""
    with endless_sweep() as process:
        process.send_signal(number)
        output, error = process.communicate()
    assert (process.returncode, output) == (128 + number, b"")
    assert error.decode().splitlines()[-1] == "peerwatch: interrupted; nothing has been written"
    assert not (directory / "out").exists()


def test_two_sweeps_into_one_directory_do_not_mix(directory: Path) -> None:
    """The second is refused and touches nothing; a directory that was there before stays when the first ends."""
    (directory / "out").mkdir()
    with endless_sweep() as process:
        result = peerwatch(
            "sweep", "batch", "stream", "--D", "1", "--T", "50", "--k", "1", "--output", "out", "--force"
        )
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == "peerwatch: another sweep is writing into out; name another directory\n"
        assert (directory / "out" / "D1-T50-k1.json.part").exists()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 143
    assert list((directory / "out").iterdir()) == []
    assert peerwatch("sweep", "batch", "stream", "--output", "out").exit_code == 0


@pytest.mark.parametrize(("name", "begins"), [("s.svg", b"<?xml"), ("s.png", b"\x89PNG")])
@pytest.mark.parametrize("k", ["0.1", "0,0.5,1000"])
def test_the_plot_has_a_panel_for_each_D_and_a_line_for_each_T(
    directory: Path, name: str, begins: bytes, k: str
) -> None:
    """Also where nothing is flagged or labelled; the same bytes each time."""
    (directory / "labels").touch()
    pictures = []
    for _ in range(2):
        result = peerwatch(
            "sweep", "batch", "stream", "--D", "1,2", "--T", "2,3", "--k", k, "--plot", name, "--labels", "labels"
        )
        assert (result.exit_code, result.stderr) == (0, "")
        pictures.append((directory / name).read_bytes())
    assert pictures[0] == pictures[1]
    assert pictures[0].startswith(begins)
    if name == "s.svg":
        assert all(f">{text}<" in pictures[0].decode() for text in ("D=1", "D=2", "T=2", "T=3", "precision", "recall"))
