"""Walks every system call of checkpoint and output writes: dies at each one in turn, goes on, and compares.

A script of its own, because it forks: `python tests/fault_walk.py DIRECTORY [learned]`. Prints how many calls of each
kind it has died at. With `learned` the judge learns, and the walk is that of its models and the journal.
"""

import gc
import os
import sys
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from support import befriend, purchase

from peerwatch import durable
from peerwatch.cli.console import Console
from peerwatch.connectors.follow import FollowedLog
from peerwatch.connectors.log_file import LogFile
from peerwatch.connectors.source import Block
from peerwatch.judging import verdict_hash as verdicts
from peerwatch.replay.audit import audit_from
from peerwatch.runtime import checkpointer, runner
from peerwatch.runtime.deadline import Deadline
from peerwatch.settings.model import Layer
from peerwatch.storage import checkpoints, journal, model_store

DIED = 9
CALLS = ("write", "fsync", "replace", "truncate", "unlink")
BATCH = b"".join(befriend(a, b) for a in range(6) for b in range(a)) + purchase(1, "5") + purchase(2, "6")
LEARNED = sys.argv[2:] == ["learned"]
STREAM = b"".join(
    purchase(i % 6, str(3 + i % 4)) + (purchase(0, "99") + b"not an event\n" if i % 5 == 4 else b"")
    for i in range(110 if LEARNED else 18)
)
CHUNK = 5000 if LEARNED else 1700
SOURCES = (LogFile, FollowedLog)


class Walker:
    """Counts the calls and dies at one of them: in the middle of a write, before any other."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0
        self.names: list[str] = []
        self.here = threading.local()
        """Has the attribute `keeping` on the thread that is just keeping a model, or writing in the journal."""

    def reached(self, name: str) -> bool:
        """Whether this is the call to die at."""
        if LEARNED and not hasattr(self.here, "keeping"):
            return False
        self.count += 1
        self.names.append(name)
        return self.count == self.at

    def wrapped(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, with its place in the walk."""

        def walked(*arguments: Any) -> Any:
            if self.reached(name):
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
    """Have each block wait until the checkpoint behind the one before is written: every run makes the same calls."""
    begun: list[checkpointer.Checkpointer] = []
    begin = checkpointer.Checkpointer.run

    async def noted(writer: checkpointer.Checkpointer, *parts: Any) -> None:
        begun.append(writer)
        await begin(writer, *parts)

    def waiting(blocks: Callable[[Any], AsyncGenerator[Block, None]]) -> Callable[[Any], AsyncGenerator[Block, None]]:
        async def waited(log: Any) -> AsyncGenerator[Block, None]:
            async with aclosing(blocks(log)) as found:
                async for block in found:
                    yield block
                    while any(each._pending for each in begun):  # noqa: ASYNC110, SLF001 (there is no event for it)
                        await anyio.sleep(0.001)

        return waited

    checkpointer.Checkpointer.run = noted  # type: ignore[method-assign, assignment]
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
        values |= {"state.directory": str(directory / "state"), "state.events": 1}
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


def dying_run(directory: Path, walker: Walker, note: Path) -> None:
    """A run with the walk installed; what it has walked is noted if it gets to the end."""
    walker.install()
    run(directory)
    note.write_text("\n".join(walker.names))


def main(root: Path) -> None:
    """Die at every call in turn, go on, compare."""
    one_after_the_other()
    os.fsync = lambda *_: None  # it guards against a power failure; what a process has written outlives it anyway
    for name in ("expected", "first"):  # here, so that no child imports or loads anything anew
        run(prepared(root / name), state=name == "first")
    gc.freeze()  # nor copies it
    expected = outputs(root / "expected")
    assert expected[0].count(b"\n") >= 3
    assert expected[2].count(b"\n") >= 3
    died: Counter[str] = Counter()
    assert in_child(partial(dying_run, prepared(root / "whole"), Walker(0), root / "calls")) == 0
    assert outputs(root / "whole") == expected
    calls = (root / "calls").read_text().split("\n")
    for at, name in enumerate(calls, 1):
        directory = prepared(root / f"at-{at}")
        code = in_child(partial(dying_run, directory, Walker(at), root / "calls"))
        assert code == DIED, f"call {at} ({name}): exit code {code}"
        died[name] += 1
        assert in_child(partial(run, directory)) == 0, f"after dying at call {at} ({name})"
        assert outputs(directory) == expected, f"after dying at call {at} ({name})"
    print(dict(died))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
