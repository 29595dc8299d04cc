"""Runs notebooks/tour.ipynb, from an empty directory and without the settings of whoever runs it.

As a script (`make notebook`) it stores the outputs in the notebook.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

NOTEBOOK: Final = Path(__file__).parents[1] / "notebooks" / "tour.ipynb"

LONGEST: Final = 600
"""Seconds for the kernel's start, for each cell and for its outputs: a hang, however slow or busy the machine is."""
SETTINGS: Final = {
    "pytest.ini": f"[pytest]\naddopts = -p no:asyncio -p no:cacheprovider --nbmake --nbmake-timeout={LONGEST}\n",
    "conftest.py": (
        "from functools import partial\n"
        "from nbmake import nb_run\n"
        f"options = dict(startup_timeout={LONGEST}, iopub_timeout={LONGEST}, coalesce_streams=True)\n"
        "nb_run.NotebookClient = partial(nb_run.NotebookClient, **options)\n"
    ),
}
"""What pytest is told in the directory. nbmake has no option for two of the limits, which are 60 and 4 seconds, nor for
printed text that arrives in parts, cut by the clock, to be stored as one output."""


def read() -> dict[str, Any]:
    """The notebook as it is in the repository."""
    content: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return content


def executed(directory: Path) -> dict[str, Any]:
    """The notebook with the outputs of a fresh execution in this directory, without times and versions.

    A cell that raises fails it.
    """
    copy = directory / NOTEBOOK.name
    copy.write_bytes(NOTEBOOK.read_bytes())
    for name, text in SETTINGS.items():
        (directory / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "--quiet", "--overwrite", copy.name]
    environment = os.environ | {"IPYTHONDIR": str(directory / "ipython"), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    content: dict[str, Any] = json.loads(copy.read_text(encoding="utf-8"))
    content["metadata"] = read()["metadata"]
    for cell in content["cells"]:
        cell["metadata"].pop("execution", None)
    return content


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        fresh = executed(Path(temporary))
    NOTEBOOK.write_text(json.dumps(fresh, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
