"""Live runs: killed, resumed, supervised; the output is always that of one uninterrupted run."""

import fcntl
import gzip
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from reference import judge
from soak import soak
from support import befriend, purchase, running, wait_until

from peerwatch.actors.dispatcher import Dispatcher
from peerwatch.amounts import Amounts
from peerwatch.cli.main import cli
from peerwatch.errors import SinkError
from peerwatch.files.position import position_of
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.rejects import decode_reject
from peerwatch.replay import requeue
from peerwatch.runtime import stopping, supervisor
from peerwatch.runtime.supervisor import BLAMED
from peerwatch.storage import status
from peerwatch.storage.checkpoints import DAMAGE, read_checkpoint
from peerwatch.studies.generate import Recipe, generate

ROOT = Path(__file__).parents[1]
BATCH = befriend(1, 2) + befriend(2, 3) + purchase(2, "10") + purchase(3, "12") + purchase(3, "1e30")
STREAM = b"".join(
    purchase(1 + i % 4, str(9 + i % 5))
    + (purchase(1, "500") + befriend(1, 3 + i % 7) if i % 6 == 5 else b"")
    + b"junk\n" * (i % 9 == 8)
    for i in range(60)
)
EXPECTED = judge(BATCH, STREAM, 2, 3)
EXPECTED_JUDGED = STREAM.count(b'"purchase"')


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with both logs and no pause between restarts."""
    (tmp_path / "batch").write_bytes(b'{"D": 2, "T": 3}\n' + BATCH)
    (tmp_path / "stream").write_bytes(STREAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", 0.0)
    return tmp_path


def peerwatch(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(cli, arguments)


def live(*options: str) -> Result:
    """A run that follows the stream to its present end and keeps its state."""
    return peerwatch("run", "batch", "stream", "out", "--state", "state", "--follow", "--idle-exit", "0", *options)


@pytest.mark.slow
def test_a_soak_in_short_form(tmp_path: Path) -> None:
    """8 kills with SIGKILL at random moments, 6 rotations in all ways: byte-equal. `make soak` is the long form."""
    recipe = Recipe(users=500, batch_events=10_000, stream_events=30_000, mean_degree=8, seed=3)
    batch, stream, _ = generate(recipe)
    soak(tmp_path, "".join(batch).encode(), "".join(stream).encode(), kills=8, rotations=6, rate=3000, seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("learned", [(), ("--learned",)])
def test_every_fault_point_of_a_write_is_survived(learned: tuple[str, ...]) -> None:
    """Death at each write (half done), fsync, rename, truncation and unlink of all that a run keeps, one by one.

    Of the pieces in which a file is written here only at the first, the middle and the last; `make soak` dies at all.
    """
    command = [sys.executable, str(ROOT / "tests" / "fault_walk.py"), *learned]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    calls, died = json.loads(result.stdout).values()
    writes, fewer = calls.pop("write"), died.pop("write")
    assert died == calls
    assert 0 < fewer < writes
    assert calls.keys() == ({"fsync", "replace"} if learned else {"fsync", "replace", "truncate", "unlink"})


@pytest.mark.parametrize("cuts", [[1], [500, 501, 2000], [0, 3000], [len(STREAM)]])
def test_a_growing_log_judged_in_pieces_gives_the_same_bytes(logs: Path, cuts: list[int]) -> None:
    """Stopped and started anew at any byte, also within a line, with another number of shards each time."""
    for number, cut in enumerate([*cuts, len(STREAM)]):
        (logs / "stream").write_bytes(STREAM[:cut])
        assert live("--shards", str(1 + number % 3)).exit_code == 0
    assert (logs / "out").read_bytes() == EXPECTED.flagged != b""
    rejected = [decode_reject(line).line for line in (logs / "out.rejects.json").read_bytes().splitlines()]
    assert rejected == EXPECTED.stream_rejected
    assert live().exit_code == 0
    assert (logs / "out").read_bytes() == EXPECTED.flagged


def test_output_behind_the_checkpoint_is_cut_back(logs: Path) -> None:
    """What a crash has left behind the checkpoint is written anew, once."""
    (logs / "stream").write_bytes(STREAM[:1500])
    live()
    with (logs / "out").open("ab") as file:
        file.write(b'{"half a li')
    (logs / "stream").write_bytes(STREAM)
    assert live().exit_code == 0
    assert (logs / "out").read_bytes() == EXPECTED.flagged


def test_a_damaged_checkpoint_falls_back_to_the_one_before(logs: Path) -> None:
    """Truncated or overwritten: a warning, and the older one serves; two are kept."""
    for cut in (1000, 2000, 3000):
        (logs / "stream").write_bytes(STREAM[:cut])
        live()
    checkpoints = sorted((logs / "state").glob("checkpoint-*.npz"))
    assert len(checkpoints) == 2
    newest = checkpoints[1].read_bytes()
    damages: list[Callable[[bytes], bytes]] = [
        lambda data: data[: len(data) // 2],
        lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
        lambda _: b"",
    ]
    pickled = io.BytesIO()
    np.savez(pickled, facts=np.array([{}], object))
    damages += [lambda _: pickle.dumps([1]), lambda _: pickled.getvalue()]
    older = checkpoints[0].read_bytes()
    for damage in damages:
        checkpoints[0].write_bytes(older)
        checkpoints[1].write_bytes(damage(newest))
        (logs / "stream").write_bytes(STREAM)
        result = live()
        assert result.exit_code == 0
        assert re.search(r"the checkpoint .* is damaged \(.*\); trying the one before it", result.stderr)
        assert "pickle" not in result.stderr  # numpy's advice to load it all the same
        assert (logs / "out").read_bytes() == EXPECTED.flagged
        for path in (logs / "state").glob("checkpoint-*.npz"):
            path.unlink()


def test_if_no_checkpoint_can_be_read_nothing_is_overwritten(logs: Path) -> None:
    """Beginning anew would destroy the output: it takes --reset."""
    live()
    for path in (logs / "state").glob("checkpoint-*.npz"):
        path.write_bytes(path.read_bytes()[:-50])
    result = live()
    assert result.exit_code == 2
    expected = "peerwatch: none of the checkpoints in state can be read; bring one back, or begin anew with --reset"
    assert result.stderr.splitlines()[-1] == expected
    assert (logs / "out").read_bytes() == EXPECTED.flagged
    assert live("--reset").exit_code == 0
    assert (logs / "out").read_bytes() == EXPECTED.flagged


def test_random_damage_is_noticed_or_harmless(logs: Path) -> None:
    """Whatever bytes of a checkpoint change, it is passed over, or it gives the arrays that were written."""
    live()
    path = max((logs / "state").glob("checkpoint-*.npz"))
    whole, content = read_checkpoint(path), path.read_bytes()
    rng = np.random.default_rng(2)
    for _ in range(500):
        damaged = bytearray(content)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            found = read_checkpoint(path)
        except DAMAGE:
            continue
        assert found.envelope == whole.envelope
        assert all((found.arrays[name] == array).all() for name, array in whole.arrays.items())


def test_a_mistake_beside_reset_keeps_the_checkpoints(logs: Path) -> None:
    """--reset forgets them when the run begins, not before everything else is found to be right."""
    live()
    kept = sorted((logs / "state").glob("checkpoint-*"))
    result = peerwatch("run", "nobatch", "stream", "out", "--state", "state", "--reset")
    assert result.exit_code == 2
    assert sorted((logs / "state").glob("checkpoint-*")) == kept != []


@pytest.mark.parametrize(
    ("arguments", "what"), [(["-", "stream", "out"], "batch log"), (["batch", "stream", "-"], "output")]
)
@pytest.mark.usefixtures("logs")
def test_a_state_needs_files(arguments: list[str], what: str) -> None:
    """A pipe can be neither read again nor cut back."""
    result = peerwatch("run", *arguments, "--state", "state")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        f"peerwatch: with --state the {what} must be a file, so that a later run can continue it"
    )


def test_a_rotation_in_the_batch_phase_is_caught_up(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed right after its beginning was written down, and the log rotated before the next start: nothing is lost."""

    async def die(*_: Any) -> None:
        raise SinkError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Dispatcher, "run", die)
        assert live().exit_code == 1
    half = len(STREAM) // 2
    (logs / "stream").rename(logs / "stream.1")
    (logs / "stream").write_bytes(STREAM[half:])
    with (logs / "stream.1").open("r+b") as file:
        file.truncate(half)
    assert live().exit_code == 0
    flagged = (logs / "out").read_bytes()
    assert flagged == judge(BATCH, STREAM[:half] + b"\n" + STREAM[half:], 2, 3).flagged != b""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--D", "3"],
            '--D: "D" is 3, but the state in state was built with 2; go on with 2, or begin anew with --reset',
        ),
        (
            ["--T", "9"],
            '--T: "T" is 9, but the state in state was built with 3; go on with 3, or begin anew with --reset',
        ),
        (["--k", "2"], '--k: "detector.k" is 2.0, but the state in state was built with 3.0; go on with 3.0, or begin'),
        (
            ["--rejects", "r"],
            '--rejects: "output.rejects" is {}/r, but the state in state was built with {}/out.rejects.json',
        ),
    ],
)
def test_a_changed_setting_is_refused_with_both_ways_out(logs: Path, options: list[str], message: str) -> None:
    """Going on would mix verdicts; --reset begins anew."""
    live()
    result = live(*options)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"peerwatch: {message.format(logs, logs)}")
    assert (logs / "out").read_bytes() == EXPECTED.flagged
    assert live(*options, "--reset").exit_code == 0


