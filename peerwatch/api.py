"""The public functions of the Python API. The engine is in `peerwatch.engine`."""

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import anyio
from anyio.to_thread import run_sync

from peerwatch import kernels
from peerwatch.decisions import Decision, Decisions
from peerwatch.detectors.base import Detector
from peerwatch.detectors.registry import DETECTORS, make
from peerwatch.engine import Engine, number_of_deviations, text_of, whole
from peerwatch.errors import SourceError, UsageError
from peerwatch.files.log_file import CHUNK, header_in
from peerwatch.readable import shown
from peerwatch.settings.model import Friendships, Layer

if TYPE_CHECKING:
    from peerwatch.replay.explain import ExplanationRecord
    from peerwatch.studies.sweep_table import SweepRecord

AnyLog = str | os.PathLike[str] | IO[bytes] | IO[str] | Iterable[bytes | str]
"""A log: a path, an open file, or lines."""
LINES: Final = 1024
"""The most lines of an iterable that are judged together."""
Result = TypeVar("Result")


def detector(name: str, **parameters: Any) -> Detector:
    """Make a detector for `judge`, `Engine` or plain tables.

    `name` is a built-in detector, or `package.module:Class` for a class of your own.

    Raises:
        BadInput: the detector does not exist, or does not take these parameters.
    """
    return make(name, parameters)


def judge(
    batch: AnyLog | None,
    stream: AnyLog,
    *,
    D: int | None = None,
    T: int | None = None,
    friendships: Friendships | None = None,
    k: float | None = None,
    detector: Detector | str | None = None,
    judge_batch: bool = False,
    quarantine: bool = False,
    lines: int = LINES,
) -> Decisions:
    """Judge the purchases of a stream log, after the events of an optional batch log.

    `D` (hops of the network), `T` (purchases in a window) and `friendships` ("mutual" or "directed") default to those
    in the batch log's header line, friendships to mutual, and `k` to 3. A `detector` is a name, or one with parameters
    from `peerwatch.detector`. With `judge_batch` the purchases of the batch log are judged, too. With `quarantine` a
    flagged purchase is in no window; `Engine` can release one.

    The result is lazy: it reads the logs and judges as you iterate. Lines of an iterable other than a list or tuple are
    judged in groups of `lines`; with 1 each decision is yielded as soon as its line has been read.

    Raises:
        UsageError: a log cannot be read, or D or T is neither given nor in a header line.
        BadInput: a parameter is invalid.
        RunError: while iterating: a log could not be read any further, or the detector failed.
    """
    engine, before = _begun(batch, D, T, friendships, k, detector, lines, quarantine=quarantine)
    decisions = _decided(engine, before, _texts(stream, lines), judge_batch=judge_batch)
    return Decisions(decisions, engine.rejected, engine.D, engine.T)


async def judge_async(
    batch: AnyLog | None,
    stream: AnyLog | AsyncIterable[bytes | str],
    *,
    D: int | None = None,
    T: int | None = None,
    friendships: Friendships | None = None,
    k: float | None = None,
    detector: Detector | str | None = None,
    judge_batch: bool = False,
    quarantine: bool = False,
    lines: int = LINES,
) -> AsyncIterator[Decision]:
    """Like `judge`, inside an event loop (asyncio, or trio through anyio). Reading and judging run on a thread.

    The stream may also be an asynchronous iterable of lines; then each decision is yielded as soon as its line arrives.

    Raises:
        UsageError, BadInput, RunError: as `judge`.
    """
    engine, before = await run_sync(
        partial(_begun, batch, D, T, friendships, k, detector, lines, quarantine=quarantine)
    )
    if isinstance(stream, AsyncIterable):
        begun = _decided(engine, before, iter(()), judge_batch=judge_batch)
        while some := await run_sync(_some, begun, lines):
            for decision in some:
                yield decision
        async for line in stream:
            for decision in await run_sync(engine.feed, [line]):
                yield decision
        return
    decisions = _decided(engine, before, _texts(stream, lines), judge_batch=judge_batch)
    while some := await run_sync(_some, decisions, lines):
        for decision in some:
            yield decision


def explain(
    batch: str | os.PathLike[str] | None,
    stream: str | os.PathLike[str],
    *,
    seq: int | None = None,
    line: int | None = None,
    user: str | None = None,
    at: str | None = None,
    D: int | None = None,
    T: int | None = None,
    friendships: Friendships | None = None,
    k: float | None = None,
    detector: Detector | str | None = None,
    judge_batch: bool = False,
    quarantine: bool = False,
) -> "ExplanationRecord":
    """Explain one decision: the network with its paths, the window, the exact inequality, and what would change it.

    Name the purchase by its event number `seq`, by its `line` in the stream log, or by `user` and time (`at`). One of
    the batch log is explained with `judge_batch`. With `quarantine` flagged purchases are in no window. The logs must
    be files; they are read again up to the purchase.

    Raises:
        UsageError: a log cannot be read, or no such purchase was judged.
    """
    from peerwatch.replay.explain import explained  # noqa: PLC0415 (judging does not need it)

    kind = _kind(friendships, judge_batch=judge_batch, quarantine=quarantine)
    layers = [_layer(batch, stream, {"D": D, "T": T, **kind}, k=k, detector=detector)]
    kernels.load()
    return _run(partial(explained, layers, seq=seq, line=line, user=user, at=at))


