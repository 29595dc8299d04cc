"""One run from settings to report: opens everything, keeps the pipeline running, obeys signals."""

import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import anyio
from anyio.abc import TaskGroup
from anyio.to_thread import run_sync

from peerwatch.actors.dispatcher import Caution
from peerwatch.detectors.sigma import Sigma
from peerwatch.network.errors import PeerwatchError, RunError, UsageError
from peerwatch.runtime.checkpoints import Checkpoint, Checkpointer, Identity, StateDirectory
from peerwatch.runtime.console import Console
from peerwatch.runtime.logs import DecisionLogger, open_logger
from peerwatch.runtime.names import shown
from peerwatch.runtime.pipeline import Pipeline, Totals, task_group
from peerwatch.runtime.settings import Layer, Settings, resolve
from peerwatch.runtime.sinks import FileSink, is_flagged_line, is_reject_line
from peerwatch.runtime.sources import LogFile
from peerwatch.runtime.state import State
from peerwatch.runtime.status import STATUS_SECONDS, Status, write_status
from peerwatch.runtime.tail import Beginning, FollowedLog, look_at

PROGRESS_SECONDS: Final = 0.1
STOP_SECONDS: Final = 10.0
"""How long a run that has a state directory may take to finish after a signal."""
BACKOFF_SECONDS: Final = 0.1
"""The pause before the first restart; it doubles with each that brings nothing."""
RESTARTS: Final = 5
"""Restarts in a row that may bring nothing before the run gives up."""
STANDARD_OUTPUT: Final = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}
NOT_SET: Final = '"{key}" is not set: name {what} as {option} on the command line, or set it in the config'


AnyLog: TypeAlias = LogFile | FollowedLog


class Report(NamedTuple):
    """What a run did, where it wrote, and the signal that ended its reading early, if one did.

    `resumable` says that the next run goes on where this one was.
    """

    totals: Totals
    settings: Settings
    rejects: str
    interrupted_by: signal.Signals | None
    resumable: bool


async def run(
    layers: Sequence[Layer], console: Console, *, config: Path | None = None, reset: bool = False, force: bool = False
) -> Report:
    """Judge the logs that the settings name; `config` is the file they come from.

    An output that somebody else wrote is overwritten only with `force`; `reset` forgets the checkpoints.

    Raises:
        UsageError: something is missing or cannot be used; nothing has been written.
        RunError: the run could not go on.
    """
    async with AsyncExitStack() as stack:
        settings, _ = resolve(*layers)
        if settings.input.stream is None:
            raise UsageError(NOT_SET.format(key="input.stream", what="the stream log", option="STREAM"))
        paths = await run_sync(output_paths, settings)
        await run_sync(_check_distinct, settings, config, paths)
        await run_sync(_check_replayable, settings, paths)
        logger = await run_sync(open_logger, settings.logs, stack)
        directory, checkpoint = await _open_state(settings, logger.warning, stack, reset=reset)
        beginning = await run_sync(look_at, Path(settings.input.stream))
        logs = await open_logs(settings, checkpoint, beginning, logger.warning, stack)
        if checkpoint is None:
            settings, origins = resolve(*layers, take_header(logs, settings))
        else:
            known = checkpoint.envelope.identity
            header = take_header(logs, settings, begun=checkpoint.envelope.facts.position.offset > 0)
            settings, origins = resolve(*layers, header, Layer({"D": known.D, "T": known.T}, {}))
        D, T = required(settings)
        identity = await run_sync(identity_of, settings, D, T, paths)
        if checkpoint is not None:
            _check_unchanged(checkpoint.envelope.identity, identity, origins, settings)
        sinks = FileSink(paths[0]), FileSink(paths[1])
        for sink, is_own in zip(sinks, (is_flagged_line, is_reject_line), strict=True):
            await sink.open(stack)
            if checkpoint is None and not force:
                await sink.check_own(is_own)
        supervisor = Supervisor(settings, D, T, directory, identity, sinks, logger, console, beginning, reset=reset)
        await run_sync(partial(logger.info, "run started", D=D, T=T, shards=settings.shards, k=settings.detector.k))
        totals = await supervisor.run(checkpoint, logs)
        await run_sync(partial(logger.info, "run finished", **totals.progress._asdict(), flagged=totals.flagged))
        resumable = directory is not None or settings.follow
        return Report(totals, settings, paths[1], supervisor.interrupted_by, resumable)


