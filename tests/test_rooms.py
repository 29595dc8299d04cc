"""The wall between the rooms."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_imports_go_down_only() -> None:
    """From runtime to actors to detectors to network; the pure rooms import no event loop, file or log library."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", "pyproject.toml", "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert "2 kept, 0 broken" in result.stdout


def test_only_the_runtime_room_opens_files() -> None:
    """No `open`, `Path` or `os` in the other rooms; only the kernels' compiler knows a directory, for its cache."""
    for room in ("network", "detectors", "actors"):
        for module in {*(ROOT / room).glob("*.py")} - {ROOT / "network" / "kernels.py"}:
            text = module.read_text()
            for word in ("open(", "import os", "pathlib", "print("):
                assert word not in text, f"{module.name} uses {word}"
