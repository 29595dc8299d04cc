"""Redis Streams: who may write a key, what readers find there, and what goes wrong, in one sentence."""

import asyncio
import os
import random
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anyio.to_thread import run_sync
from certificates import Certificates, certificates
from click.testing import CliRunner
from proxy import Proxy
from servers import Redis, started
from system_redis import RedisSource, RedisSystem

from peerwatch.cli.main import cli
from peerwatch.connectors import checks
from peerwatch.connectors.exactly_once import StoreSink
from peerwatch.connectors.records import DECISION, FLAGGED, REJECT, DecisionRow, Record, Rejection, encoded
from peerwatch.connectors.registry import store_of, stream_of, target_of
from peerwatch.connectors.store import StoreContext
from peerwatch.errors import SinkError, SourceError, Unavailable, UsageError
from peerwatch.network.rejects import RejectedLine
from peerwatch.urls import parsed


@pytest.fixture
def system(redis_server: Redis, tmp_path: Path) -> RedisSystem:
    """A key of its own."""
    system = RedisSystem(tmp_path)
    system.server = redis_server
    return system


@pytest.fixture
def source(redis_server: Redis) -> RedisSource:
    """An empty stream of its own."""
    source = RedisSource()
    source.server = redis_server
    source.make()
    return source


@pytest.fixture
def proxy(redis_server: Redis) -> Iterator[Proxy]:
    """A proxy that breaks connections again and again: before a request, within it, or before its answer."""
    pieces = count(1)
    with Proxy(redis_server, lambda _: next(pieces) % 23 == 0) as proxy:
        yield proxy


class Told(list[str]):
    """Warnings; the first one leads to an action."""

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__()
        self._action = action

    def append(self, warning: str) -> None:
        """Take a warning."""
        super().append(warning)
        if len(self) == 1:
            self._action()


async def written(system: RedisSystem, records: Sequence[Record], mark: Any = None, *, force: bool = False) -> Any:
    """Records that one process of the run writes; the mark behind them."""
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start(mark, force=force)
        await sink.write(records)
        return await sink.sync()


async def refusal(system: RedisSystem, url: str) -> str:
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


async def test_a_second_process_of_the_run_does_no_harm(system: RedisSystem) -> None:
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


async def test_a_run_whose_place_was_taken_cannot_write(system: RedisSystem) -> None:
    """Another run has begun there with --force while the first one still runs: nothing is mixed."""
    async with AsyncExitStack() as stack:
        first = await system.open(stack)
        await first.start()
        await first.write([checks.HELD])
        system.begin_run()
        await written(system, [checks.HELD], force=True)
        with pytest.raises(SinkError, match=rf"of another run \({system.run}\), which has begun there"):
            await first.write([checks.BEHIND])
    assert await system.read() == checks.HELD.encode()
    assert len(await run_sync(system.messages)) == 1


async def test_what_is_not_peerwatch_s_is_left_alone(system: RedisSystem) -> None:
    """A stream of purchases, a key of another type: not even --force deletes them."""
    await system.ask("XADD", system.place, "*", "event", "{}")
    assert "holds entries" in await refusal(system, system.url)
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        with pytest.raises(UsageError, match="name another key"):
            await sink.check_new()
    assert await system.ask("XLEN", system.place) == 1
    await system.ask("SET", f"{system.place}x", "text")
    assert "is no stream; name another key" in await refusal(system, f"{system.url}x")
    assert await system.ask("GET", f"{system.place}x") == b"text"


async def test_entries_of_somebody_else_are_noticed(system: RedisSystem) -> None:
    """Behind those of the run: Redis refuses the next one, and a later start says why."""
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start()
        await sink.write([checks.HELD])
        mark = await sink.sync()
        await system.ask("XADD", system.place, "*", "event", "{}")
        with pytest.raises(SinkError, match="equal or smaller"):
            await sink.write([checks.BEHIND])
    with pytest.raises(UsageError, match="this run has added 1-0 last: somebody else writes there too"):
        await written(system, [checks.BEHIND], mark)


async def test_a_stream_that_is_deleted_meanwhile_ends_the_run(system: RedisSystem) -> None:
    """It is not begun anew as if nothing had been there."""
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start()
        await sink.write([checks.HELD])
        mark = await sink.sync()
        await run_sync(system.wipe)
        with pytest.raises(SinkError, match="was deleted while this run wrote it"):
            await sink.write([checks.BEHIND])
    with pytest.raises(UsageError, match="was emptied or restored"):
        await written(system, [checks.BEHIND], mark)


