"""The soak: a writer appends to a log and rotates it while the process that follows it is killed, again and again.

Run it as `make soak`; the suite runs a short form. At the end the output must be that of one uninterrupted run.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from rotations import COMPRESS, Log, decompressed

from peerwatch.studies.generate import Recipe, generate

COMMAND = [sys.executable, "-m", "peerwatch", "run"]
CONFIG = """
follow: true
idle_exit: {idle_exit}
quiet: true
input: {{batch: batch_log.json, stream: live.json}}
output: {{flagged: flagged.json}}
state: {{directory: state, seconds: 0.2, events: 2000}}
"""


class Rotator(Log):
    """Rotates a file in ways that are drawn at random; the files keep the times at which they were written."""

    def __init__(self, path: Path, rng: random.Random) -> None:
        super().__init__(path)
        self.rng = rng
        self.done = Counter[str]()

    def touch(self, path: Path) -> None:
        """Times are the real ones."""

    def rotate(self, *methods: str) -> None:
        """By one of the methods, under one of the names; perhaps one of the rotated files is compressed."""
        self.scheme = self.rng.choice(["number", "date", "infix", "seconds"])
        method = self.rng.choice(methods)
        {"rename": self.rename, "copytruncate": self.copytruncate, "copy": self.replace_by_copy}[method]()
        self.done[method] += 1
        if self.rng.random() < 0.5:
            self.compress(self.rng.randrange(1 + len(self.rotated)), self.rng.choice(sorted(COMPRESS)))


class Writer(threading.Thread):
    """Appends the lines at `rate` a second, some in two halves, and rotates the log `rotations` times.

    Beside it somebody else writes to a file whose name looks like that of a rotated one.
    """

    def __init__(self, path: Path, content: bytes, rate: float, rotations: int, seed: int) -> None:
        super().__init__()
        self._rng = random.Random(seed)
        self._path = path
        self._lines = content.splitlines(keepends=True)
        self._rate = rate
        self._rotations = set(self._rng.sample(range(1, len(self._lines)), rotations))
        self.log = Rotator(path, self._rng)

    def run(self) -> None:
        """Write to the end."""
        began = time.monotonic()
        file = self._path.open("ab", buffering=0)
        for number, line in enumerate(self._lines):
            if number in self._rotations:
                self.log.rotate("rename", "rename", "copytruncate", "copy")
                file.close()
                file = self._path.open("ab", buffering=0)
            half = self._rng.randrange(len(line)) if number % 50 == 0 else 0
            if half:
                file.write(line[:half])
                with foreign(self._path).open("ab") as other:
                    other.write(line)
            file.write(line[half:])
            ahead = number / self._rate - (time.monotonic() - began)
            if ahead > 0.005:
                time.sleep(ahead)
        file.close()


def foreign(path: Path) -> Path:
    """Somebody else's file, whose name looks like that of a rotated one."""
    return path.with_name(f"{path.name}-2")


def soak(directory: Path, batch: bytes, stream: bytes, *, kills: int, rotations: int, rate: float, seed: int) -> str:
    """Run the soak in an empty directory; returns what has happened.

    Raises:
        AssertionError: the output is not that of an uninterrupted run.
    """
    rng = random.Random(seed)
    (directory / "batch_log.json").write_bytes(batch)
    (directory / "whole.json").write_bytes(stream)
    for name, idle_exit in (("live.yaml", "1.0e+6"), ("last.yaml", "1.0")):
        (directory / name).write_text(CONFIG.format(idle_exit=idle_exit))
    whole = [*COMMAND, "--quiet", "batch_log.json", "whole.json", "expected.json"]
    subprocess.run(whole, cwd=directory, check=True)
    foreign(directory / "live.json").write_bytes(stream[: stream.index(b"\n") + 1])
    writer = Writer(directory / "live.json", stream, rate, rotations, seed)
    output = Rotator(directory / "flagged.json", rng)
    killed = held = 0
    for attempt in range(kills):
        options = ["--shards", str(1 + attempt % 3), "--walkers", str(1 + attempt % 2), "--config", "live.yaml"]
        process = subprocess.Popen([*COMMAND, *options], cwd=directory, stderr=subprocess.PIPE)
        while attempt == 0 and not any(directory.glob("state/checkpoint-*.npz")):
            time.sleep(0.01)  # what is rotated before the very first start is none of peerwatch's business
        if attempt == 0:
            writer.start()
        try:
            if rng.random() < 0.2:
                process.send_signal(signal.SIGSTOP)  # a reader that is held up while the log goes on
                time.sleep(rng.uniform(0.2, 1.0))
                process.send_signal(signal.SIGCONT)
                held += 1
            if rng.random() < 0.2:
                output.rotate("rename")
            code = process.wait(rng.uniform(0.4, 2.0))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
        else:
            raise AssertionError(f"it ended by itself with {code}: {process.stderr.read().decode()}")  # type: ignore[union-attr]
        finally:
            process.stderr.close()  # type: ignore[union-attr]
    writer.join()
    subprocess.run([*COMMAND, "--config", "last.yaml"], cwd=directory, check=True)
    flagged = b"".join(map(decompressed, [*reversed(output.rotated), output.path]))
    expected = (directory / "expected.json").read_bytes()
    assert flagged == expected, f"{len(flagged)} bytes, expected {len(expected)}; kept in {directory}"
    assert killed == kills
    assert writer.log.done.total() == rotations
    rotated = ", ".join(f"{count} by {method}" for method, count in sorted(writer.log.done.items()))
    return (
        f"{killed} kills and {rotations} rotations of the log ({rotated}), {output.done.total()} of the output,"
        f" {held} pauses"
    )


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rotations", type=int, default=40)
    parser.add_argument("--rate", type=float, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--logs", type=Path, help="a directory with batch_log.json and stream_log.json of a real case")
    arguments = parser.parse_args()
    if arguments.logs is not None:
        batch, stream = ((arguments.logs / name).read_bytes() for name in ("batch_log.json", "stream_log.json"))
    else:
        print("no --logs given: a synthetic case is used")
        lines = generate(Recipe(users=2000, batch_events=40_000, stream_events=400_000, seed=arguments.seed))
        batch, stream = ("".join(part).encode() for part in lines[:2])
    seconds = arguments.kills * 1.2
    stream *= max(1, round(seconds * arguments.rate / stream.count(b"\n")))  # long enough to be killed so often
    stream_lines = stream.count(b"\n")
    directory = Path(tempfile.mkdtemp(prefix="peerwatch-soak-"))
    began = time.monotonic()
    happened = soak(
        directory,
        batch,
        stream,
        kills=arguments.kills,
        rotations=arguments.rotations,
        rate=arguments.rate,
        seed=arguments.seed,
    )
    shutil.rmtree(directory)
    print(
        f"byte-equal after {happened}:"
        f" {stream_lines} events at {arguments.rate:.0f} a second, {time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
