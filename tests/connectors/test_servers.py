"""The servers that other tests use are real: they keep what they have acknowledged, and nobody else can reach them."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import asyncpg
import httpx
import nats
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from servers import Redis, Server, ServerError, runs, started
from support import ROOT, running
from system_kafka import committed

WRITTEN = "ünïcode"


async def connected(url: str) -> asyncpg.Connection:
    """A connection, without a look into the home directory for a password or a certificate: that would block."""
    return await asyncpg.connect(url, password="", ssl=False)


def write_postgres(url: str) -> None:
    """A row in a new table."""

    async def write() -> None:
        connection = await connected(url)
        await connection.execute("CREATE TABLE written (value text)")
        await connection.execute("INSERT INTO written VALUES ($1)", WRITTEN)
        await connection.close()

    asyncio.run(write())


def read_postgres(url: str) -> list[str]:
    """The rows."""

    async def read() -> list[str]:
        connection = await connected(url)
        rows = await connection.fetch("SELECT value FROM written")
        await connection.close()
        return [row["value"] for row in rows]

    return asyncio.run(read())


def write_redis(url: str) -> None:
    """An entry of a new stream."""
    with redis.Redis.from_url(url) as client:
        client.xadd("written", {"value": WRITTEN}, id="1-0")


def read_redis(url: str) -> list[str]:
    """The entries."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return [fields["value"] for _, fields in client.xrange("written")]


def write_nats(url: str) -> None:
    """A message of a new stream."""

    async def write() -> None:
        async with await nats.connect(url) as client:
            stream = client.jetstream()
            await stream.add_stream(name="written", subjects=["written"])
            await stream.publish("written", WRITTEN.encode())

    asyncio.run(write())


def read_nats(url: str) -> list[str]:
    """The messages."""

    async def read() -> list[str]:
        async with await nats.connect(url) as client:
            stream = client.jetstream()
            count = (await stream.stream_info("written")).state.messages
            messages = [await stream.get_msg("written", seq=seq) for seq in range(1, count + 1)]
            return [message.data.decode() for message in messages if message.data is not None]

    return asyncio.run(read())


def http(url: str) -> httpx.Client:
    """A client of the server behind a URL of the line protocol."""
    return httpx.Client(base_url=url.removeprefix("influx+"))


def write_line(url: str) -> None:
    """A point, in line protocol."""
    with http(url) as client:
        database = client.base_url.path.strip("/")
        line = f"written,value={WRITTEN} number=1 1500000000000000000".encode()
        client.post("/../write", params={"db": database}, content=line).raise_for_status()


def read_influx(url: str) -> list[str]:
    """The values of the tag."""
    with http(url) as client:
        database = client.base_url.path.strip("/")
        answer = client.get("/../query", params={"db": database, "q": "SELECT * FROM written"}).raise_for_status()
    (series,) = answer.json()["results"][0]["series"]
    return [row[series["columns"].index("value")] for row in series["values"]]


def write_victoria(url: str) -> None:
    """A point, and a snapshot: what is acknowledged stays in memory for seconds, but a snapshot is on the disk."""
    write_line(url)
    with http(url) as client:
        client.get("/../internal/force_flush").raise_for_status()
        client.get("/../snapshot/create").raise_for_status()


def read_victoria(url: str) -> list[str]:
    """The values of the label."""
    with http(url) as client:
        answer = client.get("/../api/v1/export", params={"match[]": "written_number"}).raise_for_status()
    return [httpx.Response(200, text=line).json()["metric"]["value"] for line in answer.text.splitlines()]


def bootstrap(url: str) -> dict[str, str | int]:
    """The settings of a Kafka client."""
    return {"bootstrap.servers": url.removeprefix("kafka://"), "log_level": 0}


def write_kafka(url: str) -> None:
    """A committed record, with an offset of the input, between two that were aborted."""
    producer = Producer(bootstrap(url) | {"transactional.id": "writer"})
    producer.init_transactions()
    consumer = Consumer(bootstrap(url) | {"group.id": "reader"})
    for value in ("aborted", WRITTEN, "aborted"):
        producer.begin_transaction()
        producer.produce("written", value)
        offset = TopicPartition("written", 0, 7, metadata=value)
        producer.send_offsets_to_transaction([offset], consumer.consumer_group_metadata())
        if value == WRITTEN:
            producer.commit_transaction()
        else:
            producer.flush()
            producer.abort_transaction()
    consumer.close()


def read_kafka(url: str) -> list[str]:
    """The committed records up to the end, if the committed offset is as written."""
    settings = {"group.id": "reader", "isolation.level": "read_committed", "enable.partition.eof": True}
    consumer = Consumer(bootstrap(url) | settings | {"enable.auto.commit": False, "fetch.wait.max.ms": 10})
    beginning = TopicPartition("written", 0, 0)
    found = committed(consumer, beginning)
    assert (found.offset, found.metadata) == (7, WRITTEN)
    consumer.assign([beginning])
    values: list[str] = []
    while True:
        message = consumer.poll()
        assert message is not None
        if message.error():
            break
        value = message.value()
        assert value is not None
        values.append(value.decode())
    consumer.close()
    return values