class Supervisor:
    """Keeps a pipeline running: restores it from the last checkpoint when an actor fails, and stops it on a signal."""

    def __init__(
        self,
        settings: Settings,
        D: int,
        T: int,
        directory: StateDirectory | None,
        identity: Identity,
        sinks: tuple[FileSink, FileSink],
        logger: Any,
        console: Console,
        beginning: Beginning,
        *,
        reset: bool,
    ) -> None:
        self._settings = settings
        self._D, self._T = D, T
        self._directory = directory
        self._identity = identity
        self._sinks = sinks
        self._logger = logger
        self._console = console
        self._caution = Caution()
        self._beginning = beginning
        self._reset = reset
        self._restarts = 0
        self.interrupted_by: signal.Signals | None = None

    async def run(self, checkpoint: Checkpoint | None, logs: Sequence[AnyLog]) -> Totals:
        """Judge to the end, with as many restarts as it takes.

        Raises:
            RunError: it cannot go on, or too many restarts brought nothing.
        """
        await self._build(checkpoint, logs)
        sizes = [log.size for log in logs]
        with self._console.progress(None if None in sizes else sum(size or 0 for size in sizes)):
            async with task_group() as watchers:
                watchers.start_soon(self._watch_signals, watchers)
                watchers.start_soon(self._show)
                async with AsyncExitStack() as stack:
                    await self._run_until_done(stack)
                watchers.cancel_scope.cancel()
            self._console.progressed(self._pipeline.statistics())
        await self._write_status(running=False)
        return self._pipeline.statistics()

    async def _run_until_done(self, stack: AsyncExitStack) -> None:
        in_vain, furthest = 0, -1
        while True:
            try:
                return await self._attempt()
            except PeerwatchError:
                raise
            except Exception as error:
                through = self._pipeline.through
                in_vain = 0 if self._blame(error) or through > furthest else in_vain + 1
                furthest = max(furthest, through)
                self._restarts += 1
                await run_sync(self._report_failure, error)
                piped = any(isinstance(log, LogFile) and log.size is None for log in self._logs)
                if in_vain >= RESTARTS or piped:
                    why = "a pipe cannot be read again" if piped else f"{self._restarts} restarts did not help"
                    raise RunError(f"{type(error).__name__}: {error}; {why}") from error
            await anyio.sleep(BACKOFF_SECONDS * 2**in_vain)
            await stack.aclose()
            checkpoint = await run_sync(self._directory.newest) if self._directory is not None else None
            logs = await open_logs(self._settings, checkpoint, self._beginning, self._logger.warning, stack)
            take_header(
                logs, self._settings, begun=checkpoint is not None and checkpoint.envelope.facts.position.offset > 0
            )
            await self._build(checkpoint, logs)

    async def _build(self, checkpoint: Checkpoint | None, logs: Sequence[AnyLog]) -> None:
        """A pipeline as of the checkpoint, or as of the beginning; the outputs are cut to that."""
        settings = self._settings
        named = [str(user).encode() for user in settings.logs.users]
        facts = checkpoint.envelope.facts if checkpoint is not None else None
        if self._reset and self._directory is not None:
            await run_sync(self._directory.reset)
            self._reset = False
        for sink, length in zip(
            self._sinks, (facts.flagged_bytes, facts.rejects_bytes) if facts else (0, 0), strict=True
        ):
            await sink.start(length)
        if checkpoint is None or facts is None:
            state = State.fresh(self._D, self._T, settings.shards, named)
        else:
            state = State.restored(self._D, self._T, settings.shards, named, checkpoint.arrays, facts)
        self._logs = logs
        self._checkpointer = None
        if self._directory is not None:
            every = settings.state
            self._checkpointer = Checkpointer(
                self._directory,
                self._identity,
                state,
                every.seconds,
                every.events,
                facts.began if facts else self._beginning.position,
            )
            if checkpoint is None:
                await self._checkpointer.write_beginning()
        self._pipeline = Pipeline(
            state,
            Sigma(settings.detector.exact_k()),
            decisions=DecisionLogger(self._logger, settings.logs, settings.detector, state.decoder.named),
            flagged=self._sinks[0],
            rejects=self._sinks[1],
            strict=settings.strict,
            due_snapshot=self._checkpointer.due if self._checkpointer is not None else lambda *_: None,
            caution=self._caution,
        )
        if self.interrupted_by is not None:
            self._pipeline.stop()

    async def _attempt(self) -> None:
        async with task_group() as helpers:
            for log in self._logs:
                if isinstance(log, FollowedLog):
                    helpers.start_soon(log.watch)
            async with task_group() as work:
                if self._checkpointer is not None:
                    work.start_soon(self._checkpointer.run)
                await self._pipeline.run(self._logs)
                if self._checkpointer is not None:
                    self._checkpointer.close()
            helpers.cancel_scope.cancel()

    def _blame(self, error: Exception) -> bool:
        """Say what the next attempt has to be careful about; whether a line has been found that is to blame.

        A line is to blame if it fails twice on its own; what is the machine's fault is no line's.
        """
        caution, place = self._caution, self._caution.current
        caution.current = None
        if place is None or isinstance(error, (MemoryError, OSError)):
            caution.after, caution.until = self._pipeline.through, self._pipeline.reached
            return False
        caution.failures[place] += 1
        if caution.failures[place] < 2:
            return False
        where = "".join(traceback.format_exception(error)).strip()
        caution.poison[place] = f"brought the run down twice: {type(error).__name__}: {error}\n{where}"
        return True

    def _report_failure(self, error: Exception) -> None:
        self._logger.error("restart", error=repr(error), traceback="".join(traceback.format_exception(error)))

    async def _watch_signals(self, watchers: TaskGroup) -> None:
        """A first signal ends the reading, a second the run."""
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for received in signals:
                if self.interrupted_by is not None:
                    self._exit_at_once(128 + received)
                self.interrupted_by = received
                self._console.interrupted()
                self._pipeline.stop()
                if self._directory is not None:
                    watchers.start_soon(self._exit_after_deadline)

    async def _exit_after_deadline(self) -> None:
        await anyio.sleep(STOP_SECONDS)
        self._exit_at_once(1)

    def _exit_at_once(self, code: int) -> None:
        self._console.ended()
        os._exit(code)  # a thread may be stuck in a write that no cancellation reaches

    async def _show(self) -> None:
        """Move the progress bar and keep the status up to date."""
        every = PROGRESS_SECONDS if self._console.has_bar else STATUS_SECONDS
        since_status = STATUS_SECONDS
        while True:
            self._console.progressed(self._pipeline.statistics())
            if since_status >= STATUS_SECONDS:
                await self._write_status(running=True)
                since_status = 0.0
            await anyio.sleep(every)
            since_status += every

    async def _write_status(self, *, running: bool) -> None:
        if self._directory is None or self._checkpointer is None:
            return
        totals, follows = self._pipeline.statistics(), [log for log in self._logs if isinstance(log, FollowedLog)]
        status = Status(
            pid=os.getpid(),
            running=running,
            updated=time.time(),
            through=self._pipeline.through,
            totals=totals._asdict() | totals.progress._asdict(),
            lag_bytes=sum(log.unread() for log in follows),
            caught_up=max((log.caught_up for log in follows), default=0.0),
            checkpoint=self._checkpointer.written,
            restarts=self._restarts,
            mailboxes=self._pipeline.mailboxes(),
        )
        await run_sync(write_status, self._directory.path, status)


