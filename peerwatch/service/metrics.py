"""Metrics of a run in Prometheus' format, read from its status when somebody asks."""

import platform
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

import peerwatch
from peerwatch.connectors.server import WRITE_BOUNDS, SinkStatus
from peerwatch.network.rejects import REASON_CLASSES
from peerwatch.storage.status import Status, WorkerStatus, seconds_behind

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""What `exposition` returns."""


class RunCollector(Collector):
    """Reads a run's status whenever metrics are asked for. The run itself counts nothing for it.

    Counters begin with the process at 0. What is judged again after a restart of the pipeline counts once.
    """

    def __init__(self, status: Callable[[], Status], clock: Callable[[], float] = time.time) -> None:
        """`status` returns the present status; `clock` the seconds since 1970."""
        self._status = status
        self._clock = clock

    def describe(self) -> list[Metric]:
        """Nothing: the status is not read before somebody asks."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics as of now."""
        status = self._status()
        build = GaugeMetricFamily(
            "peerwatch_build_info", "The versions of peerwatch and Python; always 1.", labels=["version", "python"]
        )
        build.add_metric([peerwatch.__version__, platform.python_version()], 1)
        yield build
        yield from _progress(status)
        yield from _lag(status)
        yield from _actors(status)
        yield from _workers(status.workers)
        yield from _sinks(status.sinks)
        yield from self._checkpoints(status)
        yield CounterMetricFamily("peerwatch_restarts", "Restarts of the pipeline after a failure.", status.restarts)

    def _checkpoints(self, status: Status) -> Iterator[Metric]:
        tally = status.checkpoints
        if tally is None:  # there is no state directory
            return
        yield GaugeMetricFamily(
            "peerwatch_checkpoint_age_seconds",
            "Since the newest checkpoint was written, or since the process began if it has written none.",
            max(0.0, self._clock() - (status.checkpoint or status.begun)),
        )
        yield CounterMetricFamily("peerwatch_checkpoints", "Checkpoints that were written.", tally.written)
        yield CounterMetricFamily(
            "peerwatch_checkpoint_failures", "Checkpoints that could not be written.", tally.failures
        )
        yield GaugeMetricFamily(
            "peerwatch_checkpoint_duration_seconds",
            "From the request of the newest checkpoint to when it was durable.",
            tally.seconds,
        )
        yield GaugeMetricFamily("peerwatch_checkpoint_bytes", "The size of the newest checkpoint.", tally.bytes)


def exposition(collector: Collector) -> bytes:
    """Metrics as text, with those of the process (`process_resident_memory_bytes` and the like).

    It reads from /proc, so call it from a thread.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    ProcessCollector(registry=registry)
    return generate_latest(registry)


def _progress(status: Status) -> Iterator[Metric]:
    done = status.progressed
    yield CounterMetricFamily("peerwatch_events", "Events that were read, friendships among them.", done.events)
    yield CounterMetricFamily("peerwatch_judged", "Purchases that were judged.", done.judged)
    yield CounterMetricFamily("peerwatch_flagged", "Purchases that were flagged.", done.flagged)
    rejected = CounterMetricFamily("peerwatch_rejected", "Lines that were rejected, by reason.", labels=["reason"])
    # those that have not occurred as well, so that the first one is an increase
    yield _by_name(rejected, {reason: status.rejects.get(reason, 0) for reason in REASON_CLASSES})
    yield CounterMetricFamily(
        "peerwatch_audit_recomputed", "Decisions that the audit made again.", status.totals.get("recomputed", 0)
    )
    yield CounterMetricFamily(
        "peerwatch_audit_differences",
        "Decisions that came out differently when the audit made them again.",
        status.totals.get("differences", 0),
    )


def _lag(status: Status) -> Iterator[Metric]:
    yield GaugeMetricFamily("peerwatch_lag_bytes", "Bytes of the followed log that are not read yet.", status.lag_bytes)
    if status.lag_records is not None:
        yield GaugeMetricFamily(
            "peerwatch_lag_records", "Entries of the stream that are not read yet.", status.lag_records
        )
    yield GaugeMetricFamily(
        "peerwatch_lag_seconds",
        "For how long something has been waiting to be read.",
        seconds_behind(status, status.lag_bytes),
    )


def _actors(status: Status) -> Iterator[Metric]:
    depths = GaugeMetricFamily("peerwatch_mailbox_depth", "Messages in a mailbox.", labels=["mailbox"])
    yield _by_name(depths, {name: now for name, (now, _) in status.mailboxes.items()})
    text = "The share of the last ten seconds in which an actor worked."
    ratios = GaugeMetricFamily("peerwatch_busy_ratio", text, labels=["actor"])
    yield _by_name(ratios, {name: actor.busy_ratio for name, actor in status.actors.items()})
    text = "Seconds in which an actor has worked since the pipeline began."
    seconds = CounterMetricFamily("peerwatch_busy_seconds", text, labels=["actor"])
    yield _by_name(seconds, {name: actor.busy_seconds for name, actor in status.actors.items()})


def _workers(workers: list[WorkerStatus]) -> Iterator[Metric]:
    if not workers:  # the run is not on a cluster
        return
    text = "Events that a worker of the cluster has still to confirm."
    lag = GaugeMetricFamily("peerwatch_worker_lag_events", text, labels=["worker"])
    yield _by_name(lag, {str(worker.number): worker.lag_events for worker in workers})
    text = "Whether a worker of the cluster follows: 0 while another takes its place."
    working = GaugeMetricFamily("peerwatch_worker_up", text, labels=["worker"])
    yield _by_name(working, {str(worker.number): worker.state == "working" for worker in workers})
    text = "How often a worker of the cluster was lost and replaced."
    restarts = CounterMetricFamily("peerwatch_worker_restarts", text, labels=["worker"])
    yield _by_name(restarts, {str(worker.number): worker.restarts for worker in workers})


def _sinks(sinks: list[SinkStatus]) -> Iterator[Metric]:
    sent = CounterMetricFamily("peerwatch_sink_sent", "Records that a sink has taken.", labels=["sink"])
    yield _by_name(sent, {sink.name: sink.sent for sink in sinks})
    errors = CounterMetricFamily("peerwatch_sink_errors", "Attempts to write that failed.", labels=["sink"])
    yield _by_name(errors, {sink.name: sink.errors for sink in sinks})
    retries = CounterMetricFamily("peerwatch_sink_retries", "Attempts that were made again.", labels=["sink"])
    yield _by_name(retries, {sink.name: sink.retries for sink in sinks})
    times = HistogramMetricFamily(
        "peerwatch_sink_write_seconds", "How long the output waited for a write.", labels=["sink"]
    )
    bounds = [*map(floatToGoString, WRITE_BOUNDS), "+Inf"]
    for sink in sinks:
        total, buckets = 0, []
        for bound, count in zip(bounds, sink.writes.counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        times.add_metric([sink.name], buckets=buckets, sum_value=sink.writes.seconds)
    yield times


def _by_name(metric: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, float]) -> Metric:
    for name, value in values.items():
        metric.add_metric([name], value)
    return metric
