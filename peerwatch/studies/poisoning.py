"""`peerwatch poison`: what flagged purchases did to the windows that they went on to be in.

A flagged purchase raises the mean and the standard deviation of everybody whose network holds its buyer, so that later
ones are not flagged. Without it, each of these windows would hold the next older purchase of its network in its place,
and nothing else would change: so one pass over the logs, with windows of T + 1 purchases, answers for all of them.
"""

from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from anyio.to_thread import run_sync

from peerwatch.errors import UsageError
from peerwatch.judging.engine import apply, cases
from peerwatch.judging.judge import Case, Mask
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.judging.state import State
from peerwatch.kernels import Int64s
from peerwatch.network.decoder import Events
from peerwatch.network.interner import ids_of
from peerwatch.network.order_in_time import sort_in_time
from peerwatch.network.statistics import Statistics, decimal, shown_k
from peerwatch.network.windows import Windows
from peerwatch.progress import Progress
from peerwatch.replay.replay import Opened, Part, open_replay, parts
from peerwatch.runtime.decision_log import moment
from peerwatch.runtime.judges_from_settings import check_sigma
from peerwatch.settings.model import QUARANTINE, Layer
from peerwatch.studies.poison_table import ChangedVerdict, EnteredWindow, PoisonLedger, PoisonRecord, ReachedUser
from peerwatch.studies.sweep import check_labels, read_labels


class NamedLines(NamedTuple):
    """NamedLines of a file, by number."""

    file: str
    numbers: Collection[int]

    def among(self, file: str, events: Events) -> Mask:
        """Which events of a file stand in these lines, as a mask."""
        return np.isin(events.line, sorted(self.numbers)) & (file == self.file)


class _Bought(NamedTuple):
    """A judged purchase; the amount in millionths, the time in microseconds."""

    seq: int
    file: str
    line: int
    user: int
    timestamp: int
    amount: int


class _Entry(NamedTuple):
    """A window that held a purchase: whose it is, its limits in millionths, and the verdicts, with it and without."""

    bought: _Bought
    limit: int | None
    limit_without: int | None
    flagged: bool
    flagged_without: bool


@dataclass
class _Suspect:
    """A purchase that the ledger is about, and the windows that held it, in order."""

    bought: _Bought
    flagged: bool
    entries: list[_Entry] = field(default_factory=list)


async def poisoning(
    layers: Sequence[Layer], *, labels: Path | None = None, progress: Progress | None = None
) -> PoisonLedger:
    """Find what the flagged purchases of a run did to later windows; with `labels` those in lines of that file.

    Raises:
        UsageError: something is missing or cannot be used, the detector is not sigma, or flagged purchases are in no
            window; or a label names no purchase.
        SourceError: a log could not be read any further.
    """
    named = await run_sync(read_labels, labels) if labels is not None else None
    async with AsyncExitStack() as stack:
        opened = await open_replay(layers, lambda _: False, stack)
        settings = opened.settings
        check_sigma(settings, "poison")
        if settings.detector.quarantine:
            raise UsageError(
                f'{opened.origins[QUARANTINE]}: "{QUARANTINE}" is on: flagged purchases are in no window; leave it out'
                " to see what they would do"
            )
        lines = NamedLines(opened.logs[-1].name, named) if named is not None else None
        ledger = Poisoning(opened, lines)
        sizes, read = [log.size for log in opened.logs], 0
        if progress is not None:
            stack.enter_context(progress.progress(None if None in sizes else sum(size or 0 for size in sizes)))
        async with aclosing(parts(opened.logs, ledger.state.decoder, 0, opened.bookmarks)) as found:
            async for part in found:
                await run_sync(ledger.add, part)
                read += len(part.block.content)
                if progress is not None:
                    progress.moved(read, f"{ledger.judged:,} judged")
        if named is not None:
            check_labels(named, ledger.found, labels or Path(), opened.logs[-1].name)
        return await run_sync(ledger.record)