class Case(NamedTuple):
    """A fixture, and how its server's clients write and read."""

    fixture: str
    write: Callable[[str], None]
    read: Callable[[str], list[str]]


CASES = [
    Case("postgres", write_postgres, read_postgres),
    Case("redis_server", write_redis, read_redis),
    Case("nats_server", write_nats, read_nats),
    Case("influx", write_line, read_influx),
    Case("victoria", write_victoria, read_victoria),
    Case("kafka", write_kafka, read_kafka),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.fixture)
def test_what_a_server_has_acknowledged_survives_its_death(case: Case, request: pytest.FixtureRequest) -> None:
    """It is read back, and once more after a kill and a start, at the same URL."""
    server: Server = request.getfixturevalue(case.fixture)
    url = server.url
    case.write(url)
    assert case.read(url) == [WRITTEN]
    before = server.pid
    server.kill()
    assert not runs(before)
    server.start()
    assert server.url == url
    assert server.pid != before
    assert case.read(url) == [WRITTEN]


def listeners(pid: int) -> list[tuple[str, int]]:
    """Where a process can be reached, by TCP or UDP: address and port."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(str(descriptor.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
    found = []
    families = ((socket.AF_INET, ""), (socket.AF_INET6, "6"))
    waiting = {"tcp": "0A", "udp": "07"}  # a state of its own that TCP has, and for UDP: connected to nobody
    for (family, version), (protocol, state) in product(families, waiting.items()):
        path = Path(f"/proc/{pid}/net/{protocol}{version}")
        for row in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = row.split()
            if fields[3] == state and f"socket:[{fields[9]}]" in sockets:
                address, port = fields[1].split(":")
                words = bytes.fromhex(address)  # each of four bytes, in the machine's own order
                order = b"".join(
                    words[at : at + 4][:: -1 if sys.byteorder == "little" else 1] for at in range(0, len(words), 4)
                )
                found.append((socket.inet_ntop(family, order), int(port, 16)))
    return found


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])  # noqa: S104 (nothing is sent)
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_socket_is_seen(host: str, kind: socket.SocketKind) -> None:
    """Of either protocol, at any address: what the next test does not see is not there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as own:
        own.bind((host, 0))
        if kind is socket.SOCK_STREAM:
            own.listen()
        assert (host, own.getsockname()[1]) in listeners(os.getpid())


@pytest.mark.parametrize("fixture", [*(case.fixture for case in CASES), "prometheus", "alertmanager"])
def test_a_server_can_be_reached_from_this_machine_alone(fixture: str, request: pytest.FixtureRequest) -> None:
    """It listens on its port, and on no other address than the loopback one, neither for TCP nor for UDP."""
    server: Server = request.getfixturevalue(fixture)
    found = listeners(server.pid)
    assert server.port in {port for _, port in found}
    assert {address for address, _ in found} == {"127.0.0.1"}


def test_a_server_dies_with_the_process_that_started_it(redis_server: Redis) -> None:
    """Also if that process is killed and can clean up nothing."""
    assert redis_server.url  # it is installed
    script = "from servers import *; s = Redis(); s.start(); print(s.pid, s.directory, flush=True); signal.pause()"
    with running([sys.executable, "-c", script], cwd=ROOT / "tests", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pid, directory = process.stdout.readline().split()
        assert runs(int(pid))
        process.kill()
        process.wait()
    while runs(int(pid)):
        os.sched_yield()
    shutil.rmtree(directory.decode())


def test_a_start_that_fails_shows_what_the_server_wrote(redis_server: Redis) -> None:
    """The setting that it did not know is named, and nothing is left of it."""
    assert redis_server.url  # it is installed

    class Wrong(Redis):
        def command(self) -> list[str]:
            return [*super().command(), "--no-such-setting", "1"]

    server = Wrong()
    with pytest.raises(ServerError, match=r"(?s)redis ended with 1; it wrote:.*no-such-setting"), server:
        pass
    assert not server.directory.exists()


def test_a_missing_server_skips_its_tests_or_fails_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says how to install it; where all are required, it fails."""

    class Absent(Redis):
        programs = ("no-such-server",)

    says = "^no-such-server is not installed: run `make servers-install`$"
    monkeypatch.delenv("PEERWATCH_REQUIRE_SERVERS", raising=False)
    with pytest.raises(pytest.skip.Exception, match=says):
        next(started(Absent))
    monkeypatch.setenv("PEERWATCH_REQUIRE_SERVERS", "1")
    with pytest.raises(pytest.fail.Exception, match=says):
        next(started(Absent))


def test_servers_to_play_with_run_until_interrupted(redis_server: Redis) -> None:
    """Each URL that is printed is one of a running server, on another port if the standard one is taken."""
    assert redis_server.url  # it is installed
    script = "import servers, sys; servers.SERVERS = [servers.Redis, servers.Redis]; sys.exit(servers.main())"
    with running([sys.executable, "-c", script], cwd=ROOT / "tests", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        urls = [process.stdout.readline().decode().strip() for _ in range(2)]
        assert len({*urls, redis_server.url}) == 3
        for url in urls:
            with redis.Redis.from_url(url) as client:
                assert client.ping()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    for url in urls:
        with redis.Redis.from_url(url) as client, pytest.raises(redis.ConnectionError):
            client.ping()
