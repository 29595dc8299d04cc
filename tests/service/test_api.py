"""Every route of a real service, with what it refuses."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import FLAGGED, LIVE, NORMAL, Listener, Served, served, write_logs
from support import befriend, purchase

from peerwatch.service.security import HEADERS


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service over a log that is followed, caught up with."""
    directory = tmp_path_factory.mktemp("api")
    write_logs(directory)
    (directory / "c.yaml").write_text("detector: {severity: {critical: 1.5, emergency: 100}}\n")
    with served(directory, "-c", "c.yaml", *LIVE) as service:
        yield service.until_ready()
        assert service.stop() == 0
        assert "rror" not in service.said(), service.said()


def problem(service: Served, method: str, path: str, **options: Any) -> dict[str, Any]:
    """What a request is refused with, which must be a problem with all the headers."""
    answer = service.http.request(method, path, **options)
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    for name, value in HEADERS.items():
        assert answer.headers[name.decode()] == value.decode(), name
    found: dict[str, Any] = answer.json()
    assert found["status"] == answer.status_code
    assert {"type", "title", "detail"} <= found.keys()
    return found


def test_health_and_readiness(service: Served) -> None:
    """All is well once the logs have been read."""
    assert service.get("/health") == {"status": "ok", "reason": None}
    assert service.get("/ready") == {"ready": True, "waiting_for": []}


def test_the_status_counts_what_has_been_judged(service: Served) -> None:
    """As the decisions do."""
    status = service.get("/status")
    assert (status["D"], status["T"], status["state"], status["stream"]) == (2, 5, "running", "stream")
    assert status["totals"]["judged"] >= 60
    assert status["totals"]["flagged"] >= 10
    assert re.fullmatch("[0-9a-f]{16}", status["run"])
    assert status["labels"] is True


def test_decisions_by_everything_that_can_be_asked_for(service: Served) -> None:
    """Number, verdict, user, time, severity, amount, order and limit: each gives what a look at all of them gives."""
    every = service.decisions()
    assert [one["seq"] for one in every] == sorted({one["seq"] for one in every})
    assert all(isinstance(one["amount"], str) and one["time"].endswith("Z") for one in every)
    middle = every[len(every) // 2]
    queries: list[tuple[dict[str, Any], Any]] = [
        ({"flagged": "true"}, lambda one: one["flagged"]),
        ({"flagged": "false"}, lambda one: not one["flagged"]),
        ({"user": "1"}, lambda one: one["user"] == "1"),
        ({"user": "nobody"}, lambda _: False),
        ({"after": middle["seq"]}, lambda one: one["seq"] > middle["seq"]),
        ({"before": middle["seq"]}, lambda one: one["seq"] < middle["seq"]),
        ({"severity": "critical"}, lambda one: one["severity"] == "critical"),
        ({"severity": "emergency"}, lambda one: one["severity"] == "emergency"),
        ({"severity": "critical", "flagged": "false"}, lambda _: False),
        ({"min_amount": "500"}, lambda one: float(one["amount"]) >= 500),
        ({"min_amount": "500.000001"}, lambda one: float(one["amount"]) > 500),
        ({"min_amount": "1e1"}, lambda one: float(one["amount"]) >= 10),
        ({"since": "2017-06-13 11:33:01"}, lambda one: one["time"] >= "2017-06-13T11:33:01"),
        ({"until": "2017-06-13T11:33:01Z"}, lambda one: one["time"] <= "2017-06-13T11:33:01.000000Z"),
        ({"since": "2017-06-13 11:33:02"}, lambda one: one["time"] >= "2017-06-13T11:33:02"),
        ({"until": "2017-06-13 13:33:01+02:01"}, lambda _: False),
    ]
    for query, wanted in queries:
        expected = [one for one in every if wanted(one)]
        found = service.get("/decisions", limit=1000, **query)
        assert (found["decisions"], found["next"]) == (expected, None), query
    page = service.get("/decisions", limit=7, order="desc")
    assert page["decisions"] == every[:-8:-1]
    assert page["next"] == page["decisions"][-1]["seq"]
    again = service.get("/decisions", limit=1000, order="desc", before=page["next"])
    assert page["decisions"] + again["decisions"] == every[::-1]
    assert service.get(f"/decisions/{middle['seq']}") == middle


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/decisions/1", 404, "there is no decision on event 1"),  # a friendship
        ("/decisions/999999", 404, "there is no decision on event 999,999"),
        ("/decisions/0", 422, "seq"),
        ("/decisions/x", 422, "seq"),
        (f"/decisions/{2**62 + 1}", 422, "seq"),
        ("/decisions?limit=0", 422, "limit"),
        ("/decisions?limit=1001", 422, "limit"),
        ("/decisions?flagged=perhaps", 422, "flagged"),
        ("/decisions?after=-1", 422, "after"),
        ("/decisions?since=yesterday", 422, "since"),
        ("/decisions?until=2017-13-01%2000:00:00", 422, "until"),
        ("/decisions?severity=mild", 422, "severity"),
        ("/decisions?order=up", 422, "order"),
        ("/decisions?min_amount=much", 422, "min_amount is not a finite decimal number"),
        ("/decisions?min_amount=-1", 422, "min_amount is negative"),
        ("/decisions?min_amount=1e999", 422, "min_amount"),
        ("/notices?limit=x", 422, "limit"),
        ("/challenger?after=x", 422, "after"),
        ("/events?after=x", 422, "after"),
        ("/nowhere", 404, "/openapi.json lists what there is"),
        ("/static/nowhere.js", 404, ""),
        ("/static/../app.py", 404, ""),
        ("/static/%2e%2e/app.py", 404, ""),
        ("/docs", 404, ""),
    ],
)
def test_what_cannot_be_answered_is_a_problem(service: Served, path: str, status: int, says: str) -> None:
    """With its status and a sentence."""
    found = problem(service, "GET", path)
    assert (found["status"], says in found["detail"]) == (status, True), found


