"""The tables in which databases keep records: one a kind, and one with the number of each run's last record."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec

from peerwatch.connectors.records import DECISION, FLAGGED, NOTICE, REJECT, Kind, Record, payload
from peerwatch.network.events import parse_timestamp


class Column(Enum):
    """The types of columns, which each database calls by names of its own."""

    INTEGER = "integer"
    TEXT = "text"
    DECIMAL = "decimal"
    """A number of up to 309 digits and any decimals, exact; as text."""
    REAL = "real"
    BOOLEAN = "boolean"
    TIME = "time"
    """A moment in UTC, as a datetime."""


class Table(NamedTuple):
    """A table's name and columns. Its key is the run's name and the record's number."""

    name: str
    columns: Mapping[str, Column]

    def create(self, types: Mapping[Column, str]) -> str:
        """The statement that creates it, if it is not there."""
        columns = ", ".join(f"{name} {types[column]}" for name, column in self.columns.items())
        return f"CREATE TABLE IF NOT EXISTS {self.name} ({columns}, PRIMARY KEY (run, seq))"


_KEY: Final = {"run": Column.TEXT, "seq": Column.INTEGER}
TABLES: Final[Mapping[Kind, Table]] = {
    FLAGGED: Table(
        "peerwatch_flagged",
        {
            **_KEY, "time": Column.TIME, "id": Column.TEXT, "amount": Column.DECIMAL, "mean": Column.DECIMAL,
            "sd": Column.DECIMAL, "detector": Column.TEXT, "score": Column.REAL, "score_threshold": Column.REAL,
            "model": Column.INTEGER, "severity": Column.TEXT, "line": Column.TEXT,
        },
    ),
    DECISION: Table(
        "peerwatch_decisions",
        {
            **_KEY, "time": Column.TIME, "file": Column.TEXT, "line_number": Column.INTEGER, "id": Column.TEXT,
            "amount": Column.DECIMAL, "flagged": Column.BOOLEAN, "window_size": Column.INTEGER, "mean": Column.DECIMAL,
            "sd": Column.DECIMAL, "network_size": Column.INTEGER, "score": Column.REAL, "score_threshold": Column.REAL,
            "model": Column.INTEGER, "severity": Column.TEXT,
        },
    ),
    REJECT: Table(
        "peerwatch_rejects",
        {
            **_KEY, "file": Column.TEXT, "line_number": Column.INTEGER, "position": Column.INTEGER,
            "reason": Column.TEXT, "raw": Column.TEXT, "raw_base64": Column.TEXT,
        },
    ),
    NOTICE: Table(
        "peerwatch_notices",
        {**_KEY, "event": Column.INTEGER, "who": Column.TEXT, "notice": Column.TEXT, "details": Column.TEXT},
    ),
}  # fmt: skip
MARKS: Final = Table("peerwatch_marks", {"run": Column.TEXT, "kind": Column.TEXT, "seq": Column.INTEGER})
RENAMED: Final = {"id": "user", "score_threshold": "threshold", "position": "offset"}
"""Columns that records call differently; some of their names are key words of SQL."""


def row_of(record: Record, run: str) -> list[Any]:
    """A record as a row of its kind's table, in the order of the columns."""
    fields = payload(record, run)
    if record.kind == FLAGGED:
        fields["time"] = moment(time_of(fields["timestamp"]))
    elif record.kind == DECISION:
        fields["time"] = moment(fields["timestamp"])
    elif record.kind == NOTICE:
        fields["details"] = msgspec.json.encode(fields["details"]).decode()
    return [fields.get(name, fields.get(RENAMED.get(name, name))) for name in TABLES[record.kind].columns]


def time_of(text: str) -> int:
    """A timestamp as a line has it, in microseconds since 1970 UTC."""
    return parse_timestamp({"timestamp": msgspec.Raw(msgspec.json.encode(text))})


def moment(micros: int) -> datetime:
    """Microseconds since 1970 UTC as a datetime."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