async def test_a_stream_may_be_trimmed(system: RedisSystem) -> None:
    """Readers that delete what they have read, down to nothing, take nothing from the run's mark."""
    mark = await written(system, [checks.HELD])
    await system.ask("XTRIM", system.place, "MAXLEN", 0)
    mark = await written(system, [checks.HELD, checks.BEHIND], mark)
    assert await system.read() == checks.BEHIND.encode()
    await system.ask("XDEL", system.place, "2-0")
    await written(system, [checks.HELD, checks.BEHIND], mark)
    assert await system.read() == b""


async def test_an_empty_stream_with_a_group_may_be_there(system: RedisSystem) -> None:
    """Whoever reads it with a consumer group may have made it first."""
    await system.ask("XGROUP", "CREATE", system.place, "readers", "$", "MKSTREAM")
    await written(system, [checks.HELD])
    ((_, entries),) = await system.ask("XREADGROUP", "GROUP", "readers", "one", "STREAMS", system.place, ">")
    assert [name for name, _ in entries] == [b"1-0"]


async def test_records_of_several_kinds_have_a_key_each(system: RedisSystem) -> None:
    """Their numbers are ids, and those of each kind begin with 1; each kind has its mark."""
    system.kinds = frozenset({FLAGGED, DECISION, REJECT})
    decision = DecisionRow(
        1, "log", 1, "7", 0, "1.50", flagged=False, window_size=0, mean=None, sd=None, network_size=None, score=None,
        threshold=None, model=None, severity=None,
    )  # fmt: skip
    reject = Rejection(1, RejectedLine("log", 2, 10, "not JSON", b"\xff"))
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start()
        for record in (checks.HELD, decision, reject):
            await sink.write([record])
        mark = await sink.sync()
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start(mark)
        for record in (checks.HELD, decision, reject):
            await sink.write([record])
    for suffix, kind in (("", FLAGGED), (":decisions", DECISION), (":rejects", REJECT)):
        ((name, fields),) = await system.ask("XRANGE", system.place + suffix, "-", "+")
        assert name == b"1-0"
        message = msgspec.json.decode(fields[b"record"])
        assert (message["version"], message["kind"], message["run"], message["seq"]) == (1, kind, system.run, 1)


async def test_two_kinds_do_not_share_a_key(system: RedisSystem) -> None:
    """Two sinks of one run that take different records to the same key: the second one is refused."""
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start()
        system.kinds = frozenset({DECISION})
        other = await system.open(stack)
        with pytest.raises(UsageError, match=r"takes other records of this run; name another key"):
            await other.start()


async def opened(system: RedisSystem, stack: AsyncExitStack) -> StoreSink:
    """The sink, however often the very first connection breaks."""
    while True:
        try:
            return await system.open(stack)
        except UsageError as error:
            assert "cannot reach" in str(error)  # noqa: PT017


async def test_connections_that_break_lose_and_repeat_nothing(system: RedisSystem, proxy: Proxy) -> None:
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


async def test_reading_over_connections_that_break_loses_and_repeats_nothing(source: RedisSource, proxy: Proxy) -> None:
    """It goes on behind the last entry that arrived."""
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


async def test_a_server_that_hangs_is_waited_for(system: RedisSystem) -> None:
    """It stops answering in the middle, and goes on when that was told."""
    assert system.server is not None
    pid = system.server.pid
    system.timeout = 0.2

    system.warnings = Told(lambda: os.kill(pid, signal.SIGCONT))

    async def disturb(number: int) -> None:
        if number == 5:
            os.kill(pid, signal.SIGSTOP)

    try:
        await checks.check_sink_outlives(system, disturb)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert "no answer within 0.2 seconds; waiting for it" in system.warnings[0]


async def test_full_memory_is_waited_for(system: RedisSystem) -> None:
    """Redis refuses to grow until somebody makes room: the run waits, and goes on."""
    room: list[asyncio.Task[Any]] = []
    system.warnings = Told(lambda: room.append(asyncio.create_task(system.ask("CONFIG", "SET", "maxmemory", "0"))))

    async def disturb(number: int) -> None:
        if number == 5:
            await system.ask("CONFIG", "SET", "maxmemory", "1")

    try:
        await checks.check_sink_outlives(system, disturb)
    finally:
        await system.ask("CONFIG", "SET", "maxmemory", "0")
    await room[0]
    assert "used memory > 'maxmemory'; waiting for it" in system.warnings[0]