def test_a_vanished_output_is_refused(logs: Path) -> None:
    """The state says that more had been written: bring it back, or begin anew."""
    live()
    (logs / "out").unlink()
    result = live()
    assert result.exit_code == 2
    assert f"out does not hold the {len(EXPECTED.flagged):,} bytes that had been written when the" in result.stderr
    assert not (logs / "out").exists()
    assert live("--reset").exit_code == 0
    assert (logs / "out").read_bytes() == EXPECTED.flagged


def test_an_output_that_was_rotated_while_down_is_gone_on_with_in_a_new_file(logs: Path) -> None:
    """The rotated file, also compressed, and the new one together hold every line once."""
    (logs / "stream").write_bytes(STREAM[:1500])
    live()
    first = (logs / "out").read_bytes()
    (logs / "out.1.gz").write_bytes(gzip.compress(first))
    (logs / "out").unlink()
    (logs / "stream").write_bytes(STREAM)
    assert live().exit_code == 0
    assert first + (logs / "out").read_bytes() == EXPECTED.flagged


def test_the_summary_of_a_resumed_run_says_what_is_new(logs: Path) -> None:
    """The counts are those since the beginning, the rate is that of this run."""
    (logs / "stream").write_bytes(STREAM[:1500])
    assert "of them now" not in live().stderr
    before = json.loads(peerwatch("status", "state", "--json").stdout)["totals"]["events"]
    (logs / "stream").write_bytes(STREAM)
    result = live()
    now = json.loads(peerwatch("status", "state", "--json").stdout)["totals"]["events"]
    assert re.search(rf"^events +{now}  {now - before} of them now, in ", result.stderr, re.MULTILINE)


