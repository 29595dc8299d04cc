"""The examples of the pages about connectors that need servers, run beside real ones."""

import re
from pathlib import Path

import pytest
from servers import Server
from test_docs import DOCS, fences, typed

PAGES = [DOCS / "connectors.md", *sorted((DOCS / "connectors").glob("*.md"))]
EXAMPLES = [fence for page in PAGES for fence in fences(page) if fence.not_run is not None]
FIXTURES = {name: name for name in ("postgres", "influx", "kafka")} | {"redis": "redis_server", "nats": "nats_server"}


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_runs(
    number: int, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As somebody would type it who has the servers at their standard ports; here they are at others."""
    monkeypatch.chdir(tmp_path)
    fence = EXAMPLES[number]
    text = fence.text
    for name in (fence.not_run or "").split():
        server: Server = request.getfixturevalue(FIXTURES[name])
        text = re.sub(rf"127\.0\.0\.1:{server.standard_port}\b", f"127.0.0.1:{server.port}", text)
    typed("peerwatch generate . --users 300 --batch-events 3000 --stream-events 3000")
    lines = [line for line in text.splitlines() if line.startswith("peerwatch ")]
    assert lines
    for line in lines:
        typed(line)