class Poisoning:
    """One pass over the logs."""

    def __init__(self, opened: Opened, lines: NamedLines | None = None) -> None:
        """The ledger is about the purchases in `lines`; None for those that are flagged."""
        settings = opened.settings
        self.state = State.fresh(opened.D, opened.T + 1, 1, directed=settings.directed)
        self._D, self._T, self._k = opened.D, opened.T, settings.detector.exact_k()
        self._judges_batch = settings.judge_batch
        self._judge = SigmaJudge(Sigma(self._k))
        self._lines = lines
        self.found: set[int] = set()
        """The lines among them that are judged purchases."""
        self.judged = self._flagged = 0
        self._suspects: dict[int, _Suspect] = {}
        self._seqs: Int64s = np.zeros(0, np.int64)

    def add(self, part: Part) -> None:
        """Apply the next events; judge them if they are in the judged log."""
        if not part.judged and not self._judges_batch:
            apply(self.state, part.events, part.seq)
            return
        for purchases, case in cases(self.state, part.events, part.seq):
            self._look(part.file, purchases, case)

    def _look(self, file: str, purchases: Events, case: Case) -> None:
        windows = case.windows
        sort_in_time(windows.offsets, windows.seq, windows.timestamp, windows.amount.held)
        window, spare = _without_oldest(windows, self._T)
        flagged = self._judge.flags(window, case.amount)
        self.judged += len(flagged)
        self._flagged += int(np.count_nonzero(flagged))
        suspected = flagged if self._lines is None else self._lines.among(file, purchases)
        bought = {}

        def known(place: int) -> _Bought:
            if place not in bought:
                columns = (case.seq, purchases.line, purchases.user, purchases.timestamp)
                seq, line, user, timestamp = (int(column[place]) for column in columns)
                bought[place] = _Bought(seq, file, line, user, timestamp, case.amount.exact(place))
            return bought[place]

        for place in np.flatnonzero(suspected).tolist():
            one = known(place)
            self._suspects[one.seq] = _Suspect(one, bool(flagged[place]))
            self.found.add(one.line)
        self._seqs = np.concatenate([self._seqs, case.seq[suspected]])
        hits = np.flatnonzero(np.isin(window.seq, self._seqs))
        owners = np.searchsorted(window.offsets, hits, side="right") - 1
        before, statistics = -1, Statistics(0, 0, 0)
        for row, place in zip(hits.tolist(), owners.tolist(), strict=True):
            if place != before:
                before, statistics = place, self._judge.statistics(window, place)
                limit = self._limit(statistics)
            gone, came = window.amount.exact(row), spare.get(place)
            without = _replaced(statistics, gone, came)
            amount = case.amount.exact(place)
            entry = _Entry(
                known(place), limit, self._limit(without), bool(flagged[place]), without.exceeded_by(amount, self._k)
            )
            self._suspects[int(window.seq[row])].entries.append(entry)

    def _limit(self, statistics: Statistics) -> int | None:
        return statistics.highest_normal(self._k) if statistics.n > 1 else None

    def record(self) -> PoisonLedger:
        """Return what has been found."""
        names = [each.decode() for each in ids_of(*self.state.decoder.interner.columns(), 0)]
        found = [_record(suspect, names) for suspect in self._suspects.values()]
        found.sort(key=lambda one: (-len(one.hidden), -one.windows, one.seq))
        return PoisonLedger(self._D, self._T, shown_k(self._k), self.judged, self._flagged, found)


def _without_oldest(windows: Windows, T: int) -> tuple[Windows, dict[int, int]]:
    """The T latest of windows of T + 1 purchases in order of time, and the amount that is left over of full ones."""
    sizes = np.diff(windows.offsets)
    full = np.flatnonzero(sizes > T)
    oldest = windows.offsets[full]
    kept = np.ones(len(windows.seq), np.bool_)
    kept[oldest] = False
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.minimum(sizes, T))])
    window = Windows(offsets, windows.seq[kept], windows.timestamp[kept], windows.amount[kept])
    return window, dict(zip(full.tolist(), windows.amount[oldest].tolist(), strict=True))


def _replaced(statistics: Statistics, gone: int, came: int | None) -> Statistics:
    """The statistics with another amount in the place of one, or without it if there is no other."""
    n, S, Q = statistics
    if came is None:
        return Statistics(n - 1, S - gone, Q - gone * gone)
    return Statistics(n, S - gone + came, Q - gone * gone + came * came)


def _record(suspect: _Suspect, names: Sequence[str]) -> PoisonRecord:
    by_user: dict[int, list[_Entry]] = {}
    for entry in suspect.entries:
        by_user.setdefault(entry.bought.user, []).append(entry)
    own, entries = suspect.bought, suspect.entries
    times = [entry.bought.timestamp for entry in entries]
    return PoisonRecord(
        seq=own.seq,
        file=own.file,
        line=own.line,
        user=names[own.user],
        timestamp=moment(own.timestamp) or "",
        amount=decimal(own.amount),
        flagged=suspect.flagged,
        windows=len(entries),
        first=entries[0].bought.seq if entries else None,
        last=entries[-1].bought.seq if entries else None,
        seconds=(max(times) - min(times)) / 1e6 if times else 0.0,
        moved=_most_moved(entries),
        users=[_reached(names[user], found) for user, found in by_user.items()],
        hidden=[_changed(entry, names) for entry in entries if entry.flagged_without and not entry.flagged],
        caused=[_changed(entry, names) for entry in entries if entry.flagged and not entry.flagged_without],
    )


def _reached(user: str, entries: Sequence[_Entry]) -> ReachedUser:
    windows = [
        EnteredWindow(
            entry.bought.seq, moment(entry.bought.timestamp) or "", _amount(entry.limit), _amount(entry.limit_without)
        )
        for entry in entries
    ]
    return ReachedUser(user, windows[0].seq, windows[-1].seq, _most_moved(entries), windows)


def _changed(entry: _Entry, names: Sequence[str]) -> ChangedVerdict:
    own = entry.bought
    return ChangedVerdict(
        own.seq, own.file, own.line, names[own.user], moment(own.timestamp) or "", decimal(own.amount),
        _amount(entry.limit), _amount(entry.limit_without),
    )  # fmt: skip


def _most_moved(entries: Sequence[_Entry]) -> str | None:
    moves = [
        entry.limit - entry.limit_without
        for entry in entries
        if entry.limit is not None and entry.limit_without is not None
    ]
    if not moves:
        return None
    most = max(moves, key=abs)
    return f"{'-' if most < 0 else '+'}{decimal(abs(most))}"


def _amount(limit: int | None) -> str | None:
    return decimal(limit) if limit is not None else None
