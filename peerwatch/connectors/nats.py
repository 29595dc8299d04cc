"""NATS JetStream: records as messages of a subject, and messages as events.

A message is kept only if it follows the one before it: the first of a batch names the stream's number of the subject's
last message, each other one the id of its predecessor. So neither a lost answer nor a second writer can repeat, reorder
or mix records, however long ago they were sent: the stream's window of duplicates has no part in it.
"""

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import orjson

from peerwatch.connectors.nats_client import FILES, NOT_FOUND, Message, NatsConnection, Refusal
from peerwatch.connectors.records import DECISION, FLAGGED, NOTICE, REJECT, SESSION, Kind, Record, payload
from peerwatch.connectors.store import EXACTLY_ONCE, StoreContext
from peerwatch.connectors.stream import Entry
from peerwatch.connectors.target import portions
from peerwatch.errors import SinkError, Unavailable, UsageError
from peerwatch.urls import ConnectorUrl

SUFFIXES: Final[Mapping[Kind, str]] = {
    FLAGGED: "",
    DECISION: ".decisions",
    REJECT: ".rejects",
    NOTICE: ".notices",
    SESSION: ".sessions",
}
"""What a subject gets behind its name if a run writes records of several kinds there."""
LARGEST_PORTION: Final = 1 << 20
MOST_MESSAGES: Final = 500
"""Messages are sent in portions of so many, or of about so many bytes, and read in portions of so many."""
READ_BYTES: Final = 1 << 22
ROOM: Final = 1024
"""How many bytes the headers of a message may have."""
MESSAGE_ID: Final = re.compile(r"^Nats-Msg-Id: (?P<run>[^\s:]+):(?P<kind>[a-z]+):(?P<seq>\d+)\r$", re.MULTILINE)
NOT_NEXT: Final = {10070, 10071}
"""JetStream's numbers for a message that does not follow the one that it names."""
FULL: Final = {10023, 10047, 10077}
"""Its numbers for a stream or a disk that is full until somebody makes room."""
IDLE_SECONDS: Final = 600
"""A consumer that has not been asked for so long is removed by the server; then a new one is made."""


class LastMessage(NamedTuple):
    """The last message of a subject: the run, kind and number of its record, and its own number in the stream."""

    run: str
    kind: str
    seq: int
    place: int