def test_a_line_that_is_still_being_written_waits_for_the_next_run(logs: Path) -> None:
    """Without --follow, too: a run from time to time that judges what has come since the last one."""
    arguments = ["run", "batch", "stream", "out", "--state", "state"]
    for cut in range(1450, 1550, 3):
        (logs / "stream").write_bytes(STREAM[:cut])
        assert peerwatch(*arguments).exit_code == 0
    (logs / "stream").write_bytes(STREAM[:-1])
    assert peerwatch(*arguments).exit_code == 0
    assert (logs / "out").read_bytes() == EXPECTED.flagged
    mark = b"\n\xef\xbb\xbf"  # that of a file that was appended is no part of a whole last line
    (logs / "stream").write_bytes(STREAM[:-1] + mark + purchase(1, "9000")[:-1])
    assert peerwatch(*arguments).exit_code == 0
    assert (logs / "out").read_bytes() == judge(BATCH, STREAM + purchase(1, "9000"), 2, 3).flagged != EXPECTED.flagged
    rejected = [decode_reject(line).line for line in (logs / "out.rejects.json").read_bytes().splitlines()]
    assert rejected == EXPECTED.stream_rejected


@pytest.mark.parametrize("options", [[], ["--follow", "--idle-exit", "0"]])
def test_the_log_may_have_moved_to_another_inode(logs: Path, options: list[str]) -> None:
    """A restore or a new volume: the same bytes go on."""
    arguments = ["run", "batch", "stream", "out", "--state", "state", *options]
    (logs / "stream").write_bytes(STREAM[:1500])
    assert peerwatch(*arguments).exit_code == 0
    (logs / "copy").write_bytes(STREAM)
    (logs / "copy").replace(logs / "stream")
    assert peerwatch(*arguments).exit_code == 0
    assert (logs / "out").read_bytes() == EXPECTED.flagged


