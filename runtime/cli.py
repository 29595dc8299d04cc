"""The command line."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final, get_args

import click
import msgspec

from peerwatch.network.errors import BadEvent, PeerwatchError, UsageError
from peerwatch.network.rejects import decode_reject
from peerwatch.runtime.names import shown
from peerwatch.runtime.settings import Decisions, Layer, LogFormat, LogLevel, keys, resolve, value_of

EXIT_STOPPED: Final = 1
EXIT_USAGE: Final = 2


class Group(click.Group):
    """Turns peerwatch's own errors into one sentence and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except PeerwatchError as error:
            _say(str(error))
            raise SystemExit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_STOPPED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would complain again while it exits
            raise SystemExit(EXIT_STOPPED) from None
        except OSError as error:
            _say(f"{shown(error.filename)}: {error.strerror}" if error.filename is not None else str(error.strerror))
            raise SystemExit(EXIT_USAGE) from None


def _say(sentence: str) -> None:
    with suppress(OSError):
        click.echo(f"peerwatch: {sentence}", err=True)


def main() -> None:
    """The entry point of the command `peerwatch`.

    Until a run handles signals itself, Ctrl-C ends the process as it ends any other, wherever it is: in an import, or
    in opening a pipe that has no other end.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    cli(prog_name="peerwatch")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="peerwatch")
def cli() -> None:
    """Flag purchases far above what the buyer's own network has been spending.

    peerwatch reads a log of purchases, befriendings and unfriendings and flags each purchase that is more than k
    standard deviations above the mean of the last T purchases by the buyer's friends up to D hops away. Verdicts are
    exact: integers decide, and the same logs give the same bytes at any number of shards.
    """


OPTION_KEYS: Final = {
    "D": "D", "T": "T", "k": "detector.k", "shards": "shards", "walkers": "walkers",
    "rejects": "output.rejects", "strict": "strict", "quiet": "quiet",
    "log_format": "logs.format", "log_level": "logs.level", "log_file": "logs.file",
    "decisions": "logs.decisions", "log_user": "logs.users", "log_sample": "logs.sample",
    "follow": "follow", "idle_exit": "idle_exit", "state": "state.directory",
}  # fmt: skip
"""Which setting each option sets."""


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments and options that every command on settings takes."""
    for option in reversed((
        click.argument("paths", nargs=-1, metavar="[BATCH] STREAM OUTPUT"),
        click.option("-c", "--config", type=Path, metavar="FILE", help="Read settings from a YAML file."),
        click.option("--D", "D", type=click.IntRange(1), help="Hops a user's network reaches. Default: the header's."),
        click.option("--T", "T", type=click.IntRange(2), help="Purchases in a window. Default: the header's."),
        click.option("--k", type=float, help="Standard deviations above the mean that are still normal. Default: 3."),
        click.option("--shards", type=click.IntRange(1), help="Purchase shards that work in parallel. Default: 1."),
        click.option("--walkers", type=click.IntRange(1), help="Friend graphs that walk in parallel. Default: 2."),
        click.option("-f", "--follow", is_flag=True, default=None, help="Judge STREAM as it grows, through rotations."),
        click.option("--idle-exit", type=click.FloatRange(0), metavar="SECONDS", help="End a follow after a silence."),
        click.option("--state", metavar="DIR", help="Keep checkpoints in DIR, and go on where the last run was."),
        click.option("--rejects", metavar="FILE", help="Where rejected lines go. Default: beside OUTPUT."),
        click.option("--strict", is_flag=True, default=None, help="Stop at the first rejected line with exit code 1."),
        click.option("-q", "--quiet", is_flag=True, default=None, help="No progress and no summary."),
        click.option("--log-format", type=click.Choice(get_args(LogFormat)), help="How logs look. Default: console."),
        click.option("--log-level", type=click.Choice(get_args(LogLevel)), help="Decisions: info. Default: warning."),
        click.option("--log-file", metavar="FILE", help="Append logs to a file. Default: standard error."),
        click.option("--decisions", type=click.Choice(get_args(Decisions)), help="Which are logged. Default: flagged."),
        click.option("--log-user", multiple=True, metavar="ID", help="Log this user's decisions too; repeatable."),
        click.option("--log-sample", type=click.FloatRange(0, 1), help="Log this share of all decisions too."),
    )):  # fmt: skip
        command = option(command)
    return command


