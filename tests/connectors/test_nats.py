"""NATS JetStream: who may write a subject, what readers find there, and what goes wrong, in one sentence."""

import asyncio
import os
import random
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from anyio.to_thread import run_sync
from certificates import Certificates, certificates
from click.testing import CliRunner
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StreamConfig
from proxy import Proxy
from servers import Nats, started
from system_nats import NatsSource, NatsSystem

from peerwatch.cli.main import cli
from peerwatch.connectors import checks
from peerwatch.connectors.exactly_once import StoreSink
from peerwatch.connectors.records import DECISION, FLAGGED, REJECT, DecisionRow, Record, Rejection, encoded
from peerwatch.connectors.registry import store_of, stream_of, target_of
from peerwatch.connectors.store import AT_LEAST_ONCE, StoreContext
from peerwatch.errors import SinkError, SourceError, Unavailable, UsageError
from peerwatch.network.rejects import RejectedLine
from peerwatch.urls import parsed

Result = TypeVar("Result")


@pytest.fixture
def system(nats_server: Nats, tmp_path: Path) -> NatsSystem:
    """A subject of its own."""
    system = NatsSystem(tmp_path)
    system.server = nats_server
    return system


@pytest.fixture
def source(nats_server: Nats) -> NatsSource:
    """An empty stream of its own."""
    source = NatsSource()
    source.server = nats_server
    source.make()
    return source


@pytest.fixture
def proxy(nats_server: Nats) -> Iterator[Proxy]:
    """A proxy that breaks connections again and again: before a request, within it, or before its answer."""
    pieces = count(1)
    with Proxy(nats_server, lambda _: next(pieces) % 23 == 0) as proxy:
        yield proxy


async def ask(system: NatsSystem | NatsSource, action: Callable[[JetStreamContext], Awaitable[Result]]) -> Result:
    """Do something with JetStream, by NATS' own client."""
    return await run_sync(system.ask, action)


async def written(system: NatsSystem, records: Sequence[Record], mark: Any = None, *, force: bool = False) -> Any:
    """Records that one process of the run writes; the mark behind them."""
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start(mark, force=force)
        await sink.write(records)
        return await sink.sync()


async def refusal(system: NatsSystem, url: str) -> str:
    """What a run is told whose sink this is."""
    store = await run_sync(store_of, parsed(url), StoreContext(system.run, system.kinds, timeout=5.0))
    try:
        await store.connect()
        await store.prepare(anew=True)
    except (UsageError, Unavailable) as error:
        return str(error)
    finally:
        await store.close()
    raise AssertionError(f"{url} is not refused")


async def test_a_second_process_of_the_run_does_no_harm(system: NatsSystem) -> None:
    """Both write the same records in the same order, cut differently, in any interleaving: each is there once."""
    records = [checks.flagged(3 * number + 1) for number in range(300)]
    rng = random.Random(1)
    async with AsyncExitStack() as stack:
        sinks = [await system.open(stack) for _ in range(3)]
        for sink in sinks:
            await sink.start()
        places = [0, 0, 0]
        while min(places) < len(records):
            which = rng.randrange(3)
            end = places[which] + rng.randrange(1, 20)
            if records[places[which] : end]:
                await sinks[which].write(records[places[which] : end])
            places[which] = end
    assert await system.read() == encoded(records)


async def test_processes_of_the_run_may_write_at_once(system: NatsSystem) -> None:
    """Their messages mix on the way to the server, and each record is stored once, in order."""
    records = [checks.flagged(number + 1) for number in range(400)]
    async with AsyncExitStack() as stack:
        sinks = [await system.open(stack) for _ in range(2)]
        for sink in sinks:
            await sink.start()
        await asyncio.gather(*(sink.write(records) for sink in sinks))
    assert await system.read() == encoded(records)


@pytest.mark.parametrize("window", [0.1, 120.0])
async def test_the_window_of_duplicates_has_no_part_in_it(system: NatsSystem, window: float) -> None:
    """Records that were sent before are left out, whether the server still knows their ids or not."""
    config = StreamConfig(name=system.place, subjects=[system.place], duplicate_window=window)
    await ask(system, lambda stream: stream.add_stream(config))
    await checks.check_sink_goes_on_anywhere(system)


