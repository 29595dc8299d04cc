"""A cluster in this process, whose workers are lost, freeze and answer late where a test wants it."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from enum import Enum
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, ClassVar
from unittest.mock import patch

import anyio
import anyio.lowlevel
from support import befriend, purchase

from peerwatch.actors.snapshot import SnapshotRequest
from peerwatch.cli.console import Console
from peerwatch.cluster.connecting import STORED_BYTES, ReplicaCluster
from peerwatch.cluster.engine import Call, WorkerLost
from peerwatch.cluster.pace import Pace
from peerwatch.cluster.transport import Patience
from peerwatch.cluster.worker import ReplicaWorker
from peerwatch.connectors.source import Block
from peerwatch.detectors.base import Floats, Rule, Summary
from peerwatch.detectors.registry import DETECTORS, make
from peerwatch.files.log_file import LogFile
from peerwatch.replay.audit import audit_from
from peerwatch.runtime import runner
from peerwatch.runtime.checkpointer import Checkpointer
from peerwatch.runtime.deadline import Deadline
from peerwatch.settings.model import Layer, resolve

USERS = 12
BLOCK = 4000
"""Bytes in a block of a log: about 40 lines."""
AHEAD = 2
"""Blocks that may be read while a checkpoint is on its way."""


def made(seed: int, count: int) -> bytes:
    """Lines of a log: purchases, some of them high, late or huge, friendships that change, what is no event."""
    random, lines = Random(seed), []
    for i in range(count):
        minute = max(0, i - 40 * (random.random() < 0.05))
        stamp = f"2017-06-14 {minute // 60 % 24:02}:{minute % 60:02}:00"
        a, b = random.sample(range(USERS), 2)
        kind = random.random()
        if kind < 0.08:
            lines.append(befriend(a, b, random.choice(["befriend", "unfriend"]), stamp))
        elif kind < 0.1:
            lines.append(b"not an event\n")
        else:
            amount = 10**14 if kind > 0.99 else random.lognormvariate(5 if random.random() < 0.06 else 2, 0.4)
            lines.append(purchase(a, f"{amount:.2f}", stamp))
    return b"".join(lines)


BATCH = b"".join(befriend(a, (a + step) % USERS) for a in range(USERS) for step in (1, 3)) + made(1, 60)
STREAM = made(2, 400)
LEARNING = {"detector.name": "typical:Typical", "detector.training.rows": 50, "detector.training.every": 100}
QUARANTINE: dict[str, Any] = {"detector.k": 2, "detector.quarantine": True}
ON_WORKERS: dict[str, dict[str, Any]] = {
    "sigma": {"detector.k": 2.5, "detector.severity.critical": 4.0, "detector.severity.emergency": 9.0},
    "mad": {"detector.name": "mad", "detector.parameters": {"k": 4}},
    "iqr": {"detector.name": "iqr"},
    "ensemble": {"detector.name": "ensemble", "detector.parameters": {"members": [{"name": "mad"}]}},
    "spc": {"detector.name": "spc", "detector.parameters": {"chart": "ewma"}},
}
"""Settings of runs whose workers judge."""
IN_THE_DRIVER: dict[str, dict[str, Any]] = {
    "flag rate": {"detector.name": "zscore", "detector.adapt.flag_rate": 0.05},
    "drift": {"detector.name": "zscore", "detector.drift": True},
    "learned": LEARNING,
    "challenger": {"challenger.name": "mad"},
    "learned challenger": {"challenger.name": "typical:Typical", **{k: v for k, v in LEARNING.items() if "train" in k}},
    "quarantine": QUARANTINE,
    "quarantine and a learned detector": {**LEARNING, "detector.quarantine": True},
    "quarantine and a challenger": {**QUARANTINE, "challenger.name": "mad"},
}
"""Settings of runs whose workers send windows, or networks."""
OTHERS = [name for name in DETECTORS if name not in ON_WORKERS]
"""All other detectors."""
MODELS = {"detector.training.rows": 50, "detector.training.every": 300}
QUICK: dict[str, dict[str, Any]] = {
    "autoencoder": {"hidden": [2], "epochs": 5}, "variational_autoencoder": {"epochs": 2},
    "lstm_autoencoder": {"epochs": 2}, "isolation_forest": {"trees": 10}, "half_space_trees": {"trees": 5},
    "inne": {"samples": 8}, "random_cut_forest": {"trees": 5},
}  # fmt: skip


def rule_of(name: str) -> dict[str, Any]:
    """The settings of a run with one of the others, which learns on the way if it does that."""
    parameters = QUICK.get(name, {})
    models = MODELS if make(name, parameters).trains else {}
    return {"detector.name": name, "detector.parameters": parameters, **models}


def layer(directory: Path, name: str, **values: Any) -> Layer:
    """The settings of a run that writes `name`, with a checkpoint as often as one can be taken."""
    for log, content in (("batch", BATCH), ("stream", STREAM)):
        if not (directory / log).exists():
            (directory / log).write_bytes(content)
    settings = {
        "D": 2, "T": 5, "input.batch": str(directory / "batch"), "input.stream": str(directory / "stream"),
        "output.flagged": str(directory / name), "output.verdicts": str(directory / f"{name}.ledger"),
        "state.directory": str(directory / f"{name}.state"), "state.events": 50, "quiet": True,
        "cluster.batch": 40, "cluster.workers": 2,
    }  # fmt: skip
    settings |= {key.replace("__", "."): value for key, value in values.items()}
    return Layer(settings, dict.fromkeys(settings, "the test"))


def written(directory: Path, name: str) -> list[bytes]:
    """All that a run has written."""
    return [(directory / each).read_bytes() for each in (name, f"{name}.rejects.json", f"{name}.ledger")]


class Failing(Rule):
    """A detector of somebody's own that does not work."""

    name: ClassVar[str] = "failing"
    threshold = 0.0

    def summarise(self, window: Floats) -> Summary:
        """Nothing."""
        return (window[:, 0],)

    def score_amounts(self, summary: Summary, amount: Floats) -> Floats:
        """Fail."""
        raise ValueError(len(amount), len(summary))