class NatsStore:
    """`nats://host:4222/flagged`: each record is a message of the subject `flagged`, with the id `RUN:KIND:NUMBER`.

    What other runs have written stays. `memory` is where their messages ended when this run began.
    """

    def __init__(self, url: ConnectorUrl, context: StoreContext) -> None:
        """Read the URL; nothing is connected.

        Raises:
            UsageError: it is malformed, or the library is missing.
        """
        url.check_options(*FILES)
        self.url = url
        self.memory: Any = None
        self._run = context.run
        self._exact = context.delivery == EXACTLY_ONCE
        self._client = NatsConnection(url, context.timeout)
        self._client.check_written()
        several = len(context.records) > 1
        self._subjects = {kind: url.path + SUFFIXES[kind] * several for kind in sorted(context.records)}
        self._streams: dict[Kind, str] = {}
        self._places: dict[Kind, int] = {}
        """The number of each subject's last message in its stream."""

    async def connect(self) -> None:
        """Connect.

        Raises:
            UsageError: the server refuses the user.
            Unavailable: it does not answer.
        """
        await self._client.connect()

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def other_run(self) -> str | None:
        """The run whose message is the last one of a subject, if it is another one.

        Raises:
            UsageError: a message is there that no run of peerwatch has written.
        """
        for kind in self._subjects:
            last = await self._last(kind)
            if last is not None and last.run != self._run:
                return last.run
        return None

    async def prepare(self, *, anew: bool) -> None:
        """Make the streams that are missing.

        Raises:
            UsageError: a message is there that no run of peerwatch has written, another run has written behind this
                one, or a stream forgets its messages once they are read.
        """
        for kind, subject in self._subjects.items():
            if not await self._find(kind):
                self._streams[kind] = await self._client.make(subject)
            last = await self._last(kind)
            if last is None or last.run == self._run:
                continue
            if anew:
                self.memory = {**(self.memory or {}), kind: last.place}
            elif last.place > self._begun(kind):
                raise UsageError(self._taken(last.run))

    async def marks(self) -> Mapping[Kind, int]:
        """The numbers of this run's last records.

        Raises:
            UsageError: another run has written behind this one.
        """
        marks: dict[Kind, int] = {}
        for kind in self._subjects:
            last = await self._last(kind)
            if last is not None and last.run == self._run:
                marks[kind] = last.seq
            elif last is not None and last.place > self._begun(kind):
                raise UsageError(self._taken(last.run))
        return marks

    async def append(self, records: Sequence[Record]) -> None:
        """Send records, and wait until their stream has stored them.

        Raises:
            SinkError: somebody else writes to the subject, or a message is too large.
        """
        kind, rest, refused = records[0].kind, list(records), False
        while rest:
            portion = self._portion(kind, rest)
            stored, repeated = await self._send(kind, portion)
            rest = rest[stored:]
            if stored == len(portion):
                continue
            above = await self._above(kind, rest)
            stands = stored == 0 and len(above) == len(rest)
            if stands and repeated:
                raise SinkError(
                    f"{self.url}: record {rest[0].seq:,} was deleted from {self._streams[kind]}, which still refuses it"
                    " as a duplicate; wait until its window of duplicates is over, and run again"
                )
            if stands and refused:
                raise Unavailable(f"{self._streams[kind]} takes no message of {self._subjects[kind]}")
            rest, refused = above, stands

    async def _send(self, kind: Kind, portion: Sequence[Message]) -> tuple[int, bool]:
        """How many messages have been stored, up to the first that was not, and whether that is a duplicate."""
        for number, answer in enumerate(await self._client.keep(portion)):
            if isinstance(answer, Refusal):
                if answer.number in NOT_NEXT:
                    return number, False
                if answer.code >= 500 or answer.number in FULL:
                    raise Unavailable(answer.text)
                raise SinkError(f"cannot write {self.url}: JetStream answers: {answer.text}; fix that and run again")
            if answer.get("duplicate"):
                return number, True
            self._places[kind] = answer["seq"]
        return len(portion), False

    async def _above(self, kind: Kind, records: list[Record]) -> list[Record]:
        """Those that are not there: another process of the run may have sent some, or a connection that was lost.

        Raises:
            SinkError: somebody else has written there.
        """
        try:
            last = await self._last(kind)
        except UsageError as error:
            raise SinkError(str(error)) from None
        if last is not None and last.run == self._run:
            return [record for record in records if record.seq > last.seq]
        if last is not None and last.place > self._begun(kind):
            raise SinkError(self._taken(last.run))
        return records

    def _portion(self, kind: Kind, records: Sequence[Record]) -> list[Message]:
        messages: list[Message] = []
        size = 0
        before = {"Nats-Expected-Last-Subject-Sequence": str(self._places.get(kind, 0))}
        for record in records[:MOST_MESSAGES]:
            content = orjson.dumps(payload(record, self._run))
            size += len(content)
            if messages and size > LARGEST_PORTION:
                break
            if len(content) + ROOM > self._client.max_payload:
                raise SinkError(
                    f"{self.url}: record {record.seq:,} has {len(content):,} bytes, but the server takes messages of"
                    f" {self._client.max_payload:,}; raise its max_payload and run again"
                )
            name = f"{self._run}:{kind}:{record.seq}"
            headers = {"Nats-Msg-Id": name, "Nats-Expected-Stream": self._streams[kind], **before}
            messages.append(Message(self._subjects[kind], headers, content))
            before = {"Nats-Expected-Last-Msg-Id": name}
        return messages

    async def _find(self, kind: Kind) -> bool:
        """Whether a stream keeps the subject."""
        self._streams.pop(kind, None)
        names = await self._client.streams(self._subjects[kind])
        if not names:
            return False
        name = names[0]
        info = await self._client.told(f"STREAM.INFO.{name}")
        if self._exact and info["config"]["retention"] != "limits":
            raise UsageError(
                f"{self.url}: the stream {name} forgets messages that were read, so nobody can tell which were written;"
                " name one whose retention is by limits, or set at-least-once"
            )
        self._streams[kind] = name
        return True

    async def _last(self, kind: Kind) -> LastMessage | None:
        """The subject's last message, None if there is none.

        Raises:
            UsageError: it is none of peerwatch's.
        """
        subject = self._subjects[kind]
        self._places[kind] = 0
        if kind not in self._streams and not await self._find(kind):
            return None
        answer = await self._client.api(f"STREAM.MSG.GET.{self._streams[kind]}", {"last_by_subj": subject})
        if isinstance(answer, Refusal):
            if answer.code == NOT_FOUND:
                return None
            raise self._client.refused(answer)
        message = answer["message"]
        self._places[kind] = message["seq"]
        found = MESSAGE_ID.search(b64decode(message.get("hdrs", "")).decode(errors="replace"))
        if found is None:
            raise UsageError(
                f"{self.url}: the last message of {subject} is none that a run of peerwatch has written; name another"
                " subject"
            )
        if found["run"] == self._run and found["kind"] != kind:
            raise UsageError(f"{self.url}: {subject} takes this run's {found['kind']} records; name another subject")
        return LastMessage(found["run"], found["kind"], int(found["seq"]), message["seq"])

    def _begun(self, kind: Kind) -> int:
        """The number of the last message that was there before this run."""
        begun: int = (self.memory or {}).get(kind, 0)
        return begun

    def _taken(self, run: str) -> str:
        return f"{self.url}: another run ({run}) has written there behind this one; name another subject"


