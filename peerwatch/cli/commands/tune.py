"""`peerwatch tune`."""

import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from peerwatch.cli.options import FILE, layers_of, sweep_options


@click.command()
@sweep_options
@click.option("--labels", type=FILE, metavar="FILE", help="A file that names the lines of STREAM to be flagged.")
@click.option("--miss", type=click.FloatRange(0), metavar="COST", help="Choose by costs: that of a miss. Default: 1.")
@click.option("--false-alarm", type=click.FloatRange(0), metavar="COST",
              help="Choose by costs: that of a false alarm. Default: 1.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every setting.")
@click.option("--plot", type=FILE, metavar="FILE", help="Also draw the choice: FILE.svg or FILE.png.")
def tune(
    paths: tuple[str, ...],
    config: Path | None,
    *,
    D: list[int],
    T: list[int],
    k: list[float],
    labels: Path | None,
    miss: float | None,
    false_alarm: float | None,
    as_json: bool,
    plot: Path | None,
    **options: Any,
) -> None:
    """Recommend one D, T and k, and say why.

    With labels it is the setting with the highest F1, or with the least cost of misses and false alarms. Without labels
    it is the most stable one: that whose neighbours flag much the same purchases. Of D, T and k that are not given, the
    current value is tried and D 1 to 3, T 10 to 200 and k 2 to 10.

    \b
    peerwatch tune batch_log.json stream_log.json --labels labels.json
    peerwatch tune batch_log.json stream_log.json --labels labels.json --miss 100 --false-alarm 2
    peerwatch tune batch_log.json stream_log.json --D 1,2 --plot tune.svg
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    layers = layers_of(paths, config, options, output=False)
    from peerwatch.studies import pictures  # noqa: PLC0415 (--help and mistakes answer at once)

    if plot is not None:
        pictures.check(plot)
    import anyio  # noqa: PLC0415
    import msgspec  # noqa: PLC0415

    from peerwatch import kernels  # noqa: PLC0415
    from peerwatch.cli.console import Console  # noqa: PLC0415
    from peerwatch.studies import tune as work  # noqa: PLC0415
    from peerwatch.studies.sweep_table import SettingGrid  # noqa: PLC0415

    costs = work.Costs(*(1.0 if cost is None else cost for cost in (miss, false_alarm)))
    console = Console(quiet=False, bar=True)
    kernels.load(console.compiling, console.uncached)
    chosen = None if miss is None and false_alarm is None else costs
    record = anyio.run(partial(work.tune, layers, SettingGrid(D, T, k), console, labels=labels, costs=chosen))
    if isinstance(record, signal.Signals):
        console.warning("interrupted; nothing has been written")
        sys.exit(128 + record)
    click.echo(msgspec.json.encode(record) if as_json else work.as_text(record))
    if plot is not None:
        from peerwatch.studies.tune_picture import draw_tuning  # noqa: PLC0415

        draw_tuning(record, plot)
