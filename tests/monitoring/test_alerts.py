"""Each alert fires when it should, reaches its receiver, and resolves: by a real Prometheus and Alertmanager."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from http_servers import Quiet, serving
from rewritten import write_alertmanager, write_prometheus
from servers import LOOPBACK, MONITORING, Alertmanager, Prometheus, installed, require_server

from peerwatch.connectors.server import SinkStatus, WriteTimes
from peerwatch.service.metrics import CONTENT_TYPE, RunCollector, exposition
from peerwatch.storage.status import CheckpointTally, Progressed, Status

pytestmark = pytest.mark.slow

TOKEN = "a token of the tests"  # noqa: S105 (of the tests alone)
DAY = 1_000_000
"""Purchases that were judged before the test looks: what an alert about the flag rate compares with."""
EACH = 100
"""Purchases that are judged between two scrapes."""


class Figures(NamedTuple):
    """What a run does between two scrapes, and how it is."""

    events: int = EACH
    flagged: int = 1
    rejected: int = 0
    errors: int = 0
    restarts: int = 0
    lag_bytes: int = 0
    lag_seconds: float = 0.0
    checkpoint_age: float = 5.0
    differences: int = 0
    answers: bool = True


class Trouble(NamedTuple):
    """How an alert is provoked, the severity with which it fires, and how a run is that is well."""

    figures: Figures
    severity: str = "warning"
    well: Figures = Figures()


TROUBLES = {
    "PeerwatchDown": Trouble(Figures(answers=False), "critical"),
    "PeerwatchStuck": Trouble(Figures(events=0, flagged=0, lag_bytes=100), "critical"),
    "PeerwatchVerdictsDiffer": Trouble(Figures(differences=1), "critical"),
    "PeerwatchLagging": Trouble(Figures(lag_bytes=100, lag_seconds=100)),
    "PeerwatchCheckpointOld": Trouble(Figures(checkpoint_age=2000)),
    "PeerwatchRejects": Trouble(Figures(rejected=10)),
    "PeerwatchFlagRateHigh": Trouble(Figures(flagged=50)),
    "PeerwatchFlagRateLow": Trouble(Figures(flagged=0), well=Figures(flagged=50)),
    "PeerwatchSinkErrors": Trouble(Figures(errors=1)),
    "PeerwatchRestarts": Trouble(Figures(restarts=1)),
}


class Run:
    """A run whose figures the test controls, seen by one scrape after the other."""

    def __init__(self, trouble: Trouble) -> None:
        self._well = trouble.well
        self.figures = trouble.well
        self._scrapes = 0
        self._totals = [0] * 5

    def status(self) -> Status:
        """How it is now: more than at the scrape before. It has judged for a day before the second one."""
        now, figures = time.time(), self.figures
        self._scrapes += 1
        day = DAY // EACH if self._scrapes == 2 else 1
        more = self._well if self._scrapes == 2 else figures
        counted = more.events, more.flagged, more.rejected, more.errors, more.restarts
        self._totals = [total + day * each for total, each in zip(self._totals, counted, strict=True)]
        events, flagged, rejected, errors, restarts = self._totals
        return Status(
            pid=1,
            running=True,
            updated=now,
            through=events,
            totals={"recomputed": 9, "differences": figures.differences},
            lag_bytes=figures.lag_bytes,
            caught_up=now - figures.lag_seconds,
            checkpoint=now - figures.checkpoint_age,
            restarts=restarts,
            mailboxes={},
            begun=now,
            progressed=Progressed(events, events, flagged),
            rejects={"json": rejected},
            sinks=[SinkStatus("flagged", flagged, errors, errors, WriteTimes())],
            checkpoints=CheckpointTally(1),
        )


class Runs:
    """A run for each alert, which one HTTP server shows to whoever has the token."""

    def __init__(self) -> None:
        self.of = {name: Run(trouble) for name, trouble in TROUBLES.items()}
        runs = self.of

        class Handler(Quiet):
            def do_GET(self) -> None:
                run = runs[self.path.strip("/")]
                if self.headers["Authorization"] != f"Bearer {TOKEN}":
                    self.answer(401)
                elif not run.figures.answers:
                    self.answer(503)
                else:
                    self.answer(200, exposition(RunCollector(run.status)), Content_Type=CONTENT_TYPE)

        self.handler = Handler

    def targets(self, port: int) -> str:
        """Where Prometheus finds them, each with the name of its alert."""
        return "".join(
            f'- targets: ["{LOOPBACK}:{port}"]\n  labels: {{instance: {name}, __metrics_path__: /{name}}}\n'
            for name in self.of
        )


class Delivery(NamedTuple):
    """An alert as a webhook got it: where to, which, of whom, and whether it is `firing` or `resolved`."""

    path: str
    alert: str
    instance: str
    state: str
    severity: str


class Webhook:
    """Keeps what Alertmanager delivers."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._deliveries: list[Delivery] = []
        webhook = self

        class Handler(Quiet):
            def do_POST(self) -> None:
                webhook.keep(self.path, self.body())
                self.answer(200)

        self.handler = Handler

    def keep(self, path: str, body: bytes) -> None:
        """Keep the alerts of a request."""
        with self._changed:
            for alert in json.loads(body)["alerts"]:
                labels = alert["labels"]
                found = Delivery(path, labels["alertname"], labels["instance"], alert["status"], labels["severity"])
                self._deliveries.append(found)
            self._changed.notify_all()

    def wait_for(self, wanted: Callable[[list[Delivery]], bool]) -> None:
        """Wait until what was delivered is as wanted, however long it takes."""
        with self._changed:
            self._changed.wait_for(lambda: wanted(self._deliveries))


