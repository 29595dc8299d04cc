"""The decisions and notices of a run, as the API gives them, read from the store that the run writes."""

from typing import Any, Final, Literal

import msgspec

from peerwatch.connectors.records import DECISION, DecisionRow
from peerwatch.connectors.tables import TABLES, iso_time
from peerwatch.service.store_rows import Moment, Rows

COLUMNS: Final = tuple(name for name in TABLES[DECISION].columns if name != "run")


class StoredDecision(msgspec.Struct, frozen=True):
    """A decision as the API gives it. Amounts are text and exact; `time` is ISO 8601, UTC."""

    seq: int
    time: str
    user: str
    amount: str
    flagged: bool
    window_size: int
    mean: str | None
    sd: str | None
    network_size: int | None
    severity: str | None
    score: float | None
    threshold: float | None
    model: int | None
    file: str
    line: int
    label: Literal["anomaly", "normal"] | None = None


class Notice(msgspec.Struct, frozen=True):
    """A notice as the API gives it: `event` is the number of the event behind which it was given."""

    seq: int
    event: int
    who: str
    notice: str
    details: dict[str, Any]


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which decisions are wanted: `after` and `before` bound their numbers, `since` and `until` their times."""

    flagged: bool | None = None
    after: int | None = None
    before: int | None = None
    user: str | None = None
    since: Moment | None = None
    until: Moment | None = None
    severity: str | None = None
    min_amount: str | None = None
    newest_first: bool = False
    limit: int = 100


class DecisionStore:
    """The decisions and notices of one run."""

    def __init__(self, rows: Rows, run: str) -> None:
        self._rows = rows
        self._run = run

    async def decisions(self, query: Query) -> list[StoredDecision]:
        """Decisions, in the order of their numbers.

        Raises:
            Problem: the store does not answer.
        """
        found = await self._rows.rows(*self.statement(query))
        return [_decision(dict(zip(COLUMNS, row, strict=True))) for row in found]

    def statement(self, query: Query) -> tuple[str, list[Any]]:
        """The statement that finds decisions, and its values."""
        where, values = ["run = ?"], [self._run]
        bounds: tuple[tuple[str, Any], ...] = (
            ("seq > ?", query.after), ("seq < ?", query.before), ("id = ?", query.user), ("time >= ?", query.since),
            ("time <= ?", query.until), ("severity = ?", query.severity), (self._rows.at_least, query.min_amount),
        )  # fmt: skip
        for condition, value in bounds:
            if value is not None:
                where.append(condition)
                values.append(value)
        if query.flagged is not None or query.severity is not None:  # only what is flagged is severe
            where.append("NOT flagged" if query.flagged is False else "flagged")
        order = "DESC" if query.newest_first else "ASC"
        statement = (
            f"SELECT {', '.join(COLUMNS)} FROM peerwatch_decisions WHERE {' AND '.join(where)}"
            f" ORDER BY seq {order} LIMIT ?"
        )
        return statement, [*values, query.limit]

    async def decision(self, seq: int) -> StoredDecision | None:
        """The decision on one event, None if there is none.

        Raises:
            Problem: the store does not answer.
        """
        found = await self.decisions(Query(after=seq - 1, before=seq + 1, limit=1))
        return found[0] if found else None

    async def notices(self, after: int, limit: int, kind: str | None = None) -> list[Notice]:
        """The newest notices of a kind, or of all, behind one number, in their order.

        Raises:
            Problem: the store does not answer.
        """
        only, values = ("AND notice = ?", [kind]) if kind is not None else ("AND notice <> ?", ["disagreement"])
        found = await self._rows.rows(
            "SELECT seq, event, who, notice, details FROM peerwatch_notices WHERE run = ? AND seq > ?"
            f" {only} ORDER BY seq DESC LIMIT ?",
            [self._run, after, *values, limit],
        )
        return [
            Notice(seq, event, who, notice, msgspec.json.decode(details))
            for seq, event, who, notice, details in reversed(found)
        ]


def _decision(row: dict[str, Any]) -> StoredDecision:
    """A row of the table as a decision."""
    time = row["time"]
    return StoredDecision(
        row["seq"],
        time if isinstance(time, str) else iso_time(time),
        row["id"],
        _decimal(row["amount"]),
        bool(row["flagged"]),
        row["window_size"],
        _text(row["mean"]),
        _text(row["sd"]),
        row["network_size"],
        row["severity"],
        row["score"],
        row["score_threshold"],
        row["model"],
        row["file"],
        row["line_number"],
    )


def decision_of(row: DecisionRow) -> StoredDecision:
    """A record as a decision."""
    return StoredDecision(
        row.seq, iso_time(row.timestamp), row.user, row.amount, row.flagged, row.window_size, row.mean, row.sd,
        row.network_size, row.severity, row.score, row.threshold, row.model, row.file, row.line,
    )  # fmt: skip


def _decimal(value: Any) -> str:
    """A number of the database as text without an exponent."""
    return value if isinstance(value, str) else f"{value:f}"


def _text(value: Any) -> str | None:
    return _decimal(value) if value is not None else None
