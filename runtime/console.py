"""What a person sees of a run, all on standard error: progress, a summary, a word when something takes long."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from peerwatch.runtime.pipeline import Totals
    from peerwatch.runtime.runner import Report


class Console:
    """Says nothing at all if `quiet`; shows a moving bar only on a terminal that logs do not share."""

    def __init__(self, *, quiet: bool, bar: bool) -> None:
        there = sys.stderr is not None
        self._rich = RichConsole(stderr=True, quiet=quiet or not there, highlight=False, soft_wrap=True, markup=False)
        self.has_bar = bar and not quiet and there and sys.stderr.isatty()
        self._progress: Any = None
        self._task: Any = None
        self._began = perf_counter()

    def compiling(self) -> None:
        """The kernels are about to be compiled."""
        self._rich.print("Compiling the kernels for this machine; this happens once and takes about ten seconds.")

    @contextmanager
    def progress(self, total: int | None) -> Iterator[None]:
        """Around a run that reads `total` bytes (None if unknown)."""
        self._began = perf_counter()
        if not self.has_bar:
            yield
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415 (slow to import)

        columns = (
            TextColumn("judging"), BarColumn(), TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[counts]}"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self._rich, transient=True) as self._progress:
            self._task = self._progress.add_task("judging", total=total, counts="")
            yield

    def progressed(self, totals: "Totals") -> None:
        """Move the bar."""
        if self._progress is not None:
            done = totals.progress
            counts = f"{done.events:,} events, {totals.flagged:,} flagged"
            self._progress.update(self._task, completed=done.bytes, counts=counts)

    def interrupted(self) -> None:
        """A signal has ended the reading."""
        self._rich.print("Stopping: what has been read is still judged; once more ends at once.")

    def ended(self) -> None:
        """A second signal has ended the run: leave the terminal as it was."""
        if self._progress is not None:
            self._progress.stop()
        self._rich.print("Ended at once: the output stops where it was.")

    def report(self, report: "Report") -> None:
        """The summary of a run."""
        seconds = perf_counter() - self._began
        totals, done, settings = report.totals, report.totals.progress, report.settings
        share = f" ({totals.flagged / done.judged:.2%} of judged)" if done.judged else ""
        table = Table.grid(padding=(0, 2))
        for row in (
            ("events", f"{done.events:,}", f"in {seconds:.2f} s, {done.events / max(seconds, 1e-9):,.0f} a second"),
            (
                "judged",
                f"{done.judged:,}",
                f"stream purchases, D={settings.D} T={settings.T} k={settings.detector.k:g}",
            ),
            ("flagged", f"{totals.flagged:,}", f"{settings.output.flagged}{share}"),
            ("rejected", f"{done.rejected:,}", f"{report.rejects}" if done.rejected else "every line was an event"),
            ("network", f"{done.users:,}", f"users, {totals.friendships:,} friendships in force at the end"),
        ):
            table.add_row(*map(Text, row))
        table.columns[1].justify = "right"
        with suppress(OSError):  # the work is done and written: a summary that nobody can read changes nothing
            self._rich.print(table)