@pytest.mark.parametrize("moved", [".", "state", "stream"])
def test_the_directory_may_move(logs: Path, moved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With everything in it, the state alone, or the log alone, which is known by what it holds."""
    (logs / "stream").write_bytes(STREAM[:1500])
    live()
    if moved == ".":
        logs.rename(logs.with_name("elsewhere"))
        monkeypatch.chdir(logs.with_name("elsewhere"))
    else:
        Path(moved).rename("moved")
    names = {"state": "state", "stream": "stream", moved: "moved"} if moved != "." else {}
    stream, state = names.get("stream", "stream"), names.get("state", "state")
    Path(stream).write_bytes(STREAM)
    result = peerwatch("run", "batch", stream, "out", "--state", state, "--follow", "--idle-exit", "0")
    assert result.exit_code == 0, result.stderr
    assert Path("out").read_bytes() == EXPECTED.flagged


@pytest.mark.parametrize("options", [["--follow", "--idle-exit", "0"], ["--follow", "--idle-exit", "0", "--reset"]])
def test_another_stream_is_refused(logs: Path, options: list[str]) -> None:
    """A state directory belongs to the log it was built from; nothing is mixed into it."""
    live()
    (logs / "other").write_bytes(purchase(1, "900"))
    result = peerwatch("run", "batch", "other", "out", "--state", "state", *options)
    if "--reset" in options:
        assert result.exit_code == 0
        return
    assert result.exit_code == 2
    assert result.stderr == (
        f'peerwatch: command line: "input.stream" is {logs}/other, but the state in state was built from {logs}/stream,'
        " and what had been read of that is not there; go on with the old one, or begin anew with --reset\n"
    )
    assert live().exit_code == 0
    assert (logs / "out").read_bytes() == EXPECTED.flagged


def test_a_changed_header_is_refused(logs: Path) -> None:
    """The batch log is not read again, but its header is; a batch log that is gone is not missed."""
    live()
    (logs / "batch").write_bytes(b'{"D": 1, "T": 3}\n' + BATCH)
    result = live()
    assert result.exit_code == 2
    assert result.stderr == (
        'peerwatch: batch:1: "D" is 1, but the state in state was built with 2; go on with 2, or begin anew with'
        " --reset\n"
    )
    (logs / "batch").unlink()
    assert live().exit_code == 0
    assert (logs / "out").read_bytes() == EXPECTED.flagged


def test_a_state_under_a_path_that_is_not_utf8(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File names are bytes; every message and record takes them."""
    directory = logs / os.fsdecode(b"caf\xe9")
    directory.mkdir()
    for name in ("batch", "stream"):
        (logs / name).rename(directory / name)
    monkeypatch.chdir(directory)
    for _ in range(2):
        result = peerwatch(
            "run", *(str(directory / name) for name in ("batch", "stream", "out")), "--state", str(directory / "state"),
            "--follow", "--idle-exit", "0",
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr
    assert (directory / "out").read_bytes() == EXPECTED.flagged


def test_a_state_directory_that_is_removed_ends_the_run(logs: Path) -> None:
    """With exit code 1 and one sentence, when the next checkpoint is due."""
    (logs / "config").write_text("state: {directory: state, seconds: 0}")
    command = [sys.executable, "-m", "peerwatch", "run", "-c", "config", "batch", "stream", "out", "--follow"]
    with running(command, stderr=subprocess.PIPE) as process:
        wait_until((logs / "state" / "status.json").exists, process)
        (logs / "state").rename(logs / "removed")  # in one step, while it may be writing there
        with (logs / "stream").open("ab") as file:
            file.write(purchase(1, "500"))
        assert process.wait() == 1
        assert process.stderr is not None
        message = process.stderr.read().decode().splitlines()[-1]
    assert message == (
        "peerwatch: cannot write the checkpoint: the state directory state has been removed; bring it back, or run"
        " again to begin anew"
    )


def test_a_checkpoint_holds_the_state_and_can_be_read_by_numpy(logs: Path) -> None:
    """Plain arrays and JSON, no pickle; the counts are those of the log; of large amounts only those needed later."""
    stream = STREAM + purchase(3, "2e30")
    (logs / "stream").write_bytes(stream)
    live()
    newest = max((logs / "state").glob("checkpoint-*.npz"))
    with np.load(newest, allow_pickle=False) as archive:
        state = {"arena", "ends", "degree", "friends", "seq0", "held0", "timestamp0", "amount0", "large0"}
        assert set(archive) == state | {"disagreed", "facts"}
        assert archive["large0"].tobytes() == b"%d" % (2 * 10**36)
    facts = read_checkpoint(newest).envelope.facts
    assert facts.progress.rejected == len(EXPECTED.stream_rejected)
    assert position_of(facts.position).offset == len(stream)


class Broken:
    """Breaks a state object's method when it meets an amount; for ever, or a number of times."""

    def __init__(self, owner: type, method: str, times: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = times
        original = getattr(owner, method)

        def breaking(state: Any, *arguments: Any) -> Any:
            columns = [a for a in arguments if isinstance(a, Amounts)]
            if self.left > 0 and any((column.held == 500 * 10**6).any() for column in columns):
                self.left -= 1
                raise ZeroDivisionError("broken for the test")
            return original(state, *arguments)

        monkeypatch.setattr(owner, method, breaking)


@pytest.mark.parametrize("state", [["--state", "state"], []])
def test_a_passing_failure_leaves_no_trace(logs: Path, state: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline is restored from the last checkpoint, or begun anew without one, and replayed."""
    Broken(PurchaseHistory, "append", 1, monkeypatch)
    result = peerwatch("run", "batch", "stream", "out", *state)
    assert result.exit_code == 0
    assert "broken for the test" in result.stderr
    assert (logs / "out").read_bytes() == EXPECTED.flagged


def test_an_event_that_brings_the_run_down_twice_is_rejected(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes among the rejects with the traceback; the run goes on, and all other verdicts are right."""
    lines = STREAM.splitlines(keepends=True)
    poison = [number for number, line in enumerate(lines, 1) if b'"500"' in line]
    keep = [number for number in poison if number != poison[1]]
    Broken(PurchaseHistory, "append", 10**6, monkeypatch)
    without = judge(BATCH, b"".join(b"\n" if n in poison else line for n, line in enumerate(lines, 1)), 2, 3)
    result = live()
    assert result.exit_code == 0, result.stderr
    assert keep
    assert (logs / "out").read_bytes() == without.flagged
    records = [decode_reject(line) for line in (logs / "out.rejects.json").read_bytes().splitlines()]
    assert sorted(record.line for record in records) == sorted([*EXPECTED.stream_rejected, *poison])
    reason = next(record.reason for record in records if record.line == poison[0])
    assert reason.startswith("brought the run down twice: ZeroDivisionError: broken for the test\nTraceback")


def test_a_failure_that_nothing_helps_against_ends_the_run(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 and the cause; no hung task, no silent process. No more than a few lines are taken to be to blame."""

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("always")

    monkeypatch.setattr(FriendGraph, "walk", broken)
    result = live()
    assert result.exit_code == 1
    assert re.fullmatch(
        r"peerwatch: ZeroDivisionError: always; \d+ restarts did not help", result.stderr.splitlines()[-1]
    )
    assert len((logs / "out.rejects.json").read_bytes().splitlines()) <= len(EXPECTED.stream_rejected) + BLAMED


def test_a_pipe_cannot_be_replayed(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure while reading a pipe ends the run and says why."""
    Broken(PurchaseHistory, "append", 1, monkeypatch)
    read, write = os.pipe()
    os.write(write, STREAM)
    os.close(write)
    result = peerwatch("run", "batch", f"/dev/fd/{read}", "out")
    os.close(read)
    assert result.exit_code == 1
    assert result.stderr.endswith("broken for the test; a pipe cannot be read again\n")
    assert logs


def test_two_processes_on_one_state_are_refused_and_status_tells(logs: Path) -> None:
    """The second is told so; `status` sees the first running, then stopped by SIGTERM with exit code 0."""
    command = [sys.executable, "-m", "peerwatch", "run", "batch", "stream", "out", "--state", "state", "--follow"]
    with running(command, stderr=subprocess.PIPE) as process:
        wait_until((logs / "state" / "status.json").exists, process)
        wait_until(lambda: json.loads(peerwatch("status", "state", "--json").stdout)["through"] >= 10, process)
        second = peerwatch("run", "batch", "stream", "out2", "--state", "state", "--follow")
        assert second.exit_code == 2
        refused = "another peerwatch is running on the state directory state; stop it or name another directory"
        assert second.stderr == f"peerwatch: {refused}\n"
        assert not (logs / "out2").exists()
        found = json.loads(peerwatch("status", "state", "--json").stdout)
        assert (found["running"], found["pid"], found["restarts"]) == (True, process.pid, 0)
        assert set(found["mailboxes"]) == {
            "graph 0", "graph 1", "graph copy 1", "coordinator 0", "coordinator 1", "output", "shard 0", "replies",
            "checkpointer",
        }  # fmt: skip
        assert set(found["actors"]) == {
            "dispatcher", "graph 0", "graph 1", "coordinator", "output", "shard 0", "checkpointer",
        }  # fmt: skip
        assert all(0 <= actor["busy_ratio"] <= 1 for actor in found["actors"].values())
        assert found["progressed"] == [found["totals"][name] for name in ("events", "judged", "flagged")]
        assert found["checkpoints"]["bytes"] > 0
        assert f"running, process {process.pid}" in peerwatch("status", "state").stdout
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    after = json.loads(peerwatch("status", "state", "--json").stdout)
    assert (after["running"], after["lag_bytes"]) == (False, 0)
    assert after["totals"]["flagged"] == EXPECTED.flagged.count(b"\n")
    assert "not running" in peerwatch("status", "state").stdout
    assert (logs / "out").read_bytes() == EXPECTED.flagged


def test_status_of_another_version(logs: Path) -> None:
    """Totals that are not there are no reason for a traceback."""
    arguments = ["run", *(str(logs / name) for name in ("batch", "stream", "out")), "--state", str(logs / "state")]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    file = logs / "state" / "status.json"
    written = json.loads(file.read_bytes())
    del written["totals"]["decisions"]
    file.write_text(json.dumps(written))
    result = CliRunner().invoke(cli, ["status", str(logs / "state")])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "was written by another version of peerwatch" in result.stderr


OTHER_VERSION = "was written by another version of peerwatch, or is damaged"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "state: no run has written its status yet"),
        (b"", "the status in state is damaged (Input data was truncated); a run writes it anew"),
        (b'{"pid":7,"runn', "the status in state is damaged (Input data was truncated); a run writes it anew"),
        (b"{}", f"the status in state {OTHER_VERSION} (Object missing required field `pid`)"),
    ],
)
def test_status_of_what_is_none(logs: Path, content: bytes | None, sentence: str) -> None:
    """Each is told by what it is, in one sentence, with exit code 2."""
    (logs / "state").mkdir()
    if content is not None:
        (logs / "state" / "status.json").write_bytes(content)
    for directory, said in (
        ("state", sentence),
        ("nowhere", "nowhere: there is no such directory"),
        ("batch", "batch is a file, no state directory"),
    ):
        result = peerwatch("status", directory)
        assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"peerwatch: {said}\n")


def test_status_needs_no_lock_file(logs: Path) -> None:
    """Who has no lock does not run; the figures are what they were."""
    live()
    (logs / "state" / "lock").unlink()
    found = json.loads(peerwatch("status", "state", "--json").stdout)
    assert (found["running"], found["hangs"], found["totals"]["judged"]) == (False, False, EXPECTED_JUDGED)


def test_status_of_a_run_that_hangs(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped process is told to hang once its figures are too old, and how much has come since is seen."""
    command = [sys.executable, "-m", "peerwatch", "run", "batch", "stream", "out", "--state", "state", "--follow"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while peerwatch("status", "state").exit_code != 0:
            os.sched_yield()
        while json.loads(peerwatch("status", "state", "--json").stdout)["totals"]["judged"] < EXPECTED_JUDGED:
            os.sched_yield()
        process.send_signal(signal.SIGSTOP)
        try:
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            more = purchase(1, "10") * 10
            with (logs / "stream").open("ab") as file:
                file.write(more)
            while not (found := json.loads(peerwatch("status", "state", "--json").stdout))["hangs"]:
                assert found["age_seconds"] <= status.HANGS_SECONDS
            assert (found["running"], found["lag_bytes"]) == (True, len(more))
            assert found["age_seconds"] >= status.HANGS_SECONDS
            assert found["lag_seconds"] > 0
            shown = peerwatch("status", "state").stdout
            assert re.search(r"^state +running, process \d+; it hangs: its figures are \d+\.\d s old and sh", shown)
            assert re.search(rf"^lag +{len(more)} bytes, ", shown, re.MULTILINE)
            (logs / "stream").rename(logs / "stream.1")
            (logs / "stream").write_bytes(more * 2)
            shown = peerwatch("status", "state").stdout
            assert re.search(rf"^lag +at least {2 * len(more):,} bytes, ", shown, re.MULTILINE)
        finally:
            process.kill()  # whatever it is doing
    found = json.loads(peerwatch("status", "state", "--json").stdout)
    assert (found["running"], found["hangs"]) == (False, False)
    assert "it ended without stopping" in peerwatch("status", "state").stdout
    with (logs / "state" / "lock").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        monkeypatch.setattr(status, "HANGS_SECONDS", -1.0)
        assert peerwatch("status", "state").stdout.startswith("state        a run begins; these are the figures of the")


def test_a_full_disk_ends_the_run_and_the_next_goes_on(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 and one sentence; nothing is lost or repeated when there is room again."""
    written = 0

    def full(descriptor: int, data: bytes) -> int:
        nonlocal written
        if "checkpoint" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            written += len(data)
        if written > 10_000:
            raise OSError(28, "No space left on device")
        return os.write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr("peerwatch.durable.write", full)
        for cut in range(500, len(STREAM), 300):
            (logs / "stream").write_bytes(STREAM[:cut])
            result = live()
            if result.exit_code != 0:
                break
    assert result.exit_code == 1
    assert re.search(
        r"cannot write the checkpoint .*: No space left on device; fix that and run again\n$", result.stderr
    )
    assert not list((logs / "state").glob("*.new"))
    (logs / "stream").write_bytes(STREAM)
    assert live().exit_code == 0
    assert (logs / "out").read_bytes() == EXPECTED.flagged


def test_corrected_rejects_are_fed_back(logs: Path) -> None:
    """All of them, or none if one is still no event; the follower judges them like any other line."""
    live()
    raw = peerwatch("rejects", "show", "--raw", "out.rejects.json").stdout_bytes
    assert raw == b"junk\n" * len(EXPECTED.stream_rejected)
    (logs / "fixed").write_bytes(purchase(1, "900") + b"junk\n")
    result = peerwatch("rejects", "requeue", "fixed", "stream")
    assert (result.exit_code, (logs / "stream").read_bytes()) == (2, STREAM)
    assert result.stderr.startswith("peerwatch: fixed:2: not valid JSON")
    assert result.stderr.endswith("; nothing has been appended\n")
    (logs / "fixed").write_bytes(b"\xef\xbb\xbf" + purchase(1, "900") + b"\r\n" + purchase(2, "1"))
    result = peerwatch("rejects", "requeue", "fixed", "stream")
    assert (result.exit_code, result.stdout) == (0, "2 events appended to stream\n")
    assert live().exit_code == 0
    assert (logs / "out").read_bytes() == judge(BATCH, STREAM + purchase(1, "900") + purchase(2, "1"), 2, 3).flagged


def test_what_is_fed_back_waits_for_a_line_that_is_being_written(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer in the middle of a line is given time to finish it; then the lines stand behind it."""
    (logs / "fixed").write_bytes(purchase(1, "900"))
    for begun in (1, 40, len(purchase(2, "1")) - 2):
        line = purchase(2, "1")
        (logs / "stream").write_bytes(STREAM + line[:begun])

        def finish(_: float, rest: bytes = line[begun:]) -> None:
            with (logs / "stream").open("ab") as file:
                file.write(rest)

        monkeypatch.setattr(requeue, "sleep", finish)
        assert peerwatch("rejects", "requeue", "fixed", "stream").exit_code == 0
        assert (logs / "stream").read_bytes() == STREAM + line + purchase(1, "900")


@pytest.mark.parametrize(
    ("end", "before"),
    [
        (b"", b""),
        (purchase(2, "1")[:-1], b"\n"),
        (b'{"an": "object"}', b"\n"),
        (b" \t", b"\n"),
        (b"\0" * 100_000, b"\n"),
        (b"x" * 200_000 + b"\n", b""),
    ],
)
def test_what_is_fed_back_is_a_line_of_its_own(
    logs: Path, end: bytes, before: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a whole line that only lacks its line feed, blanks or a hole, that comes first; nobody is waited for."""
    monkeypatch.delattr(requeue, "sleep")
    (logs / "fixed").write_bytes(purchase(1, "900"))
    (logs / "stream").write_bytes(STREAM + end)
    assert peerwatch("rejects", "requeue", "fixed", "stream").exit_code == 0
    assert (logs / "stream").read_bytes() == STREAM + end + before + purchase(1, "900")


@pytest.mark.parametrize("end", [b"{", purchase(2, "1")[:-2], b"junk", b'{"an": "obj', b'"x', b"x" * 200_000])
def test_nothing_is_fed_back_into_a_begun_line(logs: Path, end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that nobody finishes is left alone: one sentence with the way out, and the log is as it was."""
    looks: list[float] = []
    monkeypatch.setattr(requeue, "sleep", looks.append)
    (logs / "fixed").write_bytes(purchase(1, "900"))
    (logs / "stream").write_bytes(STREAM + end)
    result = peerwatch("rejects", "requeue", "fixed", "stream")
    assert (result.exit_code, len(looks)) == (2, requeue.LOOKS)
    assert result.stderr == (
        "peerwatch: stream ends within a line, which its writer has yet to finish; try again, or end the line with a"
        " line feed if nobody writes it any more; nothing has been appended\n"
    )
    assert (logs / "stream").read_bytes() == STREAM + end


def test_a_line_begun_in_the_very_moment_is_told(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the write nobody can be kept away: what has come of it is said, with exit code 1."""
    (logs / "fixed").write_bytes(purchase(1, "900"))
    write = os.write

    def late(descriptor: int, data: bytes) -> int:
        with (logs / "stream").open("ab") as file:
            file.write(b'{"eve')
        return write(descriptor, data)

    monkeypatch.setattr(requeue, "os", SimpleNamespace(**vars(os) | {"write": late}))
    result = peerwatch("rejects", "requeue", "fixed", "stream")
    assert result.exit_code == 1
    where = f"stream got the lines at byte {len(STREAM) + 5:,}, where its writer had begun a line at the same moment"
    assert result.stderr == f"peerwatch: {where}; check the log there\n"


HUNG_UP = """
import os, signal
from peerwatch import kernels
from peerwatch.cli import main as cli
from peerwatch.runtime import stopping, supervisor
supervisor.LOOK_SECONDS = 1e6
load = kernels.load

def hang_up_first(*arguments):
    os.kill(os.getpid(), signal.SIGHUP)
    load(*arguments)

kernels.load = hang_up_first
cli.main()
"""
"""A run that never looks after its files by itself, and gets a first SIGHUP while it begins."""


def test_a_hangup_has_a_follow_open_its_log_and_its_outputs_anew(logs: Path) -> None:
    """As logrotate asks for it; however early it comes, it ends nothing."""
    arguments = ["run", "batch", "stream", "out", "--state", "state", "--follow", "--log-level", "info"]
    command = [sys.executable, "-c", HUNG_UP, *arguments, "--log-file", "log"]
    with running(command, stderr=subprocess.PIPE) as process:
        wait_until(lambda: (logs / "out").exists() and (logs / "out").read_bytes() == EXPECTED.flagged, process)
        for name in ("out", "log"):
            (logs / name).rename(logs / f"{name}.1")
        process.send_signal(signal.SIGHUP)
        # a look that came by itself may have seen one of them moved away and not yet the other
        wait_until(lambda: (logs / "log").exists() and (logs / "out").exists(), process)
        assert (logs / "out").read_bytes() == b""
        more = STREAM + purchase(1, "900")
        with (logs / "stream").open("ab") as file:
            file.write(more.removeprefix(STREAM))
        wait_until(lambda: (logs / "out").read_bytes() != b"", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    assert (logs / "out.1").read_bytes() == EXPECTED.flagged
    assert EXPECTED.flagged + (logs / "out").read_bytes() == judge(BATCH, more, 2, 3).flagged
    assert "decision" in (logs / "log").read_text()
    assert (logs / "log.1").read_text().count("decision") == EXPECTED.flagged.count(b"\n")


def test_a_hangup_ends_a_run_that_does_not_follow(logs: Path) -> None:
    """As it ends any other program."""
    command = [sys.executable, "-m", "peerwatch", "run", "batch", "-", "out"]
    with running(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        wait_until((logs / "out").exists, process)
        process.send_signal(signal.SIGHUP)
        assert process.wait() == -signal.SIGHUP


def test_what_has_been_lost_is_told_at_the_end_and_in_the_status(logs: Path) -> None:
    """In words in the log, and counted; the count outlives restarts."""
    live()
    (logs / "stream").write_bytes(purchase(1, "900"))
    for _ in range(2):
        result = live()
        assert result.exit_code == 0
        assert re.search(r"^lost +1  piece of the stream log, at least 0 bytes;", result.stderr, re.MULTILINE)
    assert (
        "lost         1 piece of the stream log, at least 0 bytes; each is in the log"
        in peerwatch("status", "state").stdout
    )


def test_following_standard_output_of_another_program(logs: Path) -> None:
    """A pipe is a source too: what comes is judged at once."""
    command = [sys.executable, "-m", "peerwatch", "run", "batch", "-", "-", "--follow"]
    with running(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(STREAM)
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(EXPECTED.flagged.count(b"\n"))]
        assert b"".join(lines) == EXPECTED.flagged
        process.stdin.close()
        assert process.wait() == 0
    assert logs


STUCK = """
import asyncio, signal, sys, threading
from pathlib import Path
import anyio
from peerwatch.errors import SinkError
from peerwatch.runtime import checkpointer
from peerwatch.cli import main as cli
from peerwatch.cli import console
from peerwatch.files import output_file
from peerwatch.runtime import sinks
from peerwatch.runtime import reporting, stopping, supervisor
from peerwatch.files import tail
stopping.STOP_SECONDS = supervisor.STOP_SECONDS = 0.2

def hang(*_, **__):
    Path("stuck").touch()
    threading.Event().wait()

async def hang_on_a_thread(*_):
    await anyio.to_thread.run_sync(hang)

async def hang_on_a_thread_that_is_left(*_):
    await asyncio.get_running_loop().run_in_executor(None, hang)

async def hang_on_the_loop(*_, **__):
    hang()

async def nothing(*_):
    pass

async def fail_once_stuck(*_):
    while not Path("stuck").exists():
        await anyio.sleep(0)
    raise SinkError("the disk is full")

def handle(number, handler, signals=signal.signal):
    before = signals(number, handler)
    if number == signal.SIGTERM:
        Path("handles").touch()
    return before

signal.signal = handle
exec(sys.argv.pop(1))
cli.main()
"""
HANGS = {
    "an output": "sinks.FileSink.write = hang_on_a_thread",
    "an output's disk": "output_file.OutputFile.sync = hang",
    "the loop": "reporting.Reporter.write_status = hang_on_the_loop",
    "the log": "tail.Tail.read = hang",
    "words": "console.Console.interrupted = hang; Path('stuck').touch()",
}


def stuck(how: str, *options: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A run that hangs."""
    arguments = [sys.executable, "-c", STUCK, how, "run", "batch", "stream", "out", "--quiet", *options]
    return running(arguments, stderr=subprocess.PIPE)


@pytest.mark.parametrize(
    ("how", "state"),
    [
        (how, state)
        for what, how in HANGS.items()
        for state in (["--state", "state"], [])
        if state or "disk" not in what
    ],
)
def test_a_stop_that_cannot_finish_ends_at_its_deadline(logs: Path, how: str, state: list[str]) -> None:
    """Whatever hangs, with a state directory or without, SIGTERM ends the run: exit code 1 and one sentence."""
    (logs / "c.yaml").write_text("state: {seconds: 0}\n")
    with stuck(how, "--follow", "-c", "c.yaml", *state) as process:
        while not ((logs / "stuck").exists() and (logs / "handles").exists()):
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 1
        assert process.stderr is not None
        assert process.stderr.read() == f"{stopping.OVERDUE.format(0.2, stopping.STUCK)}\n".encode()
    if state:
        assert live().exit_code == 0
        assert (logs / "out").read_bytes() == EXPECTED.flagged


def test_a_failure_beside_an_output_that_hangs_ends_the_run(logs: Path) -> None:
    """Nobody waits for the write: exit code 1, and the sentence says what failed."""
    how = "sinks.FileSink.write = hang_on_a_thread_that_is_left; checkpointer.Checkpointer._write = fail_once_stuck"
    how += "; checkpointer.Checkpointer.write_beginning = nothing"
    (logs / "c.yaml").write_text("state: {seconds: 0}\n")
    with stuck(how, "-c", "c.yaml", "--state", "state") as process:
        assert process.wait() == 1
        assert process.stderr is not None
        assert process.stderr.read() == b"peerwatch: the disk is full\n"


def test_a_thread_that_hangs_does_not_keep_the_process(logs: Path) -> None:
    """Python would wait for it for ever when everything is done."""
    with stuck("threading.Thread(target=hang).start()") as process:
        assert process.wait() == 0
    assert (logs / "out").read_bytes() == EXPECTED.flagged
