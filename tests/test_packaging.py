"""What is built and installed is the whole of it, whichever way it is taken from the repository."""

import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import pytest
from support import ROOT, copy_tracked, tracked

ROOMS = ("actors", "runtime")
"""Lie at the top level; in the package there are links to them."""


def called(command: Sequence[str], directory: Path, **variables: str) -> str:
    """What the command prints; if it fails, that is shown."""
    environment = os.environ | variables
    result = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}{result.stderr}"
    return result.stdout


def pip(*arguments: str, directory: Path) -> None:
    """Run pip with what the suite's environment has: nothing is downloaded."""
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    called([sys.executable, "-m", "pip", *arguments, *options], directory)


def wheel_of(source: Path, directory: Path) -> Path:
    """The wheel built from a source."""
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(directory), str(source), directory=directory)
    (wheel,) = directory.glob("*.whl")
    return wheel


def packaged(wheel: Path) -> set[str]:
    """The files of a wheel, without what it says about itself."""
    with ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def tracked_in_package() -> set[str]:
    """Where the tracked files of the package and of the two rooms lie in a wheel."""
    names = [name for name in tracked() if not (ROOT / name).is_symlink()]
    own = {name for name in names if name.startswith("peerwatch/")}
    return own | {f"peerwatch/{name}" for name in names if name.startswith(tuple(f"{room}/" for room in ROOMS))}


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as on a system without symbolic links."""
    origin, clone = tmp_path_factory.mktemp("origin"), tmp_path_factory.mktemp("clone")
    copy_tracked(origin)
    git = ["git", "-c", "user.name=peerwatch", "-c", "user.email=peerwatch", "-c", "init.defaultBranch=main"]
    called([*git, "init", "--quiet"], origin)
    called([*git, "add", "--all", "--force"], origin)
    called([*git, "commit", "--quiet", "--message", "all"], origin)
    called([*git, "clone", "--quiet", "-c", "core.symlinks=false", str(origin), str(clone)], clone)
    return clone


@pytest.fixture(scope="session")
def wheel(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the clone."""
    return wheel_of(clone, tmp_path_factory.mktemp("wheel"))


def test_a_clone_without_links_builds_the_whole_wheel(clone: Path, wheel: Path) -> None:
    """It holds exactly the tracked files of the package: no package is forgotten, nothing else slips in."""
    assert (clone / "peerwatch" / "actors").read_text() == "../actors"
    assert packaged(wheel) == tracked_in_package()


@pytest.mark.slow
def test_the_sdist_holds_what_git_tracks_and_builds_the_same_wheel(clone: Path, wheel: Path, tmp_path: Path) -> None:
    """All but the two links, which only tools need: configs, docs, tests and benchmarks are there."""
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    called([sys.executable, "-c", build, str(tmp_path)], clone)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    made = {name for name in names if name.startswith("peerwatch.egg-info/")} | {"PKG-INFO", "setup.cfg"}
    assert names - made == {name for name in tracked() if not (ROOT / name).is_symlink()}
    assert packaged(wheel_of(sdist, tmp_path)) == packaged(wheel)


def test_an_installed_wheel_does_what_make_run_does(wheel: Path, tmp_path: Path) -> None:
    """Generate and run, in a folder without the checkout; the bytes are those that the checkout writes."""
    site, demo = tmp_path / "site", tmp_path / "demo"
    pip("install", "--target", str(site), str(wheel), directory=tmp_path)
    where = "import peerwatch.actors.graph as graph; print(graph.__file__)"
    found = called([sys.executable, "-P", "-c", where], tmp_path, PYTHONPATH=str(site))
    assert Path(found.strip()) == site / "peerwatch" / "actors" / "graph.py"
    size = ["--users", "300", "--batch-events", "3000", "--stream-events", "1000"]
    logs = [str(demo / name) for name in ("batch_log.json", "stream_log.json")]
    installed = str(site / "bin" / "peerwatch")
    called([installed, "generate", str(demo), *size], tmp_path, PYTHONPATH=str(site))
    called([installed, "run", *logs, str(demo / "flagged")], tmp_path, PYTHONPATH=str(site))
    called([sys.executable, "-m", "peerwatch", "run", *logs, str(demo / "expected")], ROOT)
    assert (demo / "flagged").read_bytes() == (demo / "expected").read_bytes() != b""


@pytest.mark.parametrize(
    "line", ["import {}", "import {}.room as other", "from {} import room", "from {}.room import x"]
)
@pytest.mark.parametrize("room", ROOMS)
def test_the_top_level_rooms_are_imported_by_one_name(room: str, line: str) -> None:
    """`import actors` works in the checkout and makes each class a second time: lint refuses it."""
    ruff = [str(Path(sys.executable).with_name("ruff")), "check", "--no-cache", "--select", "TID251", "-"]
    for name, code in ((room, 1), (f"peerwatch.{room}", 0)):
        source = f"{line.format(name)}\n"
        result = subprocess.run(ruff, cwd=ROOT, input=source, capture_output=True, text=True, check=False)
        assert result.returncode == code, result.stdout
        assert ("TID251" in result.stdout) == (code == 1)
