"""Submitted events: in the log first, judged once, whatever happens meanwhile; with real processes."""

import json
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from served import LIVE, NORMAL, served, write_logs
from support import purchase

pytestmark = pytest.mark.slow

PURCHASE = '{{"event_type":"purchase", "timestamp":"2017-06-13 11:33:02", "id": "1", "amount": "{}"}}\n'


def numbered(number: int) -> bytes:
    """A purchase that can be told from others by its amount."""
    return purchase(1, f"{10 + number}.25")


def judged(directory: Path) -> list[bytes]:
    """The amounts of the log, in its order."""
    return [json.loads(line)["amount"] for line in (directory / "stream").read_bytes().splitlines()]


def test_fifty_submitters_beside_another_writer(tmp_path: Path) -> None:
    """Each gets the verdict on its own purchase, and every line is in the log once, whoever wrote it."""
    write_logs(tmp_path, 0)
    with served(tmp_path) as service:
        service.until_ready()
        over = threading.Event()

        def write_others() -> None:
            with (tmp_path / "stream").open("ab", buffering=0) as log:
                for number in range(20_000):
                    if over.is_set():
                        return
                    log.write(purchase(2, f"{number}.75"))

        writer = threading.Thread(target=write_others)
        writer.start()

        def submit(number: int) -> list[tuple[str, dict[str, Any]]]:
            found = []
            with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
                for place in range(4):
                    lines = [numbered(1000 * number + 10 * place + each) for each in range(1 + number % 3)]
                    answer = client.post(
                        "/events", content=b"".join(lines), headers={"content-type": "application/x-ndjson"}
                    )
                    assert answer.status_code == 200, answer.text
                    found += [
                        (json.loads(line)["amount"], one)
                        for line, one in zip(lines, answer.json()["events"], strict=True)
                    ]
            return found

        try:
            with ThreadPoolExecutor(50) as pool:
                answers = [each for found in pool.map(submit, range(50)) for each in found]
        finally:
            over.set()
            writer.join()
        by_seq = {one["seq"]: one for one in service.decisions(user="1")}
        assert len(answers) == len(by_seq)
        for amount, answer in answers:
            decision = by_seq[answer["seq"]]
            assert decision["amount"] == amount
            assert {**decision, **answer}.items() >= decision.items() - {("label", None)}
        assert service.stop() == 0
        amounts = Counter(judged(tmp_path))
        assert max(amounts.values()) == 1
        assert {amount for amount, _ in answers} <= amounts.keys()


@pytest.mark.parametrize("attempt", range(3))
def test_a_kill_between_append_and_verdict_loses_and_repeats_nothing(tmp_path: Path, attempt: int) -> None:
    """What had been appended is judged once after the restart; what had not is not there at all."""
    write_logs(tmp_path, 0)
    sent = 0

    def submit(client: httpx.Client, begin: int) -> None:
        for number in range(begin, begin + 200):
            try:
                client.post("/events", content=numbered(number), headers={"content-type": "application/json"})
            except httpx.TransportError:
                return

    for _ in range(2):
        with served(tmp_path) as service:
            service.until_ready()
            size = (tmp_path / "stream").stat().st_size
            thread = threading.Thread(target=submit, args=(service.http, sent))
            thread.start()
            grown = size + (3 + 2 * attempt) * len(numbered(10))
            service.until(lambda grown=grown: (tmp_path / "stream").stat().st_size > grown)  # type: ignore[misc]
            service.kill()
            thread.join()
            sent += 200
    with served(tmp_path) as service:
        service.until_ready()
        amounts = judged(tmp_path)
        assert len(amounts) == len(set(amounts)) > 6
        assert [one["amount"] for one in service.decisions()] == amounts
        assert service.stop() == 0


def test_a_rotation_in_the_middle(tmp_path: Path) -> None:
    """Each verdict is on the purchase that was sent, though lines are counted anew and users are the same."""
    write_logs(tmp_path, 7)
    with served(tmp_path) as service:
        service.until_ready()
        number = 0
        for generation in range(4):
            for _ in range(3):
                (answer,) = service.submit(numbered(number)).json()["events"]
                decision = service.get(f"/decisions/{answer['seq']}")
                assert (decision["amount"], decision["line"]) == (f"{10 + number}.25", answer["line"])
                number += 1
            (tmp_path / "stream").rename(tmp_path / f"stream.{generation}")
            refused = service.submit(numbered(number))
            assert refused.status_code == 503, refused.text  # the log is not there for a moment
            (tmp_path / "stream").touch()
        assert len(service.decisions()) == 7 + number
        assert service.stop() == 0


