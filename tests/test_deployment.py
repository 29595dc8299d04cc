"""What `deploy/` holds is sound, as far as that can be seen without a container engine: no container is started."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from http_servers import Quiet, serving
from servers import installed, require_program
from support import ROOT

from peerwatch.settings.model import resolve
from peerwatch.settings.yaml_file import read_config

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
VARIABLE = re.compile(r"\$\{(\w+)")


def test_the_dockerfile_pleases_hadolint() -> None:
    """Not even with a hint."""
    require_program("hadolint")
    found = subprocess.run(
        [installed("hadolint"), "Dockerfile"], cwd=DEPLOY, capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")


def test_what_the_dockerfile_copies_and_installs_is_there() -> None:
    """Each path is in the repository and let through by the ignore file; each extra is one of the project's."""
    copied = {name for line in re.findall(r"^COPY ([^-].*)", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    let_through = re.findall(r"^!(.*)", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert copied == set(let_through)
    extras = re.search(r"'\.\[(.*)\]'", DOCKERFILE)
    assert extras is not None
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) <= known.keys()


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_tells_a_service_that_is_well_from_one_that_is_not(status: int, code: int) -> None:
    """Its very command, with another port, against a server that answers as /health does."""

    class Handler(Quiet):
        def do_GET(self) -> None:
            self.answer(status if self.path == "/health" else 404)

    (command,) = (json.loads(found) for found in re.findall(r"CMD (\[.*/health.*\])", DOCKERFILE))
    with serving(Handler) as port:
        script = command[2].replace("127.0.0.1:8000", f"127.0.0.1:{port}")
        found = subprocess.run([sys.executable, command[1], script], capture_output=True, check=False)
    assert found.returncode == code


def test_the_compose_file_follows_the_specification() -> None:
    """Every key is one of the Compose Specification's, with a value of its type; what a service needs is there."""
    compose_spec = pytest.importorskip("compose_spec", exc_type=ImportError)
    assert len(compose_spec.PyCompose.from_json(json.dumps(COMPOSE))) == len(SERVICES)
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= SERVICES.keys()
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            if source != "../notebooks":  # it need not hold anything
                assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]


def test_the_stack_is_whole() -> None:
    """Stores, stream, tracking, the service, monitoring, and notebooks; each is looked after if it fails."""
    assert SERVICES.keys() == {
        "postgres", "influxdb", "redis", "kafka", "mlflow", "data", "generator", "api", "prometheus", "alertmanager",
        "grafana", "jupyter",
    }  # fmt: skip
    for name, service in SERVICES.items():
        once = name in {"data", "generator"}
        assert service["restart"] == ("no" if once else "unless-stopped")
        assert once or "healthcheck" in service or service["image"].startswith("peerwatch")
        assert service["image"].startswith("peerwatch") or re.search(r":v?\d+\.\d+", service["image"])


def test_nothing_but_this_machine_reaches_a_port() -> None:
    """Each one is published on loopback."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_no_password_is_in_the_repository() -> None:
    """Each comes from the environment, where it must be set; the example names them all, and gives none."""
    text = (DEPLOY / "compose.yaml").read_text()
    example = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
    assert set(example.values()) == {""}
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert required | {COMPOSE["secrets"]["token"]["environment"]} == example.keys()
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN|AUTH$", name):
                assert VARIABLE.match(value)


def test_the_config_of_the_stack_is_one_that_a_run_takes() -> None:
    """Its keys are known, its sinks are services of the stack, and its variables reach the container."""
    path = DEPLOY / "config.yaml"
    settings, _ = resolve(read_config(path))
    urls = [settings.input.stream, settings.output.flagged, *(sink.to for sink in settings.sinks)]
    hosts = {re.sub(r".*@|.*?//", "", url or "", count=1).partition(":")[0] for url in urls}
    assert hosts <= SERVICES.keys()
    assert set(VARIABLE.findall(path.read_text())) == SERVICES["api"]["environment"].keys()
    assert settings.serve.token_file == "/run/secrets/token"  # noqa: S105 (a path)


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    """No setting that it does not know; a service that is confined as far as a compiler of kernels can be."""
    require_program("systemd-analyze")
    unit = tmp_path / "peerwatch.service"
    text = (DEPLOY / "peerwatch.service").read_text()
    unit.write_text(text.replace("/opt/peerwatch/bin/peerwatch", sys.executable))  # it has to be there
    for options in (["verify"], ["security", "--offline=yes", "--threshold=20"]):  # of 100
        command = [installed("systemd-analyze"), *options, str(unit)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (found.returncode, found.stderr) == (0, ""), found.stdout
    assert {"Type=notify", "WatchdogSec=60s"} <= set(text.splitlines())
