"""`peerwatch sweep`."""

import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from peerwatch.cli.options import DIRECTORY, FILE, layers_of, sweep_options
from peerwatch.errors import UsageError


@click.command()
@sweep_options
@click.option("--labels", type=FILE, metavar="FILE", help="A file that names the lines of STREAM to be flagged.")
@click.option("--csv", is_flag=True, help="Print comma-separated values.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with how any two settings overlap.")
@click.option("--plot", type=FILE, metavar="FILE", help="Also draw the shares: FILE.svg or FILE.png.")
@click.option("-o", "--output", type=DIRECTORY, metavar="DIR", help="Write what each setting flags into DIR.")
@click.option("--force", is_flag=True, help="Overwrite existing files in DIR.")
def sweep(
    paths: tuple[str, ...],
    config: Path | None,
    *,
    D: list[int],
    T: list[int],
    k: list[float],
    labels: Path | None,
    csv: bool,
    as_json: bool,
    plot: Path | None,
    output: Path | None,
    force: bool,
    **options: Any,
) -> None:
    """Show what other choices of D, T and k would have flagged.

    Every D is tried with every T and every k, in one pass over the logs; of what is not given, the current value. Each
    setting is compared with the current one (from the config or the header line; otherwise the first), and with
    --labels also with what should be flagged.

    \b
    peerwatch sweep batch_log.json stream_log.json --D 1,2,3 --T 10,50,100 --k 2,3,4
    peerwatch sweep batch_log.json stream_log.json --k 2,2.5,3 --labels labels.json --plot sweep.svg
    peerwatch sweep --config configs/live.yaml --T 20,50 --output flagged/ --csv
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    if csv and as_json:
        raise UsageError("--csv and --json are two ways to print the same; choose one")
    layers = layers_of(paths, config, options, output=False)
    from peerwatch.studies import pictures as plots  # noqa: PLC0415 (--help and mistakes answer at once)

    if plot is not None:
        plots.check(plot)
    import anyio  # noqa: PLC0415
    import msgspec  # noqa: PLC0415

    from peerwatch import kernels  # noqa: PLC0415
    from peerwatch.cli.console import Console  # noqa: PLC0415
    from peerwatch.studies import sweep as work  # noqa: PLC0415
    from peerwatch.studies.sweep_table import SettingGrid, as_csv, as_text  # noqa: PLC0415

    console = Console(quiet=False, bar=True)
    kernels.load(console.compiling, console.uncached)
    record = anyio.run(
        partial(work.sweep, layers, SettingGrid(D, T, k), console, labels=labels, output=output, force=force)
    )
    if isinstance(record, signal.Signals):
        console.warning("interrupted; nothing has been written")
        sys.exit(128 + record)
    if as_json:
        click.echo(msgspec.json.encode(record))
    else:
        click.echo(as_csv(record) if csv else as_text(record))
    if plot is not None:
        plots.draw_sweep(record, plot)
