"""Apache Kafka beyond the contract: two writers, transactions, rights, partitions, what is trimmed."""

import random
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest
from anyio.to_thread import run_sync
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from servers import Kafka, started
from strategies import often
from support import running, wait_until
from system_kafka import (
    PASSWORD,
    WAIT,
    KafkaSource,
    KafkaSystem,
    SecureKafka,
    delete_topic,
    is_there,
    make_topic,
    put,
    records,
    settings,
    trim,
)

from peerwatch.connectors import checks, kafka
from peerwatch.connectors.exactly_once import StoreSink
from peerwatch.connectors.kafka import KafkaStore
from peerwatch.connectors.kafka_client import KafkaClient
from peerwatch.connectors.kafka_source import KafkaStream
from peerwatch.connectors.records import DECISION, FLAGGED, REJECT, Rejection, payload
from peerwatch.connectors.registry import store_of, stream_of
from peerwatch.connectors.store import AT_LEAST_ONCE, EXACTLY_ONCE, StoreContext
from peerwatch.connectors.stream import Entry
from peerwatch.errors import SinkError, SourceError, UsageError
from peerwatch.network.rejects import RejectedLine
from peerwatch.studies.generate import Recipe, generate
from peerwatch.urls import parsed


@pytest.fixture
def system(kafka: Kafka, tmp_path: Path) -> KafkaSystem:
    """A topic that is not there yet."""
    system = KafkaSystem(tmp_path)
    system.server = kafka
    return system


@pytest.fixture
def source(kafka: Kafka) -> KafkaSource:
    """An empty topic."""
    source = KafkaSource()
    source.server = kafka
    source.make()
    return source


@pytest.fixture(scope="module")
def secure() -> Iterator[SecureKafka]:
    """A broker that asks who one is."""
    for server in started(SecureKafka):
        (server.directory / "password").write_text(f"{PASSWORD}\n")
        yield server


def lines(numbers: Sequence[int]) -> bytes:
    """The lines of flagged purchases."""
    return b"".join(checks.flagged(number).encode() for number in numbers)


async def begun(system: KafkaSystem, stack: AsyncExitStack, mark: Any = None) -> StoreSink:
    """The sink, begun or gone on with."""
    sink = await system.open(stack)
    await sink.start(mark)
    return sink


async def read(source: KafkaSource, position: Any = None) -> tuple[bytes, Any]:
    """The lines behind a position, and the position at their end."""
    content = b""
    async with AsyncExitStack() as stack:
        opened = await source.open(position, stack)
        async with aclosing(opened.blocks()) as blocks:
            async for block in blocks:
                content, position = content + block.content, block.position
    return content, position


async def test_a_second_process_of_the_run_fences_the_first_one_off(system: KafkaSystem) -> None:
    """The first one ends with a sentence, whatever it does then; each record is there once."""
    async with AsyncExitStack() as stack:
        first = await begun(system, stack)
        await first.write([checks.flagged(1)])
        mark = await first.sync()
        second = await begun(system, stack, mark)
        await second.write([checks.flagged(2)])
        for _ in range(2):
            with pytest.raises(SinkError, match="another process has begun to write this run, and this one has been"):
                await first.write([checks.flagged(2)])
        await second.write([checks.flagged(3)])
    assert await system.read() == lines([1, 2, 3])


async def test_a_process_that_was_cut_off_does_not_come_back(system: KafkaSystem, kafka: Kafka) -> None:
    """It connects anew, and finds that another one has taken over meanwhile: that one is not fenced off."""
    async with AsyncExitStack() as stack:
        first = await begun(system, stack)
        await first.write([checks.flagged(1)])
        mark = await first.sync()
        await run_sync(kafka.kill)
        await run_sync(kafka.start)
        second = await begun(system, stack, mark)
        with pytest.raises(SinkError, match="another process has begun to write this run"):
            await first.write([checks.flagged(2)])
        await second.write([checks.flagged(2)])
    assert await system.read() == lines([1, 2])


QUESTIONS = {"list_topics", "committed", "get_watermark_offsets"}