class NatsTarget:
    """`nats://host:4222/purchases`: each event is a message of the subject."""

    def __init__(self, url: ConnectorUrl, timeout: float) -> None:
        """Read the URL; nothing is connected.

        Raises:
            UsageError: it is malformed, or the library is missing.
        """
        url.check_options(*FILES)
        self._url = url
        self._client = NatsConnection(url, timeout)
        self._client.check_written()

    async def connect(self) -> None:
        """Connect, and make a stream for the subject if none keeps it.

        Raises:
            UsageError: the server refuses the user or the subject.
            Unavailable: it does not answer.
        """
        await self._client.connect()
        if not await self._client.streams(self._url.path):
            await self._client.make(self._url.path)

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()

    async def send(self, lines: Sequence[bytes]) -> None:
        """Send events, and wait until their stream has stored them.

        Raises:
            SinkError: it refuses them.
            Unavailable: the server does not answer.
        """
        for portion in portions(lines, LARGEST_PORTION):
            for answer in await self._client.keep([Message(self._url.path, {}, line) for line in portion]):
                if isinstance(answer, Refusal):
                    if answer.code >= 500 or answer.number in FULL:
                        raise Unavailable(answer.text)
                    raise SinkError(f"cannot write {self._url}: JetStream answers: {answer.text}")


class NatsPosition(NamedTuple):
    """Behind which message reading goes on, of a stream that was created at `created`.

    When reading began, `holes` messages up to number `until` were missing that it has not come to yet. A stream that
    keeps other subjects as well has holes for those, which are not counted.
    """

    place: int
    created: str
    until: int
    holes: int


