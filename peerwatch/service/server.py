"""The HTTP server, inside the event loop of the run."""

import errno
import ipaddress
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import anyio
import uvicorn

from peerwatch.errors import Unreachable, UsageError
from peerwatch.readable import shown

CLOSE_SECONDS: Final = 3
"""How long requests may take that are being answered when the service ends."""
BACKLOG: Final = 128


class Server(uvicorn.Server):
    """A server that leaves signals to the run."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is being answered, and stop. A client that does not read it is cut off after a while."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._cut_off)
            await super().shutdown(sockets)
            tasks.cancel_scope.cancel()

    async def _cut_off(self) -> None:
        await anyio.sleep(CLOSE_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def server_of(app: Any) -> Server:
    """The server of an application, not started yet."""
    config = uvicorn.Config(
        app,
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anybody can send them
        timeout_graceful_shutdown=2 * CLOSE_SECONDS,
        ws="none",
        log_level="error",
    )
    return Server(config)


def parse_address(text: str) -> tuple[str, int]:
    """The host and port in `HOST:PORT`, `[HOST]:PORT` or `:PORT`, which is on loopback.

    Raises:
        UsageError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"serve.listen is {text!r}; expected HOST:PORT, such as 127.0.0.1:8000")
    return host or "127.0.0.1", int(port)


def listen(text: str) -> socket.socket:
    """A socket that listens at an address.

    Raises:
        Unreachable: another program has the port.
        UsageError: it cannot; the address is not this machine's, say.
    """
    host, port = parse_address(text)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, ValueError) as error:  # a name that cannot be encoded is a ValueError
        why = error.strerror if isinstance(error, OSError) else "that is no name of a host"
        raise UsageError(f"cannot listen at {text}: {why}; name another address with --serve") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        what = "port" if error.errno in {errno.EADDRINUSE, errno.EACCES} else "address"
        refused = Unreachable if error.errno == errno.EADDRINUSE else UsageError
        raise refused(f"cannot listen at {text}: {error.strerror}; name another {what} with --serve") from None
    listener.setblocking(False)  # noqa: FBT003 (it has no other form)
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach a socket."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def url_of(listener: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def names_of(listener: socket.socket, more: tuple[str, ...]) -> frozenset[str] | None:
    """The names by which a service may be called; None for any: where it has a token, no other page can ask it."""
    if not is_loopback(listener) and not more:
        return None
    host, port = listener.getsockname()[:2]
    host = f"[{host}]" if ":" in host else host
    bare = {host, "localhost", "127.0.0.1", "[::1]", *(name.lower() for name in more)}
    return frozenset({*bare, *(f"{name}:{port}" for name in bare)})


def token_in(path: Path) -> str:
    """The token in a file, which is made if it is not there, readable by its owner alone.

    Raises:
        UsageError: it cannot be read or made, or others may read it.
    """
    try:
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
        if path.stat().st_mode & 0o077:
            raise UsageError(f"others may read the token in {shown(path)}; run chmod 600 on it, or remove it")
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"cannot use the token in {shown(path)}: {why}") from None
    if not token:
        raise UsageError(f"the token file {shown(path)} is empty; remove it, and a new one is made")
    return token
