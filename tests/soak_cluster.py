"""The soak of a run on a cluster: workers, nodes and the driver are killed and frozen while a log is followed.

Run it as `python tests/soak_cluster.py`. It starts a Ray cluster of three nodes on this machine, on loopback. At the
end the output must be that of one uninterrupted run in one process. Prints the longest silence of the output for each
kind of failure. With `--stored` workers write and read each checkpoint themselves, however small it is.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import msgspec
import psutil

from peerwatch.cluster import local
from peerwatch.cluster.local import LocalCluster
from peerwatch.storage.checkpoints import PARTS, files_in
from peerwatch.storage.status import Status
from peerwatch.studies.generate import Recipe, generate

COMMAND = [sys.executable, "-m", "peerwatch", "run"]
STORED = """
from peerwatch.cli.main import cli
from peerwatch.cluster.connecting import ReplicaCluster
ReplicaCluster.__init__.__defaults__ = (1,)  # the bytes from which on workers use the storage
cli()
"""
CONFIG = """
follow: true
idle_exit: {idle_exit}
quiet: true
input: {{batch: batch_log.json, stream: live.json}}
output: {{flagged: flagged.json}}
state: {{directory: state, seconds: 2, events: 100000}}
cluster: {{engine: ray, address: "{address}", workers: {workers}, deadline: 2}}
logs: {{file: run.log}}
"""
NODES = 3
LOOK_SECONDS = 0.01
DRIVER = "driver killed"


class Writer(threading.Thread):
    """Appends the lines at `rate` a second until told to hurry; then all that is left at once."""

    def __init__(self, path: Path, lines: list[bytes], rate: float) -> None:
        super().__init__(daemon=True)
        self._path = path
        self._lines = lines
        self._rate = rate
        self.hurry = threading.Event()

    def run(self) -> None:
        """Write to the end."""
        began, done = time.monotonic(), 0
        with self._path.open("ab", buffering=0) as file:
            while done < len(self._lines) and not self.hurry.is_set():
                due = min(len(self._lines), int((time.monotonic() - began) * self._rate))
                file.write(b"".join(self._lines[done:due]))
                done = due
                time.sleep(LOOK_SECONDS)
            file.write(b"".join(self._lines[done:]))

    @property
    def is_early(self) -> bool:
        """Whether there is still something to write."""
        return self.is_alive()


class Watcher(threading.Thread):
    """Notes when the output grows."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path = path
        self.grown: list[float] = []
        self.ended = threading.Event()

    def run(self) -> None:
        """Look until told to end."""
        size = 0
        while not self.ended.is_set():
            with suppress(FileNotFoundError):
                if (now := self._path.stat().st_size) > size:
                    self.grown.append(time.monotonic())
                size = now
            time.sleep(LOOK_SECONDS)

    def silence(self, since: float) -> float:
        """The longest time without growth that began after, or lasted at, this moment."""
        moments = [since, *(moment for moment in self.grown if moment > since), time.monotonic()]
        return max(later - earlier for earlier, later in pairwise(moments))


class Nodes:
    """The processes of a local cluster, node by node; the first one is the head, which is left alone."""

    def __init__(self, port: int) -> None:
        self.cluster: LocalCluster = local.start(1, port)
        self.raylets = self._raylets()
        for _ in range(NODES - 1):
            self.add()

    def add(self) -> None:
        """Start another node."""
        local.start_node(self.cluster, is_head=False)
        known = {raylet.pid for raylet in self.raylets}
        self.raylets += [raylet for raylet in self._raylets() if raylet.pid not in known]

    @staticmethod
    def _raylets() -> list[psutil.Process]:
        return [process for process in local.processes() if process.name() == "raylet"]

    def replicas(self) -> list[int]:
        """The processes that are workers, or stand ready to take the place of one."""
        children = [each for raylet in self.raylets for each in raylet.children()]
        found = []
        for process in children:
            with suppress(psutil.Error):
                found += [process.pid] * ("_Actor" in " ".join(process.cmdline()))
        return found

    def with_one_of(self, workers: set[int]) -> psutil.Process | None:
        """The raylet of a node other than the head on which there is one of these workers."""
        others = [raylet for raylet in self.raylets[1:] if any(each.pid in workers for each in raylet.children())]
        return random.choice(others) if others else None