def test_a_log_that_is_emptied_is_counted_anew(tmp_path: Path) -> None:
    """Also if it has grown beyond what it was before anything is submitted again."""
    write_logs(tmp_path, 7)
    log = tmp_path / "stream"
    with served(tmp_path) as service:
        service.until_ready()
        assert service.submit(numbered(1)).json()["events"][0]["line"] == 8
        os.truncate(log, 0)
        with log.open("ab") as file:
            file.write(purchase(3, "1") * 40)
        assert service.submit(numbered(2)).json()["events"][0]["line"] == 41
        assert service.stop() == 0


def test_a_log_that_ends_within_a_line_takes_nothing(tmp_path: Path) -> None:
    """Until its writer has finished the line: nothing is appended, and the client is told to come back."""
    write_logs(tmp_path, 3)
    log = tmp_path / "stream"
    with served(tmp_path) as service:
        service.until_ready()
        with log.open("ab", buffering=0) as file:
            file.write(NORMAL[:30])
            before = log.read_bytes()
            refused = service.submit(numbered(1))
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert "nothing has been appended" in refused.json()["detail"]
            assert log.read_bytes() == before
            file.write(NORMAL[30:])
        assert service.submit(numbered(1)).json()["events"][0]["line"] == 5
        assert service.stop() == 0


def test_a_client_that_goes_away_while_it_waits_is_no_matter(tmp_path: Path) -> None:
    """What it has sent is judged, and the next one gets an answer."""
    write_logs(tmp_path, 3)
    with served(tmp_path) as service:
        service.until_ready()
        for number in range(20):
            with httpx.Client(base_url=service.url, trust_env=False) as client, suppress(httpx.TransportError):
                client.post(
                    "/events", content=numbered(number), headers={"content-type": "application/json"},
                    timeout=httpx.Timeout(60, read=0.0001),
                )  # fmt: skip
        (answer,) = service.submit(numbered(99)).json()["events"]
        found = [one["amount"] for one in service.decisions(user="1")]
        assert found[-1] == "109.25"
        assert len(set(found)) == len(found)
        assert answer["seq"] == service.decisions()[-1]["seq"]
        assert service.stop() == 0
        assert "Traceback" not in service.said()


def test_a_stop_while_clients_wait_ends_in_time(tmp_path: Path) -> None:
    """Those that wait for verdicts get them or are told that they come later; the exit code is 0."""
    write_logs(tmp_path, 3)
    with served(tmp_path) as service:
        service.until_ready()
        answers: list[int] = []

        def submit(begin: int) -> None:
            with httpx.Client(base_url=service.url, timeout=60, trust_env=False) as client:
                for number in range(begin, begin + 10_000):
                    try:
                        answer = client.post(
                            "/events", content=numbered(number), headers={"content-type": "application/json"}
                        )
                    except httpx.TransportError:
                        return
                    answers.append(answer.status_code)

        threads = [threading.Thread(target=submit, args=(10_000 * number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        service.until(lambda: len(answers) > 20)
        assert service.stop() == 0
        for thread in threads:
            thread.join()
        assert set(answers) <= {200, 409, 504}
        assert "Traceback" not in service.said()


def test_events_are_taken_only_where_a_log_is_followed(tmp_path: Path) -> None:
    """A run over a log that ends says so; so does one that has ended."""
    write_logs(tmp_path, 3)
    with served(tmp_path, "batch", "stream", "out") as service:
        refused = service.submit(NORMAL)
        assert (refused.status_code, "follow: true" in refused.json()["detail"]) == (409, True)
        service.until(lambda: service.http.get("/ready").status_code == 200)
        assert service.http.post("/feedback", json={"seq": 1, "label": "normal"}).status_code == 409
        assert service.stop() == 0
    with served(tmp_path, *LIVE, "--idle-exit", "0") as service:
        service.until(lambda: b'"finished"' in service.http.get("/status").content)
        refused = service.submit(NORMAL)
        assert (refused.status_code, refused.json()["detail"]) == (409, "the run has ended")
        assert len(service.decisions()) == 3
        assert service.stop() == 0