class JustStarted:
    """A client whose broker answers each kind of question for the first time with an error."""

    def __init__(self, client: Any, code: int) -> None:
        self._client = client
        self._code = code
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name not in QUESTIONS or name in self.asked:
            return getattr(self._client, name)
        return partial(self._fail, name)

    def _fail(self, name: str, *_: Any, **__: Any) -> None:
        self.asked.append(name)
        raise KafkaException(KafkaError(self._code))


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    ],
)
async def test_a_broker_that_has_just_started_is_asked_again(
    system: KafkaSystem, source: KafkaSource, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaders and coordinators come after it listens: a run that begins then does not end, nor is anything told."""
    consumer, clients = KafkaClient.consumer, []

    def starting(client: KafkaClient, *more: Any, **options: Any) -> Any:
        clients.append(JustStarted(consumer(client, *more, **options), code))
        return clients[-1]

    await run_sync(put, source.address, source.place, [b"1"])
    monkeypatch.setattr(KafkaClient, "consumer", starting)
    async with AsyncExitStack() as stack:
        sink = await begun(system, stack)
        await sink.write([checks.flagged(1)])
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        with monkeypatch.context() as other:
            other.setattr(sink._store, "_run", "other")
            with pytest.raises(UsageError, match="holds the records of another run"):
                await sink.check_new()
    assert (await read(source))[0] == b"1\n"
    assert system.warnings == source.warnings == []
    assert {name for client in clients for name in client.asked} == {
        "list_topics",
        "committed",
        "get_watermark_offsets",
    }
    assert await system.read() == lines([1])


async def test_a_transaction_that_takes_too_long_is_written_anew(
    system: KafkaSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the machine was suspended: the broker has aborted it, and no other process is to blame."""
    monkeypatch.setattr(kafka, "LONGEST_TRANSACTION", 1.0)
    commit = KafkaStore._commit
    late = [True]

    def commit_late(store: KafkaStore, producer: Producer, marks: Mapping[Any, tuple[int, int]]) -> None:
        if store._writes and late:
            late.clear()
            wait_until_decided(system.address, system.place)
        commit(store, producer, marks)

    monkeypatch.setattr(KafkaStore, "_commit", commit_late)
    async with AsyncExitStack() as stack:
        sink = await begun(system, stack)
        for number in range(1, 4):
            await sink.write([checks.flagged(number)])
    assert not late
    assert await system.read() == lines([1, 2, 3])
    assert ["a transaction took too long" in warning for warning in system.warnings] == [True, False]


def wait_until_decided(server: str, topic: str) -> None:
    """Wait until no transaction of a topic is open."""
    while not is_decided(server, topic):
        pass


def is_decided(server: str, topic: str) -> bool:
    """Whether no transaction of a topic is open."""
    ends = set()
    for level in ("read_committed", "read_uncommitted"):
        consumer = Consumer(settings(server, group_id="reader", isolation_level=level))
        ends.add(consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=WAIT))
        consumer.close()
    return len(ends) == 1


async def test_its_own_topics_for_each_kind(system: KafkaSystem) -> None:
    """A sink of several kinds makes a topic for each, and goes on in each by its own mark."""
    system.kinds = frozenset({FLAGGED, REJECT, DECISION})
    rejects = [Rejection(number, RejectedLine("stream_log.json", number, 0, "no JSON", b"{")) for number in (1, 2)]
    async with AsyncExitStack() as stack:
        sink = await begun(system, stack)
        await sink.write([checks.flagged(7)])
        await sink.write(rejects[:1])
        mark = await sink.sync()
        await sink.write(rejects[1:])
    async with AsyncExitStack() as stack:
        sink = await begun(system, stack, mark)
        await sink.write(rejects[1:])
        await sink.write([checks.flagged(8)])
    assert await system.read() == lines([7, 8])
    found = [
        msgspec.json.decode(message.value() or b"") for message in records(system.address, f"{system.place}-rejects")
    ]
    assert [(each["kind"], each["seq"], each["version"]) for each in found] == [("reject", 1, 1), ("reject", 2, 1)]
    assert list(records(system.address, f"{system.place}-decisions")) == []