def test_other_methods_are_refused(service: Served) -> None:
    """With those that a path takes."""
    for path in ("/health", "/decisions", "/status", "/notices"):
        for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            answer = service.http.request(method, path, content=b"{}", headers={"content-type": "application/json"})
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET"), (method, path)
    assert problem(service, "PUT", "/feedback")["status"] == 405
    assert "access-control-allow-origin" not in service.http.options("/decisions").headers


def test_a_page_of_another_origin_can_neither_label_nor_submit(service: Served) -> None:
    """Though it is on loopback, where no token is needed."""
    for path in ("/feedback", "/events"):
        headers = {"origin": "http://evil.example", "content-type": "application/json"}
        assert problem(service, "POST", path, content=b"{}", headers=headers)["status"] == 403
        assert problem(service, "POST", path, content=b"{}", headers={"host": "evil.example"})["status"] == 421
        assert problem(service, "POST", path, content=b"{}", headers={"content-type": "text/plain"})["status"] == 415


def test_the_page_and_its_files_need_nothing_from_elsewhere(service: Served) -> None:
    """It is served with its policy, and asked for anew each time."""
    page = service.http.get("/")
    assert (page.status_code, page.headers["content-type"].split(";")[0]) == (200, "text/html")
    assert page.headers["cache-control"] == "no-cache"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert service.http.get("/static/index.html").status_code == 200


@pytest.mark.parametrize("path", ["/users/1", "/radius", "/bridges"])
@pytest.mark.parametrize("at", ["yesterday", "-1", "2017-06-13"])
def test_what_is_no_moment_is_told(service: Served, path: str, at: str) -> None:
    """It is not a user that cannot be found."""
    found = problem(service, "GET", path, params={"user": "1", "at": at})
    assert (found["status"], found["pointer"]) == (422, "at")
    assert f"at is '{at}'; expected the number of an event, or a time as YYYY-MM-DD HH:MM:SS" in found["detail"]


def test_labels_show_on_decisions(service: Served) -> None:
    """The newest one counts; what the run has not judged yet, and what is no label, is refused."""
    seq = service.decisions(flagged="true")[0]["seq"]
    for label in ("anomaly", "normal", "anomaly"):
        answer = service.http.post("/feedback", json={"seq": seq, "label": label})
        assert (answer.status_code, answer.json()) == (202, {"seq": seq, "label": label})
        assert service.get(f"/decisions/{seq}")["label"] == label
    bodies: list[tuple[Any, int]] = [
        ({"seq": 10**9, "label": "normal"}, 409), ({"seq": 0, "label": "normal"}, 422), ({"seq": seq}, 422),
        ({"seq": seq, "label": "odd"}, 422), ({"seq": str(seq), "label": "normal"}, 422), ([], 422), ("x", 422),
        ({"seq": seq, "label": "normal", "more": 1}, 422), ({"seq": 1.5, "label": "normal"}, 422),
    ]  # fmt: skip
    for body, status in bodies:
        assert problem(service, "POST", "/feedback", json=body)["status"] == status, body
    headers = {"content-type": "application/json"}
    for content in (b"", b"{", b"\xff", b'{"seq": 1} x'):
        assert problem(service, "POST", "/feedback", content=content, headers=headers)["status"] in {400, 422}, content
    assert service.get(f"/decisions/{seq}")["label"] == "anomaly"


def test_notices_and_disagreements(service: Served) -> None:
    """There are none without a challenger and without learning."""
    assert service.get("/notices") == {"notices": []}
    assert service.get("/challenger", after=5, limit=10) == {"notices": []}