async def test_a_run_whose_place_was_taken_cannot_write(system: NatsSystem) -> None:
    """Another run has begun there with --force while the first one still runs: nothing is mixed."""
    async with AsyncExitStack() as stack:
        first = await system.open(stack)
        await first.start()
        await first.write([checks.HELD])
        system.begin_run()
        await written(system, [checks.HELD], force=True)
        with pytest.raises(SinkError, match=rf"another run \({system.run}\) has written there behind this one"):
            await first.write([checks.BEHIND])
    assert [message["run"] == system.run for message in await run_sync(system.messages)] == [False, True]


async def test_a_run_goes_on_behind_another_one_s_records(system: NatsSystem) -> None:
    """It has begun with --force and has written nothing yet: the checkpoint knows where it began."""
    await written(system, [checks.HELD])
    system.begin_run()
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start(None, force=True)
        mark = msgspec.json.decode(msgspec.json.encode(await sink.sync()))
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        assert not await sink.has_more(mark)
        await sink.start(mark)
        await sink.write([checks.HELD])
    assert await system.read() == checks.HELD.encode()
    first, system.run = system.run, "another"
    await written(system, [checks.HELD], force=True)
    system.run = first
    with pytest.raises(UsageError, match=r"another run \(another\) has written there behind this one"):
        await written(system, [checks.BEHIND], mark)


async def test_messages_of_somebody_else_are_noticed(system: NatsSystem) -> None:
    """A subject that others publish to is refused, also if they begin later."""
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start()
        await sink.write([checks.HELD])
        await ask(system, lambda stream: stream.publish(system.place, b"{}"))
        with pytest.raises(SinkError, match="is none that a run of peerwatch has written; name another subject"):
            await sink.write([checks.BEHIND])
    assert "is none that a run of peerwatch has written" in await refusal(system, system.url)


async def test_other_subjects_may_come_between(system: NatsSystem) -> None:
    """A stream of several subjects, to which others publish meanwhile."""
    other = f"{system.place}x"
    await ask(system, lambda stream: stream.add_stream(name=system.place, subjects=[system.place, other]))
    records = [checks.flagged(number + 1) for number in range(600)]
    done = asyncio.Event()

    async def publish(stream: JetStreamContext) -> None:
        while not done.is_set():
            await stream.publish(other, b"{}")

    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start()
        publishing = asyncio.create_task(ask(system, publish))
        for place in range(0, len(records), 30):
            await sink.write(records[place : place + 30])
        done.set()
        await publishing
    assert await system.read() == encoded(records)
    assert system.warnings == []


async def test_a_record_that_was_purged_is_not_taken_for_written(system: NatsSystem) -> None:
    """The server still knows its id and would drop it as a duplicate: the run says so instead of losing it."""
    mark = await written(system, [checks.HELD])
    await run_sync(system.wipe)
    with pytest.raises(SinkError, match="still refuses it as a duplicate; wait until its window of duplicates is over"):
        await written(system, [checks.HELD], mark, force=True)


async def test_a_stream_that_is_deleted_meanwhile_ends_the_run(system: NatsSystem) -> None:
    """It is not begun anew as if nothing had been there."""
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start()
        await sink.write([checks.HELD])
        await ask(system, lambda stream: stream.delete_stream(system.place))
        with pytest.raises(SinkError, match="has lost records while it was away"):
            await sink.write([checks.BEHIND])


async def test_a_stream_that_forgets_is_refused(system: NatsSystem) -> None:
    """A work queue, from which nobody can tell what was written; at least once it may be."""
    config = StreamConfig(name=system.place, subjects=[system.place], retention=RetentionPolicy.WORK_QUEUE)
    await ask(system, lambda stream: stream.add_stream(config))
    assert "name one whose retention is by limits, or set at-least-once" in await refusal(system, system.url)
    context = StoreContext(system.run, system.kinds, AT_LEAST_ONCE)
    store = await run_sync(store_of, parsed(system.url), context)
    await store.connect()
    await store.prepare(anew=True)
    await store.append([checks.HELD])
    await store.close()
    assert await system.read() == checks.HELD.encode()


async def test_records_of_several_kinds_have_a_subject_each(system: NatsSystem) -> None:
    """Their numbers begin with 1 for each kind; each kind has its mark, and its messages say what they are."""
    system.kinds = frozenset({FLAGGED, DECISION, REJECT})
    decision = DecisionRow(
        1, "log", 1, "7", 0, "1.50", flagged=False, window_size=0, mean=None, sd=None, network_size=None, score=None,
        threshold=None, model=None, severity=None,
    )  # fmt: skip
    reject = Rejection(1, RejectedLine("log", 2, 10, "not JSON", b"\xff"))
    mark = None
    for _ in range(2):
        async with AsyncExitStack() as stack:
            sink = await system.open(stack)
            await sink.start(mark)
            for record in (checks.HELD, decision, reject):
                await sink.write([record])
            mark = await sink.sync()
    for suffix, kind in (("", FLAGGED), (".decisions", DECISION), (".rejects", REJECT)):
        (content,) = await run_sync(system.contents, system.place + suffix)
        message = msgspec.json.decode(content)
        assert (message["version"], message["kind"], message["run"], message["seq"]) == (1, kind, system.run, 1)


