"""Redis Streams: records as entries whose ids are their numbers, and entries as events.

A script, which Redis runs as one step, compares the run's name, adds the entries and keeps their mark. So a run that
another one has taken the place of cannot write any more, and a second process of the same run does no harm: both write
the same records in the same order, and what is there already is left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from peerwatch.connectors.records import DECISION, FLAGGED, NOTICE, REJECT, SESSION, Kind, Record, payload
from peerwatch.connectors.redis_client import CERTIFICATES, RedisConnection
from peerwatch.connectors.store import StoreContext
from peerwatch.connectors.stream import Entry
from peerwatch.connectors.target import portions
from peerwatch.errors import SinkError, UsageError
from peerwatch.urls import ConnectorUrl

SUFFIXES: Final[Mapping[Kind, str]] = {
    FLAGGED: "",
    DECISION: ":decisions",
    REJECT: ":rejects",
    NOTICE: ":notices",
    SESSION: ":sessions",
}
"""What a key gets behind its name if a run writes records of several kinds there."""
LARGEST_PORTION: Final = 1 << 20
"""Records are sent in portions of about so many bytes: Redis answers nobody else while it adds one."""
MOST_ENTRIES: Final = 1000
"""How many entries are read at once; less if they are so large that they have more than `READ_BYTES`."""
READ_BYTES: Final = 1 << 22

# KEYS: the run's name and marks, and the streams. ARGV: the run, whether it begins anew, and for each stream the names
# of its mark and of its kind, and the kind.
PREPARE: Final = """
local run = redis.call('HGET', KEYS[1], 'run')
for place = 2, #KEYS do
  local known = run and redis.call('HEXISTS', KEYS[1], ARGV[3 * place - 3]) == 1
  if redis.call('XLEN', KEYS[place]) > 0 and not known then return {'foreign', KEYS[place]} end
  local kind = redis.call('HGET', KEYS[1], ARGV[3 * place - 2])
  if run == ARGV[1] and kind and kind ~= ARGV[3 * place - 1] then return {'kind', KEYS[place]} end
end
if run and run ~= ARGV[1] then
  if ARGV[2] == '0' then return {'other', run} end
  redis.call('DEL', unpack(KEYS))
end
redis.call('HSET', KEYS[1], 'run', ARGV[1])
for place = 2, #KEYS do
  redis.call('HSET', KEYS[1], ARGV[3 * place - 2], ARGV[3 * place - 1])
  if redis.call('EXISTS', KEYS[place]) == 0 then redis.call('HDEL', KEYS[1], ARGV[3 * place - 3]) end
end
return {'prepared', ''}
"""
# KEYS: the run's name and marks, and the stream. ARGV: the run, the name of the mark, and numbers and records in turn.
APPEND: Final = """
local run, mark = unpack(redis.call('HMGET', KEYS[1], 'run', ARGV[2]))
if run ~= ARGV[1] then return {'other', run or ''} end
local last = tonumber(mark or '0')
if last > 0 and redis.call('EXISTS', KEYS[2]) == 0 then return {'gone', ''} end
for place = 3, #ARGV, 2 do
  if tonumber(ARGV[place]) > last then
    redis.call('XADD', KEYS[2], ARGV[place] .. '-0', 'record', ARGV[place + 1])
    last, mark = tonumber(ARGV[place]), ARGV[place]
  end