class Fault(Enum):
    """What happens at a call."""

    LOST_BEFORE = "the worker is lost before it carries out the command"
    LOST_AFTER = "the worker is lost behind the command, and what it has not handed over is lost with it"
    FROZEN = "the worker neither replies to this command nor to a later one"
    LATE = "the reply comes after others have come"
    DRIVER_KILLED = "the run itself ends"


class DriverKilled(BaseException):
    """Ends a run on the spot, without anything being put in order that only a failure would be."""


class MemoryCall:
    """A call, whose command is carried out unless its worker was lost or frozen."""

    def __init__(self, worker: "MemoryWorker", content: Future[bytes] | None, rounds: int = 0) -> None:
        self.worker = worker
        self.content = content
        """The reply; None if there will be none."""
        self._rounds = rounds

    async def reply(self) -> bytes:
        """Wait for the reply, and for some rounds of the loop more."""
        for _ in range(1 + self._rounds):
            await anyio.lowlevel.checkpoint()
        if self.worker.lost:
            raise WorkerLost("it was killed")
        assert self.content is not None
        return await asyncio.wrap_future(self.content)


class MemoryWorker:
    """A worker's object in a thread of its own, for it may read what it needs, as a process of its own does."""

    node = "memory"

    def __init__(self, engine: "MemoryEngine") -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1)
        self._worker = self._thread.submit(ReplicaWorker)
        self.lost = False
        self.frozen = False

    def call(self, command: bytes) -> MemoryCall:
        """Carry out a command, unless something happens."""
        if self.lost or self.frozen:
            return MemoryCall(self, None)
        fault = self._engine.next_fault()
        if fault is Fault.DRIVER_KILLED:
            raise DriverKilled
        self.lost = fault is Fault.LOST_BEFORE
        self.frozen = fault is Fault.FROZEN
        if self.lost or self.frozen:
            return MemoryCall(self, None)
        content = self._thread.submit(self._carried_out, command)
        self.lost = fault is Fault.LOST_AFTER
        return MemoryCall(self, content, 50 if fault is Fault.LATE else 0)

    def _carried_out(self, command: bytes) -> bytes:
        return self._worker.result().call(command)

    def end(self) -> None:
        """It ends behind the command that it carries out."""
        self._thread.shutdown(wait=False)


