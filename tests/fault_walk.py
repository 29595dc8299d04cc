"""Walks every system call of checkpoint and output writes: dies at each one in turn, goes on, and compares.

A script of its own, because it forks: `python tests/fault_walk.py [--learned] [--every]`. With `--learned` the judge
learns, and the walk is that of its models and the journal. Of the pieces in which a file is written it dies at the
first, the middle and the last one, with `--every` at each. Every run must make the same calls in the same order, so
that none is missed. Prints how many calls of each kind there are, and how many of them it has died at.
"""

import argparse
import gc
import json
import os
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from support import befriend, purchase

from peerwatch import durable
from peerwatch.actors.output import OutputActor
from peerwatch.actors.snapshot import SnapshotRequest
from peerwatch.cli.console import Console
from peerwatch.connectors.source import Block
from peerwatch.files.follow import FollowedLog
from peerwatch.files.log_file import LogFile
from peerwatch.judging import verdict_hash as verdicts
from peerwatch.replay.audit import audit_from
from peerwatch.runtime import runner
from peerwatch.runtime.checkpointer import Checkpointer
from peerwatch.runtime.deadline import Deadline
from peerwatch.settings.model import Layer
from peerwatch.storage import checkpoints, journal, model_store

DIED = 9
CALLS = ("write", "fsync", "replace", "truncate", "unlink")
BATCH = b"".join(befriend(a, b) for a in range(6) for b in range(a)) + purchase(1, "5") + purchase(2, "6")
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--learned", action="store_true")
parser.add_argument("--every", action="store_true")
ARGUMENTS = parser.parse_args()
LEARNED = ARGUMENTS.learned
STREAM = b"".join(
    purchase(i % 6, str(3 + i % 4)) + (purchase(0, "99") + b"not an event\n" if i % 5 == 4 else b"")
    for i in range(110 if LEARNED else 18)
)
CHUNK = 5000 if LEARNED else 1700
SOURCES = (LogFile, FollowedLog)


class Call(NamedTuple):
    """One of the calls, and the descriptor that it writes to, -1 if it writes nothing."""

    name: str
    descriptor: int


class Walker:
    """Counts the calls and dies at one of them: in the middle of a write, before any other."""

    def __init__(self, at: int, note: Path) -> None:
        self.at = at
        self.note = note
        """Where the calls up to the death, or to the end, are written down."""
        self.calls: list[Call] = []
        self.here = threading.local()
        """Has the attribute `keeping` on the thread that is just keeping a model, or writing in the journal."""

    def reached(self, name: str, arguments: tuple[Any, ...]) -> bool:
        """Whether this is the call to die at."""
        if LEARNED and not hasattr(self.here, "keeping"):
            return False
        self.calls.append(Call(name, arguments[0] if name == "write" else -1))
        return len(self.calls) == self.at

    def write_down(self) -> None:
        """Note the calls."""
        self.note.write_text(json.dumps(self.calls))

    def wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, with its place in the walk."""

        def walked(*arguments: Any) -> Any:
            if self.reached(name, arguments):
                self.write_down()
                if name == "write":
                    descriptor, data = arguments
                    os.write(descriptor, bytes(data)[: len(data) // 2])
                os._exit(DIED)
            return call(*arguments)

        return walked

    def kept(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, whose calls belong to the walk of who learns."""

        def keeping(*arguments: Any) -> Any:
            self.here.keeping = True
            call(*arguments)
            del self.here.keeping

        return keeping

    def install(self) -> None:
        """Put the walk between peerwatch and the system."""
        for module in (durable, checkpoints):
            for name in CALLS:
                if hasattr(module, name):
                    setattr(module, name, self.wrapped(name, getattr(module, name)))
        model_store.ModelStore.keep = self.kept(model_store.ModelStore.keep)  # type: ignore[method-assign]
        journal.Journal.add = self.kept(journal.Journal.add)  # type: ignore[method-assign]


def one_after_the_other() -> None:
    """Have blocks, and outputs, wait until a checkpoint that is due is written: every run makes the same calls."""
    begun: set[Checkpointer] = set()
    due, put = Checkpointer.due, OutputActor._send_part  # noqa: SLF001

    def noted(writer: Checkpointer, events: int, position: Any, last: bool) -> SnapshotRequest | None:
        begun.add(writer)
        return due(writer, events, position, last)

    async def put_and_wait(output: OutputActor, request: SnapshotRequest) -> None:
        await put(output, request)
        while any(request.id in writer._pending for writer in begun):  # noqa: ASYNC110, SLF001 (there is no event for it)
            await anyio.sleep(0.001)

    def waiting(blocks: Callable[[Any], AsyncGenerator[Block, None]]) -> Callable[[Any], AsyncGenerator[Block, None]]:
        async def waited(log: Any) -> AsyncGenerator[Block, None]:
            async with aclosing(blocks(log)) as found:
                async for block in found:
                    yield block
                    while any(writer._pending for writer in begun):  # noqa: ASYNC110, SLF001
                        await anyio.sleep(0.001)

        return waited

    Checkpointer.due = noted  # type: ignore[method-assign, assignment]
    OutputActor._send_part = put_and_wait  # type: ignore[method-assign, assignment]  # noqa: SLF001
    for source in SOURCES:
        source.blocks = waiting(source.blocks)  # type: ignore[method-assign, assignment]


