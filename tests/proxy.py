"""A port before a server's, which breaks connections when a test says so: before a request arrives, or its answer."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from servers import LOOPBACK, Server


class Proxy:
    """Forwards what clients send and what the server answers, piece by piece, unless `breaks` says to end it instead.

    `breaks` is asked before each piece whether the connection ends there; it is told whether that is an answer.
    """

    def __init__(self, server: Server, breaks: Callable[[bool], bool]) -> None:
        self._server = server
        self._breaks = breaks
        self._listener = socket.create_server((LOOPBACK, 0))
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]
        self.broken = 0

    @property
    def url(self) -> str:
        """The server's URL, by way of this."""
        return self._server.url.replace(f":{self._server.port}", f":{self.port}")

    def __enter__(self) -> Self:
        """Listen."""
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and end all connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for end in self._sockets:
            _shut(end)
        for thread in self._threads[1:]:
            thread.join()
        for end in self._sockets:
            end.close()

    def passes(self, piece: bytes) -> None:
        """A piece passes by."""

    def _start(self, action: Callable[[], None]) -> None:
        thread = threading.Thread(target=action)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket()
            self._sockets += (client, server)
            try:
                server.connect((LOOPBACK, self._server.port))
            except OSError:  # it is down: so is this
                _shut(client)
                continue
            self._start(lambda client=client, server=server: self._forward(client, server, answer=False))  # type: ignore[misc]
            self._start(lambda client=client, server=server: self._forward(server, client, answer=True))  # type: ignore[misc]

    def _forward(self, source: socket.socket, target: socket.socket, *, answer: bool) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                if self._breaks(answer):
                    self.broken += 1
                    break
                self.passes(piece)
                target.sendall(piece)
        _shut(source)
        _shut(target)


def _shut(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
