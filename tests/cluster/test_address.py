"""A cluster that is not there is noticed at once, without Ray."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from peerwatch.cluster import address, local
from peerwatch.cluster.address import check_listening
from peerwatch.errors import UsageError


@contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """The address of a server that answers the first connection so, closes it with nothing to say, or keeps silent."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        left = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.recv(1 << 10)
                connection.sendall(answer or b"")
                if answer is None:
                    left.wait()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            left.set()
            thread.join()


def test_what_speaks_http_2_may_be_ray() -> None:
    """A server of gRPC answers with its settings."""
    with answering(bytes([0, 0, 24, 4, 0, 0, 0, 0, 0]) + bytes(24)) as where:
        check_listening(where)


@pytest.mark.parametrize(
    "answer", [b"-ERR unknown command 'PRI'\r\n", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"\0", b"\0\0\x18\0"]
)
def test_what_is_not_ray_is_refused(answer: bytes) -> None:
    """Such as a Redis server, whose usual port is Ray's, a web server, and what hangs up."""
    with answering(answer) as where, pytest.raises(UsageError, match=f"what listens at {where} is not Ray"):
        check_listening(where)


def test_what_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long it keeps silent."""
    monkeypatch.setattr(address, "ANSWER_SECONDS", 0.01)
    with answering(None) as where, pytest.raises(UsageError, match=f"nothing answers at {where} within 0.01 s"):
        check_listening(where)


def test_where_nothing_listens_the_sentence_says_so() -> None:
    """It also says how to start a cluster."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(UsageError, match=rf"no Ray cluster listens at {where} \(Connection refused\); start one: "):
        check_listening(where)


@pytest.mark.parametrize("where", ["", "head", "head:", ":6379", "head:6379x", "127.0.0.1:0", "127.0.0.1:65536"])
def test_what_is_no_address_is_refused(where: str) -> None:
    """Before a name is looked up."""
    with pytest.raises(UsageError, match="is no address of a cluster; expected HOST:PORT"):
        check_listening(where)


def test_a_cluster_is_not_started_where_something_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as another one; nothing is written, and the sentence says how to name another port."""
    monkeypatch.setattr(local, "folder", lambda: tmp_path / "folder")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(
            UsageError, match=rf"listen at 127.0.0.1:{port} \(Address already in use.*name another: --port"
        ):
            local.start(1, port)
    assert not [*tmp_path.iterdir()]
