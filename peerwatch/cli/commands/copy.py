"""`peerwatch copy`."""

from functools import partial

import click


@click.command()
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="N", help="Send at most N events a second.")
def copy(source: str, target: str, *, rate: float | None) -> None:
    """Send the events of SOURCE to TARGET, so that a run can read them there.

    Both are a file or a URL, such as kafka://127.0.0.1:9092/purchases. A file is appended to, a topic or stream made if
    it is not there. A header line is left out; all other lines are sent as they are, and a run that reads them says
    which are no events.

    \b
    peerwatch copy stream_log.json kafka://127.0.0.1:9092/purchases --rate 1000
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    import anyio  # noqa: PLC0415

    from peerwatch.runtime.copying import copy as work  # noqa: PLC0415 (loads the kernels)

    sent = anyio.run(partial(work, source, target, rate=rate, warn=partial(click.echo, err=True)))
    click.echo(f"{sent:,} events sent")
