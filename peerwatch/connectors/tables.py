"""The tables in which databases keep records: one a kind, and one with the number of each run's last record."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from peerwatch.connectors.records import DECISION, FLAGGED, NOTICE, REJECT, SESSION, Kind, Record, payload
from peerwatch.network.events import parse_timestamp


class SqlType(Enum):
    """The types of columns, which each database calls by names of its own."""

    INTEGER = "integer"
    TEXT = "text"
    DECIMAL = "decimal"
    """A number of up to 309 digits and any decimals, exact; as text."""
    REAL = "real"
    BOOLEAN = "boolean"
    TIME = "time"
    """A moment, as microseconds since 1970 UTC. A time zone may carry it into the year 0 or 10000."""


class RecordTable(NamedTuple):
    """A table's name and columns. Its key is the run's name and the record's number."""

    name: str
    columns: Mapping[str, SqlType]

    def create(self, types: Mapping[SqlType, str]) -> str:
        """The statement that creates it, if it is not there."""
        columns = ", ".join(f"{name} {types[column]}" for name, column in self.columns.items())
        return f"CREATE TABLE IF NOT EXISTS {self.name} ({columns}, PRIMARY KEY (run, seq))"


_KEY: Final = {"run": SqlType.TEXT, "seq": SqlType.INTEGER}
TABLES: Final[Mapping[Kind, RecordTable]] = {
    FLAGGED: RecordTable(
        "peerwatch_flagged",
        {
            **_KEY, "time": SqlType.TIME, "id": SqlType.TEXT, "amount": SqlType.DECIMAL, "mean": SqlType.DECIMAL,
            "sd": SqlType.DECIMAL, "detector": SqlType.TEXT, "score": SqlType.REAL, "score_threshold": SqlType.REAL,
            "model": SqlType.INTEGER, "severity": SqlType.TEXT, "line": SqlType.TEXT,
        },
    ),
    DECISION: RecordTable(
        "peerwatch_decisions",
        {
            **_KEY, "time": SqlType.TIME, "file": SqlType.TEXT, "line_number": SqlType.INTEGER, "id": SqlType.TEXT,
            "amount": SqlType.DECIMAL, "flagged": SqlType.BOOLEAN, "window_size": SqlType.INTEGER,
            "mean": SqlType.DECIMAL, "sd": SqlType.DECIMAL, "network_size": SqlType.INTEGER, "score": SqlType.REAL,
            "score_threshold": SqlType.REAL, "model": SqlType.INTEGER, "severity": SqlType.TEXT,
        },
    ),
    REJECT: RecordTable(
        "peerwatch_rejects",
        {
            **_KEY, "file": SqlType.TEXT, "line_number": SqlType.INTEGER, "position": SqlType.INTEGER,
            "reason": SqlType.TEXT, "raw": SqlType.TEXT, "raw_base64": SqlType.TEXT,
        },
    ),
    NOTICE: RecordTable(
        "peerwatch_notices",
        {**_KEY, "event": SqlType.INTEGER, "who": SqlType.TEXT, "notice": SqlType.TEXT, "details": SqlType.TEXT},
    ),
    SESSION: RecordTable(
        "peerwatch_sessions",
        {
            **_KEY, "session_id": SqlType.TEXT, "id": SqlType.TEXT, "probability": SqlType.REAL,
            "confidence": SqlType.REAL, "reasons": SqlType.TEXT, "line": SqlType.TEXT,
        },
    ),
}  # fmt: skip
MARKS: Final = RecordTable("peerwatch_marks", {"run": SqlType.TEXT, "kind": SqlType.TEXT, "seq": SqlType.INTEGER})


class WrittenLine(NamedTuple):
    """The line of a flagged purchase, with its number."""

    seq: int
    line: str


RUNS: Final = "SELECT run FROM {} WHERE kind = {} LIMIT 2"
"""The query for the runs that have written records of a kind, in the table of marks: one, or more than one."""
LINES: Final = "SELECT seq, line FROM {} WHERE run = {} AND seq > {} ORDER BY seq LIMIT 1000"
"""The query for the next flagged purchases of a run behind a number."""
EMPTY: Final = "{}: no run of peerwatch has written flagged purchases there"
RENAMED: Final = {"id": "user", "score_threshold": "threshold", "position": "offset"}
"""Columns that records call differently; some of their names are key words of SQL."""


def row_of(record: Record, run: str) -> list[Any]:
    """A record as a row of its kind's table, in the order of the columns."""
    fields = payload(record, run)
    if record.kind == FLAGGED:
        fields["time"] = time_of(fields["timestamp"])
    elif record.kind == DECISION:
        fields["time"] = fields["timestamp"]
    elif record.kind == NOTICE:
        fields["details"] = msgspec.json.encode(fields["details"]).decode()
    elif record.kind == SESSION:
        fields["reasons"] = "; ".join(fields["reasons"])
    return [fields.get(name, fields.get(RENAMED.get(name, name))) for name in TABLES[record.kind].columns]


def time_of(text: str) -> int:
    """A timestamp as a line has it, in microseconds since 1970 UTC."""
    return parse_timestamp({"timestamp": msgspec.Raw(msgspec.json.encode(text))})


def iso_time(micros: int) -> str:
    """Microseconds since 1970 UTC as `2017-06-13T11:33:01.000000Z`."""
    return f"{np.datetime64(micros, 'us')}Z"
