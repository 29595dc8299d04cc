"""Runs with quarantine: resumed, killed, verified, explained and swept, they keep what was flagged out alike."""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from naive_explanation import events_of
from naive_quarantine import decide_with_quarantine, heard_in, judge_with_quarantine
from support import befriend, purchase

from peerwatch.cli.main import cli
from peerwatch.runtime import supervisor

USERS = 8
FRIENDS = b"".join(befriend(a, b) for a in range(USERS) for b in range(max(0, a - 3), a))
BATCH = FRIENDS + purchase(1, "50") + purchase(2, "60")
D, T, K = 1, 30, Fraction(2)
CONFIG = "detector: {k: 2, quarantine: true}\n"


def stream(count: int = 900) -> bytes:
    """Purchases about 50, every seventh several times that; friendships come and go."""
    rng = np.random.default_rng(3)
    amounts = rng.lognormal(4, 0.3, count)
    amounts[::7] *= rng.uniform(1, 9, len(amounts[::7]))
    lines = [purchase(place % USERS, f"{amount:.2f}") for place, amount in enumerate(amounts)]
    for place in range(0, count, 50):
        lines[place] = befriend(place % USERS, (place // 50 + 3) % USERS, ("befriend", "unfriend")[place % 3 > 0])
    lines[100] = befriend(1, 1)  # rejected
    return b"".join(lines)


LINES = stream().splitlines(keepends=True)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with both logs, and no pause between restarts."""
    (tmp_path / "batch").write_bytes(f'{{"D":"{D}", "T":"{T}"}}\n'.encode() + BATCH)
    (tmp_path / "stream").write_bytes(stream())
    (tmp_path / "c.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", 0.0)
    return tmp_path


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process; it must succeed."""
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    return result


def run(*options: str) -> bytes:
    """A run, and what it has flagged."""
    peerwatch("run", "--config", "c.yaml", "batch", "stream", "out", "--quiet", *options)
    return Path("out").read_bytes()


def lines_of(flagged: bytes) -> list[int]:
    """The lines of the stream log that have been flagged."""
    return [LINES.index(line.rpartition(b', "mean"')[0] + b"}\n") + 1 for line in flagged.splitlines()]


def in_pieces(*, audit: bool = True) -> bytes:
    """A run that is stopped and started anew, with labels and other numbers of shards in between."""
    for number, end in enumerate((1, 300, 520, len(LINES))):
        Path("stream").write_bytes(b"".join(LINES[:end]))
        audited = ("--audit", "1") if audit and number > 1 else ()  # it ends with 1 if a decision differs
        flagged = run("--state", "state", "--shards", str(1 + number % 3), *audited)
        lines = lines_of(flagged)
        for line in lines[-4:]:
            label = "anomaly" if line == lines[-2] else "normal"
            peerwatch("feedback", "state", "--line", str(line), "--label", label)
    return flagged


@pytest.mark.slow
def test_a_challenger_that_learns_changes_nothing(directory: Path) -> None:
    """It judges the windows of the champion, with any number of shards."""
    config = CONFIG.replace("}", ", training: {rows: 100, every: 300}}")
    (directory / "c.yaml").write_text(config + "challenger: {name: half_space_trees, parameters: {trees: 3}}\n")
    for shards in ("1", "3"):
        assert run("--shards", shards) == judge_with_quarantine(BATCH, stream(), D, T, K)


def test_stops_labels_and_shards_change_nothing_but_what_they_release() -> None:
    """One run without labels, and one in pieces with some, are the reference's; judged again they are the same."""
    alone = run()
    assert alone == judge_with_quarantine(BATCH, stream(), D, T, K)
    Path("out").unlink()
    pieces = in_pieces()
    schedule = heard_in(Path("state"))
    assert len(schedule) >= 2
    assert pieces == judge_with_quarantine(BATCH, stream(), D, T, K, schedule)
    assert pieces != alone
    newest = sorted(Path("state").glob("checkpoint-*.npz"))
    newest[-1].unlink()  # as if the last piece had been killed after it had written everything
    assert run("--state", "state", "--shards", "2") == pieces
    same = peerwatch("verify", "--config", "c.yaml", "batch", "stream", "out", "--state", "state", "--audit", "1")
    assert "every one as in out" in same.stdout
    assert "all the same" in same.stdout


def test_explanations_have_the_windows_of_the_run() -> None:
    """From the beginning and from checkpoints: of what was flagged they hold what had been released by then."""
    in_pieces()
    decisions = decide_with_quarantine(BATCH, stream(), D, T, K, heard_in(Path("state")))
    flagged = {one.line for one in decisions if one.flagged is not None}
    with_released = [one for one in decisions if flagged.intersection(one.window)]
    assert with_released
    some = [*with_released[:: len(with_released) // 4], *decisions[-2:]]
    for one in some:
        command = ("explain", "--config", "c.yaml", "batch", "stream", "--state", "state", "--line", str(one.line))
        record = json.loads(peerwatch(*command, "--json").stdout)
        assert [each["line"] for each in record["window"] if each["file"] == "stream"] == one.window
        assert record["verdict"] == ("normal" if one.flagged is None else "flagged")
    events = sum(1 for content in (BATCH, stream()) for _ in events_of(content))
    moment = ("--user", "1", "--at", str(events), "--json")
    state = json.loads(peerwatch("state", "--config", "c.yaml", "batch", "stream", "--state", "state", *moment).stdout)
    released = {label.line for one in heard_in(Path("state")) for label in one.labels if not label.anomaly}
    assert not flagged.difference(released).intersection(one["line"] for one in state["purchases"])


def test_a_sweep_keeps_out_what_each_setting_flags() -> None:
    """Each file is that of the reference with this setting."""
    grid = ("--D", "1,2", "--T", "30", "--k", "1.5,2")
    peerwatch("sweep", "--config", "c.yaml", "batch", "stream", *grid, "--output", "swept")
    for path in Path("swept").iterdir():
        d, t, k = (part[1:] for part in path.stem.removeprefix("flagged-").split("-"))
        assert path.read_bytes() == judge_with_quarantine(BATCH, stream(), int(d), int(t), Fraction(k)), path
    assert len(list(Path("swept").iterdir())) == 4


def test_a_state_of_other_rules_is_not_built_upon() -> None:
    """With another k, or without quarantine, explanations begin at the beginning of the logs; a run is refused."""
    in_pieces()
    Path("off.yaml").write_text("detector: {quarantine: false, k: 2}\n")
    explain = ("explain", "--config", "off.yaml", "batch", "stream", "--line", str(len(LINES)), "--json")
    assert json.loads(peerwatch(*explain).stdout) == json.loads(peerwatch(*explain, "--state", "state").stdout)
    result = CliRunner().invoke(cli, ["run", "--k", "2", "batch", "stream", "out", "--state", "state"])
    assert result.exit_code == 2
    assert '"detector.quarantine" is none, but the state in state was built with True' in result.stderr


@pytest.mark.slow
def test_kills_change_no_byte() -> None:
    """Killed without a warning again and again, in the middle of whatever it does, a run comes to the same end."""
    expected = run()
    Path("out").unlink()
    command = [sys.executable, "-m", "peerwatch", "run", "--config", "c.yaml", "batch", "stream", "out", "--quiet"]
    command += ["--state", "state", "--shards", "2"]
    Path("c.yaml").write_text(CONFIG + "state: {events: 50, seconds: 0}\n")
    for calls in range(5, 200, 13):
        environment = os.environ | {"DIE_AFTER": str(calls)}
        program = (
            "import os, sys; from peerwatch import durable; from peerwatch.__main__ import main\n"
            "left, real = [int(os.environ['DIE_AFTER'])], os.fsync\n"
            "def fsync(descriptor):\n"
            "    left[0] -= 1\n"
            "    os._exit(9) if left[0] < 0 else real(descriptor)\n"
            "os.fsync = fsync; sys.argv = ['peerwatch', *sys.argv[1:]]; main()\n"
        )
        died = subprocess.run([sys.executable, "-c", program, *command[3:]], env=environment, check=False).returncode
        if died == 0:
            break
        assert died == 9
    assert run("--state", "state") == expected


def test_a_threshold_that_follows_labels_is_refused() -> None:
    """In one sentence: it would read the labels at other events than the quarantine does."""
    Path("c.yaml").write_text("detector: {name: mad, adapt: {precision: 0.5}, quarantine: true}\n")
    result = CliRunner().invoke(cli, ["run", "--config", "c.yaml", "batch", "stream", "out", "--state", "state"])
    assert result.exit_code == 2
    assert 'c.yaml:1: "detector.quarantine" and "detector.adapt.precision" both follow labels' in result.stderr


CHANGING = {
    "learned": '{name: "typical:Typical", training: {rows: 50, every: 100}, quarantine: true}',
    "flag rate": "{name: zscore, adapt: {flag_rate: 0.1}, quarantine: true}",
    "learned, drift": '{name: "typical:Typical", training: {rows: 50, every: 200}, drift: true, quarantine: true}',
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", [*CHANGING])
def test_detectors_that_change_do_so_at_the_same_purchases(rule: str) -> None:
    """In pieces, after a kill, with any number of shards, and judged again, with labels that release some or without.

    Explanations find the verdict and the mean that were written.
    """
    Path("c.yaml").write_text(f"D: {D}\nT: {T}\ndetector: {CHANGING[rule]}\n")
    alone = run()
    Path("out").unlink()
    assert run("--shards", "3", "--walkers", "2", "--state", "whole") == alone != b""
    peerwatch("verify", "--config", "c.yaml", "batch", "stream", "out", "--state", "whole")
    Path("out").unlink()
    pieces = in_pieces(audit=False)
    assert len(heard_in(Path("state"))) >= 2
    newest = sorted(Path("state").glob("checkpoint-*.npz"))
    newest[-1].unlink()
    assert run("--state", "state", "--shards", "2") == pieces != alone
    same = peerwatch("verify", "--config", "c.yaml", "batch", "stream", "out", "--state", "state")
    assert "every one as in out" in same.stdout
    flagged = [json.loads(line) for line in pieces.splitlines()]
    for line, known in [*zip(lines_of(pieces), flagged, strict=True)][:: len(flagged) // 3]:
        command = ("explain", "--config", "c.yaml", "batch", "stream", "--state", "state", "--line", str(line))
        record = json.loads(peerwatch(*command, "--json").stdout)
        assert (record["verdict"], f"{record['mean']}") == ("flagged", known["mean"])


@pytest.mark.parametrize("name", ["zscore", "mad"])
def test_rules_keep_out_what_they_flag(name: str) -> None:
    """With any number of shards the same bytes, and fewer or more are flagged than without."""
    Path("c.yaml").write_text(f"detector: {{name: {name}}}\n")
    without = run()
    Path("c.yaml").write_text(f"detector: {{name: {name}, quarantine: true}}\n")
    found = {run("--shards", str(shards), "--walkers", str(shards)) for shards in (1, 3)}
    assert len(found) == 1
    assert found != {without}