async def test_the_mark_outlives_what_retention_removes(system: KafkaSystem) -> None:
    """Of the records, or of the group's offsets: a run goes on all the same, and repeats nothing."""
    async with AsyncExitStack() as stack:
        sink = await begun(system, stack)
        await sink.write([checks.flagged(1)])
        mark = await sink.sync()
        await sink.write([checks.flagged(2)])
    await run_sync(trim, system.address, system.place, -1)
    async with AsyncExitStack() as stack:
        sink = await begun(system, stack, mark)
        await sink.write([checks.flagged(2)])
        await sink.write([checks.flagged(3)])
        mark = await sink.sync()
        await sink.write([checks.flagged(4)])
    assert await system.read() == lines([3, 4])
    await run_sync(delete_group, system.address, system.run)
    async with AsyncExitStack() as stack:
        sink = await begun(system, stack, mark)
        await sink.write([checks.flagged(4)])
        await sink.write([checks.flagged(5)])
    assert await system.read() == lines([3, 4, 5])


def delete_group(server: str, run: str) -> None:
    """Delete the offsets of a run's group."""
    admin = AdminClient(settings(server))
    groups = [group.group_id for group in admin.list_consumer_groups().result(WAIT).valid]
    (group,) = (group for group in groups if run in group)
    admin.delete_consumer_groups([group])[group].result(WAIT)


async def test_a_transaction_that_is_left_undecided_counts(system: KafkaSystem) -> None:
    """As a killed broker may leave one: its records are not written again. If they are gone later, that is told."""
    async with AsyncExitStack() as stack:
        sink = await begun(system, stack)
        await sink.write([checks.flagged(1)])
        mark = await sink.sync()
    producer = await run_sync(leave_undecided, system, system.run)
    async with AsyncExitStack() as stack:
        sink = await begun(system, stack, mark)
        await sink.write([checks.flagged(2)])
        await sink.write([checks.flagged(3)])
        await run_sync(producer.abort_transaction)
        assert await system.read() == lines([1, 3])
        with pytest.raises(SinkError, match="records up to number 3 were there, and those above 0 are gone"):
            await run_sync(trim_and_forget, system, sink._store)


def trim_and_forget(system: KafkaSystem, store: Any) -> None:
    """Remove the records and the group under the run."""
    trim(system.address, system.place, -1)
    delete_group(system.address, system.run)
    store._read_marks()


async def test_another_producers_transaction_is_waited_for(system: KafkaSystem) -> None:
    """As long as it hides what this run has written."""
    async with AsyncExitStack() as stack:
        sink = await begun(system, stack)
        await sink.write([checks.flagged(1)])
        mark = await sink.sync()
    other = await run_sync(leave_undecided, system, "other")
    producer = await run_sync(leave_undecided, system, system.run)
    system.give_up = 0.0
    async with AsyncExitStack() as stack:
        with pytest.raises(SinkError, match="another producer's transaction has not ended"):
            await begun(system, stack, mark)
    await run_sync(other.abort_transaction)
    await run_sync(producer.commit_transaction)
    async with AsyncExitStack() as stack:
        sink = await begun(system, stack, mark)
        await sink.write([checks.flagged(2)])
        await sink.write([checks.flagged(3)])
    assert await system.read() == lines([1, 2, 3])


def leave_undecided(system: KafkaSystem, run: str) -> Producer:
    """Write record 2 of a run in a transaction that stays open, until its producer ends it."""
    producer = Producer(settings(system.address, transactional_id=secrets.token_hex(8)))
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(system.place, msgspec.json.encode(payload(checks.flagged(2), run)), partition=0)
    producer.flush()
    return producer


