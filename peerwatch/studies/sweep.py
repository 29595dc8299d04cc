"""Judges one stream with many combinations of D, T and k in one pass over the logs."""

import errno
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, aclosing, suppress
from functools import partial
from itertools import chain
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from typing import NamedTuple

import anyio
import msgspec
import numpy as np
from anyio.to_thread import run_sync

from peerwatch.actors.output import flagged_line
from peerwatch.errors import SinkError, UsageError
from peerwatch.judging.engine import BATCH_CAP, append, apply, walked, windows_at_once
from peerwatch.judging.judge import Mask
from peerwatch.judging.many_settings import GridVerdicts, judge_grid
from peerwatch.judging.quarantine import LabelHistory, Quarantine
from peerwatch.judging.quarantine_engine import QuarantineEngine
from peerwatch.judging.sigma import Sigma, SigmaJudge
from peerwatch.judging.state import State
from peerwatch.kernels import Int64s
from peerwatch.network.decoder import Events
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.networks import PARTITION_ONLY
from peerwatch.network.statistics import Statistics
from peerwatch.progress import Progress
from peerwatch.readable import shown
from peerwatch.replay.quarantined import history_of
from peerwatch.replay.replay import Opened, Part, open_replay, parts
from peerwatch.runtime.judges_from_settings import check_sigma
from peerwatch.runtime.pipeline import task_group
from peerwatch.settings.model import Count, DetectorSettings, Layer
from peerwatch.studies.block_counts import BlockCounts
from peerwatch.studies.sweep_table import Setting, SettingGrid, SweepRecord, compared


class LineLabel(msgspec.Struct, frozen=True):
    """A line of the labels file: the number of a line of the stream log, from 1, and an optional label."""

    line: Count
    label: object = None


class Named(NamedTuple):
    """The label of a line of the stream log, "" if it has none, and its line in the labels file."""

    place: int
    kind: str


async def sweep(
    layers: Sequence[Layer],
    wanted: SettingGrid,
    console: Progress,
    *,
    labels: Path | None = None,
    output: Path | None = None,
    force: bool = False,
    blocks: BlockCounts | None = None,
) -> SweepRecord | Signals:
    """Like `swept`, but shows progress. A signal ends the sweep with nothing written, and is returned.

    Raises:
        UsageError, SourceError, SinkError: as `swept`.
    """
    record: list[SweepRecord] = []

    async def work() -> None:
        record.append(
            await swept(layers, wanted, labels=labels, output=output, force=force, blocks=blocks, progress=console)
        )

    with anyio.open_signal_receiver(SIGINT, SIGTERM) as signals:
        interrupted_by = await _until_signal(work, signals)
    return record[0] if interrupted_by is None else interrupted_by


async def swept(
    layers: Sequence[Layer],
    wanted: SettingGrid,
    *,
    labels: Path | None = None,
    output: Path | None = None,
    force: bool = False,
    blocks: BlockCounts | None = None,
    progress: Progress | None = None,
) -> SweepRecord:
    """Judge the stream log with every wanted setting. A parameter that is not varied keeps its configured value.

    With `output` the flagged purchases of each setting are written to that directory. With `blocks` they are counted
    there, and a parameter that is not varied by `wanted` is varied as it says.

    Raises:
        UsageError: something is missing or cannot be used, there is no purchase, or a label names no purchase.
        SourceError: a log could not be read any further.
        SinkError: an output could not be written.
    """
    named = await run_sync(read_labels, labels) if labels is not None else {}
    more = blocks.usual if blocks is not None else SettingGrid((), (), ())
    first = {"D": [*wanted.D, *more.D], "T": [*wanted.T, *more.T]}
    fallback = Layer({key: values[0] for key, values in first.items() if values}, {})
    async with AsyncExitStack() as stack:
        opened = await open_replay(layers, lambda _: False, stack, fallback=fallback)
        check_sigma(opened.settings, "comparing settings")
        own = Setting(opened.D, opened.T, opened.settings.detector.k)
        grid = SettingGrid(
            wanted.D or sorted({own.D, *more.D}),
            wanted.T or sorted({own.T, *more.T}),
            wanted.k or sorted({own.k, *more.k}),
        )
        if blocks is not None:
            blocks.begin(grid, own)
        settings, stream = grid.settings(), opened.logs[-1].name
        files = FlaggedFiles(output, settings) if output is not None else None
        if files is not None:
            stack.push_async_callback(_shielded, files.discard)
            await run_sync(partial(files.begin, force=force))
        going = Sweep(opened, grid, named, files, blocks)
        if progress is None:
            await going.run(lambda *_: None)
        else:
            sizes = [log.size for log in opened.logs]
            with progress.progress(None if None in sizes else sum(size or 0 for size in sizes)):
                await going.run(progress.moved)
        if going.judged == 0:
            raise UsageError(f"{stream} holds no purchase: there is nothing to judge")
        check_labels(named, going.found, labels or Path(), stream)
        if files is not None:
            await run_sync(files.finish)
        return compared(settings, own, going.judged, going.shared, has_labels=labels is not None)


