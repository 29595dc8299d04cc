"""Topics of Apache Kafka: records go into one in transactions, and messages are read from one by their offsets."""

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec
from anyio.to_thread import run_sync

from peerwatch.connectors.kafka_client import KafkaClient
from peerwatch.connectors.records import DECISION, FLAGGED, LEDGER, NOTICE, REJECT, SESSION, Kind, Record, payload
from peerwatch.connectors.store import AT_LEAST_ONCE, EXACTLY_ONCE, StoreContext
from peerwatch.connectors.stream import Entry
from peerwatch.errors import SinkError, SourceError, Unavailable, UsageError
from peerwatch.urls import ConnectorUrl

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, Producer

LONGEST_TRANSACTION: Final = 900.0
"""Seconds: what a broker allows if nobody has changed it."""
FLUSH_SECONDS: Final = 0.2
"""After so long it is seen whether there is still a connection."""
MOST_ENTRIES: Final = 2000
"""How many messages one fetch returns at most."""
GATHER_SECONDS: Final = 0.01
"""How long a fetch waits for more messages behind the first: a piece costs about the same whatever its size."""
NAMES: Final[Mapping[Kind, str]] = {
    FLAGGED: "", DECISION: "-decisions", REJECT: "-rejects", NOTICE: "-notices", LEDGER: "-verdicts",
    SESSION: "-sessions",
}  # fmt: skip
"""What is appended to the topic's name if a sink takes records of several kinds."""


class Mark(msgspec.Struct, frozen=True):
    """The metadata of a committed offset: the number of the last record, and the process that writes."""

    seq: int = 0
    writer: str = ""


class Origin(msgspec.Struct, frozen=True):
    """What a topic's record says of itself."""

    run: str = "one that is not named"
    kind: str = ""
    seq: int = 0

    @classmethod
    def of(cls, message: "Message") -> "Origin":
        """Read a record, whoever has written it."""
        try:
            return msgspec.json.decode(message.value() or b"{}", type=cls)
        except msgspec.MsgspecError:
            return cls()

    def mark_of(self, run: str, kind: Kind) -> Mark:
        """The mark that it is, if it is of this run and kind."""
        return Mark(self.seq if (self.run, self.kind) == (run, kind) else 0)


