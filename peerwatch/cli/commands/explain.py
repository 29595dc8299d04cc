"""`peerwatch explain`."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from peerwatch.cli.options import FILE, layers_of, replay_options


@click.command()
@replay_options
@click.option("--seq", type=click.IntRange(1), help="The decision on this event.")
@click.option("--line", type=click.IntRange(1), help="The decision on this line of STREAM.")
@click.option("--user", metavar="ID", help="The decision on this user's purchase...")
@click.option("--at", metavar="TIME", help="...at this time, as the log writes it.")
@click.option("--graph", is_flag=True, help="Also say whether the buyer's place in the friend graph is unusual.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with the whole network.")
@click.option("--plot", type=FILE, metavar="FILE", help="Also draw the network and the window: FILE.svg or FILE.png.")
def explain(
    paths: tuple[str, ...],
    config: Path | None,
    *,
    seq: int | None,
    line: int | None,
    user: str | None,
    at: str | None,
    graph: bool,
    as_json: bool,
    plot: Path | None,
    **options: Any,
) -> None:
    """Explain why a purchase was flagged, or why it was not.

    The logs are read again up to the decision, with --state from the last checkpoint before it. The explanation has the
    network with the path of friendships to each member, and the purchases that counted with their lines. If sigma has
    judged, it has the exact inequality and what would have changed the verdict; otherwise the score, the model, and
    what the model saw.

    \b
    peerwatch explain batch_log.json stream_log.json --line 812
    peerwatch explain --config configs/live.yaml --seq 200812 --json
    peerwatch explain batch_log.json stream_log.json --user 7 --at "2017-06-13 11:33:02" --plot why.svg
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    layers = layers_of(paths, config, options, output=False)
    from peerwatch.studies import pictures as plots  # noqa: PLC0415 (--help and mistakes answer at once)

    if plot is not None:
        plots.check(plot)
    import anyio  # noqa: PLC0415
    import msgspec  # noqa: PLC0415

    from peerwatch import kernels  # noqa: PLC0415
    from peerwatch.cli.console import Console  # noqa: PLC0415
    from peerwatch.replay.explain import as_text, explained  # noqa: PLC0415

    console = Console(quiet=False, bar=False)
    kernels.load(console.compiling, console.uncached)
    record = anyio.run(partial(explained, layers, seq=seq, line=line, user=user, at=at, graph=graph))
    click.echo(msgspec.json.encode(record).decode() if as_json else as_text(record))
    if plot is not None:
        plots.draw_explanation(record, plot)
