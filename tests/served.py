"""A real `peerwatch serve` for the tests: its own process on a loopback port, in a directory of its own."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from support import befriend, purchase, running, wait_until

FLAGGED = purchase(1, "500")
NORMAL = purchase(1, "10")
HEADER = b'{"D": 2, "T": 5}\n'


def write_logs(directory: Path, count: int = 60) -> None:
    """A batch log of two friends, and a stream log of so many purchases, of which every sixth is flagged."""
    earlier = b"".join(purchase(2, str(9 + i % 3)) for i in range(10))
    (directory / "batch").write_bytes(HEADER + befriend(1, 2) + earlier)
    (directory / "stream").write_bytes(
        b"".join(FLAGGED if i % 6 == 5 else purchase(1 + i % 2, str(9 + i % 3)) for i in range(count))
    )


class Served:
    """A running service, and a client of it."""

    def __init__(self, process: "subprocess.Popen[bytes]", said: Path) -> None:
        self.process = process
        self._said = said
        wait_until(lambda: re.search(r"serving at (\S+)\n", self.said()) is not None, process)
        found = re.search(r"serving at (\S+)\n", self.said())
        assert found is not None
        self.url = found[1]
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def said(self) -> str:
        """What it has written to standard error."""
        return self._said.read_text()

    def until(self, condition: Callable[[], bool]) -> None:
        """Look until it is so."""
        wait_until(condition, self.process)

    def until_ready(self) -> "Served":
        """Wait until the logs have been read to their ends."""
        self.until(lambda: self.http.get("/ready").status_code == 200)
        return self

    def get(self, path: str, **query: Any) -> Any:
        """What a path answers with, which must be 200."""
        answer = self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def decisions(self, **query: Any) -> list[dict[str, Any]]:
        """Decisions, page by page."""
        found: list[dict[str, Any]] = []
        page: dict[str, Any] = {"next": 0}
        while page["next"] is not None:
            page = self.get("/decisions", **{"after": page["next"], "limit": 1000, **query})
            found += page["decisions"]
        return found

    def submit(self, *lines: bytes, **options: Any) -> httpx.Response:
        """Submit events, as lines."""
        headers = {"content-type": "application/x-ndjson"}
        return self.http.post("/events", content=b"".join(lines), headers=headers, **options)

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask it to stop; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def kill(self) -> None:
        """Kill it, as a power failure would."""
        self.process.kill()
        self.process.wait()


def peerwatch(directory: Path, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """A command that comes to an end, in a directory."""
    command = [sys.executable, "-m", "peerwatch", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=300, **options)


LIVE = ("batch", "stream", "out", "--follow", "--state", "state")


@contextmanager
def served(
    directory: Path, *arguments: str, env: Mapping[str, str] | None = None, command: str = "serve"
) -> Iterator[Served]:
    """A service over the logs in a directory, which follows the stream log and keeps its state unless told not to."""
    given = arguments or LIVE
    where = () if "--serve" in given else ("--serve", "127.0.0.1:0")
    said = directory / "said"
    line = [sys.executable, "-m", "peerwatch", command, *given, *where]
    with said.open("wb") as file, running(line, cwd=directory, stderr=file, stdout=file, env=env) as process:
        service = Served(process, said)
        try:
            yield service
        finally:
            service.http.close()


class Listener:
    """Reads an event stream in a thread of its own: the events, as (name, id, data)."""

    def __init__(self, url: str, **options: Any) -> None:
        self.events: list[tuple[str, int, Any]] = []
        self.status = 0
        self.ended = False
        self._url = url
        self._options = options
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def ids(self) -> list[int]:
        """The numbers of the flagged purchases, as they came."""
        return [number for name, number, _ in self.events if name == "flagged"]

    def named(self, name: str) -> list[Any]:
        """The data of all events with a name."""
        return [data for each, _, data in self.events if each == name]

    def join(self) -> None:
        """Wait until the stream has ended."""
        self._thread.join()

    def _listen(self) -> None:
        try:
            with (
                httpx.Client(timeout=None, trust_env=False) as client,  # noqa: S113 (it may take as long as it takes)
                client.stream("GET", f"{self._url}/events", **self._options) as answer,
            ):
                self.status = answer.status_code
                fields: dict[str, str] = {}
                for line in answer.iter_lines():
                    if line:
                        name, _, value = line.partition(": ")
                        fields[name] = value
                    elif "event" in fields:
                        self.events.append((fields["event"], int(fields.get("id", 0)), json.loads(fields["data"])))
                        fields = {}
        except httpx.TransportError:
            pass
        finally:
            self.ended = True
