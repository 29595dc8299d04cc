"""Arguments and options of commands that take settings."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import click
import msgspec

from peerwatch.errors import UsageError
from peerwatch.readable import path_of
from peerwatch.settings.model import (
    DEFAULT,
    ClusterSettings,
    Decisions,
    Deviations,
    Friendships,
    Hops,
    Layer,
    LogFormat,
    LogLevel,
    WindowSize,
    expected,
)  # fmt: skip

OPTION_KEYS: Final = {
    "D": "D", "T": "T", "friendships": "friendships", "k": "detector.k", "judge_batch": "judge_batch",
    "shards": "shards", "walkers": "walkers",
    "rejects": "output.rejects", "verdicts": "output.verdicts",
    "decisions_file": "output.decisions", "strict": "strict", "quiet": "quiet",
    "log_format": "logs.format", "log_level": "logs.level", "log_file": "logs.file",
    "decisions": "logs.decisions", "log_user": "logs.users", "log_sample": "logs.sample",
    "follow": "follow", "idle_exit": "idle_exit", "state": "state.directory",
    "audit": "audit", "serve": "serve.listen", "cluster": "cluster.address", "workers": "cluster.workers",
}  # fmt: skip
"""The setting that each option sets."""


def numbers(hint: Any) -> Callable[[click.Context, click.Parameter, str | None], list[Any]]:
    """Return a callback that parses comma-separated values of the type `hint`, sorted and without duplicates.

    Without the option the result is empty.

    Raises:
        click.BadParameter: a value is not a number or is out of range.
    """

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> list[Any]:
        found = set()
        for text in map(str.strip, value.split(",") if value is not None else ()):
            try:
                found.add(msgspec.convert(text, hint, strict=False))
            except msgspec.ValidationError as error:
                why = f"{text!r} in {value!r}: expected {expected(error)}, and commas between them"
                raise click.BadParameter(why, ctx, param) from None
        return sorted(found)

    return read


class NamedPath(click.ParamType):  # type: ignore[type-arg] # older versions of click have no argument there
    """A path of a file or a directory. It must not be empty; `~` is the home directory."""

    name = "path"

    def __init__(self, *, directory: bool = False) -> None:
        self._directory = directory

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path."""
        try:
            return Path(path_of(str(value), directory=self._directory))
        except ValueError as error:
            self.fail(f"{str(value)!r} {error}", param, ctx)


FILE: Final = NamedPath()
DIRECTORY: Final = NamedPath(directory=True)
CONFIG: Final = click.option("-c", "--config", type=FILE, metavar="FILE", help="Read settings from a YAML file.")
FRIENDSHIPS: Final = click.option(
    "--friendships", type=click.Choice(get_args(Friendships)),
    help="Whether befriending makes both friends, or id2 a friend of id1 alone. Default: the header's, or mutual.",
)  # fmt: skip
JUDGE_BATCH: Final = click.option(
    "--judge-batch", is_flag=True, default=None, help="Judge the purchases of BATCH, too."
)
WINDOWS: Final = (
    click.option("--D", "D", type=click.IntRange(1), help="Hops a user's network reaches. Default: the header's."),
    click.option("--T", "T", type=click.IntRange(2), help="Purchases in a window. Default: the header's."),
    FRIENDSHIPS,
)
"""The options that define windows."""
SETTINGS: Final = (
    CONFIG,
    *WINDOWS,
    click.option("--k", type=float, help="Standard deviations above the mean that are still normal. Default: 3."),
    JUDGE_BATCH,
)
"""The options that determine the verdicts."""


def renamed(old: str, new: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A hidden option with the name it had in an earlier version. Its use is an error that gives the new name."""

    def refuse(ctx: click.Context, param: click.Parameter, value: str | None) -> None:  # noqa: ARG001
        if value is not None:
            raise UsageError(f"{old} is now called {new}")

    return click.option(old, hidden=True, expose_value=False, callback=refuse)


def split_cluster(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Return the address in `ray:HOST:PORT`.

    Raises:
        click.BadParameter: it is anything else.
    """
    if value is None:
        return None
    engine, _, address = value.partition(":")
    host, _, port = address.rpartition(":")
    if engine != "ray" or not host or "/" in host or not port.isdecimal():
        raise click.BadParameter(f"{value!r}: expected ray:HOST:PORT, such as ray:127.0.0.1:6379", ctx, param)
    return address


def check_cluster(cluster: ClusterSettings, origins: Mapping[str, str]) -> None:
    """Check that who asks for workers names a cluster. A config that sets `cluster.engine` to none wants none.

    Raises:
        UsageError: workers or an address are set, and there is no cluster.
    """
    if cluster.engine != "none":
        return
    undecided = origins["cluster.engine"] == DEFAULT
    for key, value in (("cluster.address", cluster.address), ("cluster.workers", cluster.workers)):
        origin = origins[key]
        if origin != DEFAULT and (undecided or origin.startswith("--")):
            raise UsageError(
                f'{origin}: "{key}" is {value}, but no cluster is to be used; name one as --cluster ray:HOST:PORT, or'
                ' set "cluster.engine": to ray for a cluster, to none for one process'
            )


AUDIT: Final = click.option(
    "--audit", type=click.FloatRange(0, 1), metavar="SHARE", help="Recompute this share of decisions by brute force."
)
GRID: Final = (
    click.option("--D", "D", callback=numbers(Hops), metavar="D,...", help="Hops to try."),
    click.option("--T", "T", callback=numbers(WindowSize), metavar="T,...", help="Windows to try."),
    click.option("--k", callback=numbers(Deviations), metavar="K,...", help="Standard deviations to try."),
)
"""The options of a sweep that take several values."""
RUNNING: Final = (
    click.option("--shards", type=click.IntRange(1), help="Purchase shards that work in parallel. Default: 1."),
    click.option("--walkers", type=click.IntRange(1), help="Friend graphs that work in parallel. Default: 2."),
    click.option("-f", "--follow", is_flag=True, default=None, help="Judge STREAM as it grows, through rotations."),
    click.option("--idle-exit", type=click.FloatRange(0), metavar="SECONDS",
                 help="Stop following after SECONDS without new data."),
    click.option("--state", metavar="DIR", help="Keep checkpoints in DIR, and continue from the last one."),
    click.option("--rejects", metavar="FILE", help="Where rejected lines go. Default: beside OUTPUT."),
    click.option("--verdicts", metavar="FILE", help="Write a ledger that `peerwatch bisect` compares."),
    click.option("--decisions-file", metavar="FILE", help="Write every decision as Parquet; a folder with --state."),
    click.option("--serve", metavar="HOST:PORT", help="Serve an HTTP API and a page beside the run."),
    click.option("--cluster", metavar="ray:HOST:PORT", callback=split_cluster,
                 help="Have the workers of this Ray cluster judge; needs --state."),
    click.option("--workers", type=click.IntRange(1), help="Workers in the cluster. Default: 2."),
    AUDIT,
    renamed("--shadow", "--audit"),
    click.option("--strict", is_flag=True, default=None, help="Stop at the first rejected line with exit code 1."),
    click.option("-q", "--quiet", is_flag=True, default=None, help="Show no progress and no summary."),
    click.option("--log-format", type=click.Choice(get_args(LogFormat)), help="Format of logs. Default: console."),
    click.option("--log-level", type=click.Choice(get_args(LogLevel)),
                 help="The lowest level to log; decisions are info. Default: warning."),
    click.option("--log-file", metavar="FILE", help="Append logs to a file. Default: standard error."),
    click.option("--decisions", type=click.Choice(get_args(Decisions)),
                 help="Which decisions are logged. Default: flagged."),
    click.option("--log-user", multiple=True, metavar="ID", help="Log this user's decisions too; repeatable."),
    click.option("--log-sample", type=click.FloatRange(0, 1), help="Log this share of all decisions too."),
)  # fmt: skip
REPLAY_STATE: Final = click.option(
    "--state", metavar="DIR", help="Begin at the nearest checkpoint in DIR; a run may be using it."
)
ROTATED: Final = click.option(
    "-f", "--follow", is_flag=True, default=None, help="Read STREAM through its rotations to its end."
)
METHOD_SETTINGS: Final = click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter of the detector; repeatable."
)
VERIFY: Final = (
    AUDIT,
    renamed("--shadow", "--audit"),
    ROTATED,
    click.option("--state", metavar="DIR", help="The run's state directory, with its models and labels."),
    click.option("-q", "--quiet", is_flag=True, default=None, help="Show no progress."),
)


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the arguments and options of commands that use a run's settings."""
    return _with(command, click.argument("paths", nargs=-1, metavar="[BATCH] STREAM OUTPUT"), *SETTINGS, *RUNNING)


def replay_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the arguments and options of commands that read a run's logs again."""
    return _with(command, click.argument("paths", nargs=-1, metavar="[BATCH] STREAM"), *SETTINGS, ROTATED, REPLAY_STATE)


def verify_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the arguments and options of the command that judges a run's logs again."""
    paths = click.argument("paths", nargs=-1, metavar="[BATCH] STREAM OUTPUT")
    return _with(command, paths, *SETTINGS, *VERIFY)


def sweep_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the arguments and options of the command that tries many settings."""
    paths = click.argument("paths", nargs=-1, metavar="[BATCH] STREAM")
    return _with(command, paths, CONFIG, *GRID, FRIENDSHIPS, JUDGE_BATCH)


def window_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that define windows."""
    return _with(command, *WINDOWS)


def parameters_of(settings: Sequence[str]) -> dict[str, Any]:
    """Parse `--set NAME=VALUE` options. A value is read as JSON, or as text if it is not JSON.

    Raises:
        UsageError: an option does not have this form.
    """
    parameters: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"--set {setting}: expected NAME=VALUE")
        try:
            parameters[name] = msgspec.json.decode(value, type=int | float | list | dict)
        except msgspec.DecodeError:
            parameters[name] = value
    return parameters


def _with(command: Callable[..., None], *options: Callable[..., Any]) -> Callable[..., None]:
    for option in reversed(options):
        command = option(command)
    return command


def layers_of(
    paths: tuple[str, ...], config: Path | None, options: dict[str, Any], *, output: bool = True
) -> list[Layer]:
    """Return the settings of the command line, then those of the config.

    The last path is the `output`, or the stream if there is none.

    Raises:
        UsageError: there are too few or too many paths, or the config is invalid.
    """
    names = ["input.batch", "input.stream", *(["output.flagged"] if output else [])]
    if len(paths) not in {0, len(names) - 1, len(names)}:
        end = " OUTPUT" * output
        raise UsageError(
            f"name BATCH STREAM{end}, or STREAM{end} without a batch log, or none with --config; got {len(paths)}"
        )
    values: dict[str, Any] = dict(zip(names[len(names) - len(paths) :], paths, strict=True))
    origins = dict.fromkeys(values, "command line")
    for name, value in options.items():
        if value is not None and value != ():
            key = OPTION_KEYS[name]
            values[key] = list(value) if isinstance(value, tuple) else value
            origins[key] = f"--{name.replace('_', '-')}"
            if name == "cluster":
                values["cluster.engine"], origins["cluster.engine"] = "ray", origins[key]
    layers = [Layer(values, origins)]
    if config is not None:
        from peerwatch.settings.yaml_file import read_config  # noqa: PLC0415 (YAML is slow to import)

        layers.append(read_config(config))
    return layers