class MemoryEngine:
    """Starts workers; `faults` are by the number of the call, counted over all of them."""

    def __init__(self, faults: Mapping[int, Fault] | None = None) -> None:
        self._faults = faults or {}
        self.calls = 0
        self.started = 0

    def next_fault(self) -> Fault | None:
        """What happens at the call that begins."""
        self.calls += 1
        return self._faults.get(self.calls - 1)

    async def start(self) -> MemoryWorker:
        """Start a worker."""
        self.started += 1
        return MemoryWorker(self)

    async def replenish(self) -> None:
        """None stands ready."""

    def suspect(self, worker: Any, *, silent: bool) -> None:
        """All workers are on the same node."""


class KnowingPatience(Patience):
    """Knows at once that a frozen worker will not reply, and waits for all others however long they take."""

    def __init__(self) -> None:
        super().__init__(3.0)

    async def reply(self, call: Call, factor: float = 1.0, more: float = 0.0) -> bytes:  # noqa: ARG002
        """The reply."""
        assert isinstance(call, MemoryCall)
        if call.worker.frozen and call.content is None:
            raise WorkerLost("it is frozen")
        return await call.reply()


def run_on(
    engine: MemoryEngine, layer: Layer, stored_bytes: int = STORED_BYTES, *, grows: bool = False
) -> runner.Report:
    """A whole run on a cluster in memory: real files, a real state directory.

    Its workers reach that, and use it for columns of `stored_bytes` or more. Unless the size of batches `grows`, as it
    does by the clock, it is as large as it may be from the beginning.
    """
    settings, _ = resolve(layer)
    state = Path(settings.state.directory or "")
    cluster = ReplicaCluster(engine, settings, state, KnowingPatience(), stored_bytes)
    if grows:
        return run_with(layer, cluster)
    with patch.object(Pace, "events", property(lambda pace: pace._most)):  # noqa: SLF001
        return run_with(layer, cluster)


@contextmanager
def paced() -> Iterator[None]:
    """Logs are read in small blocks, and no more than AHEAD of them before a checkpoint that is due is written.

    So there are many checkpoints, however slow the disk is, and batches on their way beside them.
    """
    newest: list[Checkpointer] = []
    due, blocks = Checkpointer.due, LogFile.blocks

    def noted(writer: Checkpointer, events: int, position: Any, last: bool) -> SnapshotRequest | None:
        newest[:] = [writer]
        return due(writer, events, position, last)

    async def waiting(log: LogFile) -> AsyncGenerator[Block, None]:
        ahead = 0
        async with aclosing(blocks(log)) as found:
            async for block in found:
                yield block
                ahead = ahead + 1 if newest and newest[0]._pending else 0  # noqa: SLF001
                while ahead > AHEAD and newest[0]._pending:  # noqa: ASYNC110, SLF001 (there is no event for it)
                    await anyio.sleep(0.001)

    small = {**(LogFile.__init__.__kwdefaults__ or {}), "chunk": BLOCK}
    with (
        patch.object(LogFile.__init__, "__kwdefaults__", small),
        patch.object(LogFile, "blocks", waiting),
        patch.object(Checkpointer, "due", noted),
    ):
        yield


def run_with(layer: Layer, cluster: ReplicaCluster | None = None) -> runner.Report:
    """A whole run."""
    console = Console(quiet=True, bar=False)
    with Deadline(console) as deadline, paced():
        return anyio.run(partial(runner.run, [layer], console, deadline, audit_from, cluster=cluster))
