"""The description of the API is complete and honest: schemathesis sends what it allows, and what it does not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from served import LIVE, served, write_logs

pytestmark = pytest.mark.slow

CONFIG = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 400, 404, 409, 422, 429, 503, 504]
"""
"""What a schema allows may still be none of the run's: an event that has not been judged, the 31st of February."""
STREAM = "events_events_get"
"""It never ends, and has tests of its own."""


@pytest.mark.parametrize(("address", "rate"), [("127.0.0.1:0", 0), ("0.0.0.0:0", 0), ("127.0.0.1:0", 20)])
def test_the_service_does_what_its_description_says(tmp_path: Path, address: str, rate: int) -> None:
    """No failure of any check over all routes, with a token and without, and with a limit that is reached."""
    write_logs(tmp_path)
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    (tmp_path / "c.yaml").write_text(f"serve: {{requests_per_second: {rate}}}\n")
    examples = str(max(3, settings().max_examples // 5))
    with served(tmp_path, "-c", "c.yaml", *LIVE, "--serve", address) as service:
        token = tmp_path / "state" / "token"
        headers = ["--header", f"Authorization: Bearer {token.read_text().strip()}"] if token.exists() else []
        if token.exists():
            service.http.headers["authorization"] = headers[1].partition(": ")[2]
        service.until_ready()
        url = service.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 (it is what is replaced)
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(tmp_path / "schemathesis.toml"),
            "run", f"{url}/openapi.json", *headers, "--exclude-operation-id", STREAM, "--max-examples", examples,
            "--phases", "examples,coverage,fuzzing", "--request-timeout", "120", "--generation-deterministic",
            "--suppress-health-check", "all", "--no-color",
        ]  # fmt: skip
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
        assert "Unresolvable references" not in done.stdout
        assert service.stop() == 0
        assert "Traceback" not in service.said(), service.said()


def test_every_route_is_described(tmp_path: Path) -> None:
    """With all that it may answer; every reference leads somewhere; a token is asked for only where one is needed."""
    write_logs(tmp_path)
    with served(tmp_path) as service:
        service.until_ready()  # from then on it answers to signals
        found = service.get("/openapi.json")
        text = json.dumps(found)
        assert service.stop() == 0
    assert {"/health", "/ready", "/status", "/decisions", "/decisions/{seq}", "/explain/{seq}", "/users/{user}",
            "/radius", "/bridges", "/feedback", "/events", "/sweep", "/sweep/{job}", "/challenger", "/notices",
            "/datasets", "/datasets/{name}/stats", "/detect", "/detect/batch",
            "/metrics"} == found["paths"].keys()  # fmt: skip
    named = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert named <= found["components"]["schemas"].keys()
    assert "HTTPValidationError" not in text
    assert "x-components" not in text
    assert "securitySchemes" not in text
    operations: list[tuple[str, dict[str, Any]]] = [
        (path, operation) for path, methods in found["paths"].items() for operation in methods.values()
    ]
    for path, operation in operations:
        assert operation["description"], path
        assert {"403", "421", "429"} <= operation["responses"].keys(), path
        assert "401" not in operation["responses"], path
