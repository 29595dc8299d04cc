"""Kafka as a source: the messages of a topic's partition, from any offset."""

import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

from anyio.to_thread import run_sync

from peerwatch.connectors.kafka_client import PAUSE, KafkaClient, arrived
from peerwatch.connectors.stream import Entry
from peerwatch.errors import SourceError, Unavailable, UsageError
from peerwatch.urls import ConnectorUrl

if TYPE_CHECKING:
    from confluent_kafka import Consumer

MOST_ENTRIES: Final = 10_000
"""How many messages one fetch returns at most."""
GATHER_SECONDS: Final = 0.01
"""How long a fetch waits for more messages behind the first: a piece costs about the same whatever its size."""
WAY_OUT: Final = (
    "unread: the topic's retention has removed them; let it keep messages for longer than a run is away, and begin anew"
    " with --reset"
)


class KafkaStream:
    """`kafka://host:9092/topic`: the messages of a topic's partition, in the order of their offsets.

    Only what is committed is read. An entry's id is an offset; offsets have gaps, where transactions end.
    """

    def __init__(self, url: ConnectorUrl, timeout: float, partition: int | None = None) -> None:
        """Name the topic, and perhaps one of its partitions; nothing is connected.

        Raises:
            UsageError: the library is missing, or the URL is malformed.
        """
        self.url = url
        self._timeout = timeout
        self._client = KafkaClient(url, timeout, "partition")
        self._consumer: Consumer | None = None
        self._partition = _number(url) if partition is None else partition
        self._next = 0
        """The offset that is read next."""
        self._until: int | None = None
        """Where the partition ended when it was opened, until it has been read so far."""
        self._opened = False
        self._held: list[Entry] = []
        """What was fetched from behind that end."""

    async def split(self) -> "list[KafkaStream]":
        """A stream for each partition, or for the one that the URL names.

        Raises:
            UsageError: there is no such topic.
            Unavailable: the server does not answer.
        """
        await self._client.reach()
        count = await run_sync(self._count)
        numbers = range(count) if self._partition is None else [self._partition]
        return [KafkaStream(self.url, self._timeout, number) for number in numbers]

    def _count(self) -> int:
        with closing(self._client.consumer("peerwatch")) as consumer:
            return self._partitions(consumer)

    async def connect(self, after: int | None) -> None:
        """Connect, to go on behind an offset.

        Raises:
            UsageError: there is no such topic or partition, or messages behind the offset are gone.
            Unavailable: the server does not answer.
        """
        await self._client.reach()
        await run_sync(self._connect, after)

    def _connect(self, after: int | None) -> None:
        topic = self._client.topic
        self._consumer = self._client.consumer("peerwatch")
        partition = self._chosen(self._consumer)
        low, high = self._client.bounds(self._consumer, topic, partition)
        self._next = low if after is None else after + 1
        if self._next < low:
            raise UsageError(f"{self.url}: messages from offset {self._next:,} to {low - 1:,} are gone, {WAY_OUT}")
        if self._next > high:
            raise UsageError(
                f"{self.url} ends at offset {high:,}, but messages up to {self._next - 1:,} have been read: what had"
                " been read is gone, the topic was deleted and made anew; name the topic that was read, or begin anew"
                " with --reset"
            )
        self._held = []
        if not self._opened:
            self._opened, self._until = True, high
        with self._client.translated():
            self._consumer.assign([self._client.partition(topic, partition, self._next)])

    def _chosen(self, consumer: "Consumer") -> int:
        """The partition that is read."""
        count = self._partitions(consumer)
        if self._partition is None and count > 1:
            raise UsageError(
                f"{self.url}: the topic has {count} partitions, whose order is another one each time they are read;"
                " set input.journal, which writes it down, or read one of them with ?partition=0"
            )
        if (self._partition or 0) >= count:
            raise UsageError(f"{self.url}: the topic has {count} partitions, numbered from 0")
        return self._partition or 0

    def _partitions(self, consumer: "Consumer") -> int:
        deadline = time.monotonic() + self._client.timeout
        while (count := self._client.partitions(consumer, self._client.topic)) is None:
            if self._opened and time.monotonic() < deadline:  # a broker that has just started knows of none
                time.sleep(PAUSE)
                continue
            raise UsageError(f"{self.url}: there is no topic {self._client.topic}; make it, or name another")
        return count

    async def close(self) -> None:
        """Close the connection."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with suppress(Exception):
                await run_sync(consumer.close)

    async def fetch(self, seconds: float) -> list[Entry]:
        """The next messages; none, once, where the partition ended when it was opened.

        Raises:
            SourceError: some are gone unread.
            Unavailable: no server can be reached, or what must be there does not come.
        """
        deadline = time.monotonic() + self._client.timeout
        while True:
            entries, self._held = self._held or await run_sync(self._consume, seconds), []
            if self._until is None:
                return entries
            before = entries
            if entries and entries[-1].id >= self._until:
                before = [entry for entry in entries if entry.id < self._until]
                self._held = entries[len(before) :]
            if before:
                return before
            if self._next >= self._until:
                self._until = None
                return []
            if time.monotonic() > deadline:
                raise Unavailable(f"no messages within {self._client.timeout:g} seconds")

    def _consume(self, seconds: float) -> list[Entry]:
        consumer, codes = self._consumer, self._client.codes
        if consumer is None:
            raise Unavailable("the consumer is closed")
        entries: list[Entry] = []
        if self._until is not None and self._next >= self._until:
            return entries
        with self._client.translated():
            messages = arrived(consumer, MOST_ENTRIES, seconds, GATHER_SECONDS)
        for message in messages:
            error = message.error()
            if error is None:
                entries.append(Entry(message.offset(), message.value()))
            elif error.code() in {codes._AUTO_OFFSET_RESET, codes.OFFSET_OUT_OF_RANGE}:
                gone = entries[-1].id + 1 if entries else self._next
                raise SourceError(f"{self.url}: messages from offset {gone:,} on are gone, {WAY_OUT}")
            elif error.code() != codes._PARTITION_EOF:
                raise self._client.failure(error)
        if messages:  # that a partition has ended is a message, too, with the offset that comes next
            self._next = (messages[-1].offset() or 0) + (messages[-1].error() is None)
        if not entries:
            self._client.check()
        return entries

    async def lag(self) -> int | None:
        """How many offsets lie between what has been fetched and the end, as far as the last answer said."""
        if self._consumer is None:
            return None
        ends = self._consumer.get_watermark_offsets(
            self._client.partition(self._client.topic, self._partition or 0), cached=True
        )
        return max(0, ends[1] - self._next) + len(self._held) if ends is not None and ends[1] >= 0 else None


def _number(url: ConnectorUrl) -> int | None:
    """The partition that a URL names."""
    text = url.option("partition")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise UsageError(f"{url}: partition is {text!r}; expected a number from 0")
    return int(text)
