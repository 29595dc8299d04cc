"""Apache Kafka, as the tests see it."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from systems import SinkSystem, SourceSystem

from peerwatch.connectors.records import FLAGGED

LARGEST = 16 << 20
"""The bytes of a message that the topics of the tests take."""
WAIT = 60.0
"""Seconds after which a broker that does not answer fails a test."""


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


def delete_topic(server: str, topic: str) -> None:
    """Delete it, and wait until it is gone."""
    admin = AdminClient(settings(server))
    admin.delete_topics([topic])[topic].result(WAIT)
    while is_there(admin, topic):
        pass


def put(server: str, topic: str, values: Sequence[bytes | None], partition: int = 0) -> None:
    """Append messages."""
    producer = Producer(settings(server, message_max_bytes=LARGEST, linger_ms=0))
    for value in values:
        producer.produce(topic, value, partition=partition)
    assert producer.flush(WAIT) == 0


def trim(server: str, topic: str, before: int, partition: int = 0) -> None:
    """Remove what lies before an offset, as a retention does."""
    admin = AdminClient(settings(server))
    place = TopicPartition(topic, partition, before)
    admin.delete_records([place])[place].result(WAIT)


def records(server: str, topic: str, partition: int = 0) -> Iterator[Message]:
    """All committed messages up to the end."""
    consumer = Consumer(
        settings(
            server, group_id="reader", isolation_level="read_committed", enable_partition_eof=True,
            enable_auto_commit=False, fetch_wait_max_ms=10, auto_offset_reset="earliest",
        )  # fmt: skip
    )
    consumer.assign([TopicPartition(topic, partition, 0)])
    try:
        while True:
            message = consumer.poll(WAIT)
            assert message is not None, "the broker does not answer"
            error = message.error()
            if error is None:
                yield message
            elif error.code() == KafkaError._PARTITION_EOF:
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