@pytest.fixture
def monitored(tmp_path: Path) -> Iterator[tuple[Runs, Webhook]]:
    """Runs that Prometheus watches, and the webhook that Alertmanager tells."""
    for kind in (Prometheus, Alertmanager):
        require_server(kind)
    runs, webhook = Runs(), Webhook()
    with ExitStack() as stack:
        alertmanager = Alertmanager()
        alertmanager.config = write_alertmanager(tmp_path, stack.enter_context(serving(webhook.handler)))
        stack.enter_context(alertmanager)
        prometheus = Prometheus()
        targets = runs.targets(stack.enter_context(serving(runs.handler)))
        prometheus.config = write_prometheus(tmp_path / "prometheus", targets, alertmanager.port, TOKEN)
        stack.enter_context(prometheus)
        yield runs, webhook


def test_each_alert_fires_reaches_its_receiver_and_resolves(monitored: tuple[Runs, Webhook]) -> None:
    """By its severity at one webhook or the other, firing while there is trouble and resolved when it is over.

    The rules are those of `monitoring/`, with windows and waits a three-hundredth as long.
    """
    runs, webhook = monitored
    for name, trouble in TROUBLES.items():
        runs.of[name].figures = trouble.figures
    paths = {"critical": "/critical", "warning": "/warnings"}
    for state in ("firing", "resolved"):
        wanted = {Delivery(paths[each.severity], name, name, state, each.severity) for name, each in TROUBLES.items()}
        webhook.wait_for(lambda found, wanted=wanted: wanted <= set(found))  # type: ignore[misc]
        for name, trouble in TROUBLES.items():
            runs.of[name].figures = trouble.well


def test_every_alert_of_the_rules_is_provoked() -> None:
    """None has been added without a test; each has a severity that a route knows, and says what to do."""
    rules = [
        rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]
    ]
    alerts = {rule["alert"]: rule for rule in rules if "alert" in rule}
    assert alerts.keys() == TROUBLES.keys()
    for name, rule in alerts.items():
        assert rule["labels"] == {"severity": TROUBLES[name].severity}
        assert rule["annotations"].keys() == {"summary", "description"}
    tested = set(re.findall(r"alertname: (\w+)", (MONITORING / "alerts_test.yml").read_text()))
    assert tested == alerts.keys()


def test_prometheus_own_tools_find_nothing_wrong(tmp_path: Path) -> None:
    """The rules pass their unit tests, and both configurations are valid as they stand."""
    for kind in (Prometheus, Alertmanager):
        require_server(kind)
    config = write_prometheus(tmp_path, "- targets: []\n")
    for command in (
        [installed("promtool"), "test", "rules", "alerts_test.yml"],
        [installed("promtool"), "check", "rules", "--lint-fatal", "alerts.yml"],
        [installed("promtool"), "check", "config", "--lint-fatal", str(config)],
        [installed("amtool"), "check-config", "alertmanager.yml"],
    ):
        found = subprocess.run(command, cwd=MONITORING, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr
