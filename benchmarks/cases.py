"""The seeded cases that speed is measured on."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from peerwatch.studies.generate import Recipe, write_logs

SHARED = Path(__file__).parents[2] / "shared"
"""Where the real data and the C++ yardstick lie on the machines that have them: beside the checkout."""


@dataclass(frozen=True)
class Case:
    """A pair of logs and the parameters to judge them with; without a recipe it is the real one."""

    name: str
    D: int
    T: int
    recipe: Recipe | None = None
    large: bool = False
    """Run once where others are run several times."""

    def build(self, root: Path) -> Path | None:
        """The directory of its logs, made unless it is there; None where the real data are not."""
        directory = root / self.name
        if (directory / "done").exists():
            return directory
        if self.recipe is not None:
            write_logs(directory, self.recipe, force=True)
        elif not (SHARED / "real_case.py").exists():
            return None
        else:
            data = [str(SHARED / "data" / name) for name in ("facebook_friendships.txt", "cdnow_purchases.txt")]
            options = [str(directory), str(self.D), str(self.T), "1"]
            subprocess.run([sys.executable, str(SHARED / "real_case.py"), *data, *options], check=True)
        (directory / "done").touch()
        return directory


def blocks(directory: Path) -> Iterator[bytes]:
    """A case's whole lines, the header left out, about a mebibyte at a time."""
    for name in ("batch_log.json", "stream_log.json"):
        with (directory / name).open("rb") as log:
            if name == "batch_log.json":
                log.readline()
            while lines := log.readlines(1 << 20):
                yield b"".join(lines)


def _synthetic(name: str, users: int, batch: int, stream: int, D: int, T: int, degree: float, *, large: bool = False,
               ) -> Case:  # fmt: skip
    recipe = Recipe(users=users, batch_events=batch, stream_events=stream, mean_degree=degree, D=D, T=T)
    return Case(name, D, T, recipe, large)


CASES = (
    _synthetic("load", 10_000, 500_000, 1000, 2, 50, 10),
    _synthetic("stream", 10_000, 100_000, 200_000, 2, 50, 10),
    _synthetic("deep", 10_000, 100_000, 200_000, 3, 50, 10),
    _synthetic("wide", 200_000, 1_000_000, 100_000, 2, 100, 5),
    Case("real D=1", 1, 50),
    Case("real D=2", 2, 50),
    Case("real D=3", 3, 50),
    # 10 million purchases, on top of the 10 million befriendings that a mean degree of 20 takes
    _synthetic("huge", 1_000_000, 20_000_000, 200_000, 2, 50, 20, large=True),
    # the same with a tenth of everything but the stream: networks of the same size among fewer users
    _synthetic("tenth", 100_000, 2_000_000, 200_000, 2, 50, 20, large=True),
)
