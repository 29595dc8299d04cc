"""Live runs: killed, resumed, supervised; the output is always that of one uninterrupted run."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from reference import judge
from soak import soak
from support import befriend, purchase

from peerwatch.actors.dispatcher import Dispatcher
from peerwatch.network.amounts import Amounts
from peerwatch.network.errors import SinkError
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.rejects import decode_reject
from peerwatch.runtime import supervisor
from peerwatch.runtime.checkpoints import DAMAGE, VERSION, read_checkpoint
from peerwatch.runtime.cli import cli
from peerwatch.runtime.generate import Recipe, generate

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


def test_a_soak_in_short_form(tmp_path: Path) -> None:
    """8 kills with SIGKILL at random moments, 4 rotations by both methods: byte-equal. `make soak` is the long form."""
    recipe = Recipe(users=500, batch_events=10_000, stream_events=30_000, mean_degree=8, seed=3)
    batch, stream, _ = generate(recipe)
    killed = soak(tmp_path, "".join(batch).encode(), "".join(stream).encode(), kills=8, rotations=4, rate=3000, seed=3)
    assert killed == 8


@pytest.mark.parametrize("learned", [(), ("learned",)])
def test_every_fault_point_of_a_write_is_survived(tmp_path: Path, learned: tuple[str, ...]) -> None:
    """Death at each write (half done), fsync, rename, truncation and unlink of all that a run keeps, one by one."""
    command = [sys.executable, str(ROOT / "tests" / "fault_walk.py"), str(tmp_path), *learned]
    sources = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": sources}, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    died = json.loads(result.stdout.replace("'", '"'))
    if learned:
        assert died.keys() == {"write", "fsync", "replace"}
    else:
        assert died.keys() == {"write", "output write", "fsync", "replace", "truncate", "unlink"}
    assert sum(died.values()) > (30 if learned else 100)


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
    """Truncated, overwritten or of another version: a warning, and the older one serves; two are kept."""
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
        lambda data: data.replace(b'{"version":%d' % VERSION, b'{"version":9'),
    ]
    older = checkpoints[0].read_bytes()
    for damage in damages:
        checkpoints[0].write_bytes(older)
        checkpoints[1].write_bytes(damage(newest))
        (logs / "stream").write_bytes(STREAM)
        result = live()
        assert result.exit_code == 0
        assert re.search(r"the checkpoint .* is damaged \(.*\); trying the one before it", result.stderr)
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
    assert result.stderr.startswith(f"peerwatch: with --state the {what} must be a file, so that a run can go on in it")


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
    assert "out has 0 bytes, but the checkpoint was taken behind byte" in result.stderr
    assert not (logs / "out").exists()
    assert live("--reset").exit_code == 0
    assert (logs / "out").read_bytes() == EXPECTED.flagged


def test_a_checkpoint_holds_the_state_and_can_be_read_by_numpy(logs: Path) -> None:
    """Plain arrays and JSON, no pickle; the counts are those of the log."""
    live()
    newest = max((logs / "state").glob("checkpoint-*.npz"))
    with np.load(newest, allow_pickle=False) as archive:
        state = {"arena", "ends", "degree", "friends", "seq0", "held0", "timestamp0", "amount0", "large0"}
        assert set(archive) == state | {"disagreed", "facts"}
        assert archive["large0"].tobytes() == b"%d" % 10**36
    facts = read_checkpoint(newest).envelope.facts
    assert facts.progress.rejected == len(EXPECTED.stream_rejected)
    assert facts.position.offset == len(STREAM)


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


@pytest.mark.usefixtures("logs")
def test_a_failure_that_nothing_helps_against_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a limit, exit code 1 and the cause; no hung task, no silent process."""

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("always")

    monkeypatch.setattr(FriendGraph, "walk", broken)
    monkeypatch.setattr(supervisor.Supervisor, "_blame", lambda *_: False)
    result = live()
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "peerwatch: ZeroDivisionError: always; 6 restarts did not help"


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
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        while peerwatch("status", "state").exit_code != 0:
            os.sched_yield()
        while json.loads(peerwatch("status", "state", "--json").stdout)["through"] < 10:
            os.sched_yield()
        second = peerwatch("run", "batch", "stream", "out2", "--state", "state", "--follow")
        assert second.exit_code == 2
        refused = "another peerwatch is running on the state directory state; stop it or name another directory"
        assert second.stderr == f"peerwatch: {refused}\n"
        assert not (logs / "out2").exists()
        status = json.loads(peerwatch("status", "state", "--json").stdout)
        assert (status["running"], status["pid"], status["restarts"]) == (True, process.pid, 0)
        assert set(status["mailboxes"]) == {"graph 0", "graph 1", "coordinator 0", "coordinator 1", "output", "shard 0"}
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
    status = json.loads(file.read_bytes())
    del status["totals"]["decisions"]
    file.write_text(json.dumps(status))
    result = CliRunner().invoke(cli, ["status", str(logs / "state")])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "was written by another version of peerwatch" in result.stderr