@pytest.mark.parametrize(("setting", "value"), [("appendfsync", "everysec"), ("appendonly", "no")])
async def test_weak_durability_is_told_once(system: RedisSystem, setting: str, value: str) -> None:
    """What Redis may lose although it has acknowledged it; what it cannot lose is not spoken of."""
    before = {"appendfsync": "always", "appendonly": "yes"}[setting]
    await system.ask("CONFIG", "SET", setting, value)
    try:
        await written(system, [checks.HELD])
    finally:
        await system.ask("CONFIG", "SET", setting, before)
    assert [setting in warning for warning in system.warnings] == [True]
    await written(system, [checks.BEHIND])
    assert len(system.warnings) == 1


class ForgetfulRedis(Redis):
    """Redis without a file of its writes."""

    def command(self) -> list[str]:
        """What starts it."""
        return [*super().command(), "--appendonly", "no"]


@pytest.fixture
def forgetful_server() -> Iterator[ForgetfulRedis]:
    """Redis that begins empty each time."""
    yield from started(ForgetfulRedis)


async def test_a_server_that_lost_what_it_acknowledged_ends_the_run(
    system: RedisSystem, forgetful_server: ForgetfulRedis
) -> None:
    """The run does not go on with a gap."""
    system.server = forgetful_server
    async with AsyncExitStack() as stack:
        sink = await system.open(stack)
        await sink.start()
        await sink.write([checks.HELD])
        await run_sync(forgetful_server.kill)
        await run_sync(forgetful_server.start)
        with pytest.raises(SinkError, match="has lost records while it was away"):
            await sink.write([checks.BEHIND])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates."""
    return certificates(tmp_path_factory.mktemp("certificates"))


class SecretRedis(Redis):
    """Redis with a password, over TLS, for clients with a certificate."""

    keys: Certificates

    @property
    def url(self) -> str:
        """With the password in the environment, and all files."""
        keys = self.keys
        files = f"ssl_ca_certs={keys.authority}&ssl_certfile={keys.client}&ssl_keyfile={keys.client_key}"
        return f"rediss://teller:${{PEERWATCH_TEST_PASSWORD}}@127.0.0.1:{self.port}/flagged?{files}"

    def command(self) -> list[str]:
        """What starts it."""
        keys, (program, *rest) = self.keys, super().command()
        rest[rest.index("--port")] = "--tls-port"
        files = ["--tls-cert-file", str(keys.server), "--tls-key-file", str(keys.server_key)]
        user = ["--user", "default", "off", "--user", "teller", "on", ">s3cret", "~flagged*", "+@all"]
        return [program, "--port", "0", *rest, *files, "--tls-ca-cert-file", str(keys.authority), *user]

    def answers(self) -> bool:
        """Whether its file of writes is open; it is asked without TLS here."""
        return b"Ready to accept connections" in self.output.read_bytes()


@pytest.fixture(scope="module")
def secret_server(keys: Certificates) -> Iterator[SecretRedis]:
    """Redis with a password and TLS."""
    SecretRedis.keys = keys
    yield from started(SecretRedis)


async def test_password_and_tls(
    system: RedisSystem, secret_server: SecretRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A right password and known certificates get in; each wrong one is named, and the password never is."""
    good = secret_server.url
    monkeypatch.setenv("PEERWATCH_TEST_PASSWORD", "s3cret")
    store = await run_sync(store_of, parsed(good), StoreContext(system.run, system.kinds))
    await store.connect()
    await store.prepare(anew=True)
    await store.append([checks.HELD])
    assert await store.marks() == {FLAGGED: 1}
    await store.close()
    plain = good.partition("?")[0]
    wrong = [
        (good.replace("/flagged", "/other"), "does not let this user do that: .* no permissions"),
        (plain, "no TLS connection: self-signed certificate in certificate chain"),
        (plain.replace("127.0.0.1", "localhost") + good[len(plain) :], "not valid for 'localhost'"),
        (good.partition("&")[0], "no TLS connection: .*CERTIFICATE_REQUIRED|Connection reset|closed"),
        (good.replace("authority.pem", "nothing.pem"), "cannot read its certificates: No such file"),
        (good.replace("teller:${PEERWATCH_TEST_PASSWORD}@", ""), "refuses the user or the password: .*required"),
    ]
    for url, says in wrong:
        told = await refusal(system, url)
        assert re.search(says, told), told
        assert "s3cret" not in told
    monkeypatch.setenv("PEERWATCH_TEST_PASSWORD", "g3heim")
    told = await refusal(system, good)
    assert "refuses the user or the password" in told
    assert "g3heim" not in told
    told = await refusal(system, good.replace("${PEERWATCH_TEST_PASSWORD}", "literal"))
    assert "refuses the user or the password" in told
    assert "literal" not in told


