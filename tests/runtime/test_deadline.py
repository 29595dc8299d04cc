"""A process that has a deadline ends, whatever hangs or fails."""

import subprocess
import sys

import pytest

RUN = """
import threading
from peerwatch.cli.console import Console
from peerwatch.runtime.deadline import Deadline

def fails():
    raise LookupError("nothing is known yet")

with Deadline(Console(quiet=True, bar=False)) as deadline:
    deadline.begin(0.01, {text})
    threading.Event().wait()
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [("lambda: 'too late'", "too late\n"), ("fails", "peerwatch: LookupError: nothing is known yet\n")],
)
def test_it_ends_a_process_that_hangs(text: str, said: str) -> None:
    """With exit code 1 and its words; also if these cannot be found."""
    result = subprocess.run([sys.executable, "-c", RUN.format(text=text)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, said)
