"""A plug-in for pytest: the session fails if the tests have not called every kernel."""

from typing import Any

import pytest

from peerwatch import kernels
from peerwatch.kernels import Kernel

called: set[str] = set()
call = Kernel.__call__


def noted(kernel: Kernel, *arguments: Any) -> int:
    """The call, noted."""
    called.add(kernel.name)
    return call(kernel, *arguments)


Kernel.__call__ = noted  # type: ignore[method-assign, assignment]


@pytest.hookimpl
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Look which kernels there are; those that only kernels call are compiled with them."""
    missing = {each.name for each in kernels.registered} - called
    print("never called:", *sorted(missing)) if missing else print("every kernel has been called")
    if missing:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