async def test_a_record_that_is_too_large_is_not_dropped(system: KafkaSystem) -> None:
    """The run ends with a sentence; when the topic takes larger ones, it goes on with that record."""
    large = checks.flagged(2, user="x" * (1 << 20))
    async with AsyncExitStack() as stack:
        sink = await begun(system, stack)
        await sink.write([checks.flagged(1)])
        mark = await sink.sync()
        with pytest.raises(SinkError, match=r"refuses a record: .*; raise the topic's max.message.bytes"):
            await sink.write([large])
        assert await run_sync(is_decided, system.address, system.place)
    assert await system.read() == lines([1])
    await run_sync(allow_large, system.address, system.place)
    async with AsyncExitStack() as stack:
        sink = await begun(system, stack, mark)
        await sink.write([large])
    assert await system.read() == lines([1]) + large.encode()


def allow_large(server: str, topic: str) -> None:
    """Let a topic take records of any size."""
    entry = ConfigEntry("max.message.bytes", "16777216", incremental_operation=AlterConfigOpType.SET)
    place = ConfigResource("TOPIC", topic, incremental_configs=[entry])
    admin = AdminClient(settings(server))
    admin.incremental_alter_configs([place])[place].result(WAIT)


async def test_a_topic_that_is_deleted_under_the_run_ends_it(system: KafkaSystem) -> None:
    """It is not made anew in silence."""
    async with AsyncExitStack() as stack:
        sink = await begun(system, stack)
        await sink.write([checks.flagged(1)])
        system.give_up = sink._give_up = 0.0
        await run_sync(delete_topic, system.address, system.place)
        assert isinstance(sink._store, KafkaStore)
        client = sink._store._client
        client.timeout = 1.0  # for the topic, which does not come back
        with pytest.raises(SinkError, match="has been away for 0 seconds"):
            await sink.write([checks.flagged(2)])
        sink._give_up, client.timeout = 60.0, 5.0
        with pytest.raises(UsageError, match="was deleted while it was being written to"):
            await sink._store.prepare(anew=False)


async def test_a_topic_of_somebody_else_is_refused(system: KafkaSystem) -> None:
    """Whatever its messages are."""
    await run_sync(make_topic, system.address, system.place)
    for value in (b"not JSON", b'{"id": 1}', None):
        await run_sync(put, system.address, system.place, [value])
        async with AsyncExitStack() as stack:
            sink = await system.open(stack)
            with pytest.raises(UsageError, match=r"holds the records of another run \(one that is not named\)"):
                await sink.check_new()


async def test_at_least_once_repeats_rather_than_loses(system: KafkaSystem, kafka: Kafka) -> None:
    """Without transactions; what is written again is there again, and nothing is asked of a group."""

    async def opened(stack: AsyncExitStack) -> StoreSink:
        context = StoreContext(system.run, frozenset({FLAGGED}), AT_LEAST_ONCE, timeout=5.0)
        store = await run_sync(store_of, parsed(system.url), context)
        sink = StoreSink(store, delivery=AT_LEAST_ONCE, give_up=60.0, warn=system.warnings.append)
        await sink.open(stack)
        return sink

    async with AsyncExitStack() as stack:
        sink = await opened(stack)
        await sink.start()
        await sink.write([checks.flagged(number) for number in (1, 2)])
        mark = await sink.sync()
        await run_sync(kafka.kill)
        await run_sync(kafka.start)
        await sink.write([checks.flagged(3)])
    async with AsyncExitStack() as stack:
        sink = await opened(stack)
        await sink.start(mark)
        await sink.write([checks.flagged(3)])
    assert await system.read() == lines([1, 2, 3, 3])


async def test_several_partitions_need_a_choice(source: KafkaSource) -> None:
    """Their order is not the same twice; the sentence names the way out, and with it one is read."""
    several = f"{source.place}-several"
    await run_sync(make_topic, source.address, several, 3)
    await run_sync(put, source.address, several, [b"1", b"2"], 1)
    source.place = several
    with pytest.raises(UsageError, match=r"has 3 partitions, .*; set input.journal, .* or read one of them with"):
        await read(source)
    source.place = f"{several}?partition=1"
    content, position = await read(source)
    assert content == b"1\n2\n"
    await run_sync(put, source.address, several, [b"3"], 1)
    assert (await read(source, position))[0] == b"3\n"
    source.place = f"{several}?partition=3"
    with pytest.raises(UsageError, match="has 3 partitions, numbered from 0"):
        await read(source)


