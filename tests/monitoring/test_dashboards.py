"""Grafana's dashboards show something: each of their queries is asked of a real Prometheus that watches a real run."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from dashboards import DASHBOARDS, DIRECTORY, dashboard
from rewritten import write_prometheus
from servers import LOOPBACK, Prometheus, installed, require_server
from support import befriend, purchase, running, wait_until

pytestmark = pytest.mark.slow

WITHOUT_DATA = {'peerwatch_lag_records{instance=~"$instance"}'}
"""Of a stream on a server, which the run here has not."""


def expressions() -> list[str]:
    """Every query of every dashboard."""
    boards = [json.loads(path.read_text()) for path in sorted(DIRECTORY.glob("*.json"))]
    return [target["expr"] for board in boards for panel in board["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboards_are_as_their_script_writes_them(name: str) -> None:
    """Nobody has changed one and not the other; panels neither overlap nor leave the grid."""
    written = (DIRECTORY / f"{name}.json").read_text()
    assert written == dashboard(name)
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(written)["panels"]:
        place = panel["gridPos"]
        rows = range(place["y"], place["y"] + place["h"])
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in rows}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_dashboard_has_a_file() -> None:
    """And every file is one of the script's."""
    assert {path.stem for path in DIRECTORY.glob("*.json")} == set(DASHBOARDS)


EVENTS = befriend("a", "b") + b"".join(purchase("ab"[i % 2], str(10 + i % 3)) for i in range(100)) + b"no event\n"
FLAGGED = purchase("a", "1000")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The URL of a service beside a run that follows a log, and the log."""
    log = tmp_path / "stream"
    log.write_bytes(EVENTS)
    (tmp_path / "batch").write_bytes(b'{"D":"1", "T":"50"}\n')
    command = [sys.executable, "-m", "peerwatch", "serve", "batch", "stream", "out", "--follow", "--state", "state"]
    options = ["--audit", "1", "--serve", f"{LOOPBACK}:0"]
    errors = tmp_path / "errors"
    with errors.open("wb") as stderr, running([*command, *options], cwd=tmp_path, stderr=stderr) as process:

        def url() -> str | None:
            found = re.search(r"serving at (\S+)", errors.read_text())
            return found[1] if found else None

        wait_until(lambda: url() is not None, process)
        yield url() or "", log


@pytest.fixture
def prometheus(run: tuple[str, Path], tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a Prometheus that watches the run."""
    require_server(Prometheus)
    address = run[0].removeprefix("http://")
    server = Prometheus()
    server.config = write_prometheus(tmp_path / "prometheus", f'- targets: ["{address}"]\n')
    with server, httpx.Client(base_url=server.url) as client:
        yield client


def ask(client: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """What Prometheus answers to a query."""
    answer = client.get("/api/v1/query", params={"query": expression})
    found: dict[str, Any] = answer.json()
    assert found["status"] == "success", found
    result: list[dict[str, Any]] = found["data"]["result"]
    return result


def test_every_query_of_a_dashboard_finds_the_run(run: tuple[str, Path], prometheus: httpx.Client) -> None:
    """With events coming, each gives at least one series, with the labels that its legend names."""
    waiting = {each: each.replace("$instance", ".*").replace("$__rate_interval", "1m") for each in expressions()}
    for expression in WITHOUT_DATA:
        assert ask(prometheus, waiting.pop(expression)) == []
    while waiting:
        with run[1].open("ab") as log:
            log.write(EVENTS + FLAGGED)
        waiting = {each: asked for each, asked in waiting.items() if not ask(prometheus, asked)}


def test_what_prometheus_knows_is_what_the_run_did(run: tuple[str, Path], prometheus: httpx.Client) -> None:
    """Events, flagged purchases, rejected lines and written records, to the last one."""
    with run[1].open("ab") as log:
        log.write(FLAGGED)
    expected = {
        "peerwatch_events_total": "102",
        "peerwatch_judged_total": "101",
        "peerwatch_flagged_total": "1",
        'peerwatch_rejected_total{reason="json"}': "1",
        "sum(peerwatch_rejected_total)": "1",
        'peerwatch_sink_sent_total{sink="flagged"}': "1",
        "peerwatch_audit_recomputed_total": "101",
        "peerwatch_audit_differences_total": "0",
        "peerwatch_restarts_total": "0",
        "peerwatch_lag_bytes": "0",
        'up{job="peerwatch"}': "1",
    }
    for expression, value in expected.items():
        while [each["value"][1] for each in ask(prometheus, expression)] != [value]:
            pass
    assert len(ask(prometheus, "peerwatch_busy_ratio")) >= 6


def test_the_metrics_of_a_run_please_promtool(run: tuple[str, Path]) -> None:
    """Straight from the service, whose status names the same actors."""
    require_server(Prometheus)
    for path in ("/status", "/metrics"):
        while (answer := httpx.get(run[0] + path)).status_code == 503:  # the run has not begun yet
            pass
    content = answer.raise_for_status().content
    found = subprocess.run([installed("promtool"), "check", "metrics"], input=content, capture_output=True, check=False)
    assert (found.returncode, found.stderr) == (0, b"")
    busy = {actor["name"]: actor["busy_ratio"] for actor in httpx.get(f"{run[0]}/status").json()["actors"]}
    assert busy.keys() == set(re.findall(r'peerwatch_busy_ratio{actor="(.*?)"}', content.decode()))
    assert all(0 <= ratio <= 1 for ratio in busy.values())
