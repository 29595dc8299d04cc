"""How tests run peerwatch, and what they run it on."""

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import numpy as np

from peerwatch.actors.audit import Auditing
from peerwatch.actors.coordinator import Judges
from peerwatch.actors.judges import LiveJudge, ModelActivated
from peerwatch.actors.messages import WindowQueries
from peerwatch.actors.output import Outlet
from peerwatch.connectors.records import FLAGGED, REJECT, Kind, Record, encoded
from peerwatch.connectors.sink import Sink
from peerwatch.connectors.source import Block
from peerwatch.files.file_sink import FileSink
from peerwatch.files.log_file import LogFile
from peerwatch.judging.adaptation import Notice
from peerwatch.judging.audit import BruteForce, Difference
from peerwatch.judging.judge import Mask, Reasons
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.judging.state import State
from peerwatch.network.events import CANONICAL
from peerwatch.network.networks import Plan
from peerwatch.network.rejects import RejectedLine, decode_reject
from peerwatch.runtime.pipeline import Pipeline, Totals

ROOT = Path(__file__).parents[1]

FORCED = {Plan.PARTITION: (1, 10**6, 10**6, 0), Plan.SCAN: (0, 10**6, 0, 10**6), Plan.MEMBERSHIP: (10**6, 0, 0, 10**6)}
"""Costs that make the planner prefer one plan."""


def tracked() -> list[str]:
    """The files that git would hand out, were all that is new in its folders committed.

    What somebody has left beside them, such as a config or an output of a run, is not meant.
    """

    def listed(*options: str) -> list[str]:
        command = ["git", "ls-files", "-z", *options]
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        return names.split("\0")[:-1]

    new = [name for name in listed("--others", "--exclude-standard") if "/" in name]
    return [*(name for name in listed("--cached") if os.path.lexists(ROOT / name)), *new]


def copy_tracked(directory: Path) -> None:
    """Copy the files that git would hand out into a directory; links stay links."""
    subprocess.run(["cp", "--parents", "--no-dereference", *tracked(), str(directory)], cwd=ROOT, check=True)


def purchase(user: str | int, amount: str, stamp: str = "2017-06-13 11:33:01") -> bytes:
    """A purchase line, with its line feed."""
    return f'{{"event_type":"purchase", "timestamp":"{stamp}", "id": "{user}", "amount": "{amount}"}}\n'.encode()


def befriend(a: str | int, b: str | int, kind: str = "befriend", stamp: str = "2017-06-13 11:33:01") -> bytes:
    """A befriend line, with its line feed."""
    return f'{{"event_type":"{kind}", "timestamp":"{stamp}", "id1": "{a}", "id2": "{b}"}}\n'.encode()


@contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of this command; whatever happens within the block, it does not outlive it."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Look until it is so, however long the process takes; only its end fails the test."""
    while not condition():
        assert process.poll() is None, f"it ended by itself with {process.returncode}"
        time.sleep(0.01)


class MemorySink:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.data = b""

    async def write(self, records: Sequence[Record]) -> None:
        """Append."""
        self.data += encoded(records)

    async def sync(self) -> int:
        """How far it is written: its length."""
        return len(self.data)

    async def finish(self) -> None:
        """Nothing is left to do."""


def outlets(flagged: Sink, rejects: Sink | None = None) -> list[Outlet[Sink]]:
    """Flagged purchases and rejected lines go to these sinks."""
    kinds: dict[Kind, Sink] = {FLAGGED: flagged, REJECT: rejects or MemorySink()}
    return [Outlet(kind, sink, frozenset({kind})) for kind, sink in kinds.items()]


class MemoryLog:
    """A log given as blocks of whole lines."""

    def __init__(self, *contents: bytes, judged: bool = True, name: str = "stream") -> None:
        self.name = name
        self.judged = judged
        self.names = CANONICAL
        self._contents = contents

    async def blocks(self) -> AsyncGenerator[Block, None]:
        """The blocks."""
        offset, line = 0, 1
        for content in self._contents:
            yield Block(content, offset, line, None)
            offset += len(content)
            line += content.count(b"\n")


class SilentLog:
    """Logs no decision."""

    flagged = False

    def wanted(self, queries: WindowQueries) -> Mask:
        """None."""
        return np.zeros(len(queries.seq), np.bool_)

    def write(self, queries: WindowQueries, decisions: Sequence[Reasons]) -> None:
        """Never called."""
        raise AssertionError(queries, decisions)

    def tell(self, who: str, notices: Sequence[Notice | ModelActivated]) -> None:
        """Nothing."""

    def disagree(self, queries: WindowQueries, pairs: Sequence[tuple[Reasons, Reasons]]) -> None:
        """Never called."""
        raise AssertionError(queries, pairs)


class Result(NamedTuple):
    """What a run of the pipeline wrote."""

    flagged: bytes
    rejected: list[RejectedLine]
    totals: Totals


def judge_files(
    batch: bytes | None,
    stream: bytes,
    D: int,
    T: int,
    *,
    shards: int = 1,
    walkers: int = 1,
    batch_cap: int = 4096,
    chunk: int = 1 << 18,
    k: Fraction = Fraction(3),
    directed: bool = False,
    judge_batch: bool = False,
    strict: bool = False,
    audit: float = 0.0,
    bench: Judges | None = None,
    quarantine: bool = False,
) -> Result:
    """Run the actors over real files that hold the logs (without a header line).

    A share of the decisions is recomputed by a `audit`; all have to come out the same. Without a `bench` sigma judges.
    """

    def differ(differences: Sequence[Difference]) -> None:
        raise AssertionError(differences)

    async def judge(directory: Path) -> Totals:
        async with AsyncExitStack() as stack:
            logs = []
            for name, content in (("batch", batch), ("stream", stream)):
                if content is not None:
                    await anyio.Path(directory / name).write_bytes(content)
                    logs.append(LogFile(str(directory / name), judged=name == "stream", chunk=chunk))
                    await logs[-1].open(stack)
            sinks = [FileSink(str(directory / kind)) for kind in (FLAGGED, REJECT)]
            for sink in sinks:
                await sink.open(stack)
                await sink.start()
            brute_force = BruteForce(D, T, k, directed=directed, quarantine=quarantine)
            pipeline = Pipeline(
                State.fresh(D, T, shards, directed=directed, quarantine=quarantine),
                bench or Judges(LiveJudge(SigmaJudge(Sigma(k)))),
                decisions=SilentLog(), outlets=outlets(*sinks), strict=strict, batch_cap=batch_cap, walkers=walkers,
                judge_batch=judge_batch, auditing=Auditing(brute_force, audit, differ) if audit else None,
            )  # fmt: skip
            totals = await pipeline.run(logs)
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task was left behind"
        return totals

    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        totals = anyio.run(partial(judge, directory))
        rejected = [decode_reject(line) for line in (directory / REJECT).read_bytes().splitlines()]
        return Result((directory / FLAGGED).read_bytes(), rejected, totals)
