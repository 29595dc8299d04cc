"""The examples of the docs that need servers, run beside real ones."""

import os
import re
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from receiver import SECRET, Receiver
from servers import SERVERS, Kafka, Server, started
from system_kafka import empty
from test_docs import PAGES, Fence, fences

CLUSTER = "cluster.md"
"""The page whose examples start their server themselves: tests/cluster runs them."""
EXAMPLES = [fence for page in PAGES if page.name != CLUSTER for fence in fences(page) if fence.not_run is not None]
ALL: list[type[Server]] = [*SERVERS, Receiver]
KINDS = {kind.name: kind for kind in ALL}
SMALL = "--users 300 --batch-events 3000 --stream-events 3000"


@pytest.mark.slow
@pytest.mark.parametrize("fence", EXAMPLES, ids=lambda fence: fence.page.stem)
def test_every_example_runs(fence: Fence, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """As somebody would type it who has the servers at their standard ports; here they are at others, and without data.

    Logs are generated with fewer events.
    """
    with ExitStack() as stack:
        run(fence, tmp_path, stack, request)


def run(fence: Fence, directory: Path, stack: ExitStack, request: pytest.FixtureRequest) -> None:
    """Run a block beside its servers, which are stopped with the stack; Kafka starts slowly, and is emptied instead."""
    text = fence.text
    for name in (fence.not_run or "").split():
        server: Server
        if name == Kafka.name:
            server = request.getfixturevalue("kafka")
            empty(server.url.removeprefix("kafka://"))
        else:
            server = stack.enter_context(contextmanager(started)(KINDS[name]))
        text = re.sub(rf"127\.0\.0\.1:{server.standard_port}\b", f"127.0.0.1:{server.port}", text)
    text = text.replace("peerwatch generate demo", f"peerwatch generate demo {SMALL}")
    lines = [line for line in text.splitlines() if not line.startswith(("pip install ", "export HOOK_SECRET="))]
    assert any(line.startswith("peerwatch ") for line in lines)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    if "demo/batch_log.json" not in text:
        lines.insert(0, f"peerwatch generate . {SMALL}")
    command = ["bash", "-euo", "pipefail", "-c", "\n".join(lines)]
    environment = {**os.environ, "PATH": path, "HOOK_SECRET": SECRET}
    result = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
