"""Every detector on a real Ray cluster: `python tests/ray_detectors.py HOST:PORT`, a cluster that runs on this machine.

One connection serves all runs, each with two workers, one of which is killed on the way. Prints for each detector
whether a run wrote the bytes of one process, and how long both took. Exit code 1 if one did not.
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import msgspec
from memory_cluster import IN_THE_DRIVER, ON_WORKERS, OTHERS, layer, rule_of, run_with, written

from peerwatch.cluster.connecting import ReplicaCluster
from peerwatch.cluster.ray import RayCall, RayEngine, RayWorker, connected_to
from peerwatch.cluster.transport import Patience
from peerwatch.errors import TiedScores
from peerwatch.runtime.judges_from_settings import judges_of
from peerwatch.settings.model import resolve
from peerwatch.storage.status import Status

LOST_AT = 9
"""The call whose worker is killed."""
PATIENCE = Patience(600.0)
"""So that no worker is replaced because the machine is busy."""


class KillingEngine:
    """A Ray engine that kills one worker in each run."""

    def __init__(self, engine: RayEngine) -> None:
        self._engine = engine
        self.calls = 0

    async def start(self) -> "KilledWorker":
        """Start a worker."""
        return KilledWorker(self, await self._engine.start())

    async def replenish(self) -> None:
        """Have workers that stand ready."""
        await self._engine.replenish()

    def suspect(self, worker: Any, *, silent: bool) -> None:
        """Use its node like any other: nothing is wrong with it."""


class KilledWorker:
    """A worker whose process ends at its turn."""

    def __init__(self, engine: KillingEngine, worker: RayWorker) -> None:
        self._engine = engine
        self._worker = worker
        self.node = worker.node

    def call(self, command: bytes) -> RayCall:
        """Send a command; perhaps the worker ends instead of replying."""
        self._engine.calls += 1
        call = self._worker.call(command)
        if self._engine.calls == LOST_AT:
            self._worker.end()
        return call

    def end(self) -> None:
        """Kill it."""
        self._worker.end()


def compared(engine: RayEngine, directory: Path, rule: dict[str, Any]) -> tuple[bool, int, float, float]:
    """Whether a run wrote and counted the same, the workers it lost, and the seconds of one process and its own."""
    settings, origins = resolve(layer(directory, "there", **rule))
    judges_of(settings, origins, print)  # what it imports is not in the figures
    began = time.monotonic()
    alone = run_with(layer(directory, "alone", **rule)).totals
    between = time.monotonic()
    cluster = ReplicaCluster(KillingEngine(engine), settings, directory / "there.state", PATIENCE)
    there = run_with(layer(directory, "there", **rule), cluster).totals
    ended = time.monotonic()
    status = msgspec.json.decode((directory / "there.state" / "status.json").read_bytes(), type=Status)
    same = there == alone and written(directory, "there") == written(directory, "alone")
    return same, sum(worker.restarts for worker in status.workers), between - began, ended - between


def main() -> None:
    """All of them, or those that are named behind the address."""
    address, *names = sys.argv[1:]
    warnings.simplefilter("ignore", TiedScores)
    failed = []
    with connected_to(address, 2) as engine:
        for name in names or [*ON_WORKERS, *IN_THE_DRIVER, *OTHERS]:
            rule = {**ON_WORKERS, **IN_THE_DRIVER}.get(name) or rule_of(name)
            with tempfile.TemporaryDirectory() as directory:
                same, lost, alone, there = compared(engine, Path(directory), rule)
            if not same or not lost:
                failed.append(name)
            print(
                f"{name}: {'the same bytes' if same else 'DIFFERS'}, workers lost: {lost},"
                f" {alone:.1f} s in one process, {there:.1f} s on the cluster",
                flush=True,
            )
    sys.exit(f"not as expected: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