end
if mark then redis.call('HSET', KEYS[1], ARGV[2], mark) end
return {'kept', ''}
"""


class RedisStore:
    """`redis://host:6379/flagged`: entry `N-0` is record N, in its one field, `record`.

    Beside the stream, the hash `flagged:run` names the run and the number of its last record.
    """

    def __init__(self, url: ConnectorUrl, context: StoreContext) -> None:
        """Read the URL; nothing is connected.

        Raises:
            UsageError: it is malformed, or the library is missing.
        """
        url.check_options("db", *CERTIFICATES)
        self.url = url
        self.memory: Any = None
        self._run = context.run
        self._warn = context.warn
        self._client = RedisConnection(url, context.timeout)
        self._holder = f"{url.path}:run"
        several = len(context.records) > 1
        self._keys = {kind: url.path + SUFFIXES[kind] * several for kind in sorted(context.records)}
        self._marks = {kind: "seq" + SUFFIXES[kind] * several for kind in self._keys}
        self._warned = False

    async def connect(self) -> None:
        """Connect, and say once if Redis may lose what it has acknowledged.

        Raises:
            UsageError: it refuses the user or the database.
            Unavailable: it does not answer.
        """
        await self._client.connect()
        if self._warned:
            return
        self._warned = True
        settings = await self._client.settings("appendonly", "appendfsync")
        if settings.get("appendonly") == "no":
            self._warn(f"{self.url}: appendonly is no, so what Redis has acknowledged is gone when it dies; set it yes")
        elif settings.get("appendfsync", "always") != "always":
            self._warn(
                f"{self.url}: appendfsync is {settings['appendfsync']}, so what Redis has acknowledged may be gone when"
                " its machine fails; set it to always"
            )

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def other_run(self) -> str | None:
        """The run whose records are here, if it is another one.

        Raises:
            UsageError: there are entries that no run of peerwatch has written.
        """
        keys = list(self._keys.values())
        run, *lengths = await self._client.ask(("HGET", self._holder, "run"), *(("XLEN", key) for key in keys))
        held = [key for key, length in zip(keys, lengths, strict=True) if length]
        if held and run is None:
            raise self._foreign(held[0])
        other = run.decode() if run is not None else self._run
        return other if held and other != self._run else None

    async def prepare(self, *, anew: bool) -> None:
        """Name the run. With `anew` the streams of another run are deleted, for their ids are the same.

        Raises:
            UsageError: there are entries that no run of peerwatch has written, or, without `anew`, another run's.
        """
        keys = [self._holder, *self._keys.values()]
        values = [self._run, str(int(anew))]
        for kind, mark in self._marks.items():
            values += (mark, mark.replace("seq", "kind"), kind)
        ((said, what),) = await self._client.ask(("EVAL", PREPARE, len(keys), *keys, *values))
        if said == b"kind":
            raise UsageError(f"{self.url}: {what.decode()} takes other records of this run; name another key")
        if said == b"foreign":
            raise self._foreign(what.decode())
        if said == b"other":
            raise UsageError(self._taken(what))

    async def marks(self) -> Mapping[Kind, int]:
        """The numbers of this run's last records.

        Raises:
            UsageError: somebody else has added entries.
        """
        (run, *numbers), *states = await self._client.together(
            ("HMGET", self._holder, "run", *self._marks.values()),
            *(("XINFO", "STREAM", key) for key in self._keys.values()),
        )
        if run is None or run.decode() != self._run:
            return {}
        marks: dict[Kind, int] = {}
        for (kind, key), number, said in zip(self._keys.items(), numbers, states, strict=True):
            state, mark = StreamState.of(said), int(number or 0)
            if state is None or state.last == EntryId(0, 0):
                continue  # it was deleted
            if state.last != EntryId(mark, 0):
                raise UsageError(
                    f"{self.url}: the last entry of {key} is {state.last}, but this run has added {mark}-0 last:"
                    " somebody else writes there too; name another key"
                )
            marks[kind] = mark
        return marks

    async def append(self, records: Sequence[Record]) -> None:
        """Add records. With appendfsync always they are on the disk when Redis answers.

        Raises:
            SinkError: another run has begun there, or somebody else has written or deleted entries.
        """
        kind = records[0].kind
        key = self._keys[kind]
        for portion in _portions(records, self._run):
            command = ("EVAL", APPEND, 2, self._holder, key, self._run, self._marks[kind], *portion)
            try:
                ((said, what),) = await self._client.ask(command)
            except UsageError as error:
                raise SinkError(f"cannot write {error}") from None
            if said == b"other":
                raise SinkError(self._taken(what))
            if said == b"gone":
                raise SinkError(f"{self.url}: {key} was deleted while this run wrote it; bring it back and run again")

    def _foreign(self, key: str) -> UsageError:
        return UsageError(
            f"{self.url}: {key} holds entries, and {self._holder} does not say that a run of peerwatch has added them;"
            " name another key"
        )

    def _taken(self, run: bytes) -> str:
        if not run:
            return f"{self.url}: {self._holder}, which named this run, is gone; bring it back and run again"
        return f"{self.url} holds the records of another run ({run.decode()}), which has begun there; name another key"


def _portions(records: Sequence[Record], run: str) -> Iterator[list[bytes]]:
    """Numbers and records in turn, in portions of a bounded size."""
    portion: list[bytes] = []
    size = 0
    for record in records:
        content = orjson.dumps(payload(record, run))
        if portion and size + len(content) > LARGEST_PORTION:
            yield portion
            portion, size = [], 0
        portion += (b"%d" % record.seq, content)
        size += len(content)
    yield portion


class RedisTarget:
    """`redis://host:6379/purchases`: each event is an entry of one field, `event`, or the one that `?field=` names."""

    def __init__(self, url: ConnectorUrl, timeout: float) -> None:
        """Read the URL; nothing is connected.

        Raises:
            UsageError: it is malformed, or the library is missing.
        """
        url.check_options("db", "field", *CERTIFICATES)
        self._key = url.path
        self._field = url.option("field") or "event"
        self._client = RedisConnection(url, timeout)

    async def connect(self) -> None:
        """Connect. Redis makes a stream with its first entry.

        Raises:
            UsageError: Redis refuses the user or the database, or the key is no stream's.
            Unavailable: it does not answer.
        """
        await self._client.connect()
        await self._client.ask(("XLEN", self._key))

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def send(self, lines: Sequence[bytes]) -> None:
        """Add events. With appendfsync always they are on the disk when Redis answers.

        Raises:
            SinkError: Redis refuses them.
            Unavailable: it does not answer.
        """
        for portion in portions(lines, LARGEST_PORTION):
            try:
                await self._client.ask(*(("XADD", self._key, "*", self._field, line) for line in portion))
            except UsageError as error:
                raise SinkError(f"cannot write {error}") from None


class EntryId(NamedTuple):
    """The id of an entry: milliseconds since 1970, unless whoever adds it names another number, and a number."""

    milliseconds: int
    number: int

    @classmethod
    def parsed(cls, text: bytes | str) -> "EntryId":
        """The id in a text."""
        first, _, second = (text.decode() if isinstance(text, bytes) else text).partition("-")
        return cls(int(first), int(second))

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.number}"


class StreamState(NamedTuple):
    """What Redis says of a stream. `added` counts all entries that ever were added, -1 before Redis 7.0."""

    length: int
    first: EntryId
    last: EntryId
    deleted: EntryId
    added: int

    @classmethod
    def of(cls, answer: Sequence[Any] | Exception) -> "StreamState | None":
        """What Redis answers, None if it is that there is no such stream."""
        if isinstance(answer, Exception):
            return None
        fields = dict(zip(answer[::2], answer[1::2], strict=True))
        none = b"0-0"
        return cls(
            fields[b"length"],
            EntryId.parsed(fields.get(b"recorded-first-entry-id", none)),
            EntryId.parsed(fields[b"last-generated-id"]),
            EntryId.parsed(fields.get(b"max-deleted-entry-id", none)),
            fields.get(b"entries-added", -1),
        )


class RedisPosition(NamedTuple):
    """Behind which entry reading goes on.

    `added` is how many entries had ever been added up to that one, `deleted` the largest id that was deleted singly
    before reading began: with them it is certain whether entries went unread.
    """

    id: str
    added: int
    deleted: str


class RedisStream:
    """`redis://host:6379/purchases`: each entry is an event.

    The event is in the field that `?field=` names, or in the only one; otherwise the fields are those of the event.
    """

    def __init__(self, url: ConnectorUrl, timeout: float) -> None:
        """Read the URL; nothing is connected.

        Raises:
            UsageError: it is malformed, or the library is missing.
        """
        url.check_options("db", "field", *CERTIFICATES)
        self.url = url
        field = url.option("field")
        self._field = field.encode() if field is not None else None
        self._client = RedisConnection(url, timeout)
        self._position = RedisPosition("0-0", 0, "0-0")
        self._count = MOST_ENTRIES // 10
        self._lag: int | None = None

    async def connect(self, after: Any) -> None:
        """Connect, and see that no entry behind `after` is gone.

        Raises:
            UsageError: there is no such stream, or Redis is older than 7.0.
            Unavailable: it does not answer.
        """
        await self._client.connect()
        (said,) = await self._client.together(("XINFO", "STREAM", self.url.path))
        state = self._state(said)
        if after is None:
            self._position = RedisPosition("0-0", state.added - state.length, str(state.deleted))
        else:
            self._position = msgspec.convert(after, RedisPosition)
            self._check(state)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def fetch(self, seconds: float) -> list[Entry]:
        """The next entries.

        Raises:
            UsageError: some are gone unread.
        """
        entries = await self._read()
        if not entries:
            wait = max(1, round(seconds * 1000))
            command = ("XREAD", "COUNT", 1, "BLOCK", wait, "STREAMS", self.url.path, self._position.id)
            await self._client.ask(command, wait=seconds)
            entries = await self._read()
        return entries

    async def lag(self) -> int | None:
        """The number of entries that have been added and not been fetched."""
        return self._lag

    async def _read(self) -> list[Entry]:
        """What is there, with the state of the stream at the same moment."""
        key = self.url.path
        read, said = await self._client.together(
            ("XREAD", "COUNT", self._count, "STREAMS", key, self._position.id), ("XINFO", "STREAM", key)
        )
        state = self._state(said)
        self._check(state)
        found = read[0][1] if read else []
        added, entries, size = self._position.added, [], 0
        for number, (name, fields) in enumerate(found, added + 1):
            content = self._content(fields)
            size += len(content)
            entries.append(Entry(self._position._replace(id=name.decode(), added=number), content))
        if entries:
            self._position = entries[-1].id
        self._lag = state.added - self._position.added
        if len(entries) < self._count and self._lag > 0:
            raise self._gone(self._lag)
        if size:
            self._count = max(1, min(MOST_ENTRIES, READ_BYTES * len(entries) // size))
        return entries

    def _check(self, state: StreamState) -> None:
        """See that nothing behind the position is gone.

        Entries are trimmed in their order: if one is there that was read, none is gone that was not.
        """
        name, added, deleted = self._position
        after, now = EntryId.parsed(name), state.added
        if state.last < after or now < added:
            raise UsageError(
                f"{self.url} ends at {state.last}, before {after}, up to which it has been read: it was emptied or"
                " restored; bring it back, or begin anew with --reset"
            )
        unread = now - added
        if (state.length == 0 or state.first > after) and unread > state.length:
            raise self._gone(unread - state.length)
        if state.deleted > max(after, EntryId.parsed(deleted)):
            raise self._gone(0)

    def _gone(self, count: int) -> UsageError:
        """Entries are gone, 0 stands for an unknown number."""
        some = "1 entry" if count == 1 else f"{count:,} entries" if count else "at least one entry"
        return UsageError(
            f"{self.url}: {some} behind {self._position.id} gone unread, trimmed or deleted;"
            " bring back what is gone, or begin anew with --reset"
        )

    def _state(self, said: Sequence[Any] | Exception) -> StreamState:
        state = StreamState.of(said)
        if state is None:
            raise UsageError(f"{self.url}: there is no stream {self.url.path}; name another key, or add an entry first")
        if state.added < 0:
            raise UsageError(f"{self.url}: Redis 7.0 or later is needed, which tells what was trimmed")
        return state

    def _content(self, fields: Sequence[bytes]) -> bytes:
        values = dict(zip(fields[::2], fields[1::2], strict=True))
        if self._field is None and len(values) == 1:
            return next(iter(values.values()))
        if self._field in values:
            return values[self._field]
        text = {_text(name): _text(value) for name, value in values.items()}
        return orjson.dumps(text)


def _text(content: bytes) -> str:
    return content.decode(errors="backslashreplace")