def run(directory: Path, *, state: bool = True) -> None:
    """Judge the logs in the directory; several blocks, a checkpoint behind each."""
    verdicts.GROUP = 8  # type: ignore[misc]  # so that the ledger grows beside the output
    for source in SOURCES:
        source.__init__.__kwdefaults__["chunk"] = CHUNK  # type: ignore[index]
    values: dict[str, Any] = {
        "D": 1, "T": 4, "input.batch": str(directory / "batch"), "input.stream": str(directory / "stream"),
        "output.flagged": str(directory / "flagged"), "output.rejects": str(directory / "rejects"),
        "output.verdicts": str(directory / "ledger"),
    }  # fmt: skip
    if LEARNED:
        values |= {"detector.name": "typical:Typical", "detector.training.rows": 50, "detector.training.every": 50}
    if state:
        values |= {"state.directory": str(directory / "state"), "state.events": 1, "state.seconds": 1e6}
    if state and not LEARNED:  # or it would be up to the clock where models speak
        values |= {"follow": True, "idle_exit": 0.0}
    layer = Layer(values, dict.fromkeys(values, "test"))
    console = Console(quiet=True, bar=False)
    with Deadline(console) as deadline:
        anyio.run(partial(runner.run, [layer], console, deadline, audit_from))


def in_child(call: Callable[[], None]) -> int:
    """Run the call in a child process; returns its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            call()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def prepared(directory: Path) -> Path:
    """A directory with the logs."""
    directory.mkdir()
    (directory / "batch").write_bytes(BATCH)
    (directory / "stream").write_bytes(STREAM)
    return directory


def outputs(directory: Path) -> tuple[bytes, bytes, bytes]:
    """What the run wrote; the rejects name the log by its path."""
    flagged, rejects, ledger = ((directory / name).read_bytes() for name in ("flagged", "rejects", "ledger"))
    return flagged, rejects.replace(str(directory).encode(), b""), ledger


def walked_run(directory: Path, walker: Walker) -> None:
    """A run with the walk installed; what it has walked is written down if it gets to the end."""
    walker.install()
    run(directory)
    walker.write_down()


def calls_of(root: Path, name: str, at: int, code: int) -> list[Call]:
    """The calls of a run in a directory of this name that is to die at a call, or at none, and ends with this code."""
    note = root / "calls"
    ended = in_child(partial(walked_run, prepared(root / name), Walker(at, note)))
    assert ended == code, f"call {at}: exit code {ended}"
    return [Call(*each) for each in json.loads(note.read_text())]


def chosen(calls: list[Call]) -> list[int]:
    """The numbers of the calls to die at."""
    numbered = list(enumerate(calls, 1))
    if ARGUMENTS.every:
        return [number for number, _ in numbered]
    numbers: list[int] = []
    for call, group in groupby(numbered, key=lambda each: each[1]):
        alike = [number for number, _ in group]
        numbers += sorted({alike[0], alike[len(alike) // 2], alike[-1]}) if call.name == "write" else alike
    return numbers


def walk(root: Path) -> None:
    """Die at every call in turn, go on, compare."""
    one_after_the_other()
    os.fsync = lambda *_: None  # it guards against a power failure; what a process has written outlives it anyway
    for name in ("expected", "first"):  # here, so that no child imports or loads anything anew
        run(prepared(root / name), state=name == "first")
    gc.freeze()  # nor copies it
    expected = outputs(root / "expected")
    assert expected[0].count(b"\n") >= 3
    assert expected[2].count(b"\n") >= 3
    calls = calls_of(root, "whole", 0, 0)
    assert outputs(root / "whole") == expected
    names = [call.name for call in calls]
    places = chosen(calls)
    for at in places:
        made = calls_of(root, f"at-{at}", at, DIED)
        assert [call.name for call in made] == names[:at], f"before call {at} other calls were made"
        directory = root / f"at-{at}"
        assert in_child(partial(run, directory)) == 0, f"after dying at call {at} ({names[at - 1]})"
        assert outputs(directory) == expected, f"after dying at call {at} ({names[at - 1]})"
    print(json.dumps({"calls": Counter(names), "died": Counter(names[at - 1] for at in places)}))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="peerwatch-walk-") as temporary:
        walk(Path(temporary))