async def _shielded(call: Callable[[], None]) -> None:
    """Run a call on a thread, even if the work around it has been cancelled."""
    with anyio.CancelScope(shield=True):
        await run_sync(call)


async def _until_signal(work: Callable[[], Awaitable[None]], signals: AsyncIterator[Signals]) -> Signals | None:
    """Run the work until it ends or a signal arrives. Returns the signal, if any."""
    received: list[Signals] = []
    async with task_group() as tasks:

        async def watch() -> None:
            received.append(await anext(signals))
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        await work()
        tasks.cancel_scope.cancel()
    return received[0] if received else None


class Sweep:
    """One pass over the logs. They are decoded once, and one history of the largest T serves every D."""

    def __init__(
        self,
        opened: Opened,
        grid: SettingGrid,
        labels: Collection[int],
        files: "FlaggedFiles | None",
        blocks: BlockCounts | None,
    ) -> None:
        self._opened, self._grid, self._files, self._blocks = opened, grid, files, blocks
        self._state = State.fresh(grid.D[0], grid.T[-1], 1, directed=opened.settings.directed)
        self._lanes: list[Lane] | list[QuarantineLane] = []
        self._limiter = anyio.CapacityLimiter(opened.settings.walkers)
        self._labels: Int64s = np.array(sorted(labels), np.int64)
        self.found: set[int] = set()
        """Labelled lines that are judged purchases."""
        self.judged = 0
        count = len(grid.D) * len(grid.T) * len(grid.k) + 1
        self.shared: Int64s = np.zeros((count, count), np.int64)
        """How many purchases any two settings both flag. The labels come last, as if they were a setting."""

    async def run(self, progressed: Callable[[int, str], None]) -> None:
        """Read the logs; `progressed` is called with the bytes done and a text with the counts."""
        read = 0
        async with aclosing(parts(self._opened.logs, self._state.decoder, 0, self._opened.bookmarks)) as found:
            async for part in found:
                if part.judged or self._opened.settings.judge_batch:
                    await self._judge(part)
                else:
                    await run_sync(apply, self._state, part.events, part.seq)
                read += len(part.block.content)
                events = part.seq + len(part.events) - 1
                progressed(read, f"{events:,} events, {self.judged:,} judged")

    async def _judge(self, part: Part) -> None:
        if not self._lanes:
            self._lanes = self._opened_lanes()
        history, users = self._state.histories[0], len(self._state.decoder.interner)
        for begin in range(0, len(part.events), BATCH_CAP):
            events, seq = part.events[begin : begin + BATCH_CAP], part.seq + begin
            history.raise_low(seq)
            append(history, events, seq, users)
            verdicts: list[list[GridVerdicts]] = [[] for _ in self._lanes]
            async with task_group() as tasks:
                for lane in reversed(range(len(self._lanes))):  # the largest networks first: they take longest
                    tasks.start_soon(self._ask, lane, part, events, seq, verdicts)
            await run_sync(self._count, part, events[events.kind == Kind.PURCHASE], [*chain(*verdicts)])

    async def _ask(self, lane: int, part: Part, events: Events, seq: int, verdicts: list[list[GridVerdicts]]) -> None:
        state, judge = self._state, partial(self._lanes[lane].judge, in_batch_log=not part.judged)
        history, users = state.histories[0].view(), len(state.decoder.interner)
        verdicts[lane] = await run_sync(judge, history, events, seq, users, limiter=self._limiter)

    def _opened_lanes(self) -> "list[Lane] | list[QuarantineLane]":
        graph, grid, settings = self._state.graph, self._grid, self._opened.settings
        if settings.detector.quarantine:
            history = history_of(settings, self._opened.D, self._opened.T, self._opened.newest)
            labels = history.labels() if history is not None else None
            return [QuarantineLane(self._state, D, grid.T, grid.k, labels) for D in grid.D]
        graphs = [graph, *(graph.copy(D) for D in grid.D[1:])]
        return [Lane(graph, grid.T, grid.k, reasons=self._files is not None) for graph in graphs]

    def _count(self, part: Part, purchases: Events, verdicts: list[GridVerdicts]) -> None:
        """Count and write the verdicts on a batch of purchases.

        `verdicts` has an item for each D and T, or for each setting.
        """
        labelled = np.zeros(len(purchases), np.bool_)
        if part.file == self._opened.logs[-1].name:
            labelled = np.isin(purchases.line, self._labels)
            self.found.update(purchases.line[labelled].tolist())
        flagged = np.vstack([*(each.flagged for each in verdicts), labelled])
        rows = flagged.astype(np.float32)  # float32 multiplies fastest and holds a batch's counts exactly
        self.shared += (rows @ rows.T).astype(np.int64)
        self.judged += len(purchases)
        if self._blocks is not None:
            self._blocks.add(flagged)
        if self._files is not None:
            content, start, end = part.block.content, purchases.start.tolist(), purchases.end.tolist()
            number = 0
            for each in verdicts:
                lines = {
                    place: flagged_line(
                        content[start[place] : end[place]],
                        statistics.mean(),
                        statistics.sd(),
                        in_batch_log=not part.judged,
                    )
                    for place, statistics in each.statistics.items()
                }
                for places in map(np.flatnonzero, each.flagged):
                    self._files.append(number, b"".join(lines[place] for place in places.tolist()))
                    number += 1