def send(number: int, processes: list[int]) -> None:
    """Send a signal to processes that may be gone."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


class Soak:
    """One soak in an empty directory."""

    def __init__(self, directory: Path, *, workers: int, seed: int, stored: bool) -> None:
        self.directory = directory
        self.command = [sys.executable, "-c", STORED, "run"] if stored else COMMAND
        self.rng = random.Random(seed)
        random.seed(seed)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.nodes = Nodes(port)
        self.later: list[Callable[[], None]] = []
        """What brings nodes back after a failure."""
        for name, idle_exit in (("live.yaml", "1.0e+6"), ("last.yaml", "1.0")):
            content = CONFIG.format(idle_exit=idle_exit, address=self.nodes.cluster.address, workers=workers)
            (directory / name).write_text(content)
        self.kinds: list[Callable[[], str]] = [
            self.kill_worker, self.freeze_worker, self.kill_two, self.kill_twice, self.kill_node, self.freeze_node,
            self.kill_driver,
        ]  # fmt: skip

    def start_driver(self) -> None:
        """Start the run."""
        self.driver = subprocess.Popen([*self.command, "--config", "live.yaml"], cwd=self.directory)

    def workers(self) -> list[int]:
        """The processes with a replica, as the newest status has them; waits until there is one of each."""
        path, begun = self.directory / "state" / "status.json", time.time()
        while True:
            assert self.driver.poll() is None, f"the run ended by itself with {self.driver.returncode}"
            with suppress(FileNotFoundError, msgspec.DecodeError):
                status = msgspec.json.decode(path.read_bytes(), type=Status)
                found = [each.pid for each in status.workers if each.state == "working" and each.pid]
                is_new = status.pid == self.driver.pid and status.updated > begun
                if is_new and found and len(found) == len(status.workers):
                    return found
            time.sleep(0.05)

    def kill_driver(self) -> str:
        """The run itself is killed, and started again."""
        self.driver.kill()
        self.driver.wait()
        self.start_driver()
        return DRIVER

    def kill_worker(self) -> str:
        """One process of a replica is killed."""
        send(signal.SIGKILL, [self.rng.choice(self.workers())])
        return "worker killed"

    def freeze_worker(self) -> str:
        """One process of a replica is stopped, and goes on when another has taken its place."""
        worker = self.rng.choice(self.workers())
        send(signal.SIGSTOP, [worker])
        self.later.append(lambda: send(signal.SIGCONT, [worker]))
        return "worker frozen"

    def kill_two(self) -> str:
        """Two workers are killed, one right after the other."""
        send(signal.SIGKILL, self.rng.sample(self.workers(), 2))
        return "two workers killed in a row"

    def kill_twice(self) -> str:
        """A worker is killed, and then all that might take its place, while one of them begins."""
        known = set(self.workers())
        spares = [pid for pid in self.nodes.replicas() if pid not in known]
        send(signal.SIGKILL, [self.rng.choice(sorted(known))])
        time.sleep(self.rng.uniform(0, 0.3))
        send(signal.SIGKILL, spares)
        return "worker killed during a replay"

    def kill_node(self) -> str:
        """All processes of a node are killed; another node is started later."""
        raylet = self.nodes.with_one_of(set(self.workers()))
        if raylet is None:
            return self.kill_worker()
        self.nodes.raylets.remove(raylet)
        send(signal.SIGKILL, [raylet.pid, *(each.pid for each in raylet.children(recursive=True))])
        self.later.append(self.nodes.add)
        return "node killed"

    def freeze_node(self) -> str:
        """All processes of a node are stopped, and go on when others have taken their place."""
        raylet = self.nodes.with_one_of(set(self.workers()))
        if raylet is None:
            return self.freeze_worker()
        processes = [raylet.pid, *(each.pid for each in raylet.children(recursive=True))]
        send(signal.SIGSTOP, processes)

        def thaw() -> None:
            send(signal.SIGCONT, processes)
            self.nodes.raylets.remove(raylet)  # Ray has given it up
            time.sleep(1.0)
            send(signal.SIGKILL, processes)
            self.nodes.add()

        self.later.append(thaw)
        return "node frozen"


def soak(
    directory: Path, *, kills: int, driver_kills: int, rate: float, workers: int, seed: int, stored: bool
) -> list[str]:
    """Run the soak in an empty directory; returns the lines of a table.

    Raises:
        AssertionError: the output is not that of an uninterrupted run.
    """
    recipe = Recipe(users=2000, batch_events=40_000, stream_events=200_000, seed=seed)
    batch, stream = ("".join(part).encode() for part in generate(recipe)[:2])
    stream *= max(1, round(25 * (kills + driver_kills) * rate / stream.count(b"\n")))
    (directory / "batch_log.json").write_bytes(batch)
    (directory / "live.json").write_bytes(b"")
    writer = Writer(directory / "live.json", stream.splitlines(keepends=True), rate)
    watcher = Watcher(directory / "flagged.json")
    silences: dict[str, list[float]] = defaultdict(list)
    it = Soak(directory, workers=workers, seed=seed, stored=stored)
    try:
        it.start_driver()
        it.workers()
        writer.start()
        watcher.start()
        time.sleep(2.0)
        *others, last = it.kinds
        order = [others[number % len(others)] for number in range(kills)] + [last] * driver_kills
        it.rng.shuffle(order)
        for strike in order:
            assert writer.is_early, "the log is too short for so many kills"
            it.workers()
            quiet = max(watcher.silence(time.monotonic() - 1.0), 0.0)
            began = time.monotonic()
            kind = strike()
            time.sleep(3.0)
            it.workers()
            time.sleep(0.7)
            silences[kind].append(watcher.silence(began))
            print(f"{kind}: {silences[kind][-1]:.2f} s (before it {quiet:.2f} s)", flush=True)
            while it.later:
                it.later.pop()()
            time.sleep(it.rng.uniform(0.5, 2.0))
        writer.hurry.set()
        writer.join()
        it.driver.send_signal(signal.SIGTERM)
        assert it.driver.wait() == 0
        subprocess.run([*it.command, "--config", "last.yaml"], cwd=directory, check=True)
        parts = len([*(directory / "state").glob(PARTS)])
        assert parts == len(files_in(directory / "state")) * stored, f"{parts} parts; kept in {directory}"
    finally:
        watcher.ended.set()
        it.driver.kill()
        local.stop()
    (directory / "whole.json").write_bytes((directory / "live.json").read_bytes())
    whole = [*COMMAND, "--quiet", "batch_log.json", "whole.json", "expected.json"]
    subprocess.run(whole, cwd=directory, check=True)
    flagged, expected = ((directory / name).read_bytes() for name in ("flagged.json", "expected.json"))
    assert flagged == expected, f"{len(flagged)} bytes, expected {len(expected)}; kept in {directory}"
    lines = ["| what | times | median silence, s | longest, s |", "|---|--:|--:|--:|"]
    for kind, found in sorted(silences.items()):
        lines.append(f"| {kind} | {len(found)} | {statistics.median(found):.1f} | {max(found):.1f} |")
    return [*lines, "", f"byte-equal: {len(flagged):,} bytes of {stream.count(bytes([10])):,} events"]


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--driver-kills", type=int, default=10)
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--stored", action="store_true")
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="peerwatch-soak-"))
    lines = soak(
        directory, kills=given.kills, driver_kills=given.driver_kills, rate=given.rate, workers=given.workers,
        seed=given.seed, stored=given.stored,
    )  # fmt: skip
    shutil.rmtree(directory)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
