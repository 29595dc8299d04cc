"""Machine code checks no index by itself: here it is compiled with checks."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def test_no_kernel_reaches_beyond_its_arrays() -> None:
    """The properties of the kernels and of the whole hold with every index checked."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*command, str(TESTS / "network"), str(TESTS / "test_exactness.py")],
        env=os.environ | {"NUMBA_BOUNDSCHECK": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout
