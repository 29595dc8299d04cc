"""What the Kafka source and sink have in common: how a URL becomes a client's settings, and what its errors mean."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from peerwatch.connectors.registry import missing_library
from peerwatch.errors import PeerwatchError, SinkError, Unavailable, UsageError
from peerwatch.urls import ConnectorUrl

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, TopicMetadata

Answer = TypeVar("Answer")
PORT: Final = 9092
PROTOCOLS: Final = ("plaintext", "ssl", "sasl_plaintext", "sasl_ssl")
MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
FILES: Final = ("ssl.ca.location", "ssl.certificate.location", "ssl.key.location")
OPTIONS: Final = ("security.protocol", "sasl.mechanism", *FILES)
"""What a URL's query can set, under the names that Kafka's C client gives it."""
LARGEST_MESSAGE: Final = 64 << 20
"""Bytes. A broker refuses any request of more than 100 MiB."""
FIRST_WAIT: Final = 0.5
"""Seconds for the first answer; each further try waits twice as long."""
SHORT_WAIT: Final = 0.01
"""Seconds until a broker says that a partition ends here."""
PAUSE: Final = 0.05
"""Seconds until a broker that has just started is asked again."""
LAST_RECORDS: Final = 16
"""So many offsets are looked at first for the last record of a topic; then eight times as many, and so on."""
_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_SERVER: Final = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]]+)(?::(?P<port>\d{1,5}))?")


class KafkaClient:
    """Makes clients of the cluster that a URL names. What may block says so; that is to be called on a thread."""

    def __init__(self, url: ConnectorUrl, timeout: float, *options: str) -> None:
        """Read the URL; nothing is connected. `options` are further ones that its query may have.

        Raises:
            UsageError: the library is missing, or the URL is malformed.
        """
        try:
            import confluent_kafka.admin  # noqa: PLC0415 (only where a URL asks for it)
        except ImportError:
            raise missing_library(url, "confluent-kafka", "kafka") from None
        url.check_options(*OPTIONS, *options)
        self._library, self._admin = confluent_kafka, confluent_kafka.admin
        self.codes = confluent_kafka.KafkaError
        self.errors = confluent_kafka.KafkaException
        self.url = url
        self.topic = url.path
        self.timeout = timeout
        self.servers = list(_servers(url))
        self._settings: dict[str, Any] = {
            "bootstrap.servers": ",".join(f"{host}:{port}" for host, port in self.servers),
            "client.id": "peerwatch",
            "log_level": 0,  # what matters comes back as an error
            "error_cb": self._note,
            "socket.nagle.disable": True,
            "reconnect.backoff.ms": 10,
            "reconnect.backoff.max.ms": 1000,
            "metadata.recovery.strategy": "none",  # otherwise a broker that comes back is waited for in vain, at times
            **_security(url),
        }
        self._refusal: KafkaError | None = None
        """The last error of the connection that trying again does not mend."""
        self._broken: KafkaError | None = None
        """Why no broker can be reached."""
        if not self.topic:
            raise UsageError(f"{url}: there is no topic; name one, as in kafka://host:9092/topic")
        if not _TOPIC.fullmatch(self.topic):
            raise UsageError(f"{url}: {self.topic!r} is no topic: letters, digits, '.', '_' and '-' make its name")

    async def reach(self) -> None:
        """See that some server listens. Kafka's client would try for as long as it may, and not say why it fails.

        Raises:
            Unavailable: none does.
        """
        why = ""
        self._refusal = self._broken = None
        for host, port in self.servers:
            try:
                with anyio.fail_after(self.timeout):
                    connection = await anyio.connect_tcp(host.strip("[]"), port)
            except TimeoutError:
                why = f"no answer within {self.timeout:g} seconds"
            except OSError as error:
                why = _reason(error)
            else:
                await connection.aclose()
                return
        raise Unavailable(why)

    def consumer(self, group: str, isolation: str = "read_committed", wait: float = SHORT_WAIT) -> "Consumer":
        """A consumer that joins no group and commits nothing. Reads files for TLS.

        A broker that has nothing new says so after `wait` seconds.
        """
        with self.translated():
            return self._library.Consumer({
                **self._settings,
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": round(1000 * wait),
                "fetch.queue.backoff.ms": 10,  # otherwise it fetches nothing for a second once it holds enough
            })  # fmt: skip

    def producer(self, settings: dict[str, Any]) -> "Producer":
        """An idempotent producer. Reads files for TLS."""
        with self.translated():
            return self._library.Producer({
                **self._settings,
                "enable.idempotence": True,
                "linger.ms": 0,
                "message.max.bytes": LARGEST_MESSAGE,
                "message.timeout.ms": round(self.timeout * 1000),
                **settings,
            })  # fmt: skip

    def admin(self) -> "AdminClient":
        """A client that makes topics. Reads files for TLS."""
        with self.translated():
            return self._admin.AdminClient(self._settings)

    def new_topic(self, topic: str) -> Any:
        """A topic of one partition, as the admin client makes it."""
        return self._admin.NewTopic(topic, num_partitions=1)

    def partition(self, topic: str, number: int = 0, offset: int = -1001, metadata: str = "") -> "TopicPartition":
        """A partition, with an offset."""
        return self._library.TopicPartition(topic, number, offset, metadata)

    def partitions(self, client: "Consumer | Producer", topic: str) -> int | None:
        """The number of a topic's partitions, None if there is no such topic. Blocks.

        Raises:
            UsageError: the server refuses the user, or the user the topic.
            Unavailable: there is no answer in time.
        """

        def ask() -> int | None:
            found = self._topic(client, topic)
            if found.error is None:
                return len(found.partitions)
            if found.error.code() == self.codes.UNKNOWN_TOPIC_OR_PART:
                return None
            raise self.errors(found.error)

        return self.patiently(ask)

    def _topic(self, client: "Consumer | Producer", topic: str) -> "TopicMetadata":
        wait, deadline = FIRST_WAIT, time.monotonic() + self.timeout
        while True:
            try:
                found: TopicMetadata = client.list_topics(topic, timeout=min(wait, self.timeout)).topics[topic]
            except self.errors:
                client.poll(0)  # lets `_note` know
                if self._refusal is not None:
                    raise self.failure(self._refusal) from None
                wait *= 2
                if time.monotonic() + wait > deadline:
                    raise
            else:
                return found

    def bounds(self, consumer: "Consumer", topic: str, number: int = 0) -> tuple[int, int]:
        """The offset of the first record, and the one behind the last that is committed. Blocks."""
        place = self.partition(topic, number)
        found = self.patiently(lambda: consumer.get_watermark_offsets(place, timeout=self.timeout))
        if found is None:
            raise Unavailable(f"no answer within {self.timeout:g} seconds")
        return found

    def committed(self, consumer: "Consumer", partitions: "list[TopicPartition]") -> "list[TopicPartition]":
        """What the consumer's group has committed for each partition. Blocks."""

        def ask() -> "list[TopicPartition]":
            found = consumer.committed(partitions, timeout=self.timeout)
            for each in found:
                if each.error is not None:
                    raise self.errors(each.error)
            return found

        return self.patiently(ask)

    def patiently(self, ask: Callable[[], Answer]) -> Answer:
        """The answer to a question, asked again while partitions have no leader, or groups no coordinator. Blocks.

        That is so for a moment when a broker has just started.
        """
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                return ask()
            except self.errors as error:
                if not self._may_pass(error.args[0]) or time.monotonic() > deadline:
                    raise self.failure(error.args[0]) from None
            time.sleep(PAUSE)

    def _may_pass(self, error: "KafkaError") -> bool:
        codes = self.codes
        return error.code() in {
            codes.NOT_COORDINATOR, codes.COORDINATOR_NOT_AVAILABLE, codes.COORDINATOR_LOAD_IN_PROGRESS,
            codes.LEADER_NOT_AVAILABLE, codes.NOT_LEADER_FOR_PARTITION, codes.REPLICA_NOT_AVAILABLE,
        }  # fmt: skip

    def last_record(self, consumer: "Consumer", topic: str) -> "Message | None":
        """The last committed record of a topic's first partition, None if there is none. Blocks.

        Offsets have gaps, where transactions end and where they were aborted; so one looks further and further back.
        """
        low, high = self.bounds(consumer, topic)
        back = LAST_RECORDS
        while low < high:
            begin = max(low, high - back)
            records = self._until_end(consumer, self.partition(topic, 0, begin))
            if records or begin == low:
                return records[-1] if records else None
            back *= 8
        return None

    def undecided(self, consumer: "Consumer", topic: str) -> "list[Message]":
        """The records behind the last committed one, up to the end of a topic's first partition. Blocks.

        The first of them is of a transaction that has not ended. `consumer` reads what is not committed.
        """
        with closing(self.consumer("peerwatch")) as of_committed:
            begin, end = self.bounds(of_committed, topic)[1], self.bounds(consumer, topic)[1]
        return self._until_end(consumer, self.partition(topic, 0, begin)) if begin < end else []

    def _until_end(self, consumer: "Consumer", begin: "TopicPartition") -> "list[Message]":
        records: list[Message] = []
        deadline = time.monotonic() + self.timeout
        with self.translated():
            consumer.assign([begin])
            try:
                while time.monotonic() < deadline:
                    for message in arrived(consumer, LAST_RECORDS, 0.1):
                        error = message.error()
                        if error is None:
                            records.append(message)
                        elif error.code() == self.codes._PARTITION_EOF:
                            return records
                        else:
                            raise self.failure(error)
                    self.check()
            finally:
                consumer.unassign()
        raise Unavailable(f"no answer within {self.timeout:g} seconds")

    def check(self) -> None:
        """See that the connection has not failed, as far as its callbacks have said.

        Raises:
            UsageError: the server refuses the user.
            Unavailable: no server can be reached.
        """
        if self._refusal is not None:
            raise self.failure(self._refusal)
        if self._broken is not None:
            error, self._broken = self._broken, None
            # a client that has just been made says so if the first of several servers is down
            if len(self.servers) == 1 or not any(_listens(host, port) for host, port in self.servers):
                raise self.failure(error)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """The client's exceptions, as what they mean."""
        try:
            yield
        except self.errors as error:
            raise self.failure(error.args[0]) from None

    def bounded(self, call: Callable[[], None]) -> None:
        """Make a call that may wait for its server beyond the time that it was given. Blocks.

        It is left to itself then, and nothing waits for it when the process ends.
        """
        failed: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except BaseException as error:  # noqa: BLE001 (it goes on in the thread that waits)
                failed.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(2 * self.timeout)
        if thread.is_alive():
            raise Unavailable(f"no answer within {2 * self.timeout:g} seconds")
        if failed:
            raise failed[0]

    def failure(self, error: "KafkaError") -> PeerwatchError:
        """The exception that an error means: a mistake, something that is refused for good, or what may pass."""
        codes, text = self.codes, error.str()
        if error.code() in {codes._AUTHENTICATION, codes.SASL_AUTHENTICATION_FAILED, codes._SSL}:
            return UsageError(f"{self.url} refuses the connection: {text}; check user, password and certificates")
        if error.code() in {codes._INVALID_ARG, codes.INVALID_CONFIG}:
            return UsageError(f"{self.url}: {text}")
        if error.code() in {
            codes.TOPIC_AUTHORIZATION_FAILED, codes.GROUP_AUTHORIZATION_FAILED, codes.CLUSTER_AUTHORIZATION_FAILED,
            codes.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        }:  # fmt: skip
            return UsageError(f"{self.url} does not permit this: {text}; grant it, as docs/connectors.md lists it")
        if error.code() in {codes.MSG_SIZE_TOO_LARGE, codes.INVALID_MSG, codes.INVALID_RECORD, codes.POLICY_VIOLATION}:
            return SinkError(
                f"{self.url} refuses a record: {text}; raise the topic's max.message.bytes if it is too large, see that"
                " the topic is not compacted, and run again"
            )
        return Unavailable(text)

    def _note(self, error: "KafkaError") -> None:
        codes = self.codes
        if error.code() in {codes._AUTHENTICATION, codes._SSL}:
            self._refusal = error
        elif error.code() == codes._ALL_BROKERS_DOWN:
            self._broken = error


