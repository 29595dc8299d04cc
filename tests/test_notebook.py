"""The notebook runs, and what it shows is what its code gives."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_notebook import NOTEBOOK, SETTINGS, executed, read

TEXTS = ("text/plain", "text/html")
LARGEST = 600_000
"""Bytes: what a git host still shows at once."""


def markdown() -> str:
    """The text between the cells."""
    return "\n".join("".join(cell["source"]) for cell in read()["cells"] if cell["cell_type"] == "markdown")


def outputs(notebook: dict[str, Any]) -> Iterator[tuple[int, str, str]]:
    """Each output: the number of its cell, its type, its text; of a picture that there is one."""
    for place, cell in enumerate(notebook["cells"]):
        for output in cell.get("outputs", []):
            if output["output_type"] == "stream":
                yield place, output["name"], "".join(output["text"])
                continue
            for kind, data in output["data"].items():
                yield place, kind, "".join(data) if kind in TEXTS else ""


@pytest.mark.slow
def test_it_runs_and_shows_what_is_stored(tmp_path: Path) -> None:
    """In an empty directory and with a fresh kernel; nothing is written to standard error, and nothing left behind."""
    stored = list(outputs(read()))
    assert list(outputs(executed(tmp_path))) == stored
    kinds = [kind for _, kind, _ in stored]
    assert kinds.count("image/png") == 5
    assert "stderr" not in kinds
    assert {path.name for path in tmp_path.iterdir()} == {NOTEBOOK.name, "ipython", *SETTINGS}


def test_it_is_stored_as_it_was_run() -> None:
    """From top to bottom, without times and paths of the machine; its pictures are PNG, and the whole is small."""
    code = [cell for cell in read()["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["metadata"] == {} for cell in read()["cells"])
    for _, _, text in outputs(read()):
        assert not re.search(r"[\s'\"]/\w+/", text)
    for cell in code:
        for output in cell["outputs"]:
            if picture := output.get("data", {}).get("image/png"):
                assert base64.b64decode("".join(picture)).startswith(b"\x89PNG")
    assert NOTEBOOK.stat().st_size < LARGEST


def test_its_links_lead_somewhere() -> None:
    """From where it lies."""
    links = re.findall(r"\]\(([^)#]+)\)", markdown())
    assert len(links) >= 5
    for link in links:
        assert (NOTEBOOK.parent / link).exists(), link


@pytest.mark.parametrize("name", ["judge", "explain", "sweep", "detector"])
def test_it_shows_the_python_api(name: str) -> None:
    """Each function is called and described."""
    source = "\n".join("".join(cell["source"]) for cell in read()["cells"] if cell["cell_type"] == "code")
    assert f"peerwatch.{name}(" in source
    assert f"`peerwatch.{name}`" in markdown()
