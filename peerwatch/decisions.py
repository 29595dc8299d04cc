"""Decisions as a person or a program wants them: one by one, or as a table."""

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
    """What was decided on one purchase.

    `seq` numbers the events of all logs from 1, `line` the lines of the log from 1. `timestamp` is UTC. `amount`,
    `mean` and `sd` (population, of the window; truncated to two decimals) are exact; the last two are None for an empty
    window. `window_size` counts the purchases it was judged against, `network_size` the buyer's network, None where
    that was not counted. `score`, `threshold` and `model` are those of a detector other than sigma; `model` is the
    version of the model that judged, 0 before the first, None for a detector that is not trained.
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


class Decisions(Iterator[Decision]):
    """Decisions as they are made: an iterator, which ends with the logs. It can be gone through once.

    `to_pandas` and `to_polars` take what is left of it as a table with the columns of a `Decision`, where amounts are
    floats. `rejected` gathers the lines that were no events.
    """

    def __init__(self, decisions: Iterator[Decision], rejected: list[RejectedLine], D: int, T: int) -> None:
        self._decisions = decisions
        self.rejected = rejected
        self.D = D
        self.T = T

    def __next__(self) -> Decision:
        return next(self._decisions)

    def to_pandas(self) -> "pd.DataFrame":
        """What is left as a pandas data frame; pandas must be installed."""
        import pandas as pd  # noqa: PLC0415 (only whoever asks for it needs it)

        return pd.DataFrame(self._columns())

    def to_polars(self) -> "pl.DataFrame":
        """What is left as a polars data frame; polars must be installed."""
        import polars as pl  # noqa: PLC0415 (only whoever asks for it needs it)

        return pl.DataFrame(self._columns(), schema_overrides={"network_size": pl.Int64, "model": pl.Int64})

    def _columns(self) -> dict[str, list[Any]]:
        rows = [*self._decisions]
        columns: dict[str, list[Any]] = {
            name: [row[place] for row in rows] for place, name in enumerate(Decision._fields)
        }
        for name in ("amount", "mean", "sd"):
            columns[name] = [None if value is None else float(value) for value in columns[name]]
        return columns


def decisions_of(judged: JudgedBatch, name: Callable[[int], str]) -> Iterator[Decision]:
    """The decisions of a judged batch; `name` gives a dense user's id."""
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