def test_submitted_events_are_judged(service: Served) -> None:
    """As an object, an array and lines; friendships are accepted; and each is in the log as it was sent."""
    (answer,) = service.http.post("/events", json=json.loads(FLAGGED)).json()["events"]
    assert (answer["status"], answer["flagged"], answer["window_size"]) == ("judged", True, 5)
    assert service.get(f"/decisions/{answer['seq']}")["line"] == answer["line"]
    both = [json.loads(befriend(1, 77)), json.loads(NORMAL)]
    found = service.http.post("/events", content=f"\n [{json.dumps(both[0])},\r\n{json.dumps(both[1])}\n]".encode(),
                              headers={"content-type": "application/json"}).json()["events"]  # fmt: skip
    assert [one["status"] for one in found] == ["accepted", "judged"]
    assert (found[0]["seq"], found[0]["flagged"], found[1]["line"]) == (None, None, found[0]["line"] + 1)
    lines = service.submit(b"\r\n", NORMAL.replace(b"\n", b"\r\n"), b"\n", purchase("Zo\u00eb", "7").rstrip(b"\n"))
    assert [one["window_size"] for one in lines.json()["events"]] == [5, 0]
    assert lines.json()["events"][1]["mean"] is None


@pytest.mark.parametrize(
    ("content", "kind", "status", "says"),
    [
        (b"", "json", 400, "not JSON"),
        (b"{", "json", 400, "not JSON"),
        (b"[1", "json", 400, "not JSON"),
        (b"\xff", "json", 400, "not JSON"),
        (NORMAL + b"x", "json", 400, "not JSON"),
        (b"1", "json", 422, "event 0"),
        (b"[]", "json", 422, "expected 1 to 1,000 events, got 0"),
        (b"[" + b",".join([NORMAL] * 1001) + b"]", "json", 422, "expected 1 to 1,000 events, got 1,001"),
        (b"\n \r\n", "x-ndjson", 422, "expected 1 to 1,000 events, got 0"),
        (NORMAL + b"junk\n", "x-ndjson", 422, "event 1"),
        (b"[" + NORMAL + b', {"event_type": "refund"}]', "json", 422, "event 1: unknown"),
        (purchase(1, "-5"), "json", 422, "event 0"),
        (purchase(1, "5", "yesterday"), "json", 422, "event 0"),
        (befriend(1, 1), "json", 422, "event 0"),
        (b'{"D": 1, "T": 5}', "json", 422, "event 0"),
        (b"[" * 200 + b"]" * 200, "json", 422, "event 0"),
        (b"[" * 100_000 + b"]" * 100_000, "json", 400, "not JSON"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "json", 400, "not JSON"),
        (NORMAL, "xml", 415, ""),
        (b" " * 1_048_577, "json", 413, "1,048,576 bytes"),
    ],
)  # fmt: skip
def test_events_that_are_invalid_append_nothing(
    service: Served, content: bytes, kind: str, status: int, says: str
) -> None:
    """Not even those before the bad one."""
    log = Path(service._said).with_name("stream")  # noqa: SLF001
    before = log.read_bytes()
    found = problem(service, "POST", "/events", content=content, headers={"content-type": f"application/{kind}"})
    assert (found["status"], says in found["detail"]) == (status, True), found
    assert log.read_bytes() == before


def test_the_event_stream_tells_everything_at_once(service: Served) -> None:
    """The status comes first, a flagged purchase as it is judged, with its number; those before only if asked for."""
    listener = Listener(service.url)
    service.until(lambda: bool(listener.named("status")))
    assert listener.ids() == []
    (answer,) = service.submit(FLAGGED).json()["events"]
    service.until(lambda: answer["seq"] in listener.ids())
    every = [one["seq"] for one in service.decisions(flagged="true")]
    for options in ({"params": {"after": 0}}, {"headers": {"last-event-id": "0"}}):
        again = Listener(service.url, **options)
        service.until(lambda again=again: len(again.ids()) >= len(every))  # type: ignore[misc]
        assert again.ids() == every
    for last in ("x", "-1", "9" * 30, "\u0663".encode()):  # no number: as if it were not there
        other = Listener(service.url, headers={"last-event-id": last})
        service.until(lambda other=other: bool(other.named("status")))  # type: ignore[misc]
        assert other.ids() == []


def test_what_is_no_http_is_answered_and_not_logged(service: Served) -> None:
    """Standard error is not for anybody who can connect."""
    port = int(service.url.rpartition(":")[2])
    for content in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(content)
            assert b"400" in raw.recv(100) or content.startswith(b"\x16")
    headers = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-key": "x", "sec-websocket-version": "13"}
    assert service.http.get("/events?after=x", headers=headers).status_code == 422
    assert "upgrade" not in service.said()
