"""Machine code checks no index by itself: here it is compiled with checks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.timeout(300)
def test_no_kernel_reaches_beyond_its_arrays() -> None:
    """The properties of the kernels and of the whole hold with every index checked."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, str(TESTS / "network"), str(TESTS / "test_exactness.py")],
        env=os.environ | {"NUMBA_BOUNDSCHECK": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