async def test_transactions_leave_gaps(source: KafkaSource) -> None:
    """Aborted messages are not read, and a position goes on behind what a transaction leaves."""
    await run_sync(write_in_transactions, source, [(b"1", True), (b"no", False), (b"2", True), (b"no", False)])
    content, position = await read(source)
    assert content == b"1\n2\n"
    await run_sync(write_in_transactions, source, [(b"3", True)])
    assert (await read(source, position))[0] == b"3\n"


def write_in_transactions(source: KafkaSource, values: Sequence[tuple[bytes, bool]]) -> None:
    """Write messages, each in a transaction that is committed or aborted."""
    producer = Producer(settings(source.address, transactional_id=source.place))
    producer.init_transactions()
    for value, is_committed in values:
        producer.begin_transaction()
        producer.produce(source.place, value, partition=0)
        producer.flush()
        if is_committed:
            producer.commit_transaction()
        else:
            producer.abort_transaction()


async def test_it_ends_where_it_ended_when_it_was_opened(source: KafkaSource) -> None:
    """However fast somebody goes on writing; a run that follows reads on."""
    await run_sync(put, source.address, source.place, [b"1", b"2"])
    for follow in (False, True):
        content, later = b"", 0
        async with AsyncExitStack() as stack:
            opened = await source.open(None, stack, follow=follow)
            await run_sync(put, source.address, source.place, [b"later"])
            async with aclosing(opened.blocks()) as blocks:
                async for block in blocks:
                    content += block.content
                    later = content.count(b"later")
                    if follow and later == 2:
                        break
        assert content == (b"1\n2\nlater\nlater\n" if follow else b"1\n2\n")


async def test_a_topic_that_was_made_anew_is_refused(source: KafkaSource) -> None:
    """It ends before what had been read."""
    await run_sync(put, source.address, source.place, [b"1", b"2"])
    _, position = await read(source)
    await run_sync(delete_topic, source.address, source.place)
    await run_sync(make_topic, source.address, source.place)
    with pytest.raises(UsageError, match="the topic was deleted and made anew; name the topic that was read, or begin"):
        await read(source, position)


