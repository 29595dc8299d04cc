"""Checks and opens what a run needs before it begins: logs, complete settings, the state directory, outputs."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import anyio
from anyio.to_thread import run_sync

from peerwatch.connectors.table_by_name import is_table
from peerwatch.errors import PeerwatchError, UsageError
from peerwatch.files.descriptors import descriptor_of
from peerwatch.files.follow import FollowedLog
from peerwatch.files.generation import holds
from peerwatch.files.log_file import LogFile
from peerwatch.files.position import Position, position_of
from peerwatch.files.rotated import rotated_files
from peerwatch.files.tail import Beginning
from peerwatch.readable import shown
from peerwatch.settings.model import QUARANTINE, Layer, Settings, SinkSettings, keys, value_of
from peerwatch.storage.checkpoints import Checkpoint, Facts, FilePlace, Identity, StateDirectory
from peerwatch.urls import is_url, redacted

if TYPE_CHECKING:
    from peerwatch.connectors.stream import StreamSource
    from peerwatch.connectors.table import TableSource

IF_SET: Final = ("input.fields", "friendships", "judge_batch")
"""The settings that belong to a run's identity where they are not the default."""
NOT_SET: Final = '"{key}" is not set: name {what} as {option} on the command line, or set it in the config'

AnyLog: TypeAlias = "LogFile | FollowedLog | StreamSource | TableSource"


class Outputs(NamedTuple):
    """The paths of the flagged purchases, the rejected lines, the ledger of verdicts and the decisions.

    If `rejects` is None, rejected lines are reported on standard error.
    """

    flagged: str
    rejects: str | None
    verdicts: str | None
    decisions: str | None = None


async def open_state(
    settings: Settings, warn: Callable[[str], None], stack: AsyncExitStack, *, reset: bool
) -> tuple[StateDirectory | None, Checkpoint | None]:
    """Open and lock the state directory, and load its newest checkpoint.

    Both are None without a state directory; the checkpoint is None with `reset`.

    Raises:
        UsageError: the directory cannot be used, or none of its checkpoints can be read.
    """
    if settings.state.directory is None:
        if reset:
            raise UsageError("--reset forgets the checkpoints of a state directory; name one with --state")
        return None, None
    directory = StateDirectory(Path(settings.state.directory), warn, settings.state.keep, settings.input)
    await run_sync(directory.open, stack)
    return directory, None if reset else await run_sync(directory.newest)


async def open_logs(
    settings: Settings,
    checkpoint: Checkpoint | None,
    beginning: Beginning,
    warn: Callable[[str], None],
    stack: AsyncExitStack,
) -> list[AnyLog]:
    """Open the batch log, unless there is none or it has been read to its end, and the stream log.

    Raises:
        UsageError: a log cannot be read.
    """
    stream, resumable = settings.input.stream or "", settings.state.directory is not None
    names = settings.input.names()
    facts = checkpoint.envelope.facts if checkpoint is not None else None
    logs: list[AnyLog] = []
    batch = settings.input.batch
    if batch is not None and (facts is None or not facts.judged):
        begun = facts.position if facts is not None else None
        if is_table(batch) or is_url(batch):
            from peerwatch.runtime import remote_logs  # noqa: PLC0415 (a run over files starts without)

            if is_table(batch):
                logs.append(await remote_logs.open_table(settings, batch, begun, warn, stack))
            else:
                logs.append(await remote_logs.open_stream(settings, batch, begun, warn, stack, judged=False))
        else:
            log = LogFile(batch, judged=False, position=begun, resumable=resumable, names=names)
            await log.open(stack)
            if begun is None:
                await log.read_ahead()
            logs.append(log)
    position = facts.position if facts is not None and facts.judged else None
    if is_url(stream):
        from peerwatch.runtime import remote_logs  # noqa: PLC0415 (likewise)

        again = beginning.again
        source = await remote_logs.open_stream(settings, stream, position, warn, stack, judged=True, again=again)
        return [*logs, source]
    if settings.follow and stream != "-" and not await anyio.Path(stream).is_fifo():
        if await anyio.Path(stream).is_dir():
            raise UsageError(f"{stream} is a directory; name the log file in it")
        if facts is not None:
            beginning = Beginning(position_of(position), facts.seen, beginning.again)
        follow = FollowedLog(
            stream,
            beginning=beginning,
            rotated=settings.input.rotated,
            idle_exit=settings.idle_exit,
            resumable=resumable,
            warn=warn,
            names=names,
        )
        return [*logs, follow]
    log = LogFile(stream, judged=True, position=position, resumable=resumable, warn=warn, names=names)
    await log.open(stack)
    return [*logs, log]


