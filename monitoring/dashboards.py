"""Writes Grafana's dashboards: `python monitoring/dashboards.py` after a change here."""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

DIRECTORY: Final = Path(__file__).parent / "grafana"
COLUMNS: Final = 24
"""The width of a dashboard, as Grafana counts it."""
HEIGHT: Final = 8
SOURCE: Final = {"type": "prometheus", "uid": "${source}"}
OWN: Final = '{instance=~"$instance"}'


class Series(NamedTuple):
    """A query, and the name of each series that it returns."""

    expression: str
    legend: str = "{{instance}}"


class Panel(NamedTuple):
    """Lines over time, or with `single` the last value. `unit` is one of Grafana's."""

    title: str
    text: str
    unit: str
    series: tuple[Series, ...]
    width: int = 8
    single: bool = False
    stacked: bool = False
    most: float | None = None


def own(metric: str) -> str:
    """A metric of the chosen instances."""
    return f"{metric}{OWN}"


def rate(metric: str) -> str:
    """What a counter gains a second."""
    return f"rate({metric}{OWN}[$__rate_interval])"


def share(part: str, whole: str) -> str:
    """A ratio that is absent where there is nothing to divide by."""
    return f"{part} / ({whole} > 0)"


def value(title: str, text: str, unit: str, expression: str) -> Panel:
    """One value of each instance."""
    return Panel(title, text, unit, (Series(expression),), 4, single=True)


FLAGGED_NOW: Final = share(rate("peerwatch_flagged_total"), rate("peerwatch_judged_total"))
ALERTS: Final = 'count by (instance) (ALERTS{alertstate="firing", instance=~"$instance"}) or 0 * ' + own("up")
WRITES_P99: Final = f"histogram_quantile(0.99, sum by (sink, le) ({rate('peerwatch_sink_write_seconds_bucket')}))"
WRITES_MEAN: Final = share(rate("peerwatch_sink_write_seconds_sum"), rate("peerwatch_sink_write_seconds_count"))
OVERVIEW: Final = (
    value("Running", "1 if the service answers.", "none", 'up{job="peerwatch", instance=~"$instance"}'),
    value("Flagged", "Since the processes began.", "short", own("peerwatch_flagged_total")),
    value("Lag", "For how long something has been waiting to be read.", "s", own("peerwatch_lag_seconds")),
    value(
        "Newest checkpoint",
        "Its age. In a log in which nothing comes, none is written.",
        "s",
        own("peerwatch_checkpoint_age_seconds"),
    ),
    value(
        "Differences",
        "Decisions that came out differently when the audit made them again: there must be none.",
        "none",
        own("peerwatch_audit_differences_total"),
    ),
    value("Alerts", "Alerts that fire.", "none", ALERTS),
    Panel(
        "Events",
        "Events that are read, and purchases that are judged, a second.",
        "ops",
        (
            Series(rate("peerwatch_events_total"), "{{instance}} events"),
            Series(rate("peerwatch_judged_total"), "{{instance}} judged"),
        ),
    ),
    Panel(
        "Flagged share",
        "Of the judged purchases: now, and over the last day.",
        "percentunit",
        (Series(FLAGGED_NOW, "{{instance}} now"), Series(own("peerwatch:flagged:ratio1d"), "{{instance}} last day")),
    ),
    Panel(
        "Rejected lines",
        "A second, by reason.",
        "ops",
        (Series(f"sum by (reason) ({rate('peerwatch_rejected_total')})", "{{reason}}"),),
        stacked=True,
    ),
    Panel("Lag in bytes", "What of a followed log is not read yet.", "bytes", (Series(own("peerwatch_lag_bytes")),)),
    Panel("Lag in seconds", "For how long something has waited.", "s", (Series(own("peerwatch_lag_seconds")),)),
    Panel("Lag in records", "Of a stream such as Kafka.", "short", (Series(own("peerwatch_lag_records")),)),
)
PIPELINE: Final = (
    Panel(
        "Busy",
        "The share of the time in which each actor works. The one at 100 % is the bottleneck.",
        "percentunit",
        (Series(rate("peerwatch_busy_seconds_total"), "{{actor}}"),),
        12,
        most=1,
    ),
    Panel(
        "Mailboxes",
        "Messages that wait. Those before the bottleneck are full.",
        "none",
        (Series(own("peerwatch_mailbox_depth"), "{{mailbox}}"),),
        12,
    ),
    Panel("Records written", "A second, by sink.", "ops", (Series(rate("peerwatch_sink_sent_total"), "{{sink}}"),)),
    Panel(
        "Writes",
        "How long the output waited for a sink's write: the 99th percentile and the mean.",
        "s",
        (Series(WRITES_P99, "{{sink}} p99"), Series(WRITES_MEAN, "{{sink}} mean")),
    ),
    Panel(
        "Failed writes",
        "Attempts that failed, and those that were made again, a second.",
        "ops",
        (
            Series(rate("peerwatch_sink_errors_total"), "{{sink}} errors"),
            Series(rate("peerwatch_sink_retries_total"), "{{sink}} retries"),
        ),
    ),
    Panel("Checkpoints", "How long the newest took.", "s", (Series(own("peerwatch_checkpoint_duration_seconds")),)),
    Panel("Checkpoint size", "Of the newest one.", "bytes", (Series(own("peerwatch_checkpoint_bytes")),)),
    Panel(
        "Checkpoints written",
        "A minute, and those that failed.",
        "short",
        (
            Series(f"60 * {rate('peerwatch_checkpoints_total')}", "{{instance}} written"),
            Series(f"60 * {rate('peerwatch_checkpoint_failures_total')}", "{{instance}} failed"),
        ),
    ),
    Panel("Processor", "Cores in use.", "none", (Series(rate("process_cpu_seconds_total")),)),
    Panel("Memory", "Resident.", "bytes", (Series(own("process_resident_memory_bytes")),)),
    Panel("Restarts", "Of the pipeline, since the process began.", "none", (Series(own("peerwatch_restarts_total")),)),
)
DASHBOARDS: Final = {"overview": ("peerwatch", OVERVIEW), "pipeline": ("peerwatch: pipeline", PIPELINE)}


