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
from io import FileIO
from pathlib import Path

from peerwatch.runtime.generate import Recipe, generate

COMMAND = [sys.executable, "-m", "peerwatch", "run"]
CONFIG = """
follow: true
idle_exit: {idle_exit}
quiet: true
input: {{batch: batch_log.json, stream: live.json}}
output: {{flagged: flagged.json}}
state: {{directory: state, seconds: 0.2, events: 2000}}
"""


class Writer(threading.Thread):
    """Appends the lines at `rate` a second, some in two halves, and rotates `rotations` times by both methods."""

    def __init__(self, path: Path, content: bytes, rate: float, rotations: int, seed: int) -> None:
        super().__init__()
        self._path = path
        self._lines = content.splitlines(keepends=True)
        self._rate = rate
        self._rng = random.Random(seed)
        places = range(1, len(self._lines))
        self._rotations = set(self._rng.sample(places, rotations))
        self.rotated = 0

    def run(self) -> None:
        """Write to the end."""
        began = time.monotonic()
        file = self._path.open("ab", buffering=0)
        for number, line in enumerate(self._lines):
            if number in self._rotations:
                file = self._rotate(file)
            half = self._rng.randrange(len(line)) if number % 50 == 0 else 0
            if half:
                file.write(line[:half])
            file.write(line[half:])
            ahead = number / self._rate - (time.monotonic() - began)
            if ahead > 0.005:
                time.sleep(ahead)
        file.close()

    def _rotate(self, file: FileIO) -> FileIO:
        """Shift live.json.1 to live.json.2 and so on; then rename and create, or copy and truncate."""
        for number in range(self.rotated, 0, -1):
            self._numbered(number).rename(self._numbered(number + 1))
        self.rotated += 1
        if self.rotated % 2:
            self._path.rename(self._numbered(1))
            file.close()
            return self._path.open("ab", buffering=0)
        shutil.copyfile(self._path, self._numbered(1))
        file.truncate(0)
        return file

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def soak(directory: Path, batch: bytes, stream: bytes, *, kills: int, rotations: int, rate: float, seed: int) -> int:
    """Run the soak in an empty directory; returns how many kills met a running process.

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
    writer = Writer(directory / "live.json", stream, rate, rotations, seed)
    killed = 0
    for attempt in range(kills):
        options = ["--shards", str(1 + attempt % 3), "--walkers", str(1 + attempt % 2), "--config", "live.yaml"]
        process = subprocess.Popen([*COMMAND, *options], cwd=directory, stderr=subprocess.PIPE)
        while attempt == 0 and not any(directory.glob("state/checkpoint-*.npz")):
            time.sleep(0.01)  # what is rotated before the very first start is none of peerwatch's business
        if attempt == 0:
            writer.start()
        try:
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
    flagged, expected = ((directory / name).read_bytes() for name in ("flagged.json", "expected.json"))
    assert flagged == expected, f"{len(flagged)} bytes, expected {len(expected)}; kept in {directory}"
    assert writer.rotated == rotations
    return killed


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rotations", type=int, default=20)
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
    killed = soak(
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
        f"byte-equal after {killed} kills and {arguments.rotations} rotations:"
        f" {stream_lines} events at {arguments.rate:.0f} a second, {time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