def take_header(logs: Sequence[AnyLog], settings: Settings, *, begun: bool = False) -> Layer:
    """Read the settings in the batch log's header line. Empty without a batch log, or if reading it has `begun`.

    Raises:
        UsageError: the header is invalid, or it is missing and D or T is not set elsewhere.
    """
    if begun or not isinstance(logs[0], LogFile) or logs[0].judged:
        return Layer({}, {})
    return logs[0].take_header({name for name in ("D", "T") if getattr(settings, name) is None})


async def known_header(settings: Settings) -> Layer:
    """Read the header line of a batch log that was read by an earlier run. Empty if the log is gone.

    Raises:
        UsageError: the header is invalid.
    """
    path = settings.input.batch
    if path is None or is_table(path) or not await anyio.Path(path).is_file():
        return Layer({}, {})
    async with AsyncExitStack() as stack:
        log = LogFile(path, judged=False)
        try:
            await log.open(stack)
            await log.read_ahead()
        except PeerwatchError:
            return Layer({}, {})
        return log.take_header(set())


async def read_header(settings: Settings) -> Layer:
    """Read the header line of the batch log named in `settings`. Empty for a table or a server.

    Raises:
        UsageError: the log cannot be read, or its header is invalid.
    """
    if is_table(settings.input.batch or "") or is_url(settings.input.batch or ""):
        return Layer({}, {})
    async with AsyncExitStack() as stack:
        log = LogFile(settings.input.batch or "", judged=False)
        await log.open(stack)
        await log.read_ahead()
        return take_header([log], settings)


def required(settings: Settings) -> tuple[int, int]:
    """Return D and T.

    Raises:
        UsageError: one of them is not set.
    """
    D, T = settings.D, settings.T
    if D is None or T is None:
        name = "D" if D is None else "T"
        where = (
            "put it into the header line" if settings.input.batch is not None else "name a batch log with a header line"
        )
        raise UsageError(f'"{name}" is not set: give --{name}, set it in the config, or {where}')
    return D, T


def output_paths(settings: Settings) -> Outputs:
    """Return the paths of all outputs. Rejected lines are written beside the output unless a path is set.

    Raises:
        UsageError: no output is set, or decisions would go to standard output.
    """
    named = settings.output
    flagged, rejects, ledger, decisions = (
        "-" if path is not None and descriptor_of(path, 1) == 1 else path
        for path in (named.flagged, named.rejects, named.verdicts, named.decisions)
    )
    if decisions == "-":
        raise UsageError("decisions cannot go to standard output; name a file")
    if ledger is not None and is_url(ledger):
        raise UsageError(f"the ledger must be a file, and {redacted(ledger)} is none")
    if flagged is None:
        raise UsageError(NOT_SET.format(key="output.flagged", what="the output", option="OUTPUT"))
    taken = any("rejects" in sink.records for sink in settings.sinks)
    if rejects is None and not taken:
        rejects = _beside(flagged, settings.state.directory)
    return Outputs(flagged, rejects, ledger, decisions)


def _beside(flagged: str, state: str | None) -> str | None:
    """The rejects file of an output; none if that is a pipe or a device, beside which nothing can be kept.

    That of an output which a URL names is in the state directory, if there is one.
    """
    if is_url(flagged):
        return str(Path(state) / "rejects.json") if state is not None else None
    path = Path(flagged)
    if descriptor_of(flagged, 1) is not None or _is_no_file(path):
        return None
    return str(path.with_name(f"{path.stem}.rejects.json"))


def new_run() -> str:
    """A name for a run, like no other."""
    return os.urandom(8).hex()


def sink_name(sink: SinkSettings) -> str:
    """The name under which checkpoints keep the mark of a sink."""
    return f"{redacted(sink.to)} {' '.join(sorted(sink.records))}"


def identity_of(run: str, settings: Settings, D: int, T: int, outputs: Outputs) -> Identity:
    """What the state of a run belongs to."""
    directory = Path(settings.state.directory or ".")
    stream = FilePlace.of(settings.input.stream or "", directory)
    named = outputs._replace(rejects=outputs.rejects or "-")._asdict()
    places = {name: FilePlace.of(path, directory) for name, path in named.items() if path is not None}
    places |= {sink_name(sink): FilePlace.of(sink.to, directory) for sink in settings.sinks}
    rules = rules_of(settings, "detector.", "challenger.")
    unset = Settings()
    rules |= {key: value for key in IF_SET if (value := value_of(settings, key)) != value_of(unset, key)}
    return Identity(run, D, T, rules, stream, places)


def rules_of(settings: Settings, *sections: str) -> dict[str, Any]:
    """Return the settings in these sections, by dotted key.

    Quarantine counts only where it is on: earlier versions knew nothing of it.
    """
    rules = {key: value_of(settings, key) for key, _ in keys() if key.startswith(sections)}
    if not settings.detector.quarantine:
        rules.pop(QUARANTINE, None)
    return rules


