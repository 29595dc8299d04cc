"""What Prometheus reads of a run."""

import math
import re
import subprocess

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from servers import Prometheus, installed, require_server

from peerwatch.connectors.server import WRITE_BOUNDS, SinkStatus, WriteTimes
from peerwatch.network.rejects import REASON_CLASSES
from peerwatch.service.metrics import CONTENT_TYPE, RunCollector, exposition
from peerwatch.storage.status import ActorStatus, CheckpointTally, Progressed, Status, WorkerStatus

TOTALS = {"recomputed": 50, "differences": 2}
STATUS = Status(
    pid=1,
    running=True,
    updated=1000.0,
    through=900,
    totals=TOTALS,
    lag_bytes=5,
    caught_up=990.0,
    checkpoint=970.0,
    restarts=3,
    mailboxes={"graph 0": (2, 4)},
    begun=100.0,
    progressed=Progressed(900, 700, 7),
    rejects={"json": 4},
    actors={"graph 0": ActorStatus(12.5, 0.25)},
    sinks=[SinkStatus("flagged", 7, 2, 1, WriteTimes(0.75, [3, 1, *[0] * (len(WRITE_BOUNDS) - 2), 1]))],
    checkpoints=CheckpointTally(written=9, failures=1, seconds=0.5, bytes=4096),
    lag_records=6,
    workers=[
        WorkerStatus(0, "10.0.0.5:1234", 77, "working", 40, 1, "it was killed"),
        WorkerStatus(1, "", 0, "starting", 90, 0),
    ],
)
"""A run with something of everything."""
NAMES = [
    "peerwatch_events_total",
    "peerwatch_flagged_total",
    "peerwatch_rejected_total",
    "peerwatch_sink_sent_total",
    "peerwatch_sink_errors_total",
    "peerwatch_sink_retries_total",
    "peerwatch_sink_write_seconds_bucket",
    "peerwatch_lag_bytes",
    "peerwatch_lag_records",
    "peerwatch_lag_seconds",
    "peerwatch_mailbox_depth",
    "peerwatch_busy_ratio",
    "peerwatch_checkpoint_age_seconds",
    "peerwatch_checkpoint_duration_seconds",
    "peerwatch_checkpoint_bytes",
    "peerwatch_checkpoint_failures_total",
    "peerwatch_audit_differences_total",
    "peerwatch_restarts_total",
    "peerwatch_build_info",
    "process_resident_memory_bytes",
]
"""What dashboards and alerts of others rely on."""


def samples(status: Status, now: float = 1000.0) -> dict[tuple[str, str], float]:
    """The metrics of a run by name and label, as a reader of the format finds them."""
    text = exposition(RunCollector(lambda: status, lambda: now)).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, ",".join(value for name, value in sample.labels.items() if name != "le")
            if sample.labels.get("le", "+Inf") == "+Inf":
                assert key not in found
                found[key] = sample.value
    return found


def test_each_figure_has_its_name() -> None:
    """Counters, gauges and ages in seconds, as of the moment of the scrape."""
    found = samples(STATUS)
    expected = {
        ("peerwatch_events_total", ""): 900,
        ("peerwatch_judged_total", ""): 700,
        ("peerwatch_flagged_total", ""): 7,
        ("peerwatch_rejected_total", "json"): 4,
        ("peerwatch_rejected_total", "poison"): 0,
        ("peerwatch_sink_sent_total", "flagged"): 7,
        ("peerwatch_sink_errors_total", "flagged"): 2,
        ("peerwatch_sink_retries_total", "flagged"): 1,
        ("peerwatch_sink_write_seconds_count", "flagged"): 5,
        ("peerwatch_sink_write_seconds_sum", "flagged"): 0.75,
        ("peerwatch_lag_bytes", ""): 5,
        ("peerwatch_lag_records", ""): 6,
        ("peerwatch_mailbox_depth", "graph 0"): 2,
        ("peerwatch_busy_ratio", "graph 0"): 0.25,
        ("peerwatch_busy_seconds_total", "graph 0"): 12.5,
        ("peerwatch_checkpoint_age_seconds", ""): 30,
        ("peerwatch_checkpoint_duration_seconds", ""): 0.5,
        ("peerwatch_checkpoint_bytes", ""): 4096,
        ("peerwatch_checkpoint_failures_total", ""): 1,
        ("peerwatch_checkpoints_total", ""): 9,
        ("peerwatch_audit_recomputed_total", ""): 50,
        ("peerwatch_audit_differences_total", ""): 2,
        ("peerwatch_worker_up", "0"): 1,
        ("peerwatch_worker_up", "1"): 0,
        ("peerwatch_worker_lag_events", "1"): 90,
        ("peerwatch_worker_restarts_total", "0"): 1,
        ("peerwatch_restarts_total", ""): 3,
    }
    assert {key: found[key] for key in expected} == expected
    assert found["peerwatch_lag_seconds", ""] > 0
    assert {name for name, _ in found} >= set(NAMES)
    assert {reason for name, reason in found if name == "peerwatch_rejected_total"} == set(REASON_CLASSES)


def test_what_there_is_none_of_has_no_metric() -> None:
    """No checkpoint without a state directory, no lag in records where nobody knows, no workers without a cluster.

    The age of a checkpoint counts from the start at first.
    """
    bare = msgspec.structs.replace(STATUS, checkpoints=None, lag_records=None, workers=[])
    words = ("checkpoint", "records", "worker")
    assert not [name for name, _ in samples(bare) if any(word in name for word in words)]
    first = msgspec.structs.replace(STATUS, checkpoint=0.0)
    assert samples(first)["peerwatch_checkpoint_age_seconds", ""] == 900


@given(st.lists(st.floats(0, 100), max_size=30))
def test_durations_are_cumulative_by_bound(durations: list[float]) -> None:
    """A bucket holds every write that took at most its bound, as Prometheus' histograms have it."""
    writes = WriteTimes()
    for seconds in durations:
        writes.add(seconds)
    sink = SinkStatus("flagged", 0, 0, 0, writes)
    text = exposition(RunCollector(lambda: msgspec.structs.replace(STATUS, sinks=[sink]))).decode()
    found = {}
    for bound, count in re.findall(r'peerwatch_sink_write_seconds_bucket{le="(.+?)",.*} (.+)', text):
        found[float(bound)] = float(count)
    assert found == {bound: sum(each <= bound for each in durations) for bound in (*WRITE_BOUNDS, math.inf)}


@given(st.text(max_size=30))
def test_any_name_is_a_label(name: str) -> None:
    """Names of sinks come from users: quotes, backslashes and line feeds in them are read back as they are."""
    sink = SinkStatus(name, 1, 0, 0, WriteTimes())
    assert ("peerwatch_sink_sent_total", name) in samples(msgspec.structs.replace(STATUS, sinks=[sink]))


@pytest.fixture
def promtool() -> str:
    """Prometheus' tool."""
    require_server(Prometheus)
    return installed("promtool")


def test_promtool_finds_nothing_to_complain_of(promtool: str) -> None:
    """Names end in their unit, counters in _total, and each metric has a text."""
    content = exposition(RunCollector(lambda: STATUS))
    found = subprocess.run([promtool, "check", "metrics"], input=content, capture_output=True, check=False)
    assert (found.returncode, found.stdout, found.stderr) == (0, b"", b"")
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