async def test_the_documented_rights_suffice(system: RedisSystem) -> None:
    """A user with the commands that the docs name, on the keys that they name, can write, take over and read."""
    writes = "HGET HMGET HSET HDEL HEXISTS DEL EXISTS XADD XLEN XINFO EVAL MULTI EXEC"
    for user, commands in (("writer", writes), ("reader", "XREAD XINFO MULTI EXEC")):
        allowed = [f"+{command.lower()}" for command in commands.split()]
        await system.ask("ACL", "SETUSER", user, "on", ">pw", f"~{system.place}*", *allowed)
    url = system.url.replace("redis://", "redis://{user}:pw@")
    for run in ("first", "second"):
        context = StoreContext(run, frozenset({FLAGGED, DECISION}))
        store = await run_sync(store_of, parsed(url.replace("{user}", "writer")), context)
        await store.connect()
        assert await store.other_run() == (None if run == "first" else "first")
        await store.prepare(anew=True)
        await store.append([checks.HELD])
        assert await store.marks() == {FLAGGED: 1}
        await store.close()
    stream = await run_sync(stream_of, parsed(url.replace("{user}", "reader")), 5.0)
    await stream.connect(None)
    assert len(await stream.fetch(0.05)) == 1
    assert await stream.fetch(0.05) == []
    await stream.close()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://127.0.0.1:1", "names no key"),
        ("redis://127.0.0.1:1/k?db=x", "db is 'x'; expected the number of a database"),
        ("redis://127.0.0.1:1/k?ssl_ca_certs=x", "ssl_ca_certs is for TLS; write rediss:// in place of redis://"),
        ("redis://127.0.0.1:1/k?database=1", "there is no option 'database'"),
    ],
)
def test_urls_that_lack_something(url: str, says: str) -> None:
    """A sentence says what."""
    with pytest.raises(UsageError, match=says):
        store_of(parsed(url), StoreContext("run", frozenset({FLAGGED})))


async def test_the_database_is_an_option(system: RedisSystem) -> None:
    """For the path is the key; one that is not there is refused."""
    store = await run_sync(store_of, parsed(f"{system.url}?db=3"), StoreContext(system.run, system.kinds))
    await store.connect()
    await store.prepare(anew=True)
    await store.append([checks.HELD])
    await store.close()
    assert await system.ask("EXISTS", system.place) == 0
    assert await system.ask("MOVE", system.place, 3) == 0  # it is there
    assert "DB index is out of range" in await refusal(system, f"{system.url}?db=99")


async def read(source: RedisSource, position: Any = None) -> tuple[bytes, Any]:
    """The lines behind a position, and the position at their end."""
    content = b""
    async with AsyncExitStack() as stack:
        opened = await source.open(position, stack)
        async with aclosing(opened.blocks()) as blocks:
            async for block in blocks:
                content, position = content + block.content, block.position
    return content, position


async def test_an_entry_of_several_fields_is_an_event_of_these_fields(source: RedisSource) -> None:
    """As XADD is mostly used; with `?field=` one of them holds the event."""
    await source.ask("XADD", source.place, "*", "event_type", "purchase", "id", "Zo\u00eb", "amount", "1.50")
    await source.ask("XADD", source.place, "*", "event", '{"n": 1}', "trace", b"\xff")
    first = '{"event_type":"purchase","id":"Zo\u00eb","amount":"1.50"}\n'.encode()
    assert (await read(source))[0] == first + b'{"event":"{\\"n\\": 1}","trace":"\\\\xff"}\n'
    place = source.place
    source.place += "?field=event"
    assert (await read(source))[0] == first + b'{"n": 1}\n'
    source.place = place