class KafkaStore:
    """`kafka://host:9092/topic`: each batch and its mark are one transaction.

    The mark is the metadata of an offset that a consumer group of the run's own commits. The transactional id is the
    run's own too, so a second process that writes the run fences the first one off.
    """

    def __init__(self, url: ConnectorUrl, context: StoreContext) -> None:
        """Name the topics; nothing is connected.

        Raises:
            UsageError: the library is missing, or the URL is malformed.
        """
        self.url = url
        self.memory: Any = None
        self._client = KafkaClient(url, context.timeout)
        self._run = context.run
        several = len(context.records) > 1
        self._topics = {kind: url.path + (NAMES[kind] if several else "") for kind in sorted(context.records)}
        self._exactly_once = context.delivery == EXACTLY_ONCE
        self._name = ".".join(("peerwatch", context.run, url.path, *self._topics))
        """The transactional id, and the name of the consumer group."""
        self._writer = secrets.token_hex(8)
        self._writes = False
        """Whether this process has kept others out."""
        self._marks: dict[Kind, int] = {}
        self._ends: dict[Kind, int] = {}
        """The offset behind the last record of each kind."""
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._failed: KafkaError | None = None
        """The first error of a record that was not delivered."""
        self._end = 0

    async def connect(self) -> None:
        """Connect.

        Raises:
            UsageError: the server refuses the user, or the user the topic.
            Unavailable: it does not answer.
        """
        await self._client.reach()
        await run_sync(self._connect)

    def _connect(self) -> None:
        self._consumer = self._client.consumer(self._name)
        for topic in self._topics.values():
            self._client.partitions(self._consumer, topic)

    async def close(self) -> None:
        """Close the connections."""
        await run_sync(self._close)

    def _close(self) -> None:
        if self._producer is not None:
            self._producer.purge(blocking=False)
            self._producer = None  # this waits for its threads
        if self._consumer is not None:
            with suppress(Exception):
                self._consumer.close()
            self._consumer = None

    async def other_run(self) -> str | None:
        """The name of another run, if a topic's last record is of it."""
        return await run_sync(self._other_run)

    def _other_run(self) -> str | None:
        for topic in self._topics.values():
            if self._client.partitions(self._reader, topic) is not None:
                last = self._last(topic)
                if last is not None and last.run != self._run:
                    return last.run
        return None

    async def prepare(self, *, anew: bool) -> None:  # noqa: ARG002 (records name their run: all of them can stay)
        """Make topics that are not there, with one partition, and fence off whoever writes this run.

        Raises:
            UsageError: a topic is missing and cannot be made.
            SinkError: somebody else has fenced off this process.
        """
        await run_sync(self._prepare)

    def _prepare(self) -> None:
        for topic in self._topics.values():
            self._make(topic)
        settings: dict[str, Any] = {"on_delivery": self._delivered}
        if self._exactly_once:
            if self._writes:
                self._check_writer()
            longest = min(LONGEST_TRANSACTION, 6 * self._client.timeout)
            settings |= {
                "transactional.id": self._name,
                "transaction.timeout.ms": round(longest * 1000),
                "message.timeout.ms": round(min(longest, self._client.timeout) * 1000),
            }
        self._producer = self._client.producer(settings)
        if self._exactly_once:
            with self._client.translated():
                self._producer.init_transactions(self._client.timeout)
                self._read_marks()
                self._producer.begin_transaction()
                self._commit(self._producer, {kind: (seq, self._ends[kind]) for kind, seq in self._marks.items()})
        self._writes = True

    def _make(self, topic: str) -> None:
        if self._client.partitions(self._reader, topic) is not None:
            return
        if self._writes:
            raise UsageError(f"{self.url}: the topic {topic} was deleted while it was being written to")
        admin = self._client.admin()
        made = admin.create_topics([self._client.new_topic(topic)], operation_timeout=self._client.timeout)
        try:
            with self._client.translated():
                made[topic].result(self._client.timeout)
        except UsageError as error:
            raise UsageError(f"{error}; the topic {topic} is not there, make it with one partition") from None
        deadline = time.monotonic() + self._client.timeout
        while self._client.partitions(self._reader, topic) is None:  # brokers hear of it one after the other
            if time.monotonic() > deadline:
                raise Unavailable(f"the topic {topic} was made, and is not there")

    async def marks(self) -> Mapping[Kind, int] | None:
        """The number of the last record of each kind."""
        if not self._exactly_once:
            return None
        await run_sync(self._read_marks)
        return {kind: seq for kind, seq in self._marks.items() if seq}

    def _read_marks(self) -> None:
        """Read them from the group and from the topic: the higher one counts.

        A group is forgotten a week after its last commit. And a broker that was killed may leave a transaction
        undecided for good, in the topic or in the group, although it had promised to commit it; the next commit of
        this producer settles that, so its records count as written.

        Raises:
            SinkError: records are gone that were there.
        """
        marks, ends = dict.fromkeys(self._topics, 0), dict.fromkeys(self._topics, 0)
        with closing(self._client.consumer(self._name, "read_uncommitted")) as consumer:
            committed = self._committed(consumer)
            for kind, topic in self._topics.items():
                if self._client.partitions(consumer, topic) is None:
                    continue
                mark, offset = committed.get(kind, (Mark(), 0))
                end = self._client.bounds(consumer, topic)[1]
                if offset > end:  # it is another topic, of the same name
                    mark, offset = Mark(), 0
                last = self._last(topic)
                seq = max(mark.seq, last.mark_of(self._run, kind).seq if last is not None else 0)
                if self._producer is not None:
                    seq = max(seq, self._undecided(consumer, kind, seq))
                marks[kind], ends[kind] = seq, offset if seq == mark.seq else end
        for kind, seq in marks.items():
            if seq < self._marks.get(kind, 0):
                raise SinkError(
                    f"{self.url}: records up to number {self._marks[kind]:,} were there, and those above {seq:,} are"
                    " gone; see what has happened to the server, and run again"
                )
        self._marks, self._ends = marks, ends

    def _undecided(self, consumer: "Consumer", kind: Kind, seq: int) -> int:
        """The number of the last own record that the next commit will settle, 0 if there is none above `seq`."""
        found = [Origin.of(message) for message in self._client.undecided(consumer, self._topics[kind])]
        above = max((each.mark_of(self._run, kind).seq for each in found), default=0)
        if above <= seq:
            return 0
        if not found[0].mark_of(self._run, kind).seq:
            raise Unavailable("another producer's transaction has not ended")
        return above

    def _committed(self, consumer: "Consumer") -> dict[Kind, tuple[Mark, int]]:
        """What the group has committed for each kind, with the offset."""
        partitions = [self._client.partition(topic) for topic in self._topics.values()]
        with self._client.translated():
            found = consumer.committed(partitions, timeout=self._client.timeout)
        committed = {}
        for kind, partition in zip(self._topics, found, strict=True):
            if partition.error is not None:
                raise self._client.failure(partition.error)
            if partition.offset >= 0 and partition.metadata:
                committed[kind] = msgspec.json.decode(partition.metadata, type=Mark), partition.offset
        return committed

    def _check_writer(self) -> None:
        """See that nobody else has written this run since.

        Raises:
            SinkError: somebody has.
        """
        with closing(self._client.consumer(self._name, "read_uncommitted")) as consumer:
            committed = self._committed(consumer)
        if any(mark.writer != self._writer for mark, _ in committed.values()):
            raise SinkError(
                f"{self.url}: another process has begun to write this run, and this one has been fenced off; let only"
                " one of them run"
            )

    async def append(self, records: Sequence[Record]) -> None:
        """Write records and their mark in one transaction.

        Raises:
            SinkError: they are refused, or another process writes this run.
        """
        await run_sync(self._append, records)

    async def send(self, values: Sequence[bytes]) -> None:
        """Write messages as they are, at least once, to the one topic of a store that is not exactly once.

        Raises:
            SinkError: they are refused.
        """
        await run_sync(self._write, next(iter(self._topics)), values, None)

    def _append(self, records: Sequence[Record]) -> None:
        values = [msgspec.json.encode(payload(record, self._run)) for record in records]
        self._write(records[0].kind, values, records[-1].seq)

    def _write(self, kind: Kind, values: Sequence[bytes], last: int | None) -> None:
        """Write messages, and in a transaction the mark that they bring: the number of the `last` record."""
        producer, codes = self._producer, self._client.codes
        if producer is None:
            raise Unavailable("the producer is closed")
        producer.poll(0)
        self._client.check()
        try:
            if not self._exactly_once or last is None:
                self._send(producer, kind, values)
                return
            producer.begin_transaction()
            self._send(producer, kind, values)
            self._commit(producer, {kind: (last, self._end)})
            self._marks[kind], self._ends[kind] = last, self._end
        except self._client.errors as exception:
            error = exception.args[0]
            if error.code() in {codes._FENCED, codes.PRODUCER_FENCED, codes.INVALID_PRODUCER_EPOCH}:
                self._check_writer()
                raise Unavailable("a transaction took too long") from None
            failure = self._client.failure(error)
            if self._exactly_once and not isinstance(failure, Unavailable):
                with suppress(self._client.errors):  # readers can go on; the broker would see to it after a while
                    producer.abort_transaction(self._client.timeout)
            raise SinkError(str(failure)) if isinstance(failure, UsageError) else failure from None

    def _send(self, producer: "Producer", kind: Kind, values: Sequence[bytes]) -> None:
        """Send messages, and wait until they are written."""
        topic, deadline = self._topics[kind], time.monotonic() + self._client.timeout
        self._failed = None
        for value in values:
            while True:
                try:
                    producer.produce(topic, value, partition=0)
                    break
                except BufferError:  # the client holds as much as it may
                    producer.poll(0.1)
                    if time.monotonic() > deadline:
                        raise Unavailable("it takes records too slowly") from None
        while producer.flush(FLUSH_SECONDS):
            self._client.check()
            if time.monotonic() > deadline:
                raise Unavailable(f"records were not taken within {self._client.timeout:g} seconds")
        if self._failed is not None:
            raise self._client.errors(self._failed)

    def _delivered(self, error: "KafkaError | None", message: "Message") -> None:
        if error is not None:
            self._failed = self._failed or error
        else:
            self._end = (message.offset() or 0) + 1

    def _commit(self, producer: "Producer", marks: Mapping[Kind, tuple[int, int]]) -> None:
        """Commit a transaction with these marks: for each kind a number, and the offset behind its record."""
        offsets = []
        for kind, (seq, end) in marks.items():
            metadata = msgspec.json.encode(Mark(seq, self._writer)).decode()
            offsets.append(self._client.partition(self._topics[kind], 0, end, metadata))
        group, timeout = self._reader.consumer_group_metadata(), self._client.timeout
        self._client.bounded(lambda: producer.send_offsets_to_transaction(offsets, group, timeout))
        producer.commit_transaction(timeout)

    @property
    def _reader(self) -> "Consumer":
        if self._consumer is None:
            raise Unavailable("the consumer is closed")
        return self._consumer

    def _last(self, topic: str) -> Origin | None:
        """What the last record of a topic says of itself."""
        last = self._client.last_record(self._reader, topic)
        return Origin.of(last) if last is not None else None


