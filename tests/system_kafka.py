"""Apache Kafka, as the tests see it."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)
from servers import LOOPBACK, Kafka
from systems import SinkSystem, SourceSystem

from peerwatch.connectors.records import FLAGGED

LARGEST = 16 << 20
"""The bytes of a message that the topics of the tests take."""
WAIT = 60.0
"""Seconds after which a broker that does not answer fails a test."""
PASSWORD = "s3cr3t-of-alice"  # noqa: S105 (the test broker's)
NEW = "req -x509 -newkey rsa:2048 -nodes -days 2"
SIGNED = "-CA ca.pem -CAkey ca.key"
CERTIFICATES = (
    f"{NEW} -keyout ca.key -out ca.pem -subj /CN=ca",
    f"{NEW} -keyout other.key -out other.pem -subj /CN=other",
    f"{NEW} -keyout server.key -out server.pem -subj /CN=server {SIGNED} -addext subjectAltName=IP:127.0.0.1",
    f"{NEW} -keyout client.key -out client.pem -subj /CN=client {SIGNED}",
)
"""What makes an authority, another one, and certificates of the first one."""


def settings(server: str, **more: str | int | bool) -> dict[str, Any]:
    """The settings of a client: `isolation_level` stands for `isolation.level`."""
    return {"bootstrap.servers": server, "log_level": 0} | {key.replace("_", "."): value for key, value in more.items()}


def make_topic(server: str, topic: str, partitions: int = 1) -> None:
    """Make a topic that takes large messages."""
    admin = AdminClient(settings(server))
    new = NewTopic(topic, num_partitions=partitions, config={"max.message.bytes": str(LARGEST)})
    admin.create_topics([new])[topic].result(WAIT)
    while not is_there(admin, topic):
        pass


def is_there(admin: AdminClient, topic: str) -> bool:
    """Whether the broker knows a topic."""
    return topic in admin.list_topics(timeout=WAIT).topics


def empty(server: str) -> None:
    """Delete all topics, except Kafka's own."""
    for topic in AdminClient(settings(server)).list_topics(timeout=WAIT).topics:
        if not topic.startswith("__"):
            delete_topic(server, topic)


def delete_topic(server: str, topic: str) -> None:
    """Delete it, and wait until it is gone."""
    admin = AdminClient(settings(server))
    admin.delete_topics([topic])[topic].result(WAIT)
    while is_there(admin, topic):
        pass


def put(server: str, topic: str, values: Sequence[bytes | None], partition: int = 0) -> None:
    """Append messages."""
    producer = Producer(settings(server, message_max_bytes=LARGEST, linger_ms=0))
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=partition)
        if number % 10_000 == 0:  # it holds only so many
            producer.flush()
    assert producer.flush(WAIT) == 0


PASSING = {KafkaError.NOT_COORDINATOR, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS}
"""What a broker answers about groups when it has just started."""


def committed(consumer: Consumer, place: TopicPartition) -> TopicPartition:
    """What a group has committed, as soon as the broker knows it."""
    while True:
        try:
            (found,) = consumer.committed([place])
        except KafkaException as error:
            if error.args[0].code() not in PASSING:
                raise
        else:
            return found


def trim(server: str, topic: str, before: int, partition: int = 0) -> None:
    """Remove what lies before an offset, as a retention does."""
    admin = AdminClient(settings(server))
    place = TopicPartition(topic, partition, before)
    admin.delete_records([place])[place].result(WAIT)


def records(server: str, topic: str, partition: int = 0) -> Iterator[Message]:
    """All committed messages up to the end."""
    consumer = Consumer(
        settings(
            server,
            group_id="reader",
            isolation_level="read_committed",
            enable_partition_eof=True,
            enable_auto_commit=False,
            fetch_wait_max_ms=10,
            auto_offset_reset="earliest",
        )
    )
    consumer.assign([TopicPartition(topic, partition, 0)])
    try:
        while True:
            message = consumer.poll(WAIT)
            assert message is not None, "the broker does not answer"
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 (its name)
                return
            else:
                raise KafkaException(error)
    finally:
        consumer.close()


class KafkaSystem(SinkSystem):
    """A topic."""

    @property
    def address(self) -> str:
        """The broker."""
        assert self.server is not None
        return self.server.url.removeprefix("kafka://")

    @property
    def url(self) -> str:
        """The topic."""
        return f"kafka://{self.address}/{self.place}"

    def make(self) -> None:
        """Make the topic, because a message of the tests is larger than a broker takes by itself."""
        make_topic(self.address, self.place)

    def flagged(self) -> bytes:
        """The committed records."""
        lines = []
        for message in records(self.address, self.place):
            record = msgspec.json.decode(message.value() or b"")
            if record["run"] == self.run and record["kind"] == FLAGGED:
                lines.append(f"{record['line']}\n")
        return "".join(lines).encode()

    def wipe(self) -> None:
        """Delete the topic, and make it anew."""
        delete_topic(self.address, self.place)
        make_topic(self.address, self.place)


class KafkaSource(SourceSystem):
    """A topic with one partition."""

    trimmed = 0

    @property
    def address(self) -> str:
        """The broker."""
        assert self.server is not None
        return self.server.url.removeprefix("kafka://")

    @property
    def url(self) -> str:
        """The topic."""
        return f"kafka://{self.address}/{self.place}"

    def make(self) -> None:
        """Make the topic."""
        make_topic(self.address, self.place)

    def put(self, lines: Sequence[bytes]) -> None:
        """Append messages."""
        put(self.address, self.place, lines)

    def trim(self, count: int) -> None:
        """Remove the first messages."""
        self.trimmed += count
        trim(self.address, self.place, self.trimmed)


class SecureKafka(Kafka):
    """Apache Kafka with a second listener, for TLS with client certificates and passwords, and with access rights."""

    name = "secure-kafka"

    @property
    def secure_url(self) -> str:
        """What a user who is let in writes, with the password in the environment."""
        files = {"ca": "ca.pem", "certificate": "client.pem", "key": "client.key"}
        query = "&".join(f"ssl.{name}.location={self.directory / file}" for name, file in files.items())
        return f"kafka://alice:${{KAFKA_PASSWORD}}@{LOOPBACK}:{self.secure_port}/secured?{query}"

    def settings(self) -> dict[str, object]:
        """The second listener. Whoever uses the first one may do everything."""
        self.secure_port = self.free_port()
        for command in CERTIFICATES:
            self.run(["openssl", *command.split()])
        pem = (self.directory / "server.key").read_text() + (self.directory / "server.pem").read_text()
        (self.directory / "keystore.pem").write_text(pem)
        settings = super().settings()
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        return settings | {
            "listeners": f"{settings['listeners']},SECURE://{LOOPBACK}:{self.secure_port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.name.secure.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.secure.plain.sasl.jaas.config": f'{login} user_alice="{PASSWORD}";',
            "listener.name.secure.ssl.client.auth": "required",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.directory / "keystore.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.directory / "ca.pem",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }

    def grant(self, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        """Let alice do something with what is called so, or begins so."""
        rules = [
            AclBinding(kind, name, ResourcePatternType.PREFIXED, "User:alice", "*", operation, AclPermissionType.ALLOW)
            for operation in operations
        ]
        admin = AdminClient(settings(self.url.removeprefix("kafka://")))
        for made in admin.create_acls(rules).values():
            made.result(WAIT)
