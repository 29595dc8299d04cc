"""The soak of a run on a cluster: workers, nodes and the driver are killed and frozen while a log is followed.

Run it as `python tests/soak_cluster.py`. It starts a Ray cluster of three nodes on this machine, on loopback. At the end
the output must be that of one uninterrupted run in one process. Prints the longest silence of the output for each kind
of failure.
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
from pathlib import Path

import msgspec
import psutil

from peerwatch.cluster import local
from peerwatch.cluster.local import LocalCluster
from peerwatch.storage.status import Status
from peerwatch.studies.generate import Recipe, generate

COMMAND = [sys.executable, "-m", "peerwatch", "run"]
CONFIG = """
follow: true
idle_exit: {idle_exit}
quiet: true
input: {{batch: batch_log.json, stream: live.json}}
output: {{flagged: flagged.json}}
state: {{directory: state, seconds: 2, events: 100000}}
cluster: {{engine: ray, address: "{address}", workers: {workers}}}
logs: {{file: run.log}}
"""
NODES = 3
LOOK_SECONDS = 0.01


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
        return max(later - earlier for earlier, later in zip(moments, moments[1:], strict=False))


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

    def workers(self) -> list[psutil.Process]:
        """The processes with a replica."""
        found = []
        for raylet in self.raylets:
            for process in raylet.children():
                with suppress(psutil.Error):
                    if process.status() != psutil.STATUS_STOPPED and "_Actor" in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def with_worker(self) -> psutil.Process | None:
        """The raylet of a node other than the head on which there is a worker."""
        workers = {worker.pid for worker in self.workers()}
        others = [raylet for raylet in self.raylets[1:] if any(each.pid in workers for each in raylet.children())]
        return random.choice(others) if others else None


def send(number: int, processes: list[psutil.Process]) -> None:
    """Send a signal to processes that may be gone."""
    for process in processes:
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            os.kill(process.pid, number)


class Soak:
    """One soak in an empty directory."""

    def __init__(self, directory: Path, *, workers: int, seed: int) -> None:
        self.directory = directory
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
        self.kinds: dict[str, Callable[[], None]] = {
            "worker killed": self.kill_worker,
            "worker frozen": self.freeze_worker,
            "two workers killed in a row": self.kill_two,
            "worker killed during a replay": self.kill_twice,
            "node killed": self.kill_node,
            "node frozen": self.freeze_node,
        }

    def start_driver(self) -> None:
        """Start the run."""
        self.driver = subprocess.Popen([*COMMAND, "--config", "live.yaml"], cwd=self.directory)

    def wait_settled(self) -> None:
        """Wait until all workers follow, and the output grows again."""
        path = self.directory / "state" / "status.json"
        while True:
            assert self.driver.poll() is None, f"the run ended by itself with {self.driver.returncode}"
            begun = time.time()
            with suppress(FileNotFoundError, msgspec.DecodeError):
                status = msgspec.json.decode(path.read_bytes(), type=Status)
                is_ours = status.pid == self.driver.pid and status.updated > begun - 1.5
                if is_ours and status.workers and all(each.state == "working" for each in status.workers):
                    return
            time.sleep(0.05)

    def kill_worker(self) -> None:
        """One process of a replica is killed."""
        send(signal.SIGKILL, [self.rng.choice(self.nodes.workers())])

    def freeze_worker(self) -> None:
        """One process of a replica is stopped, and goes on when another has taken its place."""
        worker = self.rng.choice(self.nodes.workers())
        send(signal.SIGSTOP, [worker])
        self.later.append(lambda: send(signal.SIGCONT, [worker]))

    def kill_two(self) -> None:
        """Two workers are killed, one right after the other."""
        send(signal.SIGKILL, self.rng.sample(self.nodes.workers(), 2))

    def kill_twice(self) -> None:
        """A worker is killed, and then the one that takes its place while it begins."""
        known = {worker.pid for worker in self.nodes.workers()}
        self.kill_worker()
        while not (new := [worker for worker in self.nodes.workers() if worker.pid not in known]):
            time.sleep(LOOK_SECONDS)
        time.sleep(self.rng.uniform(0, 0.3))
        send(signal.SIGKILL, new)

    def kill_node(self) -> None:
        """All processes of a node are killed; another node is started later."""
        raylet = self.nodes.with_worker()
        if raylet is None:
            self.kill_worker()
            return
        self.nodes.raylets.remove(raylet)
        send(signal.SIGKILL, [raylet, *raylet.children(recursive=True)])
        self.later.append(self.nodes.add)

    def freeze_node(self) -> None:
        """All processes of a node are stopped, and go on when others have taken their place."""
        raylet = self.nodes.with_worker()
        if raylet is None:
            self.freeze_worker()
            return
        processes = [raylet, *raylet.children(recursive=True)]
        send(signal.SIGSTOP, processes)

        def thaw() -> None:
            send(signal.SIGCONT, processes)
            self.nodes.raylets.remove(raylet)  # Ray has given it up
            time.sleep(1.0)
            send(signal.SIGKILL, [raylet, *processes])
            self.nodes.add()

        self.later.append(thaw)


def soak(directory: Path, *, kills: int, driver_kills: int, rate: float, workers: int, seed: int) -> list[str]:
    """Run the soak in an empty directory; returns the lines of a table.

    Raises:
        AssertionError: the output is not that of an uninterrupted run.
    """
    recipe = Recipe(users=2000, batch_events=40_000, stream_events=200_000, seed=seed)
    batch, stream = ("".join(part).encode() for part in generate(recipe)[:2])
    stream *= max(1, round(8 * (kills + driver_kills) * rate / stream.count(b"\n")))
    (directory / "batch_log.json").write_bytes(batch)
    (directory / "live.json").write_bytes(b"")
    writer = Writer(directory / "live.json", stream.splitlines(keepends=True), rate)
    watcher = Watcher(directory / "flagged.json")
    silences: dict[str, list[float]] = defaultdict(list)
    it = Soak(directory, workers=workers, seed=seed)
    try:
        it.start_driver()
        it.wait_settled()
        writer.start()
        watcher.start()
        time.sleep(2.0)
        order = [list(it.kinds)[number % len(it.kinds)] for number in range(kills)] + ["driver killed"] * driver_kills
        it.rng.shuffle(order)
        for kind in order:
            assert writer.is_early, "the log is too short for so many kills"
            it.wait_settled()
            quiet = max(watcher.silence(time.monotonic() - 1.0), 0.0)
            began = time.monotonic()
            if kind == "driver killed":
                it.driver.kill()
                it.driver.wait()
                it.start_driver()
            else:
                it.kinds[kind]()
            time.sleep(6.0 if kind == "driver killed" else 5.5)
            it.wait_settled()
            silences[kind].append(watcher.silence(began))
            print(f"{kind}: {silences[kind][-1]:.2f} s (before it {quiet:.2f} s)", flush=True)
            while it.later:
                it.later.pop()()
            time.sleep(it.rng.uniform(0.5, 2.0))
        writer.hurry.set()
        writer.join()
        it.driver.send_signal(signal.SIGTERM)
        assert it.driver.wait() == 0
        subprocess.run([*COMMAND, "--config", "last.yaml"], cwd=directory, check=True)
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
    given = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="peerwatch-soak-"))
    lines = soak(
        directory, kills=given.kills, driver_kills=given.driver_kills, rate=given.rate, workers=given.workers,
        seed=given.seed,
    )  # fmt: skip
    shutil.rmtree(directory)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