class NatsStream:
    """`nats://host:4222/purchases`: each message of the subject is an event. The stream is the one that keeps it."""

    def __init__(self, url: ConnectorUrl, timeout: float) -> None:
        """Read the URL; nothing is connected.

        Raises:
            UsageError: it is malformed, or the library is missing.
        """
        url.check_options(*FILES)
        self.url = url
        self._client = NatsConnection(url, timeout)
        self._stream = ""
        self._consumer = ""
        self._delivered = 0
        self._alone = True
        """Whether the stream keeps no other subject."""
        self._position = NatsPosition(0, "", 0, 0)
        self._lag: int | None = None

    async def connect(self, after: Any) -> None:
        """Connect, and see that no message behind `after` is gone.

        Raises:
            UsageError: there is no such stream, or one that forgets its messages once they are read.
            Unavailable: the server does not answer.
        """
        await self._client.connect()
        info = await self._info()
        state, created = info["state"], info["created"]
        if after is None:
            first = state["first_seq"] if state["messages"] else state["last_seq"] + 1
            holes = state["last_seq"] + 1 - first - state["messages"]
            self._position = NatsPosition(max(first - 1, 0), created, state["last_seq"], holes)
        else:
            self._position = msgspec.convert(after, NatsPosition)
            self._check(state, created)
        await self._consume(state["last_seq"])

    async def close(self) -> None:
        """Close the connection. The server removes the consumer when it has not been asked for a while."""
        await self._client.close()

    async def fetch(self, seconds: float) -> list[Entry]:
        """The next messages.

        Raises:
            UsageError: some are gone unread.
        """
        entries = await self._pull(MOST_MESSAGES, 0)
        if not entries:
            entries = await self._pull(1, seconds)
            entries += await self._pull(MOST_MESSAGES, 0) if entries else []
        if not entries:
            self._lag = 0
        return entries

    async def lag(self) -> int | None:
        """The number of messages of the subject that have not been fetched."""
        return self._lag

    async def _info(self) -> dict[str, Any]:
        """The state of the stream that keeps the subject."""
        subject = self.url.path
        names = await self._client.streams(subject)
        if not names:
            raise UsageError(f"{self.url}: there is no stream that keeps {subject}; name another subject, or add one")
        if len(names) > 1:
            raise UsageError(f"{self.url}: {subject} is kept by several streams: {', '.join(names)}; name one subject")
        (self._stream,) = names
        info = await self._client.told(f"STREAM.INFO.{self._stream}")
        config = info["config"]
        if config["retention"] != "limits":
            raise UsageError(
                f"{self.url}: the stream {self._stream} forgets messages that were read, so no run could go on; name"
                " one whose retention is by limits"
            )
        self._alone = config.get("subjects") == [subject] and not config.get("sources")
        return info

    def _check(self, state: Mapping[str, Any], created: str) -> None:
        place = self._position.place
        if created != self._position.created or state["last_seq"] < place:
            raise UsageError(
                f"{self.url}: the stream {self._stream} is not the one that was read up to {place:,}, or was restored;"
                " bring that back, or begin anew with --reset"
            )
        if not self._alone and state["first_seq"] > place + 1:
            raise UsageError(
                f"{self.url}: messages behind {place:,} are gone from {self._stream}, perhaps some of"
                f" {self.url.path} unread; bring them back, or begin anew with --reset"
            )

    async def _consume(self, last: int) -> None:
        """Make a consumer that begins behind the position, and see that as many messages are there as there must be."""
        position = self._position
        config = {
            "deliver_policy": "by_start_sequence", "opt_start_seq": position.place + 1, "ack_policy": "none",
            "filter_subject": self.url.path, "inactive_threshold": IDLE_SECONDS * 10**9, "mem_storage": True,
        }  # fmt: skip
        request = {"stream_name": self._stream, "config": config}
        made = await self._client.told(f"CONSUMER.CREATE.{self._stream}", request)
        self._consumer, self._delivered, self._lag = made["name"], 0, made["num_pending"]
        missing = last - position.place - made["num_pending"]
        if self._alone and missing > position.holes:
            raise self._gone(missing - position.holes)

    async def _pull(self, most: int, seconds: float) -> list[Entry]:
        limit = max(READ_BYTES, self._client.max_payload + ROOM)
        request: dict[str, Any] = {"batch": most, "max_bytes": limit}
        request |= {"expires": round(seconds * 1e9)} if seconds else {"no_wait": True}
        entries = []
        for message in await self._client.pull(self._stream, self._consumer, request):
            meta = message.metadata
            self._delivered += 1
            if meta.sequence.consumer != self._delivered:
                raise Unavailable("a message was lost on its way")
            self._advance(meta.sequence.stream)
            self._lag = meta.num_pending
            entries.append(Entry(self._position, message.data))
        return entries

    def _advance(self, place: int) -> None:
        """Go on to a message. What lies between must have been missing from the beginning."""
        position, holes = self._position, 0
        if self._alone:
            missing = place - position.place - 1
            known = min(missing, max(position.until - position.place, 0))
            holes = position.holes - known
            unread = missing - known + max(-holes, 0)
            if unread:
                raise self._gone(unread)
        self._position = position._replace(place=place, holes=holes)

    def _gone(self, count: int) -> UsageError:
        some = "1 message" if count == 1 else f"{count:,} messages"
        return UsageError(
            f"{self.url}: {some} behind {self._position.place:,} gone unread, deleted by somebody or by a limit of the"
            f" stream {self._stream}; bring back what is gone, or begin anew with --reset"
        )
