"""`peerwatch radius`."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from peerwatch.cli.options import layers_of, replay_options
from peerwatch.errors import UsageError


@click.command()
@replay_options
@click.option("--edge", nargs=2, metavar="A B", help="The friendship of these two users.")
@click.option("--user", metavar="ID", help="This user, with all its friendships.")
@click.option("--at", metavar="SEQ|TIME", help="After this event, or at this time of the logs. Default: their end.")
@click.option("--top", type=click.IntRange(1), default=20, show_default=True, help="The most rows of a table.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def radius(
    paths: tuple[str, ...],
    config: Path | None,
    *,
    edge: tuple[str, str] | None,
    user: str | None,
    at: str | None,
    top: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Show what a friendship or a user takes part in at a moment: whose networks, windows and verdicts.

    They are compared with what they would be without the friendship, or without all friendships of the user. A verdict
    is that on a user's latest purchase, if it were made again at the moment. With neither --edge nor --user: the
    friendships without which the most verdicts would be others. Where friendships are directed, --edge A B is the one
    by which B is a friend of A.

    \b
    peerwatch radius batch_log.json stream_log.json --edge 7 12
    peerwatch radius batch_log.json stream_log.json --user 7 --at 200812 --json
    peerwatch radius batch_log.json stream_log.json --top 5
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    if edge is not None and user is not None:
        raise UsageError("name one: --edge A B, --user ID, or neither for the friendships that matter most")
    layers = layers_of(paths, config, options, output=False)
    import anyio  # noqa: PLC0415 (--help and mistakes answer at once)
    import msgspec  # noqa: PLC0415

    from peerwatch import kernels  # noqa: PLC0415
    from peerwatch.cli.console import Console  # noqa: PLC0415
    from peerwatch.studies.radius import bridges_of, radius_of  # noqa: PLC0415
    from peerwatch.studies.radius_table import as_text, bridges_as_text  # noqa: PLC0415

    console = Console(quiet=False, bar=False)
    kernels.load(console.compiling, console.uncached)
    if edge is None and user is None:
        bridges = anyio.run(partial(bridges_of, layers, most=top, at=at))
        click.echo(msgspec.json.encode(bridges).decode() if as_json else bridges_as_text(bridges))
        return
    found = anyio.run(partial(radius_of, layers, friendship=edge, user=user, at=at))
    click.echo(msgspec.json.encode(found).decode() if as_json else as_text(found, top))