def check_distinct(settings: Settings, config: Path | None, outputs: Outputs) -> None:
    """Check that no file is both read and written, or written twice, and that standard output is used once.

    Devices may be named more than once.

    Raises:
        UsageError: a file or standard output is used twice.
    """
    read = [("the batch log", settings.input.batch), ("the stream log", settings.input.stream), ("the config", config)]
    written = [
        ("the output", outputs.flagged),
        ("the rejects file", outputs.rejects),
        ("the ledger", outputs.verdicts),
        ("the decisions file", outputs.decisions),
        ("the log file", settings.logs.file),
    ]
    if settings.input.batch == settings.input.stream == "-":
        raise UsageError("the batch log and the stream log cannot both be standard input; name a file for one of them")
    if len(printed := [what for what, path in written if path is not None and descriptor_of(path, 1) == 1]) > 1:
        raise UsageError(f"{printed[0]} and {printed[1]} cannot both be standard output; name a file for one of them")
    for place, (what, path) in enumerate(written):
        for other, taken in (*read, *written[:place]):
            if path is not None and taken is not None and _is_same(Path(path), Path(taken)):
                raise UsageError(f"{shown(path)} is named for {what} and for {other}; name two files")


def check_replayable(settings: Settings, outputs: Outputs) -> None:
    """Check that a run with a state directory can be continued: its batch log and outputs must be regular files.

    Raises:
        UsageError: one of them is a pipe or a device.
    """
    if settings.state.directory is None:
        return
    names = ("output", "rejects file", "ledger")
    for what, path in (("batch log", settings.input.batch), *zip(names, outputs, strict=False)):
        if path is not None and not is_url(path) and (descriptor_of(path, 1) is not None or _is_no_file(Path(path))):
            raise UsageError(
                f"with --state the {what} must be a file, so that a later run can continue it; {shown(path)} is not one"
            )


def _is_no_file(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _is_same(one: Path, other: Path) -> bool:
    if str(one) == "-" or str(other) == "-" or is_url(str(one)) or is_url(str(other)) or _is_no_file(one):
        return False
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def check_unchanged(old: Identity, new: Identity, origins: dict[str, str], settings: Settings) -> None:
    """Check that nothing has changed since the state was built that would mix verdicts or lose output.

    Raises:
        UsageError: something has changed; the message names both ways out.
    """
    for key, before, now in _changed(old, new):
        was, is_ = ("none" if value is None else value for value in (before, now))
        raise UsageError(
            f'{origins[key]}: "{key}" is {is_}, but the state in {settings.state.directory} was built with {was};'
            f" go on with {was}, or begin anew with --reset"
        )


def check_stream(old: Identity, new: Identity, facts: Facts, origins: dict[str, str], settings: Settings) -> None:
    """Check that the stream log has the same path as when the state was built, or the same content.

    Raises:
        UsageError: it is another log.
    """
    path = Path(settings.input.stream or "")
    if old.stream.is_same(new.stream):
        return
    by_name = is_url(old.stream.absolute) or is_url(new.stream.absolute)
    position = Position() if by_name else position_of(facts.position)
    files = [path, *(file.path for file in rotated_files(path, settings.input.rotated))]
    if not (facts.judged and position.offset and any(holds(file, position) for file in files)):
        raise UsageError(
            f'{origins["input.stream"]}: "input.stream" is {new.stream.absolute}, but the state in'
            f" {settings.state.directory} was built from {old.stream.absolute}, and what had been read of that is not"
            " there; go on with the old one, or begin anew with --reset"
        )


def _changed(old: Identity, new: Identity) -> Iterator[tuple[str, Any, Any]]:
    """Yield each key that has changed, with its old and new value."""
    for name in ("D", "T"):
        if getattr(old, name) != getattr(new, name):
            yield name, getattr(old, name), getattr(new, name)
    for key in (*new.rules, *sorted(old.rules.keys() - new.rules.keys())):
        default = value_of(Settings(), key) if key in IF_SET else None
        before, now = old.rules.get(key, default), new.rules.get(key, default)
        if before != now:
            yield key, before, now
    for name in (*Outputs._fields, *sorted((old.outputs.keys() | new.outputs.keys()) - {*Outputs._fields})):
        was, is_ = old.outputs.get(name), new.outputs.get(name)
        if (was is None) != (is_ is None) or (was is not None and is_ is not None and not was.is_same(is_)):
            key = f"output.{name}" if name in Outputs._fields else "sinks"
            yield key, was and was.absolute, is_ and is_.absolute
