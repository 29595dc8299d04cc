"""`peerwatch state`."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from peerwatch.cli.options import layers_of, replay_options


@click.command()
@replay_options
@click.option("--user", metavar="ID", required=True, help="The user.")
@click.option("--at", metavar="SEQ|TIME", required=True, help="After this event, or at this time of the logs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the whole network.")
def state(paths: tuple[str, ...], config: Path | None, *, user: str, at: str, as_json: bool, **options: Any) -> None:
    """Show what was known about a user at any moment: friends, network, purchases, and the window of a purchase.

    SEQ is an event's sequence number; the state is that after the event. TIME is a timestamp as in the logs; the state
    is that before the first event that is later.

    \b
    peerwatch state batch_log.json stream_log.json --user 7 --at 200812
    peerwatch state --config configs/live.yaml --user 7 --at "2017-06-13 11:33:02" --json
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    layers = layers_of(paths, config, options, output=False)
    import anyio  # noqa: PLC0415 (--help and mistakes answer at once)
    import msgspec  # noqa: PLC0415

    from peerwatch import kernels  # noqa: PLC0415
    from peerwatch.cli.console import Console  # noqa: PLC0415
    from peerwatch.replay.user_timeline import as_text, state_of  # noqa: PLC0415

    console = Console(quiet=False, bar=False)
    kernels.load(console.compiling, console.uncached)
    found = anyio.run(partial(state_of, layers, user, at))
    click.echo(msgspec.json.encode(found).decode() if as_json else as_text(found))
