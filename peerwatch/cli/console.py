"""Progress, warnings and summaries for the user, on standard error."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from peerwatch.readable import shown

if TYPE_CHECKING:
    from peerwatch.judging.audit import Difference
    from peerwatch.runtime.pipeline import Totals
    from peerwatch.runtime.runner import Report


class Console:
    """Writes messages to standard error. With `quiet` it shows only urgent warnings and last words.

    A progress bar is shown if `bar` is set and standard error is a terminal.
    """

    def __init__(self, *, quiet: bool, bar: bool) -> None:
        self._silent = quiet
        self.has_bar = bar and not self._silent and sys.stderr.isatty()
        self._progress: Any = None
        self._task: Any = None
        self._began = perf_counter()

    def warning(self, text: str) -> None:
        """Print a warning."""
        self._say(f"peerwatch: {text}")

    def urgent(self, text: str) -> None:
        """Print a warning even if `quiet` is set."""
        _print(f"peerwatch: {text}")

    def compiling(self) -> None:
        """Say that the kernels are about to be compiled."""
        self._say("Compiling the kernels for this machine; this happens once and takes ten to twenty seconds.")

    def uncached(self, where: str, why: str) -> None:
        """Say that the compiled kernels could not be kept."""
        self.warning(
            f"cannot store the compiled kernels in {where}: {why}; until it can be, they are compiled at every start"
            " (XDG_CACHE_HOME names another place)"
        )

    @contextmanager
    def progress(self, total: int | None) -> Iterator[None]:
        """Show a progress bar during work on `total` bytes (None if unknown)."""
        self._began = perf_counter()
        if not self.has_bar:
            yield
            return
        from rich.console import Console as RichConsole  # noqa: PLC0415 (slow to import)
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

        columns = (
            TextColumn("judging"), BarColumn(), TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[counts]}"), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=RichConsole(stderr=True), transient=True) as self._progress:
            self._task = self._progress.add_task("judging", total=total, counts="")
            yield

    def moved(self, done: int, counts: str) -> None:
        """Move the bar to `done` bytes, and show `counts` beside it."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, counts=counts)

    def interrupted(self) -> None:
        """Say that a signal has stopped the reading."""
        self._say("Stopping: what has been read is still being judged; a second signal ends the run at once.")

    def last_words(self, text: str) -> None:
        """Restore the terminal and print why the process ends now."""
        if self._progress is not None:
            self._progress.stop()
        _print(text)

    def report(self, report: "Report") -> None:
        """Print the summary of a run."""
        seconds = perf_counter() - self._began
        totals, done, settings = report.totals, report.totals.progress, report.settings
        share = f" ({totals.flagged / done.judged:.2%} of judged)" if done.judged else ""
        kept = shown(report.rejects) if report.rejects is not None else "not kept in a file"
        new = done.events - report.before
        seen = f"{new:,} of them now, " if report.before else ""
        purchases = "purchases of both logs" if settings.judge_batch else "stream purchases"
        kind = "directed friendships" if settings.directed else "friendships"
        rows = [
            ("events", f"{done.events:,}", f"{seen}in {seconds:.2f} s, {new / max(seconds, 1e-9):,.0f} a second"),
            (
                "judged",
                f"{done.judged:,}",
                f"{purchases}, D={settings.D} T={settings.T} {settings.detector.shown()}",
            ),
            ("flagged", f"{totals.flagged:,}", f"{shown(settings.output.flagged or '')}{share}"),
            ("rejected", f"{done.rejected:,}", kept if done.rejected else "every line was an event"),
            ("verdicts", f"{totals.decisions:,}", f"decisions, hash {totals.verdicts}"),
            ("network", f"{done.users:,}", f"users, {totals.friendships:,} {kind} in force at the end"),
        ]
        if totals.recomputed:
            found = f"{totals.differences:,} of them differ" if totals.differences else "all the same"
            rows.append(("audit", f"{totals.recomputed:,}", f"decisions recomputed by brute force, {found}"))
        if settings.challenger.name is not None:
            alone, others = totals.champion_alone, totals.challenger_alone
            found = (
                f"{alone:,} flagged by {settings.detector.name} alone, {others:,} by {settings.challenger.name} alone"
            )
            rows.append(("disagreed", f"{alone + others:,}", found))
        if report.lost.pieces:
            pieces = "piece" if report.lost.pieces == 1 else "pieces"
            found = f"{pieces} of the stream log, at least {report.lost.bytes:,} bytes; each is in the log"
            rows.append(("lost", f"{report.lost.pieces:,}", found))
        width = max(len(count) for _, count, _ in rows)
        self._say("\n".join(f"{what:<10}{count:>{width}}  {more}" for what, count, more in rows))

    def _say(self, text: str) -> None:
        if not self._silent:
            _print(text)


def _print(text: str) -> None:
    with suppress(OSError, ValueError):  # a message that cannot be shown must not stop the work
        print(text, file=sys.stderr, flush=True)  # noqa: T201


def different(totals: "Totals", first: "Difference") -> str:
    """Return the sentence about decisions that differ from those recomputed."""
    return (
        f"{totals.differences:,} of the {totals.recomputed:,} decisions that were recomputed by brute force differ, the"
        f" first on {first.where}; each is in the log"
    )
