"""The README's two commands run in a fresh clone, with every Python that it names."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT, copy_tracked

README = (ROOT / "README.md").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A fresh copy of what git would hand out."""
    copy_tracked(tmp_path)
    return tmp_path


def outside_make() -> dict[str, str]:
    """The environment without what a make that runs these tests has put into it."""
    own = ("MAKE", "MFLAGS", "PROFILE")  # what is set on its command line goes on into the environment
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


def test_the_two_commands_run_in_a_fresh_clone(clone: Path) -> None:
    """`make run` judges 220,000 events; `make test` calls the whole suite (it is not run inside of itself).

    The environment these tests run in serves as the clone's, so that nothing is downloaded; continuous integration
    builds a new one.
    """
    commands = re.findall(r"^make (\w+)", README, re.MULTILINE)
    assert commands == ["run", "test"]
    venv = clone / ".venv"
    (venv / "bin").mkdir(parents=True)
    for tool in ("python", "peerwatch"):
        (venv / "bin" / tool).symlink_to(Path(sys.executable).with_name(tool))
    for mark in ("bin/pip", ".run", ".dev"):
        (venv / mark).touch()
    own = outside_make()
    own["PYTHONPATH"] = str(clone)  # the clone's sources, not those the environment was made for
    where = [str(venv / "bin" / "python"), "-c", "import peerwatch; print(peerwatch.__file__)"]
    assert subprocess.run(where, cwd=clone, env=own, capture_output=True, text=True, check=True).stdout.startswith(
        str(clone)
    )
    result = subprocess.run(["make", "run"], cwd=clone, env=own, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "220,000" in result.stderr
    assert (clone / "demo" / "batch_log.json").read_bytes().count(b"\n") == 200_001
    assert (clone / "demo" / "stream_log.json").read_bytes().count(b"\n") == 20_000
    flagged = (clone / "demo" / "flagged_purchases.json").read_bytes().splitlines()
    assert f"{len(flagged):,}" in result.stderr
    assert {"mean", "sd"} < json.loads(flagged[0]).keys()
    planned = subprocess.run(["make", "-n", "test"], cwd=clone, env=own, capture_output=True, text=True, check=True)
    whole = r"-m pytest -n 3 --dist worksteal --hypothesis-profile=short -m 'not slow'$"
    assert re.search(whole, planned.stdout.strip())


PRETENDER = """\
#!{python}
import sys
sys.version_info = ({version[0]}, {version[1]}, 0, "final", 0)
if sys.argv[1] == "-c":
    exec(sys.argv[2])
else:
    print("made", *sys.argv[3:])
"""


@pytest.mark.parametrize("version", [(2, 7), (3, 10), (3, 11), (3, 14), (3, 15), (4, 0)])
def test_make_refuses_a_python_that_does_not_suit(tmp_path: Path, version: tuple[int, int]) -> None:
    """With a sentence that says which would; the README, the package and the Makefile agree on that."""
    least, below = re.findall(r"(\d+)\.(\d+)", re.findall(r'requires-python = "(.*)"', PYPROJECT)[0])
    suits = f"Python {least[0]}.{least[1]} to {below[0]}.{int(below[1]) - 1}"
    assert f"{suits} with `venv`" in README
    python = tmp_path / "python"
    python.write_text(PRETENDER.format(python=sys.executable, version=version))
    python.chmod(0o755)
    command = ["make", f"PYTHON={python}", f"VENV={tmp_path}/venv", f"{tmp_path}/venv/bin/pip"]
    result = subprocess.run(command, cwd=ROOT, env=outside_make(), capture_output=True, text=True, check=False)
    if tuple(map(int, least)) <= version < tuple(map(int, below)):
        assert (result.returncode, result.stderr) == (0, "")
        assert f"made {tmp_path}/venv" in result.stdout
    else:
        sentence = "peerwatch needs {}, this is {}.{}; try make PYTHON=python3.12"
        assert result.stderr.splitlines()[0] == sentence.format(suits, *version)
        assert result.returncode != 0
        assert "made" not in result.stdout
