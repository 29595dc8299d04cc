"""Tells systemd how the service is doing: sd_notify(3), for a unit with Type=notify."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


class Notifier:
    """Sends states to systemd; where nobody listens it does nothing.

    It never waits. A state that cannot be sent is lost, as if nobody listened.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """From the environment that systemd gives to a service."""
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # an abstract socket
            self._address = "\0" + self._address[1:]
        watched = environment.get("WATCHDOG_USEC", "") if self._address else ""
        ours = environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.interval: float | None = int(watched) / 2_000_000 if watched.isdecimal() and ours else None
        """Every so many seconds `alive` is to be called, half of what systemd waits; None if nobody watches."""

    def ready(self) -> None:
        """The service has started."""
        self._send(b"READY=1")

    def alive(self) -> None:
        """All is well. If this does not come for too long, the service is restarted."""
        self._send(b"WATCHDOG=1")

    def stopping(self) -> None:
        """The service is coming to its end."""
        self._send(b"STOPPING=1")

    def _send(self, state: bytes) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, suppress(OSError):
            notify.setblocking(False)  # noqa: FBT003 (it has no other form)
            notify.sendto(state, self._address)
