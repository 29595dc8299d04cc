"""One run from settings to report: opens everything, runs the pipeline, obeys signals."""

import os
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import anyio
from anyio.to_thread import run_sync

from peerwatch.detectors.sigma import Sigma
from peerwatch.network.decoder import Decoder
from peerwatch.network.errors import UsageError
from peerwatch.runtime.console import Console
from peerwatch.runtime.logs import DecisionLogger, open_logger
from peerwatch.runtime.pipeline import Pipeline, Totals, task_group
from peerwatch.runtime.settings import Layer, Settings, resolve
from peerwatch.runtime.sinks import FileSink
from peerwatch.runtime.sources import LogFile

PROGRESS_SECONDS: Final = 0.1


class Report(NamedTuple):
    """What a run did, where it wrote, and the signal that ended its reading early, if one did."""

    totals: Totals
    settings: Settings
    origins: dict[str, str]
    rejects: str
    interrupted_by: signal.Signals | None


async def run(layers: Sequence[Layer], console: Console) -> Report:
    """Judge the logs that the settings name.

    Raises:
        UsageError: something is missing or cannot be used; nothing has been written.
        RunError: the run could not go on.
    """
    async with AsyncExitStack() as stack:
        logs = await open_logs(resolve(*layers)[0], stack)
        settings, origins = resolve(*layers, take_header(logs, resolve(*layers)[0]))
        D, T = required(settings)
        paths = await run_sync(output_paths, settings)
        await run_sync(_check_distinct, logs, paths)
        sinks = [FileSink(path) for path in paths]
        for sink in sinks:
            await sink.open(stack)
        logger = await run_sync(open_logger, settings.logs, stack)
        for sink in sinks:
            await sink.start()
        await run_sync(partial(logger.info, "run started", D=D, T=T, shards=settings.shards, k=settings.detector.k))
        decoder = Decoder([str(user).encode() for user in settings.logs.users])
        pipeline = Pipeline(
            D,
            T,
            settings.shards,
            Sigma(settings.detector.exact_k()),
            decoder=decoder,
            decisions=DecisionLogger(logger, settings.logs, settings.detector, decoder.named),
            flagged=sinks[0],
            rejects=sinks[1],
            strict=settings.strict,
        )
        totals, interrupted_by = await _supervise(pipeline, logs, console)
        await run_sync(partial(logger.info, "run finished", **totals.progress._asdict(), flagged=totals.flagged))
        return Report(totals, settings, origins, paths[1], interrupted_by)


async def open_logs(settings: Settings, stack: AsyncExitStack) -> list[LogFile]:
    """The batch log, if one is set, and the stream log.

    Raises:
        UsageError: no stream log is set, or a log cannot be read.
    """
    if settings.input.stream is None:
        raise UsageError(NOT_SET.format(key="input.stream", what="the stream log", option="STREAM"))
    logs = [LogFile(settings.input.stream, judged=True)]
    if settings.input.batch is not None:
        logs.insert(0, LogFile(settings.input.batch, judged=False))
    for log in logs:
        await log.open(stack)
    return logs


def take_header(logs: Sequence[LogFile], settings: Settings) -> Layer:
    """D and T from the batch log's header line; nothing if there is no batch log.

    Raises:
        UsageError: the header is bad, or missing though D or T is not set elsewhere.
    """
    if settings.input.batch is None:
        return Layer({}, {})
    return logs[0].take_header(needed=settings.D is None or settings.T is None)


async def read_header(settings: Settings) -> Layer:
    """D and T from the header line of the batch log that `settings` name."""
    async with AsyncExitStack() as stack:
        logs = [LogFile(settings.input.batch or "", judged=False)]
        await logs[0].open(stack)
        return take_header(logs, settings)


NOT_SET: Final = '"{key}" is not set: name {what} as {option} on the command line, or set it in the config'


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
    if flagged is None:
        raise UsageError(NOT_SET.format(key="output.flagged", what="the output", option="OUTPUT"))
    if settings.output.rejects is not None:
        return [flagged, settings.output.rejects]
    path = Path("stdout" if flagged == "-" else flagged)
    beside = path.parent if path.is_file() or not path.exists() else Path()
    return [flagged, str(beside / f"{path.stem}.rejects.json")]


def _check_distinct(logs: Sequence[LogFile], outputs: Sequence[str]) -> None:
    for log in logs:
        for path in outputs:
            if path != "-" and log.is_at(Path(path)):
                raise UsageError(f"{path} is the log {log.name} itself; name another output")
    if Path(outputs[0]).absolute() == Path(outputs[1]).absolute():
        raise UsageError(f"{outputs[0]} is named for flagged purchases and for rejects; name two files")


async def _supervise(
    pipeline: Pipeline, logs: Sequence[LogFile], console: Console
) -> tuple[Totals, signal.Signals | None]:
    """Run the pipeline and show its progress; a first signal ends the reading, a second the run."""
    interrupted_by: signal.Signals | None = None

    async def watch_signals() -> None:
        nonlocal interrupted_by
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for received in signals:
                if interrupted_by is not None:
                    console.ended()
                    os._exit(128 + received)  # a thread may be stuck in a write that no cancellation reaches
                interrupted_by = received
                console.interrupted()
                pipeline.stop()

    async def show_progress() -> None:
        while True:
            await anyio.sleep(PROGRESS_SECONDS)
            console.progressed(pipeline.statistics())

    sizes = [log.size for log in logs]
    with console.progress(None if None in sizes else sum(size or 0 for size in sizes)):
        async with task_group() as watchers:
            watchers.start_soon(watch_signals)
            watchers.start_soon(show_progress)
            await pipeline.run(logs)
            watchers.cancel_scope.cancel()
        console.progressed(pipeline.statistics())
    return pipeline.statistics(), interrupted_by