async def _open_state(
    settings: Settings, warn: Callable[[str], None], stack: AsyncExitStack, *, reset: bool
) -> tuple[StateDirectory | None, Checkpoint | None]:
    if settings.state.directory is None:
        if reset:
            raise UsageError("--reset forgets the checkpoints of a state directory; name one with --state")
        return None, None
    directory = StateDirectory(Path(settings.state.directory), warn)
    await run_sync(directory.open, stack)
    return directory, None if reset else await run_sync(directory.newest)


async def open_logs(
    settings: Settings,
    checkpoint: Checkpoint | None,
    beginning: Beginning,
    warn: Callable[[str], None],
    stack: AsyncExitStack,
) -> list[AnyLog]:
    """The batch log, if one is set and not yet read to its end, and the stream log.

    Raises:
        UsageError: a log cannot be read.
    """
    stream = settings.input.stream or ""
    facts = checkpoint.envelope.facts if checkpoint is not None else None
    logs: list[AnyLog] = []
    if settings.input.batch is not None and (facts is None or not facts.judged):
        begun = facts.position if facts is not None and facts.position.offset else None
        batch = LogFile(settings.input.batch, judged=False, position=begun)
        await batch.open(stack)
        if begun is None:
            await batch.read_ahead()
        logs.append(batch)
    position = facts.position if facts is not None and facts.judged else None
    if settings.follow and stream != "-" and not await anyio.Path(stream).is_fifo():
        if await anyio.Path(stream).is_dir():
            raise UsageError(f"{stream} is a directory; name the log file in it")
        if facts is not None:
            beginning = Beginning(facts.position if facts.judged else facts.began)
        follow = FollowedLog(
            stream,
            beginning=beginning,
            idle_exit=settings.idle_exit,
            resumable=settings.state.directory is not None,
            warn=warn,
        )
        return [*logs, follow]
    log = LogFile(stream, judged=True, position=position)
    await log.open(stack)
    return [*logs, log]


