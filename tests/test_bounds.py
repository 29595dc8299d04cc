"""Machine code checks no index by itself: here it is compiled with checks."""

import subprocess

import pytest


@pytest.mark.timeout(300)
def test_no_kernel_reaches_beyond_its_arrays(request: pytest.FixtureRequest) -> None:
    """The properties of the kernels and of the whole hold with every index checked: see `pytest_collection_finish`."""
    run: subprocess.Popen[str] = request.config.bounds_run  # type: ignore[attr-defined]
    said, _ = run.communicate()
    assert run.returncode == 0, said
