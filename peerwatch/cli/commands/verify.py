"""`peerwatch verify`."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from peerwatch.cli.options import layers_of, verify_options
from peerwatch.errors import RunError
from peerwatch.settings.model import Layer, resolve


@click.command()
@verify_options
def verify(paths: tuple[str, ...], config: Path | None, **options: Any) -> None:
    """Judge the logs again from their beginning, and compare the result with the OUTPUT of a run byte for byte.

    Nothing is written. A share of the decisions is also recomputed by brute force: one in a hundred, unless --audit or
    the config says otherwise.

    \b
    peerwatch verify batch_log.json stream_log.json flagged_purchases.json
    peerwatch verify --config configs/live.yaml --audit 1

    \b
    Exit codes:
      0  OUTPUT is what it should be
      1  it differs, or a decision that was recomputed does
      2  a wrong option, config, header or file
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    layers = [*layers_of(paths, config, options), Layer({"audit": 0.01}, {"audit": "default"})]
    settings, _ = resolve(*layers)
    import anyio  # noqa: PLC0415 (--help and mistakes answer at once)

    from peerwatch import kernels  # noqa: PLC0415
    from peerwatch.cli.console import Console, different  # noqa: PLC0415
    from peerwatch.replay.verify import as_text, verified  # noqa: PLC0415

    console = Console(quiet=settings.quiet, bar=True)
    kernels.load(console.compiling, console.uncached)
    found = anyio.run(partial(verified, layers, console), backend_options={"use_uvloop": sys.platform != "win32"})
    click.echo(as_text(found))
    if found.first_difference is not None:
        raise RunError(different(found.totals, found.first_difference))
    if found.wrong is not None:
        sys.exit(1)