class KafkaTarget:
    """`kafka://host:9092/topic`: each event is a message in the first partition; a topic that is not there is made."""

    def __init__(self, url: ConnectorUrl, timeout: float) -> None:
        """Name the topic; nothing is connected.

        Raises:
            UsageError: the library is missing, or the URL is malformed.
        """
        self._store = KafkaStore(url, StoreContext("copy", frozenset({FLAGGED}), AT_LEAST_ONCE, timeout))

    async def connect(self) -> None:
        """Connect, and make the topic if need be.

        Raises:
            UsageError: the server refuses the user, or the user the topic.
            Unavailable: it does not answer.
        """
        await self._store.connect()
        await self._store.prepare(anew=False)

    async def close(self) -> None:
        """Close the connection."""
        await self._store.close()

    async def send(self, lines: Sequence[bytes]) -> None:
        """Send events, and wait until the brokers have them.

        Raises:
            SinkError: they are refused.
            Unavailable: no server answers.
        """
        await self._store.send(lines)


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
        count = self._client.partitions(consumer, self._client.topic)
        if count is None:
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
            messages = consumer.consume(1, seconds)
            if messages:
                messages += consumer.consume(MOST_ENTRIES - 1, GATHER_SECONDS)
        for message in messages:
            error, offset = message.error(), message.offset() or 0
            if error is None:
                entries.append(Entry(offset, message.value()))
                self._next = offset + 1
            elif error.code() == codes._PARTITION_EOF:
                self._next = offset
            elif error.code() in {codes._AUTO_OFFSET_RESET, codes.OFFSET_OUT_OF_RANGE}:
                raise SourceError(f"{self.url}: messages from offset {self._next:,} on are gone, {WAY_OUT}")
            else:
                raise self._client.failure(error)
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


WAY_OUT: Final = (
    "unread: the topic's retention has removed them; let it keep messages for longer than a run is away, and begin anew"
    " with --reset"
)


def _number(url: ConnectorUrl) -> int | None:
    """The partition that a URL names."""
    text = url.option("partition")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise UsageError(f"{url}: partition is {text!r}; expected a number from 0")
    return int(text)