async def test_a_topic_that_is_not_known_for_a_moment_is_waited_for(
    source: KafkaSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has read it connects anew: a broker that has just started may not know of it yet."""
    stream = await run_sync(stream_of, parsed(source.url), 5.0)
    await stream.connect(None)
    await stream.close()
    await run_sync(delete_topic, source.address, source.place)
    partitions, unknown = KafkaClient.partitions, threading.Event()

    def asked(client: KafkaClient, *more: Any) -> int | None:
        count = partitions(client, *more)
        if count is None:
            unknown.set()
        return count

    monkeypatch.setattr(KafkaClient, "partitions", asked)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(stream.connect, None)
        await run_sync(unknown.wait)
        await run_sync(make_topic, source.address, source.place)
    await run_sync(put, source.address, source.place, [b"1"])
    entries: list[Entry] = []
    while not entries:
        entries = await stream.fetch(0.1)
    assert [entry.content for entry in entries] == [b"1"]
    await stream.close()


async def test_what_is_trimmed_while_it_is_read_is_told(source: KafkaSource) -> None:
    """The broker says that an offset is gone: nothing is skipped in silence."""
    await run_sync(put, source.address, source.place, [b"1", b"2"])
    stream = await run_sync(stream_of, parsed(source.url), 5.0)
    assert isinstance(stream, KafkaStream)
    await stream.connect(None)
    assert [entry.content for entry in await stream.fetch(0.1)] == [b"1", b"2"]
    await run_sync(put, source.address, source.place, [b"3"])
    await run_sync(trim, source.address, source.place, -1)
    assert stream._consumer is not None
    stream._until = None
    stream._consumer.seek(TopicPartition(source.place, 0, 1))  # as if it had not been fetched ahead
    with pytest.raises(SourceError, match=r"messages from offset .* on are gone, unread: the topic's retention has"):
        await fetch_for_ever(stream)
    await stream.close()


async def fetch_for_ever(stream: KafkaStream) -> None:
    """Fetch until that fails."""
    while True:
        await stream.fetch(0.1)


async def opened_securely(url: str, run: str = "r") -> list[str]:
    """Write a record to a topic and read it back; all that is said on the way."""
    said: list[str] = []
    async with AsyncExitStack() as stack:
        store = await run_sync(store_of, parsed(url), StoreContext(run, frozenset({FLAGGED}), timeout=5.0))
        sink = StoreSink(store, delivery=EXACTLY_ONCE, give_up=60.0, warn=said.append)
        await sink.open(stack)
        await sink.check_new()
        await sink.start()
        await sink.write([checks.HELD])
        stream = await run_sync(stream_of, parsed(url), 5.0)
        await stream.connect(None)
        (entry,) = await stream.fetch(0.1)
        await stream.close()
    assert entry.content is not None
    return [*said, msgspec.json.decode(entry.content)["line"]]


async def test_tls_passwords_and_rights(secure: SecureKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is refused is said in one sentence, without the password; with certificate, password and rights it works."""
    url, said = secure.secure_url, []

    async def refused(url: str) -> str:
        with pytest.raises(UsageError) as raised:
            await opened_securely(url)
        said.append(str(raised.value))
        return said[-1]

    monkeypatch.setenv("KAFKA_PASSWORD", "wrong")
    assert "refuses the connection" in await refused(url)
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    assert "refuses the connection" in await refused(url.replace("ca.pem", "other.pem"))
    assert "ssl.ca.location" in await refused(url.replace("ca.pem", "missing.pem"))
    assert "does not permit this: " in await refused(url)
    await run_sync(secure.grant, ResourceType.TOPIC, "secured", AclOperation.READ)
    assert "the topic secured is not there, make it with one partition" in await refused(url)
    await run_sync(secure.grant, ResourceType.TOPIC, "secured", AclOperation.ALL)
    assert "does not permit this" in await refused(url)
    await run_sync(secure.grant, ResourceType.TRANSACTIONAL_ID, "peerwatch.", AclOperation.WRITE, AclOperation.DESCRIBE)
    await run_sync(secure.grant, ResourceType.GROUP, "peerwatch", AclOperation.READ)
    literal = url.replace("${KAFKA_PASSWORD}", PASSWORD)
    file = url.replace("${KAFKA_PASSWORD}", f"${{file:{secure.directory}/password}}")
    assert await opened_securely(url) == [checks.HELD.line.decode().rstrip("\n")]
    for number, each in enumerate((literal, file)):
        assert "holds the records of another run (r)" in await refused_run(each, f"run{number}")
    assert not any(PASSWORD in each for each in said)


async def refused_run(url: str, run: str) -> str:
    """What is said to another run."""
    with pytest.raises(UsageError) as raised:
        await opened_securely(url, run)
    assert PASSWORD not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("kafka://host", "there is no topic; name one"),
        ("kafka:///topic", "there is no host; name one"),
        ("kafka://host/a/b", "'a/b' is no topic"),
        ("kafka://host:9092,:1/topic", "':1' is no host"),
        ("kafka://host/topic?acks=0", "there is no option 'acks'; known are security.protocol"),
        ("kafka://host/topic?security.protocol=tls", "security.protocol is 'tls'; expected one of plaintext, ssl"),
        ("kafka://host/topic?security.protocol=sasl_ssl", "a user and a password are needed for SASL"),
        ("kafka://me:secret@host/topic?sasl.mechanism=MAGIC", "sasl.mechanism is 'MAGIC'; expected one of PLAIN"),
        ("kafka://host/topic?partition=-1", "partition is '-1'; expected a number from 0"),
    ],
)
def test_a_mistake_in_the_url_is_named(url: str, said: str) -> None:
    """Before anything is connected."""
    with pytest.raises(UsageError) as raised:
        stream_of(parsed(url), 5.0)
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_any_of_several_servers_will_do(system: KafkaSystem) -> None:
    """The first one is down."""
    async with AsyncExitStack() as stack:
        context = StoreContext(system.run, frozenset({FLAGGED}), timeout=5.0)
        store = await run_sync(store_of, parsed(f"kafka://127.0.0.1:1,{system.address}/{system.place}"), context)
        stack.push_async_callback(store.close)
        await store.connect()
        await store.prepare(anew=True)
        await store.append([checks.HELD])
    assert await system.read() == checks.HELD.encode()