def panels(found: tuple[Panel, ...]) -> list[dict[str, Any]]:
    """Panels as Grafana has them, from left to right and top to bottom."""
    x, y, written = 0, 0, []
    for number, panel in enumerate(found, 1):
        if x + panel.width > COLUMNS:
            x, y = 0, y + HEIGHT
        custom = {
            "fillOpacity": 20 if panel.stacked else 5,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
        defaults = {"unit": panel.unit, "min": 0, "custom": {} if panel.single else custom}
        if panel.most is not None:
            defaults["max"] = panel.most
        written.append(
            {
                "id": number,
                "type": "stat" if panel.single else "timeseries",
                "title": panel.title,
                "description": panel.text,
                "datasource": SOURCE,
                "gridPos": {"x": x, "y": y, "w": panel.width, "h": HEIGHT},
                "fieldConfig": {"defaults": defaults, "overrides": []},
                "targets": [
                    {
                        "refId": chr(65 + place),
                        "datasource": SOURCE,
                        "expr": each.expression,
                        "legendFormat": each.legend,
                    }
                    for place, each in enumerate(panel.series)
                ],
            }
        )
        x += panel.width
    return written


def dashboard(name: str) -> str:
    """The text of a dashboard's file."""
    title, found = DASHBOARDS[name]
    instance = "label_values(peerwatch_build_info, instance)"
    variables = [
        {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": "instance", "type": "query", "datasource": SOURCE, "refresh": 2, "multi": True, "includeAll": True,
            "allValue": ".*", "current": {"text": "All", "value": "$__all"},
            "query": {"query": instance, "refId": "instance"}, "definition": instance,
        },
    ]  # fmt: skip
    content = {
        "uid": f"peerwatch-{name}",
        "title": title,
        "tags": ["peerwatch"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": variables},
        "links": [{"type": "dashboards", "title": "peerwatch", "tags": ["peerwatch"], "keepTime": True}],
        "panels": panels(found),
    }
    return json.dumps(content, indent=2) + "\n"


def main() -> None:
    """Write them."""
    for name in DASHBOARDS:
        (DIRECTORY / f"{name}.json").write_text(dashboard(name))


if __name__ == "__main__":
    main()
