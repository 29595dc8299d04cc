"""The explanations of flagged purchases, in a table beside the decisions of the service's SQLite store."""

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Any, Final

from peerwatch.errors import RunError
from peerwatch.replay.follow_flagged import FlaggedEvent

TABLE: Final = "peerwatch_explanations"
FLAGGED: Final = {
    "peerwatch_decisions": "SELECT seq, id FROM peerwatch_decisions WHERE run = ? AND seq > ? AND flagged",
    "peerwatch_flagged": "SELECT seq, id FROM peerwatch_flagged WHERE run = ? AND seq > ?",
}
"""How the flagged purchases are found in the tables of the store that may be there."""
TIMEOUT: Final = 10.0


class ExplanationStore:
    """Explanations by run and event, as JSON, compressed. The methods block; they may be called from several threads.

    What is lost in a crash is made again, so that writing waits for no disk.
    """

    def __init__(self, path: str | Path) -> None:
        """Open the database at `path`, made if need be.

        Raises:
            RunError: it cannot be used.
        """
        self._path = path
        self._lock = Lock()
        try:
            self._connection = sqlite3.connect(path, timeout=TIMEOUT, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            self._connection.execute(
                f"CREATE TABLE IF NOT EXISTS {TABLE} (run TEXT, seq INTEGER, explanation BLOB, PRIMARY KEY (run, seq))"
            )
        except sqlite3.Error as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()

    def put(self, run: str, rows: Iterable[tuple[int, bytes]]) -> None:
        """Keep explanations of a run: events and JSON. One that is there already stays.

        Raises:
            RunError: they cannot be written.
        """
        packed = [(run, seq, zlib.compress(explanation, 1)) for seq, explanation in rows]
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                self._connection.executemany(f"INSERT OR IGNORE INTO {TABLE} VALUES (?, ?, ?)", packed)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise self._failed(error) from None

    def get(self, run: str, seq: int) -> bytes | None:
        """Return the explanation of an event as JSON, None if there is none.

        Raises:
            RunError: it cannot be read.
        """
        rows = self._query(f"SELECT explanation FROM {TABLE} WHERE run = ? AND seq = ?", (run, seq))
        return zlib.decompress(rows[0][0]) if rows else None

    def missing(self, run: str, after: int) -> list[FlaggedEvent]:
        """Return the flagged purchases after event `after` that the store has without an explanation, in order.

        Raises:
            RunError: they cannot be read.
        """
        found: dict[int, str] = {}
        for table in filter(self._has, FLAGGED):
            unexplained = f" AND seq NOT IN (SELECT seq FROM {TABLE} WHERE run = ?)"
            found |= dict(self._query(FLAGGED[table] + unexplained, (run, after, run)))
        return [FlaggedEvent(seq, found[seq]) for seq in sorted(found)]

    def judged_through(self, run: str) -> int:
        """Return the last event up to which the store has a run's decisions, 0 if it has none.

        Raises:
            RunError: that cannot be read.
        """
        if not self._has("peerwatch_marks"):
            return 0
        rows = self._query(
            "SELECT max(seq) FROM peerwatch_marks WHERE run = ? AND kind IN ('decision', 'flagged')", (run,)
        )
        return rows[0][0] or 0

    def drop_below(self, run: str, seq: int) -> None:
        """Forget the explanations of events before `seq`.

        Raises:
            RunError: they cannot be removed.
        """
        self._query(f"DELETE FROM {TABLE} WHERE run = ? AND seq < ?", (run, seq))

    def _has(self, table: str) -> bool:
        return bool(self._query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)))

    def _query(self, statement: str, values: Sequence[Any]) -> list[Any]:
        with self._lock:
            try:
                with closing(self._connection.execute(statement, values)) as cursor:
                    return cursor.fetchall()
            except sqlite3.Error as error:
                raise self._failed(error) from None

    def _failed(self, error: sqlite3.Error) -> RunError:
        return RunError(f"cannot use the explanations in {self._path}: {error}")
