"""Small HTTP servers in threads of the test, which fail when they are told to."""

import random
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

from servers import LOOPBACK

Fault: TypeAlias = Callable[[str], int | None]
"""Asked `before` a request is processed and `after` it: the status to answer with, 0 to cut the connection, or None."""


class Quiet(BaseHTTPRequestHandler):
    """Answers any request with `status`, and says nothing."""

    protocol_version = "HTTP/1.1"
    status = 204

    def do_HEAD(self) -> None:
        """Answer."""
        self.answer(self.status)

    def do_POST(self) -> None:
        """Read the request, and answer."""
        self.body()
        self.answer(self.status)

    def body(self) -> bytes:
        """What the request holds."""
        return self.rfile.read(int(self.headers["Content-Length"]))

    def answer(self, code: int, content: bytes = b"", **headers: str) -> None:
        """Answer with a status; 0 cuts the connection."""
        if code == 0:
            self.close_connection = True
            return
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if code != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and code != 204:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None) -> Iterator[int]:
    """The port of a server in a thread."""
    server = _Server((LOOPBACK, 0), handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that has gone away is no error."""


def forwarding(port: int, fault: Fault) -> type[Quiet]:
    """What hands requests on to another server."""

    class Forwarding(Quiet):
        def do_POST(self) -> None:
            body = self.body()
            if (failed := fault("before")) is not None:
                self.answer(failed)
                return
            with closing(HTTPConnection(LOOPBACK, port, timeout=60)) as connection:
                connection.request("POST", self.path, body)
                answer = connection.getresponse()
                status, content = answer.status, answer.read()
            failed = fault("after")
            if failed is None:
                self.answer(status, content)
            else:
                self.answer(failed)

    return Forwarding


class Faults:
    """One request in ten fails before it is processed, one in ten after; by a status, or by a cut connection."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.count = 0

    def __call__(self, _: str) -> int | None:
        """What happens now."""
        if self._random.random() >= 0.1:
            return None
        self.count += 1
        return self._random.choice([0, 0, 408, 425, 429, 500, 502, 503, 504])


class Kills:
    """Stops each of some requests, before or after it is processed, until the process that waits for it is killed."""

    def __init__(self, moments: Sequence[tuple[int, str]]) -> None:
        """Requests have numbers from 1, over all processes."""
        self._moments = set(moments)
        self._request = 0
        self._reached = threading.Event()
        self._killed = threading.Event()
        self.count = 0

    def __call__(self, moment: str) -> int | None:
        """Wait, if it is the moment."""
        if moment == "before":
            self._request += 1
        if (self._request, moment) not in self._moments:
            return None
        self._killed.clear()
        self._reached.set()
        self._killed.wait()
        return 0

    def run(self, command: Sequence[str], directory: Path) -> None:
        """Run a command again and again, killed with SIGKILL at each moment, until it comes to its end."""
        while True:
            with subprocess.Popen(command, cwd=directory, stderr=subprocess.PIPE) as process:
                while process.poll() is None and not self._reached.wait(0.01):
                    pass
                if not self._reached.is_set():
                    assert process.stderr is not None
                    assert process.returncode == 0, process.stderr.read().decode()
                    return
                process.kill()
            self.count += 1
            self._reached.clear()
            self._killed.set()
