"""Records as points of a time series: InfluxDB's line protocol, which InfluxDB 1 and 2 and others understand.

A point is replaced by one of the same measurement, tags and time, so a record that is written again does no harm. Its
time must then be the same again, and no other record's: `Times` sees to both.
"""

from base64 import b64encode
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from anyio.to_thread import run_sync

from peerwatch.connectors.http_client import TLS_OPTIONS, Answer, HttpStore, authority, pieces
from peerwatch.connectors.records import DECISION, FLAGGED, NOTICE, Kind, NoticeRecord, Record
from peerwatch.connectors.store import EXACTLY_ONCE, StoreContext
from peerwatch.connectors.tables import TABLES, SqlType, row_of
from peerwatch.errors import SinkError, Unavailable, UsageError
from peerwatch.urls import ConnectorUrl

PORT: Final = 8086
DONE: Final = 204
"""The status that says that all points are kept. Another one, even of success, is no InfluxDB's."""
VICTORIA: Final = "X-Server-Hostname"
"""A header that VictoriaMetrics adds to its answers."""
TAGS: Final = ("run", "detector", "severity", "who", "notice")
"""What points can be grouped by. Each combination is a series of its own, so there are few."""
NAMES: Final[Mapping[Kind, str]] = {FLAGGED: "flagged purchase", DECISION: "decision", NOTICE: "notice"}
"""The records that have a time, and what messages call them."""
PLACES: Final = 1000
"""Nanoseconds of a microsecond."""
EARLIEST: Final = -(1 << 63) // PLACES + 1
LATEST: Final = 9_214_646_400_000_000
"""The first microsecond that fits into a time of 64 bits, and the beginning of the last whole year, 2262."""


class Times:
    """Gives each record of one kind a time of its own in nanoseconds, the same whenever it is written again.

    A microsecond has 1,000 places, one a nanosecond. A record goes to the first place where all records before are of
    earlier microseconds. In a log that is in order the n-th record of a microsecond so gets n nanoseconds, and a late
    record goes where nothing later has been. No two records get the same time, since at each place microseconds only
    rise. The last microsecond of each place is all that must be remembered, 1,000 numbers at most.

    If there is no such place, the record moves to the first microsecond that has one. That takes more than 1,000
    records of one microsecond (logs may tell whole seconds alone), or 1,000 later ones before a late one.

    A record's number modulo 1,000 would need no memory, but let one record replace another: in logs of whole seconds
    many are of one microsecond. As a tag, the number would make each record a series.
    """

    def __init__(self, last: Sequence[int] = ()) -> None:
        """Go on where these are the last microseconds; they fall from place to place."""
        self.last = list(last)

    def next(self, micros: int) -> int:
        """The next record's time; `micros` is its own, in microseconds since 1970 UTC."""
        micros = min(max(micros, EARLIEST), LATEST)
        if len(self.last) == PLACES:
            micros = max(micros, self.last[-1] + 1)
        place = bisect_left(self.last, True, key=lambda last: last < micros)  # noqa: FBT003 (they fall)
        self.last[place : place + 1] = [micros]
        return micros * PLACES + place


class InfluxStore(HttpStore):
    """`influx+http://host:8086/database`, or `influx+http://host:8086?org=...&bucket=...&token=...` for InfluxDB 2.

    One measurement a kind, called as the tables of databases are. Whatever is a number there is one here, for charts;
    the record as a file would hold it is in the field `line`, exact.
    """

    def __init__(self, url: ConnectorUrl, context: StoreContext) -> None:
        """Name the server and the database; nothing is connected.

        Raises:
            UsageError: the URL lacks something, records of a kind have no time, or a library is missing.
        """
        url.check_options("org", "bucket", "token", *TLS_OPTIONS)
        self._warn = context.warn if context.delivery == EXACTLY_ONCE else None
        untimed = sorted(context.records - NAMES.keys())
        if untimed:
            raise UsageError(
                f"{url}: records of the kind {untimed[0]} have no time of their own, which a point needs; send them to"
                " another sink"
            )
        self._path, self._what = _place(url)
        credentials, secrets = _credentials(url)
        self._headers = {"Content-Type": "text/plain; charset=utf-8", **credentials}
        scheme = url.scheme.removeprefix("influx+")
        base = f"{scheme}://{authority(url, PORT if scheme == 'http' else None)}"
        super().__init__(url, context, base, secrets=secrets)

    async def connect(self) -> None:
        """See that the server takes points, by writing none.

        Raises:
            UsageError: it refuses the user or the token, or has no such database.
        """
        await self._client.open()
        answer = await self._send(b"")
        if answer.status in {401, 403}:
            raise UsageError(f"{self.url}: the server refuses the user, password or token: {answer}")
        if answer.status == 404:
            raise UsageError(f"{self.url}: {answer}; create the {self._what}, or correct the URL")
        if answer.status not in {200, DONE, 400}:  # some want at least one point
            raise UsageError(f"{self.url}: it takes no points, and answers {answer}; is it InfluxDB?")
        if VICTORIA in answer.headers and self._warn is not None:
            self._warn(
                f"{self.url} is VictoriaMetrics, which keeps numbers alone, with times in milliseconds, and loses its"
                " last seconds when it is killed: not each record is there exactly once"
            )
            self._warn = None

    async def append(self, records: Sequence[Record]) -> None:
        """Write points.

        Raises:
            SinkError: one is refused.
        """
        kind = records[0].kind
        memory = msgspec.convert(self.memory or {}, dict[Kind, list[int]])
        times = Times(memory.get(kind, ()))
        points = await run_sync(lambda: [point(record, self._run, times) for record in records])
        for begin, end in pieces(points, len(points)):
            if (await self._send(b"".join(points[begin:end]))).status != DONE:
                await self._write_each(records[begin:end], points[begin:end])
        self.memory = {**memory, kind: times.last}  # once they are there: until then they get these times again

    async def _write_each(self, records: Sequence[Record], points: Sequence[bytes]) -> None:
        """Write points that were not all accepted together, to find the one that is refused."""
        for record, line in zip(records, points, strict=True):
            answer = await self._send(line)
            if answer.status != DONE:
                raise SinkError(
                    f"{self.url} refuses {NAMES[record.kind]} number {record.seq:,}: {answer}; fix that and run again"
                )

    async def _send(self, points: bytes) -> Answer:
        answer = await self._client.send("POST", self._path, points, self._headers)
        if answer.status in {408, 429} or answer.status >= 500:
            raise Unavailable(str(answer), retry_after=answer.retry_after)
        return answer


