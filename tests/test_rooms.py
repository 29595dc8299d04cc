"""The walls between the rooms."""

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest
from support import ROOT

PURE = [ROOT / "actors", *(ROOT / "peerwatch" / room for room in ("network", "detectors", "judging"))]
PRODUCT = sorted(
    path
    for room in ("actors", "peerwatch", "runtime")
    for path in (ROOT / room).rglob("*.py")
    if not any(parent.is_symlink() for parent in path.parents)
)
"""Each file of the product once: not by the links to the two rooms at the top level as well."""


def room_of(path: Path) -> str:
    """The name of the room that a file lies in; those that lie in none are the base of all."""
    top, *below = path.relative_to(ROOT).parts
    return top if top != "peerwatch" else below[0] if len(below) > 1 else "base"


def test_imports_go_down_only() -> None:
    """From the command line down to the kernels; the pure rooms import no event loop, file or log library."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", "pyproject.toml", "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert "2 kept, 0 broken" in result.stdout


def test_no_files_import_each_other_in_a_circle() -> None:
    """Nor do they within functions: what depends on what can be read in one order."""
    graph = grimp.build_graph("peerwatch", cache_dir=None)
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imported) >= len(PRODUCT), f"{len(imported)} modules looked at, of {len(PRODUCT)} files"
    try:
        TopologicalSorter(imported).prepare()
    except CycleError as error:
        pytest.fail(" imported by ".join(error.args[1]))


def test_no_class_name_is_defined_twice() -> None:
    """A name means one thing, wherever it is read."""
    places = defaultdict(list)
    for path in PRODUCT:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    twice = [f"{name}: {', '.join(where)}" for name, where in places.items() if len(where) > 1]
    assert not twice, f"of {len(places)} class names, {len(twice)} twice\n" + "\n".join(twice)


def test_no_room_holds_more_than_a_quarter_of_the_code() -> None:
    """A room that grows beyond it is more than one; lines that are blank or a comment do not count."""
    lines = Counter[str]()
    for path in PRODUCT:
        stripped = map(str.strip, path.read_text().splitlines())
        lines[room_of(path)] += sum(1 for line in stripped if line and not line.startswith("#"))
    shares = "\n".join(f"{room:12} {count:6,} {count / lines.total():4.0%}" for room, count in lines.most_common())
    assert max(lines.values()) * 4 <= lines.total(), f"{lines.total():,} lines of code\n{shares}"


def test_pure_rooms_open_no_files() -> None:
    """No `open`, `Path` or `os` in the rooms that judge."""
    for room in PURE:
        for module in room.rglob("*.py"):
            text = module.read_text()
            for word in ("open(", "import os", "pathlib", "print("):
                assert word not in text, f"{module.name} uses {word}"