def arrived(consumer: "Consumer", count: int, seconds: float, gather: float = 0.0) -> "list[Message]":
    """Up to so many messages: it is waited for the first one, and `gather` seconds for those behind it. Blocks."""
    messages: list[Message] = consumer.consume(1, seconds)
    if messages:
        messages += consumer.consume(count - 1, gather)
    return messages


def _servers(url: ConnectorUrl) -> Iterator[tuple[str, int]]:
    if not url.host:
        raise UsageError(f"{url}: there is no host; name one, as in kafka://host:9092/topic")
    for server in url.host.split(","):
        found = _SERVER.fullmatch(server)
        if found is None:
            raise UsageError(f"{url}: {server!r} is no host; write host:port, with commas between several")
        yield found["host"], int(found["port"] or url.port or PORT)


def _security(url: ConnectorUrl) -> dict[str, str]:
    """The settings of TLS and SASL."""
    files = {name: value for name in FILES if (value := url.option(name)) is not None}
    usual = ("sasl_" if url.user is not None else "") + ("ssl" if files else "plaintext")
    protocol = url.query.get("security.protocol", usual).lower()
    if protocol not in PROTOCOLS:
        raise UsageError(f"{url}: security.protocol is {protocol!r}; expected one of {', '.join(PROTOCOLS)}")
    if protocol.startswith("sasl_") != (url.user is not None):
        raise UsageError(
            f"{url}: a user and a password are needed for SASL, and for nothing else; see security.protocol"
        )
    settings = {"security.protocol": protocol, **files}
    if url.user is not None:
        mechanism = url.option("sasl.mechanism", MECHANISMS) or "PLAIN"
        settings |= {"sasl.mechanism": mechanism, "sasl.username": url.user, "sasl.password": url.secret() or ""}
    return settings


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host.strip("[]"), port), 1).close()
    except OSError:
        return False
    return True


def _reason(error: OSError) -> str:
    """Why a connection failed, without the address: that is in the URL."""
    cause = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return (cause.strerror if isinstance(cause, OSError) else None) or str(cause)