async def test_two_kinds_do_not_share_a_subject(system: NatsSystem) -> None:
    """Two sinks of one run that take different records to the same subject: the second one is refused."""
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start()
        await sink.write([checks.HELD])
        system.kinds = frozenset({DECISION})
        other = await system.open(stack)
        with pytest.raises(UsageError, match=r"takes this run's flagged records; name another subject"):
            await other.start()


async def opened(system: NatsSystem, stack: AsyncExitStack) -> StoreSink:
    """The sink, however often the very first connection breaks."""
    while True:
        try:
            return await system.open(stack)
        except UsageError as error:
            assert "cannot reach" in str(error)  # noqa: PT017


async def test_connections_that_break_lose_and_repeat_nothing(system: NatsSystem, proxy: Proxy) -> None:
    """An answer that is lost is no reason to write its records again."""
    real, records = system.server, [checks.flagged(number + 1, user="x" * 2000) for number in range(400)]
    system.server = proxy  # type: ignore[assignment]
    async with AsyncExitStack() as stack:
        sink = await opened(system, stack)
        await sink.start()
        for place in range(0, len(records), 40):
            await sink.write(records[place : place + 40])
    system.server = real
    assert proxy.broken > 0
    assert await system.read() == encoded(records)


async def test_reading_over_connections_that_break_loses_and_repeats_nothing(source: NatsSource, proxy: Proxy) -> None:
    """It goes on behind the last message that arrived."""
    lines, real = [b"%d" % number for number in range(1000)], source.server
    source.server, content = proxy, b""  # type: ignore[assignment]
    async with AsyncExitStack() as stack:
        opened = None
        while opened is None:
            try:
                opened = await source.open(None, stack, follow=True)
            except UsageError as error:
                assert "cannot reach" in str(error)  # noqa: PT017
        source.server, number = real, 0
        async with aclosing(opened.blocks()) as blocks:
            async for block in blocks:
                content += block.content
                if content.count(b"\n") == number:
                    if number == len(lines):
                        break
                    await run_sync(source.put, lines[number : number + 50])
                    number += 50
    assert proxy.broken > 0
    assert content == b"".join(line + b"\n" for line in lines)


async def test_a_server_that_hangs_is_waited_for(system: NatsSystem) -> None:
    """It stops answering in the middle, and goes on when that was told."""
    assert system.server is not None
    pid = system.server.pid
    system.timeout = 0.2

    class Told(list[str]):
        def append(self, warning: str) -> None:
            super().append(warning)
            os.kill(pid, signal.SIGCONT)

    system.warnings = Told()

    async def disturb(number: int) -> None:
        if number == 5:
            os.kill(pid, signal.SIGSTOP)

    try:
        await checks.check_sink_outlives(system, disturb)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "no answer within 0.2 seconds; waiting for it" in system.warnings[0]


async def test_a_full_stream_is_waited_for(system: NatsSystem) -> None:
    """It refuses to grow until somebody makes room: the run waits, and goes on."""

    def limited(count: int) -> StreamConfig:
        return StreamConfig(name=system.place, subjects=[system.place], discard=DiscardPolicy.NEW, max_msgs=count)

    await ask(system, lambda stream: stream.add_stream(limited(5)))
    room: list[asyncio.Task[Any]] = []

    class Told(list[str]):
        def append(self, warning: str) -> None:
            super().append(warning)
            if len(self) == 1:
                room.append(asyncio.create_task(ask(system, lambda stream: stream.update_stream(limited(100)))))

    system.warnings = Told()

    async def disturb(_: int) -> None:
        return

    await checks.check_sink_outlives(system, disturb)
    await room[0]
    assert "maximum messages exceeded; waiting for it" in system.warnings[0]


class SmallNats(Nats):
    """NATS as it is without settings: messages of a mebibyte at most."""

    def command(self) -> list[str]:
        """What starts it."""
        return [part for part in super().command() if part != "-c" and not part.endswith(".conf")] + [
            "-js", "-sd", str(self.directory / "data"),
        ]  # fmt: skip


@pytest.fixture
def small_server() -> Iterator[SmallNats]:
    """NATS without settings."""
    yield from started(SmallNats)


async def test_a_record_that_is_too_large_is_named(system: NatsSystem, small_server: SmallNats) -> None:
    """With the setting that limits it; those before it are there."""
    system.server = small_server
    with pytest.raises(SinkError, match=r"record 2 has .* bytes, but .* takes messages of 1,048,576; raise its max_p"):
        await written(system, [checks.HELD, checks.flagged(2, user="x" * (1 << 20))])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates."""
    return certificates(tmp_path_factory.mktemp("certificates"))


class SecretNats(Nats):
    """NATS with a password, over TLS, for clients with a certificate."""

    keys: Certificates

    @property
    def url(self) -> str:
        """With the password in the environment, and all files."""
        keys = self.keys
        files = f"tlsca={keys.authority}&tlscert={keys.client}&tlskey={keys.client_key}"
        return f"tls://teller:${{PEERWATCH_TEST_PASSWORD}}@127.0.0.1:{self.port}/flagged?{files}"

    def prepare(self) -> None:
        """Write its settings."""
        super().prepare()
        keys = self.keys
        with (self.directory / "nats.conf").open("a") as settings:
            settings.write(
                f"""
                tls {{
                  cert_file: "{keys.server}", key_file: "{keys.server_key}", ca_file: "{keys.authority}", verify: true
                }}
                authorization {{ users: [{{
                  user: teller, password: s3cret,
                  permissions: {{ publish: ["flagged", "$JS.API.>"], subscribe: ["_INBOX.>"] }}
                }}] }}
                """
            )

    def answers(self) -> bool:
        """Whether it says that it is ready; it is asked without TLS here."""
        return b"Server is ready" in self.output.read_bytes()


@pytest.fixture(scope="module")
def secret_server(keys: Certificates) -> Iterator[SecretNats]:
    """NATS with a password and TLS."""
    SecretNats.keys = keys
    yield from started(SecretNats)


async def test_password_and_tls(
    system: NatsSystem, secret_server: SecretNats, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A right password and known certificates get in; each wrong one is named, and the password never is."""
    good = secret_server.url
    monkeypatch.setenv("PEERWATCH_TEST_PASSWORD", "s3cret")
    for url in (good, good.replace("tls://", "nats://")):  # the server asks for TLS
        store = await run_sync(store_of, parsed(url), StoreContext(system.run, system.kinds))
        await store.connect()
        await store.prepare(anew=True)
        if url == good:
            await store.append([checks.HELD])
        assert await store.marks() == {FLAGGED: 1}
        await store.close()
    plain = good.partition("?")[0]
    assert system.server is not None
    wrong = [
        (plain, "no TLS connection: .*certificate"),
        (plain.replace("127.0.0.1", "localhost") + good[len(plain) :], "not valid for 'localhost'"),
        (good.partition("&")[0], "no TLS connection|[Cc]onnection|EOF|Broken pipe"),
        (good.replace("authority.pem", "nothing.pem"), "cannot read its certificates: No such file"),
        (good.replace("teller:${PEERWATCH_TEST_PASSWORD}@", ""), "refuses the user or the password"),
        (good.replace(str(secret_server.port), str(system.server.port)), "the server does not ask for TLS"),
    ]
    for url, says in wrong:
        told = await refusal(system, url)
        assert re.search(says, told), told
        assert "s3cret" not in told
    store = await run_sync(store_of, parsed(good.replace("/flagged", "/other")), StoreContext("run", system.kinds))
    await store.connect()
    await store.prepare(anew=True)
    with pytest.raises((SinkError, UsageError), match=r"does not let this user do that: .*other"):
        await store.append([checks.HELD])
    await store.close()
    monkeypatch.setenv("PEERWATCH_TEST_PASSWORD", "g3heim")
    told = await refusal(system, good)
    assert "refuses the user or the password" in told
    assert "g3heim" not in told
    assert "literal" not in await refusal(system, good.replace("${PEERWATCH_TEST_PASSWORD}", "literal"))
    assert caplog.messages == []


async def test_a_password_is_not_sent_without_the_tls_that_was_asked_for(
    system: NatsSystem, monkeypatch: pytest.MonkeyPatch, secret_server: SecretNats
) -> None:
    """Nothing of it passes by, although the client library itself would go on without TLS."""
    passed: list[bytes] = []

    class Listening(Proxy):
        def passes(self, piece: bytes) -> None:
            passed.append(piece)

    monkeypatch.setenv("PEERWATCH_TEST_PASSWORD", "s3cret")
    assert isinstance(system.server, Nats)
    proxy = Listening(system.server, lambda _: False)
    await run_sync(proxy.__enter__)
    try:
        url = secret_server.url.replace(str(secret_server.port), str(proxy.port))
        assert "the server does not ask for TLS" in await refusal(system, url)
    finally:
        await run_sync(proxy.__exit__)
    assert b"INFO" in b"".join(passed)
    assert b"s3cret" not in b"".join(passed)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nats://127.0.0.1:1", "names no subject"),
        ("nats://127.0.0.1:1/a..b", "'a..b' is no subject; expected words that are separated by dots"),
        ("nats://127.0.0.1:1/a.*", "stands for many subjects; name one to write to"),
        ("nats://127.0.0.1:1/k?stream=1", "there is no option 'stream'"),
    ],
)
def test_urls_that_lack_something(url: str, says: str) -> None:
    """A sentence says what."""
    with pytest.raises(UsageError, match=re.escape(says)):
        store_of(parsed(url), StoreContext("run", frozenset({FLAGGED})))


async def read(source: NatsSource, position: Any = None) -> tuple[bytes, Any]:
    """The lines behind a position, and the position at their end."""
    content = b""
    async with AsyncExitStack() as stack:
        opened = await source.open(position, stack)
        async with aclosing(opened.blocks()) as blocks:
            async for block in blocks:
                content, position = content + block.content, block.position
    return content, position


async def remove(source: NatsSource, *places: int) -> None:
    """Delete single messages."""

    async def delete(stream: JetStreamContext) -> None:
        for place in places:
            await stream.delete_msg(source.place, place)

    await ask(source, delete)


async def test_more_than_a_thousand_messages_are_read(source: NatsSource) -> None:
    """A consumer whose messages are acknowledged would stop there."""
    lines = [b"%d" % number for number in range(2500)]
    await run_sync(source.put, lines)
    async with AsyncExitStack() as stack:
        opened = await source.open(None, stack)
        async with aclosing(opened.blocks()) as blocks:
            found = [(block.content.count(b"\n"), opened.unread()) async for block in blocks]
    assert found == [(500, 2000), (500, 1500), (500, 1000), (500, 500), (500, 0)]


@pytest.mark.parametrize("how", ["trim", "delete"])
async def test_messages_that_go_while_the_stream_is_read_are_told(source: NatsSource, how: str) -> None:
    """Trimmed, or deleted singly, between two fetches: the run ends with the count."""
    await run_sync(source.put, [b"%d" % number for number in range(600)])
    async with AsyncExitStack() as stack:
        opened = await source.open(None, stack, follow=True)
        async with aclosing(opened.blocks()) as blocks:
            assert (await anext(blocks)).content.count(b"\n") == 500
            if how == "trim":
                await run_sync(source.trim, 503)
            else:
                await remove(source, 501, 502, 503)
            with pytest.raises(SourceError, match="3 messages behind 500 gone unread"):
                await anext(blocks)


async def test_what_was_deleted_before_reading_began_is_no_loss(source: NatsSource) -> None:
    """Holes that were there already, and what is deleted after it was read."""
    await run_sync(source.put, [b"%d" % number for number in range(1, 11)])
    await remove(source, 1, 6, 7)
    content, position = await read(source)
    assert content == b"2\n3\n4\n5\n8\n9\n10\n"
    await remove(source, 4)
    assert await read(source, position) == (b"", position)
    await run_sync(source.put, [b"11", b"12", b"13"])
    content, later = await read(source, position)
    assert content == b"11\n12\n13\n"
    await remove(source, 13)
    assert await read(source, later) == (b"", later)
    with pytest.raises(UsageError, match="1 message behind 10 gone unread"):
        await read(source, position)


async def test_holes_are_counted_wherever_reading_goes_on(source: NatsSource) -> None:
    """From any position a known hole is none, and one more is told."""
    await run_sync(source.put, [b"%d" % number for number in range(1, 11)])
    await remove(source, 4, 8)
    stream = await run_sync(stream_of, parsed(source.url), 5.0)
    await stream.connect(None)
    entries = await stream.fetch(0.05)
    await stream.close()
    position = {"after": list(entries[1].id), "line": 3, "offset": 0}
    assert (await read(source, position))[0] == b"3\n5\n6\n7\n9\n10\n"
    await remove(source, 6)
    with pytest.raises(UsageError, match="1 message behind 2 gone unread"):
        await read(source, position)