class Lane:
    """Judges with one D and many T and k. Has its own friend graph."""

    def __init__(self, graph: FriendGraph, T: Sequence[int], k: Sequence[float], *, reasons: bool) -> None:
        self._graph, self._T, self._reasons = graph, T[::-1], reasons
        self._k = [DetectorSettings(k=each).exact_k() for each in k]
        self._most = windows_at_once(T[-1])

    def judge(
        self,
        history: PurchaseHistory,
        events: Events,
        seq: int,
        users: int,
        *,
        in_batch_log: bool,  # noqa: ARG002
    ) -> list[GridVerdicts]:
        """Judge the purchases among events and return the verdicts of each T, ascending.

        The first event has number `seq`.
        """
        self._graph.reserve(users)
        bought = np.flatnonzero(events.kind == Kind.PURCHASE)
        flagged = np.zeros((len(self._T), len(self._k), len(bought)), np.bool_)
        statistics: list[dict[int, Statistics]] = [{} for _ in self._T]
        answered = 0
        for places, networks, _ in walked(self._graph, events, seq, self._most):
            new = slice(answered, answered + len(places))
            windows, amount = history.windows(seq + places, networks), events.amount[places]
            parts = judge_grid(windows, amount, self._T, self._k, reasons=self._reasons)
            for row, part in enumerate(parts):
                flagged[row, :, new] = part.flagged
                statistics[row] |= {answered + place: found for place, found in part.statistics.items()}
            answered = new.stop
        return [*map(GridVerdicts, flagged, statistics)][::-1]


class QuarantineLane:
    """Judges with one D and many T and k, each with a state of its own: what is kept out depends on all three."""

    def __init__(self, state: State, D: int, T: Sequence[int], k: Sequence[float], labels: LabelHistory | None) -> None:
        """Begin with `state`, which is copied."""
        self._engines: list[QuarantineEngine] = []
        for most in T:
            for deviations in k:
                history = PurchaseHistory.from_columns(most, state.histories[0].columns(), state.histories[0].applied)
                own = State(
                    D, most, state.decoder, state.graph.copy(D, PARTITION_ONLY), [history], quarantine=Quarantine()
                )
                judge = SigmaJudge(Sigma(DetectorSettings(k=deviations).exact_k()))
                self._engines.append(QuarantineEngine(own, judge, most, labels))

    def judge(
        self,
        history: PurchaseHistory,  # noqa: ARG002
        events: Events,
        seq: int,
        users: int,  # noqa: ARG002
        *,
        in_batch_log: bool,
    ) -> list[GridVerdicts]:
        """Judge the purchases among events, the first of them numbered `seq`; return the verdicts of each T and k."""
        found = []
        for engine in self._engines:
            flagged: list[Mask] = []
            statistics: dict[int, Statistics] = {}
            answered = 0
            for _, case, verdicts in engine.decide(events, seq, in_batch_log=in_batch_log):
                places = np.flatnonzero(verdicts.flagged).tolist()
                statistics |= {answered + place: case.statistics(place) for place in places}
                flagged.append(verdicts.flagged)
                answered += len(verdicts.flagged)
            found.append(GridVerdicts(np.concatenate([np.zeros(0, np.bool_), *flagged])[np.newaxis], statistics))
        return found