def test_status_of_nothing(logs: Path) -> None:
    """One sentence, exit code 2."""
    result = peerwatch("status", "nowhere")
    assert result.exit_code == 2
    assert result.stderr == "peerwatch: no status in the state directory nowhere: No such file or directory\n"
    assert logs


def test_a_full_disk_ends_the_run_and_the_next_goes_on(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 and one sentence; nothing is lost or repeated when there is room again."""
    written = 0

    def full(descriptor: int, data: bytes) -> int:
        nonlocal written
        written += len(data)
        if written > 20_000:
            raise OSError(28, "No space left on device")
        return os.write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr("peerwatch.runtime.durable.write", full)
        for cut in range(500, len(STREAM), 300):
            (logs / "stream").write_bytes(STREAM[:cut])
            result = live()
            if result.exit_code != 0:
                break
    assert result.exit_code == 1
    assert re.search(
        r"cannot write the checkpoint .*: No space left on device; mend that and run again\n$", result.stderr
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
    (logs / "fixed").write_bytes(purchase(1, "900") + b"\n" + purchase(2, "1"))
    result = peerwatch("rejects", "requeue", "fixed", "stream")
    assert (result.exit_code, result.stdout) == (0, "2 events appended to stream\n")
    assert live().exit_code == 0
    assert (logs / "out").read_bytes() == judge(BATCH, STREAM + purchase(1, "900") + purchase(2, "1"), 2, 3).flagged


def test_following_standard_output_of_another_program(logs: Path) -> None:
    """A pipe is a source too: what comes is judged at once."""
    command = [sys.executable, "-m", "peerwatch", "run", "batch", "-", "-", "--follow"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
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
import anyio
from peerwatch.runtime import cli, sinks, supervisor
supervisor.STOP_SECONDS = 0.2
async def stuck(sink, data):
    await anyio.sleep_forever()
sinks.FileSink.write = stuck
cli.main()
"""


def test_a_stop_that_cannot_finish_ends_at_its_deadline(logs: Path) -> None:
    """With a disk that hangs, SIGTERM still ends the run, with exit code 1; the next start goes on where it was."""
    arguments = ["run", "batch", "stream", "out", "--state", "state", "--follow"]
    with subprocess.Popen([sys.executable, "-c", STUCK, *arguments], stderr=subprocess.PIPE) as process:
        while peerwatch("status", "state").exit_code != 0:
            os.sched_yield()
        while json.loads(peerwatch("status", "state", "--json").stdout)["totals"]["judged"] < EXPECTED_JUDGED:
            os.sched_yield()
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 1
        assert process.stderr is not None
        assert b"Ended at once" in process.stderr.read()
    assert live().exit_code == 0
    assert (logs / "out").read_bytes() == EXPECTED.flagged
