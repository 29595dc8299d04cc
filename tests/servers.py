"""Real servers for the tests, each on a loopback port with its data in a temporary directory.

`python tests/servers.py` starts them all and prints their URLs, until it is interrupted.
"""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import ClassVar, Self, TypeVar

import pytest

LOOPBACK = "127.0.0.1"
DATABASE = "peerwatch"
"""The name of the database in servers that want one."""
INSTALL = "make servers-install"
JARS = Path(sys.prefix) / "kafka"
"""Where `make servers-install` puts Kafka."""
MONITORING = Path(__file__).parents[1] / "monitoring"
CLASSES = JARS / "classes.jsa"
"""Kafka's classes as the JVM maps them into memory: half the time of a start. The first broker that is stopped leaves
them."""
START_LIMIT = 180.0
"""After so many seconds a start has failed, and what the server wrote is shown."""
STOP_LIMIT = 30.0
"""After so many seconds a server that was asked to stop is killed."""
DIRECTORIES = [
    str(Path(sys.prefix) / "bin"),
    *os.get_exec_path(),
    *(str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)),
    "/usr/sbin",
]
"""Where programs are looked for. Debian does not put those of PostgreSQL on the path."""
WATCHDOG = 'read -r line; kill -s KILL -- -"$1"'
"""Reads from a pipe that nobody writes to: it goes on when the process at the other end has died."""


class ServerError(Exception):
    """A server did not start. The message has what it wrote."""


def program(name: str) -> str | None:
    """The path of an installed program."""
    return shutil.which(name, path=os.pathsep.join(DIRECTORIES))


def installed(name: str) -> str:
    """The path of a program that is known to be there."""
    path = program(name)
    assert path is not None, f"{name} is not installed: run `{INSTALL}`"
    return path


def claim(port: int) -> socket.socket | None:
    """What keeps a TCP port for this process until it is closed, or nothing if somebody has the port.

    It is the UDP port of the same number. So the port stays ours while its server is down.
    """
    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        held.bind((LOOPBACK, port))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
    except OSError:
        held.close()
        return None
    return held


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def runs(pid: int) -> bool:
    """Whether a process runs. One that has died and was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Server(ABC):
    """A server on a loopback port. It dies with this process, however that ends."""

    name: ClassVar[str]
    programs: ClassVar[tuple[str, ...]]
    """What must be installed."""
    standard_port: ClassVar[int]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    user: ClassVar[str | None] = None
    """Whom it runs as if this process is root's."""

    def __init__(self, port: int | None = None) -> None:
        """On this port, if nobody has it, otherwise on another one."""
        self._held = ExitStack()
        self.port = self.free_port(port)
        self.directory = Path(tempfile.mkdtemp(prefix=f"peerwatch-{self.name}-"))
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._prepared = False
        self._user = self.user if os.geteuid() == 0 else None
        if self._user is not None:
            account = pwd.getpwnam(self._user)
            os.chown(self.directory, account.pw_uid, account.pw_gid)

    @classmethod
    def missing(cls) -> str | None:
        """What is not installed, in one line with the command that installs it."""
        lacking = [name for name in cls.programs if program(name) is None]
        return f"{lacking[0]} is not installed: run `{INSTALL}`" if lacking else None

    @property
    @abstractmethod
    def url(self) -> str:
        """As a user writes it."""

    @abstractmethod
    def command(self) -> list[str]:
        """What starts it."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it answers a request. While nobody listens this may raise an `OSError` or `HTTPException`."""

    def prepare(self) -> None:  # noqa: B027  # most need nothing
        """Make what it needs before it starts for the first time."""

    @property
    def pid(self) -> int:
        """Its process, while it runs."""
        assert self._process is not None, f"{self.name} does not run"
        return self._process.pid

    @property
    def output(self) -> Path:
        """What it has written since it was made."""
        return self.directory / "output"

    def start(self) -> None:
        """Start it, on the data that it has, and wait until it answers; nothing if it runs.

        Raises:
            ServerError: It ended by itself, or did not answer.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self._ended()
        if not self._prepared:
            self.prepare()
            self._prepared = True
        self._process = self._spawn(self.command())
        self._watchdog = subprocess.Popen(
            ["sh", "-c", WATCHDOG, "sh", str(self._process.pid)], stdin=subprocess.PIPE, start_new_session=True
        )
        limit = time.monotonic() + START_LIMIT
        while not self._ready():
            if self._process.poll() is not None:
                raise self._failure(f"ended with {self._process.returncode}")
            if time.monotonic() > limit:
                self.kill()
                raise self._failure(f"did not answer within {START_LIMIT:.0f} seconds")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it as its users do; nothing if it does not run."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(self.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_LIMIT)
        self.kill()

    def kill(self) -> None:
        """End it with SIGKILL, and all that it has started. It can be started again."""
        if self._process is not None and self._process.poll() is None:
            started = children(self._process.pid)
            self._process.kill()
            self._process.wait()
            for child in started:
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            while any(runs(child) for child in started):
                time.sleep(0.001)
        self._ended()

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it, remove its data, and let go of its port."""
        self.stop()
        self._held.close()
        shutil.rmtree(self.directory)

    def free_port(self, preferred: int | None = None) -> int:
        """A port that is this server's own, below those that the system gives to outgoing connections."""
        port = preferred
        while port is None or (held := claim(port)) is None:
            port = random.SystemRandom().randrange(10_000, 32_768)
        self._held.enter_context(held)
        return port

    def run(self, command: list[str]) -> None:
        """Run a command to its end, as the server's user, with its output in the same file.

        Raises:
            ServerError: It failed.
        """
        if self._spawn(command).wait() != 0:
            raise self._failure(f"could not be prepared by `{' '.join(command)}`")

    def _spawn(self, command: list[str]) -> "subprocess.Popen[bytes]":
        with self.output.open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
            )

    def _ready(self) -> bool:
        try:
            return self.answers()
        except (OSError, HTTPException):
            return False

    def _ended(self) -> None:
        """Let go of what belonged to a process that has ended."""
        self._process = None
        if self._watchdog is not None:
            with self._watchdog as watchdog:
                watchdog.kill()
            self._watchdog = None

    def _failure(self, what: str) -> ServerError:
        written = self.output.read_text(errors="replace").splitlines()
        return ServerError("\n".join([f"{self.name} {what}; it wrote:", *written[-50:]]))


