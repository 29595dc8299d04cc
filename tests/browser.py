"""A browser on the page, and the servers that it is opened from."""

import json
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright
from servers import LOOPBACK, Server, installed, require_program, status
from support import ROOT

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PATIENCE = 120_000
"""Milliseconds after which something is taken for never; no test waits for so long unless it fails."""
EXPECTED = "Failed to load resource"
"""What the browser itself notes of an answer such as 401; the page shows it in its own way."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; the test is skipped where it is not installed."""
    require_program("chromium")
    expect.set_options(timeout=PATIENCE)
    path = installed("chromium")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path, args=ARGUMENTS) as browser:
        yield browser


class Visit:
    """One tab on the page. What it must never do is noted, and asserted at its end."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.wrong: list[str] = []
        page.on("pageerror", lambda error: self.wrong.append(f"{error}"))
        page.on("console", self._said)
        page.context.on("request", self._requested)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(EXPECTED):
            self.wrong.append(message.text)

    def _requested(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme != "data" and address.hostname != LOOPBACK:
            self.wrong.append(f"a request to {request.url}")

    def open(self, view: str = "") -> None:
        """Open a view, and wait until the page is connected."""
        self.page.goto(f"{self.url}/{view}")
        self.page.locator("#connection[data-state=live]").wait_for()


@contextmanager
def visit(browser: Browser, url: str, **options: Any) -> Iterator[Visit]:
    """A tab of its own, with nothing kept from others."""
    with browser.new_context(**options) as context:
        context.set_default_timeout(PATIENCE)
        found = Visit(context.new_page(), url)
        yield found
        assert not found.wrong


class PageServer(Server):
    """A server that has the page."""

    programs: ClassVar[tuple[str, ...]] = ()
    standard_port = 8000

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.port}"

    def ask(self, path: str) -> Any:
        """What it answers."""
        with closing(HTTPConnection(LOOPBACK, self.port, timeout=60)) as connection:
            connection.request("GET", f"/{path}")
            return json.loads(connection.getresponse().read())


class StandInServer(PageServer):
    """The stand-in, over logs in a folder."""

    name = "stand-in"

    def __init__(self, logs: Path) -> None:
        super().__init__()
        self._logs = logs

    def command(self) -> list[str]:
        """What starts it."""
        return [sys.executable, str(ROOT / "tests" / "page_stand_in.py"), str(self.port), str(self._logs)]

    def answers(self) -> bool:
        """Whether it answers."""
        return status(self.port, "GET", "/status") == 200

    def control(self, what: str, body: Any) -> None:
        """Have it do something."""
        with closing(HTTPConnection(LOOPBACK, self.port, timeout=60)) as connection:
            connection.request("POST", f"/control/{what}", json.dumps(body))
            assert connection.getresponse().status == 200

    def flag(self, *decisions: dict[str, Any], lost: bool = False) -> None:
        """Flag purchases; those that are lost do not reach the stream."""
        self.control("flag?lost=1" if lost else "flag", decisions)


class PeerwatchServer(PageServer):
    """`peerwatch serve` on a log that it follows, with its state in its own folder."""

    name = "peerwatch"

    def __init__(self, logs: Path) -> None:
        super().__init__()
        self.logs = logs

    def prepare(self) -> None:
        """Have it judge by levels, and beside a challenger."""
        (self.directory / "run.yaml").write_text(
            "detector: {severity: {critical: 5, emergency: 10}}\nchallenger: {name: mad}\n"
        )

    @property
    def state(self) -> Path:
        """The state directory."""
        return self.directory / "state"

    def command(self) -> list[str]:
        """What starts it."""
        names = [str(self.logs / name) for name in ("batch_log.json", "stream_log.json", "flagged.json")]
        options = ["--config", "run.yaml", "--follow", "--state", str(self.state), "--quiet"]
        return [sys.executable, "-m", "peerwatch", "serve", *names, *options, "--serve", f"{LOOPBACK}:{self.port}"]

    def answers(self) -> bool:
        """Whether everything that is there has been judged."""
        return status(self.port, "GET", "/ready") == 200