@pytest.mark.parametrize("how", ["trim", "delete one", "delete the last"])
async def test_entries_that_go_while_the_stream_is_read_are_told(source: RedisSource, how: str) -> None:
    """Trimmed, or deleted singly by another reader, between two fetches: the run ends with the count."""
    await run_sync(source.put, [b"%d" % number for number in range(150)])
    names = [name for name, _ in await source.ask("XRANGE", source.place, "-", "+")]
    async with AsyncExitStack() as stack:
        opened = await source.open(None, stack, follow=True)
        async with aclosing(opened.blocks()) as blocks:
            assert (await anext(blocks)).content.count(b"\n") == 100
            if how == "trim":
                await source.ask("XTRIM", source.place, "MINID", names[103])
            else:
                await source.ask("XDEL", source.place, names[120 if how == "delete one" else 149])
            with pytest.raises(SourceError, match=("3 entries" if how == "trim" else "at least one entry") + " behind"):
                await anext(blocks)


async def test_what_was_deleted_before_reading_began_is_no_loss(source: RedisSource) -> None:
    """Holes that were there already, and what is deleted after it was read."""
    await run_sync(source.put, [b"%d" % number for number in range(10)])
    names = [name for name, _ in await source.ask("XRANGE", source.place, "-", "+")]
    await source.ask("XDEL", source.place, names[0], names[5], names[9])
    content, position = await read(source)
    assert content == b"1\n2\n3\n4\n6\n7\n8\n"
    await source.ask("XDEL", source.place, names[3])
    assert await read(source, position) == (b"", position)
    await source.ask("XTRIM", source.place, "MAXLEN", 0)
    assert await read(source, position) == (b"", position)
    await run_sync(source.put, [b"a", b"b"])
    assert (await read(source, position))[0] == b"a\nb\n"
    ((name, _), _) = await source.ask("XRANGE", source.place, "-", "+")
    await source.ask("XDEL", source.place, name)
    with pytest.raises(UsageError, match=r"1 entry behind .* gone unread"):
        await read(source, position)


async def test_a_stream_that_begins_anew_is_told(source: RedisSource) -> None:
    """It was deleted and made again: it ends before the position."""
    await run_sync(source.put, [b"1", b"2"])
    _, position = await read(source)
    await source.ask("DEL", source.place)
    await run_sync(source.make)
    with pytest.raises(UsageError, match="was emptied or restored; bring it back, or begin anew with --reset"):
        await read(source, position)


async def test_large_entries_are_fetched_few_at_a_time(source: RedisSource) -> None:
    """So that memory is bounded."""
    await run_sync(source.put, [b"x" * (1 << 20)] * 120)
    async with AsyncExitStack() as stack:
        opened = await source.open(None, stack)
        async with aclosing(opened.blocks()) as blocks:
            counts = [block.content.count(b"\n") async for block in blocks]
    assert counts[:2] == [100, 4]
    assert sum(counts) == 120


async def test_the_lag_is_the_number_of_unread_entries(source: RedisSource) -> None:
    """Exactly."""
    await run_sync(source.put, [b"1"] * 250)
    async with AsyncExitStack() as stack:
        opened = await source.open(None, stack)
        async with aclosing(opened.blocks()) as blocks:
            lags = [opened.unread() async for _ in blocks]
    assert lags == [150, 0]


def test_events_are_copied_to_it_and_back(system: RedisSystem, tmp_path: Path) -> None:
    """The stream is made; large events and what is none come back as they were, in order."""
    lines = [b"%d" % number for number in range(2500)] + [b"x" * (1 << 20), "Zo\u00eb \U0001f600".encode()] * 3
    (tmp_path / "log").write_bytes(b"".join(line + b"\n" for line in lines))
    for source, target in (("log", f"{system.url}?field=line"), (f"{system.url}?field=line", "back")):
        places = [place if "://" in place else str(tmp_path / place) for place in (source, target)]
        result = CliRunner().invoke(cli, ["copy", *places])
        assert (result.exit_code, result.output) == (0, "2,506 events sent\n")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "log").read_bytes()


def test_a_missing_library_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a sink, a source and a target."""
    monkeypatch.setitem(sys.modules, "redis", None)
    url = "redis://127.0.0.1:1/k"
    for make in (
        lambda: store_of(parsed(url), StoreContext("run", frozenset({FLAGGED}))),
        lambda: stream_of(parsed(url), 1.0),
        lambda: target_of(url, 1.0),
    ):
        with pytest.raises(UsageError, match=re.escape("needs redis; install it: pip install 'peerwatch[redis]'")):
            make()
