"""Machine code checks no index by itself: here it is compiled with checks."""

import os
import subprocess
import sys

import pytest
from support import ROOT


@pytest.mark.slow
def test_no_kernel_reaches_beyond_its_arrays() -> None:
    """The properties of the kernels and of the whole hold with every index checked; each kernel is called by them."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "every_kernel"]
    tests = ["network", "judging/test_sigma.py", "runtime/test_large_amounts.py", "test_exactness.py"]
    tests += ["judging/test_quarantine.py", "studies/test_radius.py"]
    sources = os.pathsep.join([str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        [*command, "--hypothesis-profile", "bounds", *tests], cwd=ROOT / "tests",
        env=os.environ | {"NUMBA_BOUNDSCHECK": "1", "PYTHONPATH": sources}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "every kernel has been called" in result.stdout