def sweep(
    batch: str | os.PathLike[str] | None,
    stream: str | os.PathLike[str],
    *,
    D: Sequence[int] = (),
    T: Sequence[int] = (),
    k: Sequence[float] = (),
    friendships: Friendships | None = None,
    judge_batch: bool = False,
    quarantine: bool = False,
    labels: str | os.PathLike[str] | None = None,
) -> "SweepRecord":
    """Judge the stream log with every combination of D, T and k in one pass, and compare what they flag.

    D, T and `friendships` default to those in the batch log's header line, k to 3. `labels` is a file that names lines
    of the stream log. With `quarantine` each setting keeps what it flags out of its own windows.

    Raises:
        UsageError: a log cannot be read, there is nothing to judge, or a value is invalid.
    """
    from peerwatch.studies.sweep import swept  # noqa: PLC0415 (judging does not need it)
    from peerwatch.studies.sweep_table import SettingGrid  # noqa: PLC0415

    hops, windows = (
        {whole(name, each, least) for each in values} for name, values, least in (("D", D, 1), ("T", T, 2))
    )
    wanted = SettingGrid(sorted(hops), sorted(windows), sorted({number_of_deviations(each) for each in k}))
    layers = [_layer(batch, stream, _kind(friendships, judge_batch=judge_batch, quarantine=quarantine))]
    kernels.load()
    return _run(partial(swept, layers, wanted, labels=Path(labels) if labels is not None else None))


def _begun(
    batch: AnyLog | None,
    D: int | None,
    T: int | None,
    friendships: Friendships | None,
    k: float | None,
    detector: Detector | str | None,
    lines: int,
    *,
    quarantine: bool,
) -> tuple[Engine, Iterator[bytes]]:
    """Create an engine, and the texts of the batch log after its header line."""
    texts = _texts(batch, lines) if batch is not None else iter(())
    first, name = next(texts, b""), _name_of(batch)
    header = header_in(first, name) if batch is not None else None
    values = header.values if header is not None else {}
    size = header.end if header is not None and values else 0
    D = values.get("D") if D is None else D
    T = values.get("T") if T is None else T
    friendships = values.get("friendships", "mutual") if friendships is None else friendships
    if D is None or T is None:
        missing = "D" if D is None else "T"
        where = (
            f'{name} has no header with "{missing}"'
            if batch is not None
            else f"there is no batch log to name {missing}"
        )
        raise UsageError(f"{where}; give {missing}")
    engine = Engine(D, T, friendships=friendships, k=k, detector=detector, quarantine=quarantine)
    engine.begin_log(name, line=1 + first.count(b"\n", 0, size))
    return engine, chain([first[size:]], texts)


def _decided(
    engine: Engine, batch: Iterator[bytes], stream: Iterator[bytes], *, judge_batch: bool
) -> Iterator[Decision]:
    for text in batch:
        if judge_batch:
            yield from (decision._replace(log="batch") for decision in engine.feed(text))
        else:
            engine.learn(text)
    engine.begin_log("the stream")
    for text in stream:
        yield from engine.feed(text)


def _some(decisions: Iterator[Decision], count: int) -> list[Decision]:
    return [*islice(decisions, count)]


def _texts(log: AnyLog, lines: int) -> Iterator[bytes]:
    """Yield a log's lines, many at a time. A file is opened at once.

    Raises:
        UsageError: the file cannot be opened.
    """
    if isinstance(log, str | os.PathLike):
        try:
            return _read(Path(log).open("rb"), _name_of(log))
        except OSError as error:
            raise UsageError(f"cannot read the log {_name_of(log)}: {error.strerror}") from None
    if hasattr(log, "read"):
        return _read(log, _name_of(log))
    return map(text_of, _slices(iter(log), max(lines, LINES) if isinstance(log, list | tuple) else max(lines, 1)))


def _slices(log: Iterator[bytes | str], count: int) -> Iterator[list[bytes | str]]:
    while some := [*islice(log, count)]:
        yield some


def _read(file: Any, name: str) -> Iterator[bytes]:
    held = b""
    with file:
        while True:
            try:
                chunk = file.read(CHUNK)
            except OSError as error:
                raise SourceError(f"cannot read {name} any further: {error.strerror}") from None
            if not chunk:
                break
            held += chunk.encode() if isinstance(chunk, str) else chunk
            whole = held.rfind(b"\n") + 1
            if whole:
                yield held[:whole]
                held = held[whole:]
    if held:
        yield held


def _name_of(log: Any) -> str:
    path = log if isinstance(log, str | os.PathLike) else getattr(log, "name", "the log")
    return shown(path) if isinstance(path, str | os.PathLike) else "the log"


def _kind(friendships: Friendships | None, *, judge_batch: bool, quarantine: bool) -> dict[str, Any]:
    """The settings that say what is judged by what."""
    return {"friendships": friendships, "judge_batch": judge_batch or None, "detector.quarantine": quarantine or None}


def _layer(
    batch: str | os.PathLike[str] | None,
    stream: str | os.PathLike[str],
    values: dict[str, Any],
    *,
    detector: Detector | str | None = None,
    k: float | None = None,
) -> Layer:
    """Return the settings given by these arguments."""
    values |= {"input.batch": os.fspath(batch) if batch is not None else None, "input.stream": os.fspath(stream)}
    if isinstance(detector, str):
        values["detector.name"] = detector
    elif detector is not None:
        kind = f"{type(detector).__module__}:{type(detector).__qualname__}"
        values["detector.name"] = next((name for name, path in DETECTORS.items() if path == kind), kind)
        values["detector.parameters"] = detector.get_params()
    values["detector.k"] = float(k) if k is not None else None
    given = {key: value for key, value in values.items() if value is not None}
    return Layer(given, {key: f"argument {key.rpartition('.')[2]}" for key in given})


def _run(call: Callable[[], Awaitable[Result]]) -> Result:
    """Run asynchronous work to its end; on a thread of its own if an event loop is running, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return anyio.run(call)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(anyio.run, call).result()