def status(port: int, method: str, path: str) -> int:
    """The status with which an HTTP server answers a request without a body."""
    with closing(HTTPConnection(LOOPBACK, port, timeout=5)) as connection:
        connection.request(method, path)
        return connection.getresponse().status


def answer(port: int, request: bytes) -> bytes:
    """The beginning of what a server sends after a request."""
    with socket.create_connection((LOOPBACK, port), timeout=5) as connection:
        connection.sendall(request)
        return connection.recv(4096)


class Postgres(Server):
    """PostgreSQL."""

    name = "postgres"
    programs = ("initdb", "postgres", "pg_isready")
    standard_port = 5432
    stop_signal = signal.SIGINT  # does not wait for clients
    user = "postgres"  # it refuses to run as root

    @property
    def url(self) -> str:
        """As a user writes it."""
        return f"postgresql://postgres@{LOOPBACK}:{self.port}/postgres"

    def prepare(self) -> None:
        """Make the cluster. Everyone on the machine is let in."""
        data = str(self.directory / "data")
        self.run([installed("initdb"), "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync"])

    def command(self) -> list[str]:
        """What starts it."""
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "dynamic_shared_memory_type=mmap"]
        options = [part for setting in settings for part in ("-c", setting)]
        return [installed("postgres"), "-D", str(self.directory / "data"), "-p", str(self.port), *options]

    def answers(self) -> bool:
        """Whether it accepts connections."""
        command = [installed("pg_isready"), "--quiet", "--host", LOOPBACK, "--port", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0


class Redis(Server):
    """Redis; every write is durable when it is answered."""

    name = "redis"
    programs = ("redis-server",)
    standard_port = 6379

    @property
    def url(self) -> str:
        """As a user writes it."""
        return f"redis://{LOOPBACK}:{self.port}"

    def command(self) -> list[str]:
        """What starts it."""
        where = ["--bind", LOOPBACK, "--port", str(self.port), "--dir", str(self.directory)]
        return [installed("redis-server"), *where, "--appendonly", "yes", "--appendfsync", "always", "--save", ""]

    def answers(self) -> bool:
        """Whether it has loaded its data."""
        return answer(self.port, b"PING\r\n").startswith(b"+PONG")


class Nats(Server):
    """NATS with JetStream; every message is durable when it is acknowledged."""

    name = "nats"
    programs = ("nats-server",)
    standard_port = 4222

    @property
    def url(self) -> str:
        """As a user writes it."""
        return f"nats://{LOOPBACK}:{self.port}"

    def prepare(self) -> None:
        """Write its settings: messages of more than a mebibyte, each on the disk before it is acknowledged."""
        data = self.directory / "data"
        (self.directory / "nats.conf").write_text(
            f"""\
            max_payload: 8MB
            jetstream {{
              store_dir: "{data}"
              sync_interval: always
            }}
            """
        )

    def command(self) -> list[str]:
        """What starts it."""
        where = ["-a", LOOPBACK, "-p", str(self.port)]
        return [installed("nats-server"), *where, "-c", str(self.directory / "nats.conf")]

    def answers(self) -> bool:
        """Whether it answers a ping; it listens once JetStream has recovered."""
        with (
            socket.create_connection((LOOPBACK, self.port), timeout=5) as connection,
            connection.makefile("rb") as read,
        ):
            read.readline()  # INFO
            connection.sendall(b"CONNECT {}\r\nPING\r\n")
            return any(line.startswith(b"PONG") for line in read)


class Influx(Server):
    """InfluxDB 1.x, with a database."""

    name = "influx"
    programs = ("influxd",)
    standard_port = 8086

    @property
    def url(self) -> str:
        """As a user writes it."""
        return f"influx+http://{LOOPBACK}:{self.port}/{DATABASE}"

    def prepare(self) -> None:
        """Write its settings."""
        data = self.directory / "data"
        (self.directory / "influxdb.conf").write_text(
            f"""\
            reporting-disabled = true
            bind-address = "{LOOPBACK}:{self.free_port()}"
            [meta]
            dir = "{data / "meta"}"
            [data]
            dir = "{data / "data"}"
            wal-dir = "{data / "wal"}"
            [http]
            bind-address = "{LOOPBACK}:{self.port}"
            """
        )

    def command(self) -> list[str]:
        """What starts it."""
        return [installed("influxd"), "-config", str(self.directory / "influxdb.conf")]

    def answers(self) -> bool:
        """Whether it has the database, which is made here if it does not exist."""
        return status(self.port, "POST", f"/query?q=CREATE%20DATABASE%20{DATABASE}") == 200


class Victoria(Server):
    """VictoriaMetrics, which understands InfluxDB's line protocol."""

    name = "victoria"
    programs = ("victoria-metrics",)
    standard_port = 8428

    @property
    def url(self) -> str:
        """As a user writes it."""
        return f"influx+http://{LOOPBACK}:{self.port}/{DATABASE}"

    def command(self) -> list[str]:
        """What starts it; old timestamps are kept, and new ones can be read at once."""
        return [
            installed("victoria-metrics"),
            f"-storageDataPath={self.directory / 'data'}",
            f"-httpListenAddr={LOOPBACK}:{self.port}",
            "-retentionPeriod=100y",
            "-search.latencyOffset=0s",
        ]

    def answers(self) -> bool:
        """Whether it is healthy."""
        return status(self.port, "GET", "/health") == 200


class Kafka(Server):
    """Apache Kafka: one process that is broker and controller."""

    name = "kafka"
    programs = ("java",)
    standard_port = 9092

    @classmethod
    def missing(cls) -> str | None:
        """What is not installed."""
        there = any(JARS.glob("kafka_*.jar"))
        return super().missing() if there else f"Apache Kafka is not installed: run `{INSTALL}`"

    @property
    def url(self) -> str:
        """As a user writes it."""
        return f"kafka://{LOOPBACK}:{self.port}"

    def settings(self) -> dict[str, object]:
        """Its settings."""
        controller = f"{LOOPBACK}:{self.free_port()}"
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "listeners": f"PLAINTEXT://{LOOPBACK}:{self.port},CONTROLLER://{controller}",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.bootstrap.servers": controller,
            "log.dirs": self.directory / "data",
            # one broker, and few partitions, which are made when they are first used
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "transaction.state.log.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            # a broker that was killed is let in again only when its session has expired
            "broker.session.timeout.ms": 1000,
            "broker.heartbeat.interval.ms": 100,
            # a transaction that took too long is aborted soon after
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 100,
        }

    def prepare(self) -> None:
        """Write its settings, and format its storage."""
        path = self.directory / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in self.settings().items()))
        cluster = "AAAAAAAAAAAAAAAAAAAAAA"
        self.run([*self._java(), "kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(path)])

    def command(self) -> list[str]:
        """What starts it."""
        archive = [] if CLASSES.exists() else [f"-XX:ArchiveClassesAtExit={self._classes}"]
        return [*self._java(), *archive, "kafka.Kafka", str(self.directory / "server.properties")]

    @property
    def _classes(self) -> Path:
        return JARS / f"{self.port}.jsa"

    def stop(self) -> None:
        """Stop it, and keep its classes for the next one."""
        super().stop()
        with suppress(OSError):
            self._classes.replace(CLASSES)

    def answers(self) -> bool:
        """Whether the controller has let the broker in."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        socket.create_connection((LOOPBACK, self.port), timeout=5).close()  # the client is slow to try again
        admin = AdminClient({"bootstrap.servers": f"{LOOPBACK}:{self.port}", "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=5).brokers)
        except KafkaException:
            return False

    @staticmethod
    def _java() -> list[str]:
        """A small heap, and the quick compiler alone: half the CPU of a start."""
        options = ["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"]
        archive = [f"-XX:SharedArchiveFile={CLASSES}"] if CLASSES.exists() else []
        return [installed("java"), *options, *archive, "-cp", f"{JARS}/*"]


class Prometheus(Server):
    """Prometheus, which scrapes a service on its standard port, unless it is given another configuration."""

    name = "prometheus"
    programs = ("prometheus", "promtool")
    standard_port = 9090
    config = MONITORING / "prometheus.yml"

    @property
    def url(self) -> str:
        """As a user writes it."""
        return f"http://{LOOPBACK}:{self.port}"

    def command(self) -> list[str]:
        """What starts it."""
        where = [f"--storage.tsdb.path={self.directory / 'data'}", f"--web.listen-address={LOOPBACK}:{self.port}"]
        return [installed("prometheus"), f"--config.file={self.config}", *where]

    def answers(self) -> bool:
        """Whether it has loaded its data and its rules."""
        return status(self.port, "GET", "/-/ready") == 200


class Alertmanager(Server):
    """Alertmanager, alone."""

    name = "alertmanager"
    programs = ("prometheus-alertmanager", "amtool")
    standard_port = 9093
    config = MONITORING / "alertmanager.yml"

    @property
    def url(self) -> str:
        """As a user writes it."""
        return f"http://{LOOPBACK}:{self.port}"

    def command(self) -> list[str]:
        """What starts it."""
        where = [f"--storage.path={self.directory / 'data'}", f"--web.listen-address={LOOPBACK}:{self.port}"]
        alone = "--cluster.listen-address="
        return [installed("prometheus-alertmanager"), f"--config.file={self.config}", *where, alone]

    def answers(self) -> bool:
        """Whether it takes alerts."""
        return status(self.port, "GET", "/-/ready") == 200


S = TypeVar("S", bound=Server)
SERVERS: list[type[Server]] = [Postgres, Redis, Nats, Influx, Victoria, Kafka, Prometheus, Alertmanager]


def require_server(kind: type[Server]) -> None:
    """Skip the test if the server is not installed, or fail it where every server is required."""
    require(kind.missing())


def require_program(name: str) -> None:
    """Skip the test if the program is not installed, or fail it where every server is required."""
    require(f"{name} is not installed: run `{INSTALL}`" if program(name) is None else None)


def require(reason: str | None) -> None:
    """Skip the test if something is missing, which the reason names, or fail it where everything is required."""
    if reason is not None:
        if os.environ.get("PEERWATCH_REQUIRE_SERVERS") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def started(kind: type[S]) -> Iterator[S]:
    """The server, running. The test is skipped if it is not installed, or fails where every server is required."""
    require_server(kind)
    with kind() as server:
        yield server


def main() -> int:
    """Start every server, on its standard port if that is free, and print the URLs, until interrupted."""
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        for number in (signal.SIGINT, signal.SIGTERM):  # a shell that starts this in the background ignores the first
            signal.signal(number, signal.default_int_handler)
        for kind in SERVERS:
            reason = kind.missing()
            if reason is not None:
                print(reason, file=sys.stderr)
                return 1
            print(stack.enter_context(kind(kind.standard_port)).url, flush=True)
        print("running until Ctrl-C", file=sys.stderr)
        while True:
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
