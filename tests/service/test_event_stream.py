"""The event stream: nothing lost or repeated over kills, bounded with clients that do not read, quiet at the end."""

import socket
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from served import FLAGGED, LIVE, Listener, Served, served, write_logs
from support import purchase

from peerwatch.service.hub import BUFFERED, RECENT, Client, Hub, Item

pytestmark = pytest.mark.slow


def memory(service: Served) -> int:
    """The resident bytes of the service."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def sockets(service: Served) -> set[str]:
    """The sockets that the service has open."""
    found = set()
    for descriptor in Path(f"/proc/{service.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.add(str(descriptor.readlink()))
    return {name for name in found if name.startswith("socket:")}


def silent(service: Served, path: str = "/events") -> socket.socket:
    """A client that asks and then reads nothing."""
    port = int(service.url.rpartition(":")[2])
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n\r\n".encode())
    return client


def test_a_client_that_resumes_over_kills_misses_and_repeats_nothing(tmp_path: Path) -> None:
    """By Last-Event-ID, while the log grows and the service is killed three times."""
    write_logs(tmp_path, 30)
    got: list[int] = []
    with (tmp_path / "stream").open("ab", buffering=0) as log:
        for attempt in range(4):
            with served(tmp_path) as service:
                headers = {"last-event-id": str(got[-1])} if got else {"last-event-id": "0"}
                listener = Listener(service.url, headers=headers)
                service.until(lambda: listener.status != 0 or listener.ended)  # noqa: B023
                while listener.status != 200:  # it has not begun yet
                    listener = Listener(service.url, headers=headers)
                    service.until(lambda: listener.status != 0 or listener.ended)  # noqa: B023
                for number in range(40):
                    log.write(FLAGGED if number % 4 == 3 else purchase(2, "9"))
                service.until(lambda: len(listener.ids()) >= 3 + 2 * attempt)  # noqa: B023
                service.kill()
                listener.join()
                got += listener.ids()
    with served(tmp_path) as service:
        service.until_ready()
        every = [one["seq"] for one in service.decisions(flagged="true")]
        listener = Listener(service.url, headers={"last-event-id": str(got[-1])})
        service.until(lambda: len(got) + len(listener.ids()) >= len(every))
        assert got + listener.ids() == every
        assert len(every) > 30
        assert [one["seq"] for one in service.decisions()] == sorted({one["seq"] for one in service.decisions()})
        assert service.stop() == 0


def test_a_client_that_reads_nothing_costs_little_and_is_told_what_it_missed(tmp_path: Path) -> None:
    """The service goes on and does not grow with what it cannot send; then the client learns of the gap."""
    write_logs(tmp_path, 6)
    lines = (purchase(1, "9") + purchase(2, "11")) * 2500
    with served(tmp_path, *LIVE, "--k", "0") as service, (tmp_path / "stream").open("ab", buffering=0) as log:
        service.until_ready()
        clients = [silent(service) for _ in range(5)]
        written, before = 6, 0
        for _ in range(12):
            log.write(lines)
            written += 5000
            service.until(lambda: service.get("/status")["totals"]["judged"] == written)  # noqa: B023
            before = before or memory(service)
        service.until(lambda: service.get("/status")["totals"]["flagged"] > 25_000)
        assert memory(service) - before < 64_000_000
        content = b""
        while b"event: dropped" not in content:
            content += clients[0].recv(1 << 16)
        for client in clients:
            client.close()
        assert service.stop() == 0


def test_a_stop_with_clients_that_read_nothing_is_quick_and_quiet(tmp_path: Path) -> None:
    """Those that read see the end of the stream; the others are cut off; nothing is logged but the report."""
    write_logs(tmp_path, 3000)
    with served(tmp_path, *LIVE) as service:
        service.until_ready()
        readers = [Listener(service.url, params={"after": 0}) for _ in range(10)]
        clients = [silent(service, "/events?after=0") for _ in range(10)]
        service.until(lambda: all(len(reader.ids()) >= 500 for reader in readers))
        assert service.stop() == 0
        for reader in readers:
            reader.join()
            assert reader.ids() == sorted(set(reader.ids()))
        for client in clients:
            client.close()
        said = service.said()
        assert "Traceback" not in said
        assert "Cancel" not in said
        assert "rror" not in said


def test_a_client_that_has_gone_is_forgotten(tmp_path: Path) -> None:
    """Its buffer as well: in the end as many files are open as before."""
    write_logs(tmp_path, 6)
    with served(tmp_path) as service:
        service.until_ready()
        before = sockets(service)
        for _ in range(3):
            clients = [silent(service) for _ in range(20)]
            service.until(lambda: len(sockets(service) - before) >= 20)
            for client in clients:
                client.close()
            service.until(lambda: not sockets(service) - before)
        assert service.stop() == 0


def test_a_client_that_comes_back_after_long_gets_all_of_it(tmp_path: Path) -> None:
    """More than the service has at hand, page by page from the store, in order."""
    write_logs(tmp_path, 9000)
    with served(tmp_path) as service:
        service.until_ready()
        every = [one["seq"] for one in service.decisions(flagged="true")]
        assert len(every) == 1500
        listener = Listener(service.url, params={"after": every[0]})
        service.until(lambda: len(listener.ids()) >= len(every) - 1)
        assert listener.ids() == every[1:]
        assert listener.named("dropped") == []
        assert service.stop() == 0


async def test_the_buffer_of_a_client_is_bounded() -> None:
    """The oldest items go; what is taken next says how many."""
    client = Client()
    for number in range(1, BUFFERED + 11):
        client.put(Item("flagged", b"{}", number))
    items = await client.take()
    assert items is not None
    assert (items[0].event, items[0].encoded) == ("dropped", b'event: dropped\ndata: {"missed":10}\n\n')
    assert [item.id for item in items[1:]] == [*range(11, BUFFERED + 11)]
    client.put(Item("flagged", b"{}", 7))
    assert [item.id for item in await client.take() or []] == [7]
    client.close()
    assert await client.take() is None


async def test_the_hub_publishes_each_number_once() -> None:
    """What comes again after a restart has been sent; what has no number comes each time, the last to new clients."""
    hub = Hub()
    with hub.client() as client:
        for number in (1, 2, 2, 1, 3):
            hub.publish(Item("flagged", b"{}", number))
        hub.publish(Item("status", b"1"))
        hub.publish(Item("status", b"2"))
        assert [(item.event, item.id) for item in await client.take() or []] == [
            ("flagged", 1), ("flagged", 2), ("flagged", 3), ("status", 0), ("status", 0),
        ]  # fmt: skip
        assert len(hub) == 1
        with hub.client() as late:
            assert [item.encoded for item in await late.take() or []] == [b"event: status\ndata: 2\n\n"]
    assert len(hub) == 0
    for number in range(4, RECENT + 10):
        hub.publish(Item("flagged", b"{}", number))
    assert len(hub.recent) == RECENT
    assert not hub.reaches_back_to(3)
    assert hub.reaches_back_to(RECENT)
    hub.close()
    with hub.client() as client, anyio.fail_after(60):
        assert await client.take() is None


def test_many_clients_get_the_same(tmp_path: Path) -> None:
    """Fifty at once, each everything in order, while purchases are judged."""
    write_logs(tmp_path, 6)
    with served(tmp_path) as service, (tmp_path / "stream").open("ab", buffering=0) as log:
        service.until_ready()
        listeners = [Listener(service.url) for _ in range(50)]
        service.until(lambda: all(one.named("status") for one in listeners))
        for _ in range(30):
            log.write(FLAGGED + purchase(2, "9") * 5)
        service.until(lambda: all(len(one.ids()) == 30 for one in listeners))
        assert len({tuple(one.ids()) for one in listeners}) == 1
        assert service.stop() == 0
        for one in listeners:
            one.join()
