"""Whether Ray listens at an address: asked before Ray itself is, which takes half a minute to give up."""

import socket
from typing import Final

from peerwatch.errors import Unreachable, UsageError

ANSWER_SECONDS: Final = 3.0
"""How long a connection may take, and the first answer."""
GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""What a client of HTTP/2, and so of gRPC, begins with."""
SETTINGS_FRAME: Final = 4
"""The kind of frame that a server answers with; its number is the fourth byte."""
START: Final = "start one: peerwatch cluster start, or ray start --head"


def check_listening(address: str) -> None:
    """Check that something at HOST:PORT speaks as Ray does.

    Raises:
        UsageError: nothing listens there, it does not answer, or it is something else.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise UsageError(f"{address!r} is no address of a cluster; expected HOST:PORT, such as 127.0.0.1:6379")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS) as connection:
            connection.sendall(GREETING)
            answer = connection.recv(SETTINGS_FRAME)
    except TimeoutError:
        raise Unreachable(f"nothing answers at {address} within {ANSWER_SECONDS:g} s; {START}") from None
    except ConnectionResetError:
        answer = b""
    except OSError as error:
        raise Unreachable(f"no Ray cluster listens at {address} ({error.strerror or error}); {START}") from None
    if answer[-1:] != bytes([SETTINGS_FRAME]) or len(answer) < SETTINGS_FRAME:
        raise UsageError(
            f"what listens at {address} is not Ray; name the port that its head was started with, or {START}"
        )
