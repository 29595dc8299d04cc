"""A webhook's receiver as its docs describe one: it checks the signature, and keeps each record with its key once.

`python tests/receiver.py PORT DIRECTORY` receives until it is killed. What it has answered survives that.
"""

import base64
import hashlib
import hmac
import json
import sqlite3
import sys
from contextlib import closing
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Lock
from typing import Any

from http_servers import Fault, Quiet
from servers import LOOPBACK, Server, status

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwQ2xvdWQh"  # noqa: S105 (of the tests alone)


def is_signed(headers: Any, body: bytes) -> bool:
    """Whether a request comes from somebody who knows the secret, as Standard Webhooks 1.0 has it."""
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return any(
        hmac.compare_digest(each.removeprefix("v1,"), expected) for each in headers.get("webhook-signature", "").split()
    )


class Received:
    """The records that have come, each once a path: its run, kind and number are its key."""

    def __init__(self, file: Path) -> None:
        self._lock = Lock()
        self._database = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS received (place INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT, run TEXT,"
            " kind TEXT, seq INTEGER, line TEXT, UNIQUE (path, run, kind, seq))"
        )
        self.repeats = 0

    def keep(self, path: str, records: list[dict[str, Any]]) -> None:
        """Keep the records that are new."""
        rows = [(path, each["run"], each["kind"], each["seq"], each.get("line", "")) for each in records]
        with self._lock:
            self._database.execute("BEGIN")
            for row in rows:
                found = self._database.execute(
                    "INSERT OR IGNORE INTO received (path, run, kind, seq, line) VALUES (?, ?, ?, ?, ?)", row
                )
                self.repeats += found.rowcount == 0
            self._database.execute("COMMIT")

    def lines(self, path: str, run: str | None = None) -> bytes:
        """The lines of a run's flagged purchases, in the order in which they came first."""
        with self._lock:
            return lines(self._database, path, run)

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def lines(database: sqlite3.Connection, path: str, run: str | None) -> bytes:
    """The lines that were received, in the order in which they came; those of all runs if none is named."""
    rows = database.execute(
        "SELECT line FROM received WHERE path = ? AND run = coalesce(?, run) ORDER BY place", (path, run)
    )
    return "".join(f"{line}\n" for (line,) in rows).encode()


def handler(received: Received, fault: Fault = lambda _: None) -> type[Quiet]:
    """What answers requests."""

    class Handler(Quiet):
        status = 405

        def do_POST(self) -> None:
            body = self.body()
            if (failed := fault("before")) is not None:
                self.answer(failed)
                return
            content = json.loads(body)
            key = self.headers["Idempotency-Key"]
            records = content if isinstance(content, list) else [content]
            numbers = f"{records[0]['seq']}-{records[-1]['seq']}" if isinstance(content, list) else content["seq"]
            known = key == self.headers["webhook-id"] == f"{records[0]['run']}:{records[0]['kind']}:{numbers}"
            if not known or not is_signed(self.headers, body):
                self.answer(401)
                return
            received.keep(self.path, records)
            failed = fault("after")
            self.answer(204 if failed is None else failed)

    return Handler


class Receiver(Server):
    """A receiver in a process of its own."""

    name = "receiver"
    programs = ()
    standard_port = 8087

    @property
    def url(self) -> str:
        """As a user writes it."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def file(self) -> Path:
        """Where it keeps what has come."""
        return self.directory / "received.db"

    def command(self) -> list[str]:
        """What starts it."""
        return [sys.executable, __file__, str(self.port), str(self.file)]

    def answers(self) -> bool:
        """Whether it answers."""
        return status(self.port, "HEAD", "/") == 405

    def lines(self, path: str, run: str) -> bytes:
        """The lines of a run's flagged purchases, in the order in which they came first."""
        with closing(sqlite3.connect(self.file)) as database:
            return lines(database, path, run)


def main() -> None:
    """Receive."""
    port, file = sys.argv[1:]
    ThreadingHTTPServer((LOOPBACK, int(port)), handler(Received(Path(file)))).serve_forever()


if __name__ == "__main__":
    main()
