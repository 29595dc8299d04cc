"""Walks every system call of checkpoint and output writes: dies at each one in turn, goes on, and compares.

A script of its own, because it forks: `python tests/fault_walk.py DIRECTORY [learned]`. Prints how many calls of each
kind it has died at. With `learned` the judge learns, and the walk is that of its models and the journal.
"""

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import asyncinotify  # noqa: F401 (or every child would import it anew)
from support import befriend, purchase

from peerwatch.detectors import verdicts
from peerwatch.runtime import checkpoints, durable, journal, runner, shelf, sinks
from peerwatch.runtime.console import Console
from peerwatch.runtime.deadline import Deadline
from peerwatch.runtime.settings import Layer
from peerwatch.runtime.sources import LogFile
from peerwatch.runtime.tail import FollowedLog

DIED = 9
CALLS = ("write", "fsync", "replace", "truncate", "unlink")
BATCH = b"".join(befriend(a, b) for a in range(6) for b in range(a)) + purchase(1, "5") + purchase(2, "6")
LEARNED = sys.argv[2:] == ["learned"]
STREAM = b"".join(
    purchase(i % 6, str(3 + i % 4)) + (purchase(0, "99") + b"not an event\n" if i % 5 == 4 else b"")
    for i in range(110 if LEARNED else 18)
)
CHUNK = 5000 if LEARNED else 700


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
        for module in (durable, checkpoints, sinks):
            for name in CALLS:
                if hasattr(module, name):
                    setattr(module, name, self.wrapped(name, getattr(module, name)))
        shelf.Shelf.keep = self.kept(shelf.Shelf.keep)  # type: ignore[method-assign]
        journal.Journal.add = self.kept(journal.Journal.add)  # type: ignore[method-assign]
        opened = sinks.FileSink.open

        async def open_walked(sink: sinks.FileSink, stack: Any) -> None:
            await opened(sink, stack)
            sink._file = WalkedFile(sink._file, self)  # noqa: SLF001

        sinks.FileSink.open = open_walked  # type: ignore[method-assign, assignment]


class WalkedFile:
    """An output file whose writes are part of the walk."""

    def __init__(self, file: Any, walker: Walker) -> None:
        self._file = file
        self._walker = walker

    def fileno(self) -> int:
        """The descriptor."""
        return self._file.fileno()  # type: ignore[no-any-return]

    async def write(self, data: bytes) -> int:
        """Write, or die in the middle."""
        if self._walker.reached("output write"):
            os.write(self.fileno(), bytes(data)[: len(data) // 2])
            os._exit(DIED)
        return await self._file.write(data)  # type: ignore[no-any-return]


def run(directory: Path, *, state: bool = True) -> None:
    """Judge the logs in the directory; many small blocks, a checkpoint behind each."""
    verdicts.GROUP = 8  # type: ignore[misc]  # so that the ledger grows beside the output
    for source in (LogFile, FollowedLog):
        source.__init__.__kwdefaults__["chunk"] = CHUNK  # type: ignore[index]
    values: dict[str, Any] = {
        "D": 1, "T": 4, "input.batch": str(directory / "batch"), "input.stream": str(directory / "stream"),
        "output.flagged": str(directory / "flagged"), "output.rejects": str(directory / "rejects"),
        "output.verdicts": str(directory / "ledger"),
    }  # fmt: skip
    if LEARNED:
        values |= {"detector.name": "typical:Typical", "detector.learning.rows": 50, "detector.learning.every": 50}
    if state:
        values |= {"state.directory": str(directory / "state"), "state.events": 1}
    if state and not LEARNED:  # or it would be up to the clock where models speak
        values |= {"follow": True, "idle_exit": 0.0}
    layer = Layer(values, dict.fromkeys(values, "test"))
    console = Console(quiet=True, bar=False)
    with Deadline(console) as deadline:
        anyio.run(partial(runner.run, [layer], console, deadline))


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
    """Die at every call in turn, go on, compare; twice at the same call, too."""
    assert in_child(partial(run, prepared(root / "expected"), state=False)) == 0
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
        assert code in {DIED, 0}, f"call {at} ({name}): exit code {code}"  # 0: timing has left out a checkpoint
        died[name] += code == DIED
        assert in_child(partial(run, directory)) == 0, f"after dying at call {at} ({name})"
        assert outputs(directory) == expected, f"after dying at call {at} ({name})"
    print(dict(died))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