def layers_of(paths: tuple[str, ...], config: Path | None, options: dict[str, Any]) -> list[Layer]:
    """The command line's settings, then the config's.

    Raises:
        UsageError: there are too few or too many paths, or the config is bad.
    """
    names = {0: (), 2: ("input.stream", "output.flagged"), 3: ("input.batch", "input.stream", "output.flagged")}
    if len(paths) not in names:
        raise UsageError(
            f"name BATCH STREAM OUTPUT, or STREAM OUTPUT without a batch log, or none with --config; got {len(paths)}"
        )
    values: dict[str, Any] = dict(zip(names[len(paths)], paths, strict=True))
    origins = dict.fromkeys(values, "command line")
    for name, value in options.items():
        if value is not None and value != ():
            key = OPTION_KEYS[name]
            values[key] = list(value) if isinstance(value, tuple) else value
            origins[key] = f"--{name.replace('_', '-')}"
    layers = [Layer(values, origins)]
    if config is not None:
        from peerwatch.runtime.config import read_config  # noqa: PLC0415 (YAML is slow to import)

        layers.append(read_config(config))
    return layers


@cli.command()
@settings_options
@click.option("--reset", is_flag=True, help="Forget the checkpoints in the state directory and begin anew.")
@click.option("--force", is_flag=True, help="Overwrite an OUTPUT that something else has written.")
def run(paths: tuple[str, ...], config: Path | None, *, reset: bool, force: bool, **options: Any) -> None:
    """Judge a stream log against the state that a batch log builds.

    BATCH and STREAM hold one JSON event a line; the first line of BATCH may set D and T: {"D":"3", "T":"50"}. Flagged
    purchases are written to OUTPUT (- for standard output), each as its own line with the window's mean and sd added.
    STREAM may be - for standard input. Lines that are no events go to the rejects file, and the run goes on.

    \b
    peerwatch run batch_log.json stream_log.json flagged_purchases.json
    peerwatch run --D 2 --T 50 stream_log.json - | head
    peerwatch run --config configs/live.yaml

    \b
    Exit codes:
      0         all judged; also a --follow, or a run with --state, that a signal has stopped
      1         stopped by a rejected line (--strict), a failing disk, or an output nobody reads
      2         a wrong option, config, header or file; nothing has been written
      130, 143  interrupted; what had been read has been judged
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    gc.disable()  # what imports make stays; looking for garbage in it takes a tenth of the start
    layers = layers_of(paths, config, options)
    settings, _ = resolve(*layers)
    from peerwatch.runtime.console import Console  # noqa: PLC0415 (--help and mistakes answer at once)

    logs_on_terminal = settings.logs.file is None and settings.logs.level in {"debug", "info"}
    console = Console(quiet=settings.quiet, bar=not logs_on_terminal)
    import anyio  # noqa: PLC0415

    from peerwatch.network import kernels  # noqa: PLC0415
    from peerwatch.runtime import runner  # noqa: PLC0415

    kernels.load(console.compiling)
    gc.freeze()
    gc.enable()
    report = anyio.run(
        partial(runner.run, layers, console, config=config, reset=reset, force=force),
        backend_options={"use_uvloop": sys.platform != "win32"},  # which has no uvloop
    )
    console.report(report)
    if report.interrupted_by is not None and not report.resumable:
        sys.exit(128 + report.interrupted_by)


@cli.group()
def config() -> None:
    """Look at settings."""


@config.command("show")
@settings_options
def config_show(paths: tuple[str, ...], config: Path | None, **options: Any) -> None:
    """Print the effective settings as YAML, each with where it came from; nothing is judged.

    Takes what `run` takes. The batch log's header line is read if a batch log is named.
    """
    import yaml  # noqa: PLC0415

    layers = layers_of(paths, config, options)
    settings, origins = resolve(*layers)
    if settings.input.batch is not None:
        import anyio  # noqa: PLC0415

        from peerwatch.runtime.opening import read_header  # noqa: PLC0415 (loads the kernels)

        layers.append(anyio.run(read_header, settings))
        settings, origins = resolve(*layers)
    section = ""
    for key, _ in keys():
        head, _, name = key.rpartition(".")
        if head != section:
            click.echo(f"{head}:")
        section = head
        value = yaml.safe_dump(
            msgspec.to_builtins(value_of(settings, key)), default_flow_style=True, width=10**6
        ).partition("\n")[0]
        click.echo(f"{'  ' if head else ''}{name}: {value}".ljust(40) + f"  # {origins[key]}")


@cli.command()
@click.argument("directory", type=Path)
@click.option("--users", type=click.IntRange(2), default=10_000, show_default=True, help="Users.")
@click.option("--batch-events", type=click.IntRange(0), default=200_000, show_default=True, help="Events to build on.")
@click.option("--stream-events", type=click.IntRange(0), default=20_000, show_default=True, help="Events to judge.")
@click.option("--mean-degree", type=click.FloatRange(0), default=10.0, show_default=True, help="Friends a user has.")
@click.option("--friend-share", type=click.FloatRange(0, 1), default=0.1, show_default=True,
              help="Share of stream events that make or end friendships.")  # fmt: skip
@click.option("--D", "D", type=click.IntRange(1), default=2, show_default=True, help="D in the header line.")
@click.option("--T", "T", type=click.IntRange(2), default=50, show_default=True, help="T in the header line.")
@click.option("--ties", type=click.FloatRange(0, 1), default=0.2, show_default=True,
              help="Share of events with the timestamp of the one before.")  # fmt: skip
@click.option("--anomalies", type=click.FloatRange(0, 1), default=0.01, show_default=True,
              help="Share of stream purchases made 10 to 50 times too large, named in labels.json.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Same seed, same bytes.")
@click.option("--force", is_flag=True, help="Overwrite logs that are there.")
def generate(directory: Path, *, force: bool, **options: Any) -> None:
    """Write a synthetic batch_log.json, stream_log.json and labels.json into DIRECTORY.

    Friendships have a heavy tail: a few users know very many. labels.json names the stream lines whose amounts were
    blown up, one JSON object a line.
    """
    from peerwatch.runtime.generate import Recipe, write_logs  # noqa: PLC0415 (numpy is slow to import)

    for path in write_logs(directory, Recipe(**options), force=force):
        click.echo(path)


@cli.group()
def rejects() -> None:
    """Look at rejected lines."""


@rejects.command("show")
@click.argument("file", type=Path)
@click.option("--raw", is_flag=True, help="Print the lines' original bytes and nothing else.")
def rejects_show(file: Path, *, raw: bool) -> None:
    """List the lines in a rejects FILE: where each stood, why it was rejected, and what it holds."""
    output, number = sys.stdout.buffer, 0
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007 (the error below names it)
                rejected = decode_reject(line)
                if raw:
                    output.write(rejected.raw + b"\n")
                    continue
                where = f"{rejected.file}:{rejected.line} (byte {rejected.offset})"
                text = rejected.raw.decode(errors="backslashreplace")
                readable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
                output.write(f"{where}: {rejected.reason}\n    {readable}\n".encode())
            output.flush()
    except BadEvent as error:
        raise UsageError(f"{shown(file)}:{number}: {error}") from None


@rejects.command("requeue")
@click.argument("lines", type=click.File("rb"))
@click.argument("stream", type=Path)
def rejects_requeue(lines: BinaryIO, stream: Path) -> None:
    """Append corrected LINES (a file of events, - for standard input) to the log STREAM.

    Take the lines from `peerwatch rejects show --raw`, mend them, and feed them back. If one of them is still no event,
    nothing is appended.
    """
    from peerwatch.runtime.requeue import append_events  # noqa: PLC0415

    count = append_events(lines.read(), shown(lines.name), stream)
    click.echo(f"{count} events appended to {shown(stream)}")


@cli.command()
@click.argument("directory", type=Path)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(directory: Path, *, as_json: bool) -> None:
    """Tell how the run on a state DIRECTORY is doing."""
    from peerwatch.runtime.status import describe, read_status  # noqa: PLC0415

    found, running = read_status(directory)
    click.echo(describe(found, running=running, as_json=as_json))
