"""Makes the state directories in `tests/storage/data` with the code of one version of peerwatch.

python tests/make_state.py PYTHON VERSION

PYTHON is an interpreter that imports the peerwatch of that version, and `typical` from its tests. Whoever changes the
format of checkpoints runs this first, with the code before the change. Nothing in what has been committed is made anew.
"""

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import copyfile, copytree, ignore_patterns
from typing import Final

from support import befriend, purchase

DATA: Final = Path(__file__).parent / "storage" / "data"
DRIVER: Final = """
import os, sys
try:
    from peerwatch.runtime.cli import cli  # up to version 5
except ImportError:
    from peerwatch.cli.main import cli
from peerwatch.actors import dispatcher
dispatcher.MARK_EVENTS = 20  # in a log of this size there would be no second one
if "--die" in sys.argv:  # before the first event
    sys.argv.remove("--die")
    dispatcher.Dispatcher.run = lambda *_: os._exit(0)
cli()
"""
USERS: Final = 12
LARGE: Final = "123456789012345678901234567890"
"""An amount of 30 digits."""


def _stream() -> list[bytes]:
    rng, lines = random.Random(6), []
    for number in range(520):
        stamp = f"2017-06-14 {number // 60:02}:{number % 60:02}:00"
        amount = LARGE if number % 60 == 55 else str(rng.choice([9, 10, 11, 12, 13, 9000 if rng.random() < 0.1 else 8]))
        lines.append(purchase(rng.randrange(USERS), amount, stamp))
        if number % 40 == 30:
            lines.append(b"not an event\n")
        if number % 25 == 10:
            lines.append(befriend(rng.randrange(USERS), rng.randrange(USERS - 1) + 1, stamp=stamp))
    return lines


FRIENDS: Final = b"".join(befriend(a, (a + step) % USERS) for a in range(USERS) for step in (1, 3))
BATCH: Final = b'{"D":"2", "T":"9"}\n' + FRIENDS + purchase(1, "10") + purchase(5, LARGE) + purchase(7, "12")
LINES: Final = _stream()
FIRST, SECOND, THIRD, FOURTH = (b"".join(LINES[begin : begin + 140]) for begin in range(0, 560, 140))
"""Pieces of the stream log. The first two were read in runs of their own, the third behind a rotation."""
FOREIGN: Final = purchase(3, "77") * 40
"""A rotated file that was there before the first run, and is none of the log's."""
STAGES: Final[dict[str, list[tuple[bytes, ...]]]] = {
    "begun": [(FIRST,)],
    "followed": [(FIRST,), (FIRST + SECOND,), (FIRST + SECOND, THIRD)],
    "trained": [(FIRST,), (FIRST + SECOND,)],
}
"""How the log lay there at the start of each run, the rotated file first."""
CONFIG: Final = """
detector:
  name: "typical:Typical"
  {learning}: {{rows: 50, every: 100}}
  adapt: {{flag_rate: 0.05}}
  drift: true
challenger: {{name: iqr}}
"""


def place_logs(directory: Path, *pieces: bytes) -> None:
    """Put the stream log into a directory as it is when all pieces but the last have been rotated away."""
    (directory / "batch").write_bytes(BATCH)
    for name, content in zip(["stream.9", *_names(len(pieces))], [FOREIGN, *pieces], strict=True):
        (directory / name).write_bytes(content)
    for age, name in enumerate([*reversed(_names(len(pieces))), "stream.9"]):
        os.utime(directory / name, (1_700_000_000 - age,) * 2)


def _names(count: int) -> list[str]:
    return [*(f"stream.{number}" for number in range(count - 1, 0, -1)), "stream"]


def run_followed(*options: str) -> list[str]:
    """The command line of a run that follows the log to its present end."""
    return [
        "run", "batch", "stream", "out", "--verdicts", "ledger", "--state", "state", "--shards", "3", "--follow",
        "--idle-exit", "0", *options,
    ]  # fmt: skip


def run_trained(*options: str) -> list[str]:
    """The command line of a run with a detector that learns."""
    return ["run", "--config", "c.yaml", "batch", "stream", "out", "--state", "state", "--shards", "2", *options]


def _make(python: str, version: int) -> None:
    config = CONFIG.format(learning="learning" if version < 6 else "training")
    for name, command in (("begun", run_followed("--die")), ("followed", run_followed()), ("trained", run_trained())):
        target = DATA / f"version_{version}" / name
        if target.exists():
            continue
        with tempfile.TemporaryDirectory() as made:
            directory = Path(made)
            (directory / "c.yaml").write_text(config)
            for pieces in STAGES[name]:
                if len(pieces) == 2:
                    (directory / "stream").rename(directory / "stream.1")
                _write_new(directory, *pieces)
                subprocess.run([python, "-c", DRIVER, *command], cwd=directory, check=True)
            copytree(directory / "state", target / "state", ignore=ignore_patterns("lock"))
            for output in ("out", "out.rejects.json", "ledger"):
                if (directory / output).exists():
                    copyfile(directory / output, target / output)


def _write_new(directory: Path, *pieces: bytes) -> None:
    """The log as its writer leaves it: what is there is appended to."""
    (directory / "batch").write_bytes(BATCH)
    if not (directory / "stream.9").exists():
        (directory / "stream.9").write_bytes(FOREIGN)
    path = directory / "stream"
    with path.open("ab") as file:
        file.write(pieces[-1][path.stat().st_size :])


if __name__ == "__main__":
    _make(sys.argv[1], int(sys.argv[2]))
