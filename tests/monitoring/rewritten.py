"""The configurations of `monitoring/` for a test: its own ports, and durations a three-hundredth as long."""

import re
import shutil
from pathlib import Path

from servers import LOOPBACK, MONITORING

SHORTER = 300
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
SCRAPE_INTERVAL = "500ms"
SHORTEST_WINDOW_MS = 3000
"""A window must hold two scrapes of a busy machine."""


def shorter(text: str, at_least: int = 1) -> str:
    """A duration such as 5m, a three-hundredth as long, but so many milliseconds at least."""
    return f"{max(at_least, int(text[:-1]) * SECONDS[text[-1]] * 1000 // SHORTER)}ms"


def shortened(text: str) -> str:
    """A file of alert rules or routes with all its durations shorter."""
    text = re.sub(r"(?<=\[)\d+[smhd](?=\])", lambda found: shorter(found[0], SHORTEST_WINDOW_MS), text)
    return re.sub(r"((?:for|group_\w+|repeat_interval): )(\d+[smhd])", lambda found: found[1] + shorter(found[2]), text)


def write_prometheus(directory: Path, targets: str, alertmanager: int | None = None, token: str = "none") -> Path:  # noqa: S107 (of the tests alone)
    """The configuration of a Prometheus that scrapes these targets; returns its path."""
    shutil.copytree(MONITORING, directory, dirs_exist_ok=True)
    path = directory / "prometheus.yml"
    path.write_text(re.sub(r"_interval: 15s", f"_interval: {SCRAPE_INTERVAL}", path.read_text()))
    rules = directory / "alerts.yml"
    rules.write_text(shortened(rules.read_text()))
    (directory / "targets" / "peerwatch.yml").write_text(targets)
    others = [] if alertmanager is None else [f"{LOOPBACK}:{alertmanager}"]
    (directory / "targets" / "alertmanager.yml").write_text(f"- targets: {others}\n")
    (directory / "token").write_text(token)
    return path


def write_alertmanager(directory: Path, receiver: int) -> Path:
    """The configuration of an Alertmanager that tells this receiver; returns its path."""
    path = directory / "alertmanager.yml"
    text = shortened((MONITORING / "alertmanager.yml").read_text())
    path.write_text(text.replace("127.0.0.1:9095", f"{LOOPBACK}:{receiver}"))
    return path
