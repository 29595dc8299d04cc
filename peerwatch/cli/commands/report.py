"""`peerwatch report`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from peerwatch.cli.options import FILE, layers_of, replay_options

TOP: Final = 20
OUTPUT: Final = (
    click.option("--top", type=click.IntRange(1), default=TOP, show_default=True, metavar="N", help="Rows to print."),
    click.option("-o", "--output", type=FILE, metavar="FILE", help="Write all rows: FILE.csv or FILE.parquet."),
    click.option("--force", is_flag=True, help="Overwrite FILE."),
)
AT: Final = click.option("--at", metavar="SEQ|TIME", help="After this event, or at this time. Default: the end.")


def _options(*options: Callable[..., Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add the arguments of a replay, some options, and those of a table."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed((*options, *OUTPUT)):
            command = option(command)
        return replay_options(command)

    return add


@click.group()
def report() -> None:
    """Answer what analysts ask: networks, spending, all users, whom to notify."""


@report.command("networks")
@_options(AT)
def report_networks(paths: tuple[str, ...], config: Path | None, *, at: str | None, **options: Any) -> None:
    """List all users by the size of their networks, the largest first.

    \b
    peerwatch report networks batch_log.json stream_log.json
    peerwatch report networks batch_log.json stream_log.json --at "2017-06-13 11:33:02" --output networks.csv
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    _report("networks", paths, config, options, at=at)


@report.command("spending")
@_options(
    click.option("--from", "begin", metavar="TIME", help="Purchases from this time on. Default: all."),
    click.option("--until", "end", metavar="TIME", help="Purchases before this time. Default: all."),
    click.option("--by", type=click.Choice(["user", "network"]), default="user", show_default=True,
                 help="Whose spending is added up."),
)  # fmt: skip
def report_spending(
    paths: tuple[str, ...], config: Path | None, *, begin: str | None, end: str | None, by: str, **options: Any
) -> None:
    """Add up what each user, or each user's network, has spent over a period, the most first.

    A purchase counts by its timestamp. Networks are those at the end of the period. The logs are read from their
    beginning, because a state keeps only the latest purchases.

    \b
    peerwatch report spending batch_log.json stream_log.json --until "2017-06-14 00:00:00"
    peerwatch report spending batch_log.json stream_log.json --by network --output spending.parquet
    """  # noqa: D301
    _report("spending", paths, config, options, begin=begin, end=end, by_network=by == "network")


@report.command("users")
@_options(AT)
def report_users(paths: tuple[str, ...], config: Path | None, *, at: str | None, **options: Any) -> None:
    """List everything that is known of all users at a moment.

    That is friends, the size of the network, the window of a purchase made now, and the T latest purchases.

    \b
    peerwatch report users batch_log.json stream_log.json --output users.parquet
    peerwatch report users --config configs/live.yaml --at 200812 --output users.csv
    """  # noqa: D301
    _report("users", paths, config, options, at=at)


@report.command("notify")
@_options(
    click.option("--seq", type=click.IntRange(1), help="The purchase is this event."),
    click.option("--line", type=click.IntRange(1), help="The purchase is this line of STREAM."),
    click.option("--user", metavar="ID", help="The purchase is this user's..."),
    click.option("--at", metavar="TIME", help="...at this time, as the log writes it."),
)
def report_notify(
    paths: tuple[str, ...],
    config: Path | None,
    *,
    seq: int | None,
    line: int | None,
    user: str | None,
    at: str | None,
    **options: Any,
) -> None:
    """List whom to notify of a flagged purchase: the buyer's network, the nearest first.

    \b
    peerwatch report notify batch_log.json stream_log.json --line 812
    """  # noqa: D301
    _report("notify", paths, config, options, seq=seq, line=line, user=user, at=at)


def _report(kind: str, paths: tuple[str, ...], config: Path | None, options: dict[str, Any], **wanted: Any) -> None:
    """Make a report, and print or write it."""
    top, output, force = (options.pop(name) for name in ("top", "output", "force"))
    layers = layers_of(paths, config, options, output=False)
    from peerwatch.studies import report_table as tables  # noqa: PLC0415 (--help and mistakes answer at once)

    if output is not None:
        tables.check_output(output, force=force)
    import anyio  # noqa: PLC0415

    from peerwatch import kernels  # noqa: PLC0415
    from peerwatch.cli.console import Console  # noqa: PLC0415
    from peerwatch.studies import reports  # noqa: PLC0415

    console = Console(quiet=False, bar=False)
    kernels.load(console.compiling, console.uncached)
    made = anyio.run(partial(getattr(reports, kind), layers, **wanted))
    if output is None:
        click.echo(tables.as_text(made, top))
        return
    tables.write(made, output)
    click.echo(f"{made.title}\n{made.length:,} rows in {output}")