async def test_a_subject_among_others(source: NatsSource) -> None:
    """Only its messages are read; what others lose is not its loss, unless nobody can tell."""
    other = f"{source.place}.other"
    subjects = [f"{source.place}.events", other]
    await ask(source, lambda stream: stream.update_stream(name=source.place, subjects=subjects))

    async def publish(stream: JetStreamContext) -> None:
        for number in range(5):
            await stream.publish(other, b"x")
            await stream.publish(f"{source.place}.events", b"%d" % number)

    await ask(source, publish)
    content, position = await read(source)
    assert content == b"0\n1\n2\n3\n4\n"
    await remove(source, 1)
    assert await read(source, position) == (b"", position)
    await ask(source, publish)
    await run_sync(source.trim, 8)
    assert (await read(source, position))[0] == content
    await run_sync(source.trim, 3)
    with pytest.raises(UsageError, match=r"are gone from .*, perhaps some of .* unread"):
        await read(source, position)


async def test_a_stream_that_was_made_anew_is_told(source: NatsSource) -> None:
    """Although it has as many messages as the one that was read."""
    await run_sync(source.put, [b"1", b"2"])
    _, position = await read(source)
    await ask(source, lambda stream: stream.delete_stream(source.place))
    await run_sync(source.make)
    await run_sync(source.put, [b"1", b"2", b"3"])
    with pytest.raises(UsageError, match="is not the one that was read up to 2"):
        await read(source, position)


async def test_a_work_queue_is_no_source(source: NatsSource) -> None:
    """No run could go on with it."""
    await ask(source, lambda stream: stream.delete_stream(source.place))
    config = StreamConfig(name=source.place, subjects=[f"{source.place}.events"], retention=RetentionPolicy.WORK_QUEUE)
    await ask(source, lambda stream: stream.add_stream(config))
    with pytest.raises(UsageError, match="so no run could go on; name one whose retention is by limits"):
        await read(source)


async def test_a_consumer_that_is_gone_is_replaced(source: NatsSource) -> None:
    """As after hours in which nothing was asked for."""
    await run_sync(source.put, [b"1"])

    async def delete(stream: JetStreamContext) -> None:
        (consumer,) = await stream.consumers_info(source.place)
        await stream.delete_consumer(source.place, consumer.name)

    async with AsyncExitStack() as stack:
        opened = await source.open(None, stack, follow=True)
        async with aclosing(opened.blocks()) as blocks:
            assert (await anext(blocks)).content == b"1\n"
            await ask(source, delete)
            await run_sync(source.put, [b"2"])
            content = b""
            while not content:
                content = (await anext(blocks)).content
    assert content == b"2\n"


async def test_large_messages_are_fetched_few_at_a_time(source: NatsSource) -> None:
    """So that memory is bounded."""
    await run_sync(source.put, [b"x" * (1 << 20)] * 20)
    async with AsyncExitStack() as stack:
        opened = await source.open(None, stack)
        async with aclosing(opened.blocks()) as blocks:
            counts = [block.content.count(b"\n") async for block in blocks]
    assert max(counts) <= 8
    assert sum(counts) == 20


def test_events_are_copied_to_it_and_back(system: NatsSystem, tmp_path: Path) -> None:
    """The stream is made; large events and what is none come back as they were, in order."""
    lines = [b"%d" % number for number in range(2500)] + [b"x" * (1 << 20), "Zo\u00eb \U0001f600".encode()] * 3
    (tmp_path / "log").write_bytes(b"".join(line + b"\n" for line in lines))
    for source, target in (("log", f"{system.url}"), (f"{system.url}", "back")):
        places = [place if "://" in place else str(tmp_path / place) for place in (source, target)]
        result = CliRunner().invoke(cli, ["copy", *places])
        assert (result.exit_code, result.output) == (0, "2,506 events sent\n")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "log").read_bytes()


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a sink, a source and a target."""
    monkeypatch.setitem(sys.modules, "nats", None)
    url = "nats://127.0.0.1:1/k"
    for make in (
        lambda: store_of(parsed(url), StoreContext("run", frozenset({FLAGGED}))),
        lambda: stream_of(parsed(url), 1.0),
        lambda: target_of(url, 1.0),
    ):
        with pytest.raises(UsageError, match=re.escape("needs nats-py; install it: pip install 'peerwatch[nats]'")):
            make()
