"""Topics of Apache Kafka as sinks, in transactions, and as targets of generated events. `kafka_source` reads them."""

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
from peerwatch.errors import SinkError, Unavailable, UsageError
from peerwatch.urls import ConnectorUrl

if TYPE_CHECKING:
    from confluent_kafka import Consumer, KafkaError, Message, Producer

LONGEST_TRANSACTION: Final = 900.0
"""Seconds: what a broker allows if nobody has changed it."""
FLUSH_SECONDS: Final = 0.2
"""After so long it is seen whether there is still a connection."""
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
        for _ in range(2):  # the second answer comes over a connection that serves; without one it waits half a second
            self._client.partitions(self._producer, next(iter(self._topics.values())))
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
        found = self._client.committed(consumer, partitions)
        committed = {}
        for kind, partition in zip(self._topics, found, strict=True):
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
