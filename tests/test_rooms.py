"""The walls between the rooms."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PURE = [ROOT / "actors", *(ROOT / "peerwatch" / room for room in ("network", "detectors", "judging"))]


def test_imports_go_down_only() -> None:
    """From the command line down to the kernels; the pure rooms import no event loop, file or log library."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--config", "pyproject.toml", "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
    assert "2 kept, 0 broken" in result.stdout


def test_pure_rooms_open_no_files() -> None:
    """No `open`, `Path` or `os` in the rooms that judge."""
    for room in PURE:
        for module in room.glob("*.py"):
            text = module.read_text()
            for word in ("open(", "import os", "pathlib", "print("):
                assert word not in text, f"{module.name} uses {word}"