def read_labels(path: Path) -> dict[int, Named]:
    """Read a labels file: the named lines of the stream log, each with its first label. Blank lines are skipped.

    Raises:
        UsageError: the file cannot be read, or a line of it does not name a line of the stream.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(f"cannot read the labels {shown(path)}: {error.strerror}") from None
    named: dict[int, Named] = {}
    for place, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            found = msgspec.json.decode(text, type=LineLabel)
        except msgspec.DecodeError:
            raise UsageError(
                f'{shown(path)}:{place}: no label; expected an object that names a line of STREAM, like {{"line": 188}}'
            ) from None
        named.setdefault(found.line, Named(place, found.label if isinstance(found.label, str) else ""))
    return named


def check_labels(named: Mapping[int, Named], judged: AbstractSet[int], labels: Path, stream: str) -> None:
    """Check that every label names a judged purchase.

    Raises:
        UsageError: a label does not.
    """
    if unknown := sorted((named[line].place, line) for line in named.keys() - judged):
        place, line = unknown[0]
        raise UsageError(f"{shown(labels)}:{place}: line {line} of {stream} is not a judged purchase")


class FlaggedFiles:
    """The files of flagged purchases, one for each setting. In the end either all of them exist or none."""

    def __init__(self, directory: Path, settings: Sequence[Setting]) -> None:
        self._directory = directory
        self._places = [directory / setting.file_name for setting in settings]
        self._unfinished: list[Path] = []
        self._made: list[Path] = []
        self._lock: int | None = None

    def begin(self, *, force: bool) -> None:
        """Create and lock the directory, and create empty temporary files.

        Raises:
            UsageError: a file exists and `force` is not set, or the directory cannot be used.
        """
        try:
            self._made = [path for path in (self._directory, *self._directory.parents) if not path.exists()]
            self._directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._take(self._lock)
            self._check(force=force)
            for place in self._places:
                path = place.with_name(f"{place.name}.part")
                path.write_bytes(b"")
                self._unfinished.append(path)
        except OSError as error:
            raise UsageError(f"cannot write into {shown(self._directory)}: {error.strerror}") from None

    def _take(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno == errno.EWOULDBLOCK:  # any other errno: directories cannot be locked, as on NFS
                raise UsageError(
                    f"another sweep is writing into {shown(self._directory)}; name another directory"
                ) from None

    def _check(self, *, force: bool) -> None:
        for place in self._places:
            if place.is_dir():
                raise UsageError(f"cannot write {shown(place)}: it is a directory; name another DIR")
            if place.exists() and not force:
                raise UsageError(f"{shown(place)} already exists; name another directory, or add --force")

    def append(self, number: int, lines: bytes) -> None:
        """Append lines that a setting flags.

        Raises:
            SinkError: the file could not be written.
        """
        try:
            with self._unfinished[number].open("ab") as file:
                file.write(lines)
        except OSError as error:
            raise self._failed(number, error) from None

    def finish(self) -> None:
        """Rename the temporary files to their final names.

        Raises:
            SinkError: a file could not be renamed.
        """
        for number, (path, place) in enumerate(zip(self._unfinished, self._places, strict=True)):
            try:
                path.replace(place)
            except OSError as error:
                raise self._failed(number, error) from None

    def _failed(self, number: int, error: OSError) -> SinkError:
        name = shown(self._places[number])
        return SinkError(f"cannot write {name}: {error.strerror}; fix that and sweep again")

    def discard(self) -> None:
        """Remove temporary files, and directories that were created for them. Releases the lock."""
        for path in self._unfinished:
            path.unlink(missing_ok=True)
        for path in self._made:
            with suppress(OSError):  # not empty: it is in use
                path.rmdir()
        if self._lock is not None:
            os.close(self._lock)