def take_header(logs: Sequence[AnyLog], settings: Settings, *, begun: bool = False) -> Layer:
    """D and T from the batch log's header line; nothing if there is no batch log or it has `begun` to be read.

    Raises:
        UsageError: the header is bad, or missing though D or T is not set elsewhere.
    """
    if begun or not isinstance(logs[0], LogFile) or logs[0].judged:
        return Layer({}, {})
    return logs[0].take_header({name for name in ("D", "T") if getattr(settings, name) is None})


async def read_header(settings: Settings) -> Layer:
    """D and T from the header line of the batch log that `settings` name."""
    async with AsyncExitStack() as stack:
        log = LogFile(settings.input.batch or "", judged=False)
        await log.open(stack)
        await log.read_ahead()
        return take_header([log], settings)


def required(settings: Settings) -> tuple[int, int]:
    """D and T.

    Raises:
        UsageError: one of them is set nowhere.
    """
    D, T = settings.D, settings.T
    if D is None or T is None:
        name = "D" if D is None else "T"
        raise UsageError(f'"{name}" is not set: give --{name}, set it in the config, or put it into the header line')
    return D, T


def output_paths(settings: Settings) -> list[str]:
    """Where flagged purchases and rejected lines go. Rejects lie beside the output unless they are named.

    Raises:
        UsageError: no output is set.
    """
    flagged = settings.output.flagged
    flagged = "-" if flagged in STANDARD_OUTPUT else flagged
    if flagged is None:
        raise UsageError(NOT_SET.format(key="output.flagged", what="the output", option="OUTPUT"))
    if settings.output.rejects is not None:
        return [flagged, settings.output.rejects]
    path = Path("stdout" if flagged == "-" else flagged)
    beside = path.parent if path.is_file() or not path.exists() else Path()
    return [flagged, str(beside / f"{path.stem}.rejects.json")]


def identity_of(settings: Settings, D: int, T: int, paths: Sequence[str]) -> Identity:
    """What the run's state belongs to."""
    flagged, rejects = (path if path == "-" else str(Path(path).absolute()) for path in paths)
    return Identity(D, T, settings.detector.name, settings.detector.k, flagged, rejects)


def _check_distinct(settings: Settings, config: Path | None, outputs: Sequence[str]) -> None:
    """No file may be read and written, or written twice; devices may."""
    read = [("the batch log", settings.input.batch), ("the stream log", settings.input.stream), ("the config", config)]
    written = [("the output", outputs[0]), ("the rejects file", outputs[1]), ("the log file", settings.logs.file)]
    if settings.input.batch == settings.input.stream == "-":
        raise UsageError("the batch log and the stream log cannot both be standard input; name a file for one of them")
    for place, (what, path) in enumerate(written):
        for other, taken in (*read, *written[:place]):
            if path is not None and taken is not None and _is_same(Path(path), Path(taken)):
                raise UsageError(f"{shown(path)} is named for {what} and for {other}; name two files")


def _check_replayable(settings: Settings, outputs: Sequence[str]) -> None:
    """What a state directory needs: a batch log that can be read again, outputs that can be cut back."""
    if settings.state.directory is None:
        return
    for what, path in (("batch log", settings.input.batch), ("output", outputs[0]), ("rejects file", outputs[1])):
        if path == "-" or (path is not None and Path(path).exists() and not Path(path).is_file()):
            raise UsageError(
                f"with --state the {what} must be a file, so that a run can go on in it; {shown(path)} is none"
            )


def _is_same(one: Path, other: Path) -> bool:
    if str(one) == "-" or str(other) == "-" or (one.exists() and not one.is_file()):
        return False
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def _check_unchanged(old: Identity, new: Identity, origins: dict[str, str], settings: Settings) -> None:
    keys = {"detector": "detector.name", "k": "detector.k", "flagged": "output.flagged", "rejects": "output.rejects"}
    for name in Identity.__struct_fields__:
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            key = keys.get(name, name)
            raise UsageError(
                f'{origins[key]}: "{key}" is {now}, but the state in {settings.state.directory} was built with'
                f" {before}; go on with {before}, or begin anew with --reset"
            )