def _place(url: ConnectorUrl) -> tuple[str, str]:
    """The path that points are written to, and what it names: InfluxDB 1 has databases, InfluxDB 2 has buckets."""
    bucket, org = url.option("bucket"), url.option("org")
    if bucket is not None:
        if url.path:
            raise UsageError(f"{url} names a database and a bucket; leave one of them out")
        names = {"bucket": bucket} | ({"org": org} if org is not None else {})
        return f"/api/v2/write?{urlencode({**names, 'precision': 'ns'})}", "bucket"
    if not url.path or org is not None:
        raise UsageError(
            f"{url}: name the database, as in influx+http://host:8086/database, or for InfluxDB 2 the organisation and"
            " the bucket, as in influx+http://host:8086?org=acme&bucket=verdicts&token=${TOKEN}"
        )
    return f"/write?{urlencode({'db': url.path, 'precision': 'ns'})}", "database"


def _credentials(url: ConnectorUrl) -> tuple[dict[str, str], list[str]]:
    """The header that lets us in, and what no message may show of it."""
    token, password = url.secret("token"), url.secret()
    if token is not None and password is not None:
        raise UsageError(f"{url} has a password and a token; leave one of them out")
    if token is None and password is not None and "bucket" not in url.query:
        account = b64encode(f"{url.user or ''}:{password}".encode()).decode()
        return {"Authorization": f"Basic {account}"}, [password]
    token = token if token is not None else password
    if token is None:
        return {}, []
    token = token.replace(" ", "+")  # a + in a query means a space, which no token has
    if not token.isascii() or not token.isprintable():
        raise UsageError(f"{url}: the token has characters that tokens do not have; take those of the server")
    return {"Authorization": f"Token {token}"}, [token]


def point(record: Record, run: str, times: Times) -> bytes:
    """A record as a line of the protocol, with its line feed."""
    table = TABLES[record.kind]
    values = dict(zip(table.columns, row_of(record, run), strict=True))
    tags = [f",{name}={text}" for name in TAGS if (text := tag(values.get(name) or ""))]
    values["line"] = record.encode().rstrip(b"\n").decode()
    columns = {**table.columns, "line": SqlType.TEXT}
    texts = {name: _field(column, values[name]) for name, column in columns.items() if name not in TAGS}
    fields = ",".join(f"{name}={text}" for name, text in texts.items() if text is not None)
    micros = record.timestamp if isinstance(record, NoticeRecord) else values["time"]
    return f"{table.name}{''.join(tags)} {fields} {times.next(micros)}\n".encode()


def _field(column: SqlType, value: Any) -> str | None:
    """A value as a field, None if there is none, or if it is no number that the database can hold."""
    if value is None or column is SqlType.TIME:
        return None
    if column is SqlType.BOOLEAN:
        return "true" if value else "false"
    if column is SqlType.INTEGER:
        return f"{int(value)}i"
    if column is SqlType.TEXT:
        return quoted(value)
    number = float(value)
    return repr(number) if isfinite(number) else None


def quoted(text: str) -> str:
    r"""Text as a field's value. A line feed, which ends a point elsewhere, becomes `\n`."""
    text = text.replace("\n", "\\n").replace("\\", "\\\\")
    return '"' + text.replace('"', '\\"') + '"'


def tag(text: str) -> str:
    """Text as a tag's value. Servers differ in what a backslash means: it becomes a slash, and a line feed a space."""
    text = text.replace("\\", "/").replace("\n", " ")
    for char in ",= ":
        text = text.replace(char, f"\\{char}")
    return text
