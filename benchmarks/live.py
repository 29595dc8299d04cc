"""What a live run costs: idle following, a blocked sink, and checkpoints of a large state."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from peerwatch.files.seen import Seen
from peerwatch.judging.state import Counts, State
from peerwatch.judging.verdict_hash import VerdictHash
from peerwatch.storage.checkpoints import (
    VERSION,
    CheckpointEnvelope,
    Facts,
    FilePlace,
    Identity,
    StateDirectory,
    read_checkpoint,
)
from peerwatch.studies.generate import Recipe, write_logs

COMMAND = [sys.executable, "-m", "peerwatch", "run", "--quiet"]
Result = TypeVar("Result")
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def idle_share(directory: Path, seconds: float = 20.0) -> float:
    """The share of one core that following a silent log takes, with 1,440 rotated files beside it."""
    write_logs(directory, Recipe(users=1000, batch_events=20_000, stream_events=5000), force=True)
    for hour in range(1440):
        (directory / f"stream_log.json-2026{1 + hour // 720:02d}{1 + hour // 24 % 30:02d}{hour % 24:02d}").write_bytes(
            b"{}\n"
        )
    files = [str(directory / name) for name in ("batch_log.json", "stream_log.json", "flagged")]
    with subprocess.Popen([*COMMAND, *files, "--follow", "--state", str(directory / "state")]) as process:
        time.sleep(5)
        before = cpu_seconds(process.pid)
        time.sleep(seconds)
        share = (cpu_seconds(process.pid) - before) / seconds
        process.terminate()
    return share


def blocked_growth(directory: Path, seconds: float = 30.0) -> tuple[float, float, int]:
    """Resident MiB with the output flowing, the most with it blocked for `seconds`, and flagged bytes read before."""
    write_logs(directory, Recipe(users=10_000, batch_events=200_000, stream_events=1_500_000), force=True)
    pipe = directory / "pipe"
    os.mkfifo(pipe)
    files = [str(directory / name) for name in ("batch_log.json", "stream_log.json", "pipe")]
    read = 0
    with subprocess.Popen([*COMMAND, "--k", "0", "--rejects", str(directory / "r"), *files]) as process:  # noqa: SIM117
        with pipe.open("rb", buffering=0) as output:
            began = time.monotonic()
            steady = 0.0
            while time.monotonic() - began < 4:
                read += len(output.read(1 << 20))
                steady = resident_mib(process.pid)
            most = steady
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                time.sleep(0.1)
                most = max(most, resident_mib(process.pid))
            threading.Thread(target=process.kill).start()
            while output.read(1 << 20):
                pass
    return steady, most, read


def checkpoint_seconds(
    directory: Path, users: int = 1_000_000, purchases: int = 10_000_000, degree: int = 10
) -> tuple[float, float, float, int]:
    """Seconds to take, to write and to restore a checkpoint, and its size in bytes."""
    rng = np.random.default_rng(1)
    names = [b"%d" % user for user in range(users)]
    friends = rng.integers(0, users, users * degree).astype(np.int32)
    arrays = {
        "arena": np.frombuffer(b"".join(names), np.uint8).copy(),
        "ends": np.cumsum([len(name) for name in names]),
        "degree": np.full(users, degree, np.int32),
        "friends": friends,
        "held0": np.full(users, purchases // users),
        "seq0": np.arange(1, purchases + 1),
        "timestamp0": np.arange(purchases) * 1_000_000,
        "amount0": rng.integers(0, 10**9, purchases),
        "large0": np.zeros(0, np.uint8),
        "disagreed": np.zeros(2, np.int64),
    }
    progress = Counts(0, purchases, 0, 0, users)
    facts = Facts(
        progress, judged=True, position=None, flagged=0, marks={}, verdicts=VerdictHash(), shards=1, unseen=[],
        bookmarks=[], seen=Seen(),
    )  # fmt: skip
    state = State.restored(2, 50, 1, [], arrays, facts)
    began = time.perf_counter()
    taken = state.arrays()
    took = time.perf_counter() - began
    began = time.perf_counter()
    envelope = CheckpointEnvelope(
        VERSION,
        Identity("run", 2, 50, {}, FilePlace("", ""), {}),
        facts,
        0.0,
        sorted(taken),
        [],
    )
    StateDirectory(directory, print).write(taken, envelope)
    wrote = time.perf_counter() - began
    (path,) = directory.glob("checkpoint-*")
    began = time.perf_counter()
    checkpoint = read_checkpoint(path)
    State.restored(2, 50, 1, [], checkpoint.arrays, checkpoint.envelope.facts)
    return took, wrote, time.perf_counter() - began, path.stat().st_size


def in_directory(measure: Callable[[Path], Result]) -> Result:
    """Measure in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="peerwatch-bench-") as name:
        return measure(Path(name))


def lines() -> list[str]:
    """One sentence a measurement."""
    share = in_directory(idle_share)
    steady, most, read = in_directory(blocked_growth)
    took, wrote, restored, size = in_directory(checkpoint_seconds)
    return [
        f"Following a silent log takes {share:.2%} of a core, with 1,440 rotated files beside it.",
        (
            f"With the sink blocked for 30 s under full load ({read / 1e6:.0f} MB of output before): {steady:.0f} MiB"
            f" resident before, at most {most:.0f} MiB then, {most / steady:.2f} times."
        ),
        (
            f"A checkpoint of 1 million users, 5 million friendships, 10 million purchases: taken in {took:.2f} s,"
            f" written in {wrote:.2f} s beside the flow, restored in {restored:.2f} s, {size / 2**20:.0f} MiB."
        ),
    ]
