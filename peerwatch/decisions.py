"""Decisions as objects, and as pandas or polars tables."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from peerwatch.judging.engine import JudgedBatch
from peerwatch.network.rejects import RejectedLine
from peerwatch.network.statistics import decimal

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Decision(NamedTuple):
    """The decision on one purchase.

    `seq` is the event's number across all logs, from 1, and `line` its line in its log, from 1. `timestamp` is UTC.
    `amount`, `mean` and `sd` are exact, in the log's units; mean and sd (population) are truncated to two decimals, and
    None if the window is empty. `window_size` is the number of purchases in the window, and `network_size` the number
    of users in the buyer's network, None if they were not counted. `score`, `threshold` and `model` are set by
    detectors other than sigma; `model` is the version of the model that judged, 0 before the first model, None for a
    detector that is not trained. `log` is "batch" for a purchase of the batch log, where that is judged too, else None.
    """

    seq: int
    line: int
    user: str
    timestamp: datetime
    amount: Decimal
    flagged: bool
    window_size: int
    mean: Decimal | None
    sd: Decimal | None
    network_size: int | None
    score: float | None
    threshold: float | None
    model: int | None
    log: str | None = None


class Decisions(Iterator[Decision]):
    """An iterator of decisions, made while it is iterated over. It can be used once.

    `to_pandas` and `to_polars` return the remaining decisions as a table with the fields of `Decision` as columns;
    amounts are floats there. `rejected` collects the lines that are not events.
    """

    def __init__(self, decisions: Iterator[Decision], rejected: list[RejectedLine], D: int, T: int) -> None:
        self._decisions = decisions
        self.rejected = rejected
        self.D = D
        self.T = T

    def __next__(self) -> Decision:
        return next(self._decisions)

    def to_pandas(self) -> "pd.DataFrame":
        """Return the remaining decisions as a pandas DataFrame. Requires pandas."""
        import pandas as pd  # noqa: PLC0415 (optional)

        return pd.DataFrame(self._columns())

    def to_polars(self) -> "pl.DataFrame":
        """Return the remaining decisions as a polars DataFrame. Requires polars."""
        import polars as pl  # noqa: PLC0415 (optional)

        types = {"network_size": pl.Int64, "model": pl.Int64, "log": pl.String}
        return pl.DataFrame(self._columns(), schema_overrides=types)

    def _columns(self) -> dict[str, list[Any]]:
        rows = [*self._decisions]
        columns: dict[str, list[Any]] = {
            name: [row[place] for row in rows] for place, name in enumerate(Decision._fields)
        }
        for name in ("amount", "mean", "sd"):
            columns[name] = [None if value is None else float(value) for value in columns[name]]
        return columns


def decisions_of(judged: JudgedBatch, name: Callable[[int], str]) -> Iterator[Decision]:
    """Yield the decisions of a judged batch. `name` returns a dense user's id."""
    events, case, verdicts = judged
    columns = (case.seq, case.line, events.user, case.timestamp, verdicts.flagged, case.members)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    for place, (seq, line, user, timestamp, flagged, members) in enumerate(rows):
        statistics = case.statistics(place)
        yield Decision(
            seq,
            line,
            name(user),
            EPOCH + timedelta(microseconds=timestamp),
            Decimal(decimal(case.amount.exact(place))),
            flagged,
            statistics.n,
            Decimal(statistics.mean()) if statistics.n else None,
            Decimal(statistics.sd()) if statistics.n else None,
            members if members >= 0 else None,
            float(verdicts.score[place]) if verdicts.score is not None else None,
            float(verdicts.threshold[place]) if verdicts.threshold is not None else None,
            int(verdicts.model[place]) if verdicts.model is not None else None,
        )
