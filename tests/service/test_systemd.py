"""What systemd is told, over a real datagram socket."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from served import LIVE, served, write_logs

from peerwatch.service.systemd import Notifier


@pytest.fixture(params=["file", "abstract"])
def listening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket as systemd has it, and its name in NOTIFY_SOCKET."""
    name = f"@peerwatch-{tmp_path.name}-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if name.startswith("@") else name)
        yield listener, name


def test_states_arrive_as_sd_notify_has_them(listening: tuple[socket.socket, str]) -> None:
    """Each in a datagram of its own, at a path and at an abstract name."""
    listener, name = listening
    notifier = Notifier({"NOTIFY_SOCKET": name})
    notifier.ready()
    notifier.alive()
    notifier.stopping()
    assert [listener.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"STOPPING=1"]


async def test_a_loop_is_never_held_up(listening: tuple[socket.socket, str]) -> None:
    """A systemd that reads nothing does not stop the service, however much is sent."""
    _, name = listening
    notifier = Notifier({"NOTIFY_SOCKET": name})
    for _ in range(10_000):
        notifier.alive()


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"NOTIFY_SOCKET": "/nowhere"}, None),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "30000000"}, 15.0),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "x"}, None),
        ({"WATCHDOG_USEC": "30000000"}, None),
    ],
)
def test_the_watchdog_is_fed_twice_as_often_as_it_asks(environment: dict[str, str], interval: float | None) -> None:
    """Half of WATCHDOG_USEC, in seconds; None where systemd does not watch this process."""
    notifier = Notifier(environment)
    assert notifier.interval == interval
    notifier.ready()  # nobody listens: nothing happens


def test_a_service_tells_that_it_is_ready_alive_and_stopping(tmp_path: Path) -> None:
    """A real one: in this order, and nothing else."""
    name = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(name))
        write_logs(tmp_path, 10)
        environment = {**os.environ, "NOTIFY_SOCKET": str(name), "WATCHDOG_USEC": "600000000"}
        with served(tmp_path, *LIVE, env=environment) as service:
            service.until_ready()
            assert listener.recv(100) == b"READY=1"
            assert listener.recv(100) == b"WATCHDOG=1"
            service.stop()
        listener.setblocking(False)  # noqa: FBT003 (it has no other form)
        last = b""
        with suppress(BlockingIOError):
            while True:
                last = listener.recv(100)
    assert last == b"STOPPING=1"
