"""Keeps an SQLite store within the days and megabytes that the settings allow."""

from typing import Final

from anyio.to_thread import run_sync

from peerwatch.service.store_rows import SqliteRows

DAY: Final = 86_400.0
STEP: Final = 5000
"""Rows that are deleted at a time, so that the run's own writing never waits for long."""
NOTES: Final = 100
"""So many times in `keep_days` is it noted how far the run was."""
TABLES: Final = {"peerwatch_decisions": "seq", "peerwatch_explanations": "seq", "peerwatch_notices": "event"}
"""The tables whose rows go, and the column with the number of the event."""
KINDS: Final = "('decision', 'notice')"


class Retention:
    """Removes what was judged too long ago, and what is too much.

    When something was judged is not in its row, and the times in a log may be anything. So the number of the newest
    decision is noted now and then, with the time.
    """

    def __init__(self, rows: SqliteRows, *, keep_days: float, keep_bytes: int, drops_others: bool) -> None:
        """With `drops_others` what earlier runs have left is removed at once, otherwise when the room is needed."""
        self._rows = rows
        self._keep_days = keep_days
        self._keep_bytes = keep_bytes
        self._drops_others = drops_others

    async def clean(self, run: str, now: float) -> None:
        """Remove what is not to be kept of a run's rows; `now` is in seconds since 1970.

        Raises:
            Problem: the file cannot be read or written.
        """
        await run_sync(self._clean, run, now)

    def _clean(self, run: str, now: float) -> None:
        read = self._rows.read
        newest = read("SELECT max(seq) FROM peerwatch_decisions WHERE run = ?", (run,))
        if not newest or newest[0][0] is None:
            return
        last, first = newest[0][0], read("SELECT min(seq) FROM peerwatch_decisions WHERE run = ?", (run,))[0][0]
        over = self._bytes() - self._keep_bytes
        if self._drops_others or over > 0:
            for (other,) in read(
                f"SELECT DISTINCT run FROM peerwatch_marks WHERE run <> ? AND kind IN {KINDS}", (run,)
            ):
                self._drop(other, None)
            over = self._bytes() - self._keep_bytes
        through = self._note(run, now, last)
        if over > 0:
            share = over / (over + self._keep_bytes)
            through = max(through, min(last - 1, first + int(share * (last - first))))
        if through >= first:
            self._drop(run, through)

    def _note(self, run: str, now: float, last: int) -> int:
        """Note where the run is; returns the number of the last event that was judged too long ago."""
        rows, keep = self._rows, self._keep_days * DAY
        rows.write("CREATE TABLE IF NOT EXISTS peerwatch_kept (run TEXT, at REAL, seq INTEGER, PRIMARY KEY (run, at))")
        noted = rows.read("SELECT max(at) FROM peerwatch_kept WHERE run = ?", (run,))[0][0]
        if noted is None or not noted <= now < noted + keep / NOTES:  # or the clock was set back
            rows.write("INSERT OR REPLACE INTO peerwatch_kept VALUES (?, ?, ?)", (run, now, last))
        old = rows.read("SELECT max(seq) FROM peerwatch_kept WHERE run = ? AND at < ?", (run, now - keep))[0][0]
        rows.write("DELETE FROM peerwatch_kept WHERE run <> ? OR at < ?", (run, now - keep))
        return int(old or 0)

    def _bytes(self) -> int:
        """The bytes of the file that are in use; those of deleted rows are used again."""
        used = "(page_count - freelist_count) * page_size"
        pragmas = "pragma_page_count, pragma_freelist_count, pragma_page_size"
        return int(self._rows.read(f"SELECT {used} FROM {pragmas}")[0][0])

    def _drop(self, run: str, through: int | None) -> None:
        """Delete the rows of a run up to a number, or all."""
        for table, number in TABLES.items():
            while True:
                where = f"WHERE run = ? AND {number} <= ? LIMIT {STEP}"
                chosen = f"SELECT rowid FROM {table} {where}"
                bound = 2**63 - 1 if through is None else through
                if not self._rows.read(f"SELECT 1 FROM {table} WHERE run = ? AND {number} <= ? LIMIT 1", (run, bound)):
                    break
                self._rows.write(f"DELETE FROM {table} WHERE rowid IN ({chosen})", (run, bound))
        if through is None:
            self._rows.write(f"DELETE FROM peerwatch_marks WHERE run = ? AND kind IN {KINDS}", (run,))