PARTITIONED = """
follow: true
idle_exit: {idle_exit}
quiet: true
D: 2
T: 50
detector: {{k: 0.0}}
input: {{stream: "kafka://{address}/{topic}", journal: true}}
output: {{flagged: "kafka://{address}/{topic}-flagged", rejects: rejects.json}}
state: {{directory: state, seconds: 0.05, events: 200}}
"""


def test_partitions_are_read_in_one_order(kafka: Kafka, tmp_path: Path) -> None:
    """Killed while it reads two partitions: the verdicts are those of the order that the journal has, each once."""
    judge_partitions(kafka, tmp_path, kills=often(2, 3))


def judge_partitions(kafka: Kafka, directory: Path, kills: int, seed: int = 1) -> None:
    """Fill two partitions piece by piece, and kill the run in each piece once some verdicts of it have arrived."""
    address, topic, rng = kafka.url.removeprefix("kafka://"), f"t{secrets.token_hex(6)}", random.Random(seed)
    make_topic(address, topic, 2)
    recipe = Recipe(users=100, batch_events=0, mean_degree=0, friend_share=0.3, stream_events=300 * kills, seed=seed)
    lines = [line.rstrip().encode() for line in generate(recipe)[1]]
    parts: list[list[bytes]] = [[], []]
    for name, idle_exit in (("live.yaml", "1.0e+6"), ("last.yaml", "0.5")):
        config = PARTITIONED.format(idle_exit=idle_exit, address=address, topic=topic)
        (directory / name).write_text(config)
    command = [sys.executable, "-m", "peerwatch", "run", "--config"]
    arrived = 0
    for attempt in range(kills):
        wanted = arrived + rng.randint(1, 40)
        with running([*command, "live.yaml"], cwd=directory) as process:
            for piece in range(10):
                begin = 300 * attempt + 30 * piece
                for partition in (0, 1):
                    values = lines[begin + 15 * partition : begin + 15 * partition + 15]
                    put(address, topic, values, partition)
                    parts[partition] += values
            wait_until(lambda: verdicts(address, f"{topic}-flagged").count(b"\n") >= wanted, process)  # noqa: B023 (now)
            process.kill()
            process.wait()
        arrived = verdicts(address, f"{topic}-flagged").count(b"\n")
    subprocess.run([*command, "last.yaml"], cwd=directory, check=True)
    ordered: list[bytes] = []
    taken = [0, 0]
    for note in (directory / "state" / "interleaving.jsonl").read_bytes().splitlines():
        partition, last = msgspec.json.decode(note)
        ordered += parts[partition][taken[partition] : last + 1]
        taken[partition] = last + 1
    assert len(ordered) == len(lines)
    (directory / "ordered.json").write_bytes(b"".join(line + b"\n" for line in ordered))
    options = ["--D", "2", "--T", "50", "--k", "0", "--quiet", "ordered.json", "expected.json"]
    subprocess.run([*command[:-1], *options], cwd=directory, check=True)
    assert verdicts(address, f"{topic}-flagged") == (directory / "expected.json").read_bytes()


def verdicts(server: str, topic: str) -> bytes:
    """The lines of all records; none if there is no such topic yet."""
    if not is_there(AdminClient(settings(server)), topic):
        return b""
    return b"".join(f"{msgspec.json.decode(each.value() or b'')['line']}\n".encode() for each in records(server, topic))
