"""`peerwatch evaluate`."""

from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from peerwatch.cli.options import DIRECTORY, FILE, METHOD_SETTINGS, layers_of, parameters_of, window_options
from peerwatch.errors import UsageError

DEFAULTS: Final = {"rows": 10_000, "seed": 1}
"""Defaults of the options for data sets."""
ONLY: Final = {
    "rows": "the data sets", "seed": "the data sets", "dataset": "the data sets",
    "label": "a table", "column": "a table", "labels": "logs", "D": "logs", "T": "logs", "friendships": "logs",
}  # fmt: skip
"""What each option applies to, for options that do not apply to everything."""


@click.command()
@click.argument("paths", nargs=-1, type=FILE, metavar="[FILE.csv | BATCH STREAM]")
@click.option("--benchmarks", type=DIRECTORY, metavar="FOLDER", help="Instead, the public benchmarks in FOLDER.")
@click.option("--dataset", multiple=True, metavar="NAME", help="Only this data set; repeatable.")
@click.option("--rows", type=click.IntRange(500), help="Rows of each data set. Default: 10000.")
@click.option("--seed", type=click.IntRange(0), help="Seed of the data sets. Default: 1.")
@click.option("--label", metavar="COLUMN", help="The column of FILE.csv that is 1 in anomalous rows, 0 in others.")
@click.option("--column", multiple=True, metavar="NAME", help="Only this column of FILE.csv; repeatable.")
@click.option("--labels", type=FILE, metavar="FILE", help="A file that names the anomalous lines of STREAM.")
@window_options
@click.option("--method", multiple=True, metavar="NAME", help="Only this detector; repeatable.")
@METHOD_SETTINGS
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--write", "directory", type=DIRECTORY, metavar="DIR", help="Also write a page with pictures into DIR.")
@click.option("--force", is_flag=True, help="Overwrite existing files in DIR.")
def evaluate(
    paths: tuple[Path, ...],
    *,
    benchmarks: Path | None,
    method: tuple[str, ...],
    settings: tuple[str, ...],
    as_json: bool,
    directory: Path | None,
    force: bool,
    **options: Any,
) -> None:
    """Measure how well detectors find anomalies.

    Without a file every detector is tried on every seeded data set. A table of your own is judged by the columns that
    begin with a number (except timestamp, id, label and kind), logs by the windows of their networks. In logs the rows
    are the purchases of the stream log, whose lines labels name; those of the batch log are only in windows. Rows must
    be in order of time: a detector is fitted on some rows and judges those that come next. Without labels the figures
    say how far apart flagged and normal rows are.

    With --benchmarks each detector is fitted on whole labelled tables, as those of ADBench, and stands beside PyOD's;
    series, as those of NAB, are scored by NAB's rules, beside the published scores.

    \b
    peerwatch evaluate
    peerwatch evaluate --dataset cards --method mad --set k=5
    peerwatch evaluate sensors.csv --label label --column pressure
    peerwatch evaluate batch_log.json stream_log.json --labels labels.json --write report/
    peerwatch evaluate --benchmarks folder --method knn
    """  # noqa: D301 (click wants the character \b before text that is not to be wrapped)
    what = "the benchmarks" if benchmarks is not None else _what(paths, options)
    _check_options(what, paths, options)
    parameters = parameters_of(settings)
    if parameters and len(method) != 1:
        raise UsageError("--set is for one detector; name it with --method, and no other")
    methods = list(dict.fromkeys(method))
    import msgspec  # noqa: PLC0415 (--help and mistakes answer at once)

    from peerwatch import kernels  # noqa: PLC0415
    from peerwatch.cli.console import Console  # noqa: PLC0415
    from peerwatch.studies.datasets.registry import DATASETS  # noqa: PLC0415
    from peerwatch.studies.datasets.table import DatasetOrder  # noqa: PLC0415
    from peerwatch.studies.evaluation import evaluate as work  # noqa: PLC0415
    from peerwatch.studies.evaluation.crossing import FOLDS, EvaluationRecord, check_learn  # noqa: PLC0415
    from peerwatch.studies.evaluation.data import Data  # noqa: PLC0415
    from peerwatch.studies.evaluation.page import as_text, places, write  # noqa: PLC0415

    check_learn()
    console = Console(quiet=False, bar=True)
    if benchmarks is not None:
        _evaluate_benchmarks(benchmarks, methods, parameters, console, directory, as_json=as_json, force=force)
        return
    data: list[Data]
    if what == "a table":
        made = paths[0].name
        data = [work.table(paths[0], options["column"], options["label"])]
    elif what == "logs":
        kernels.load(console.compiling, console.uncached)
        made = paths[-1].name
        windows = {name: options[name] for name in ("D", "T", "friendships")}
        data = [work.logs(made, layers_of(tuple(map(str, paths)), None, windows, output=False), options["labels"])]
    else:
        kernels.load(console.compiling, console.uncached)
        order = DatasetOrder(
            **{name: value if options[name] is None else options[name] for name, value in DEFAULTS.items()}
        )
        made = f"data sets of {order.rows:,} rows, of which {order.anomalies:.0%} are anomalous; seed {order.seed}"
        data = [work.data_set(name, order) for name in dict.fromkeys(options["dataset"] or DATASETS)]
    if directory is not None:
        places(directory, [each.name for each in data], force=force)
    crossed = work.evaluate(data, methods, parameters, console)
    if parameters:
        made += f"; {method[0]} with {', '.join(f'{name}={value}' for name, value in parameters.items())}"
    record = EvaluationRecord(made=made, folds=FOLDS, sections=[each.section for each in crossed])
    click.echo(msgspec.json.encode(record) if as_json else as_text(record))
    for path in write(directory, record, crossed) if directory is not None else ():
        click.echo(path, err=True)


def _evaluate_benchmarks(
    folder: Path,
    methods: list[str],
    parameters: dict[str, Any],
    console: Any,
    directory: Path | None,
    *,
    as_json: bool,
    force: bool,
) -> None:
    """Measure on the series and the tables that lie in the folder, whichever are there."""
    import msgspec  # noqa: PLC0415

    from peerwatch.studies.evaluation import benchmark_page as of_tables  # noqa: PLC0415
    from peerwatch.studies.evaluation import nab_page as of_series  # noqa: PLC0415
    from peerwatch.studies.evaluation.benchmarks import evaluate_tables  # noqa: PLC0415
    from peerwatch.studies.evaluation.nab import evaluate_series, series_in  # noqa: PLC0415

    series, parts = series_in(folder), list[tuple[Any, ...]]()
    if series is not None:
        score = partial(evaluate_series, series)
        parts.append((of_series.check_nab_vacant, score, of_series.nab_as_text, of_series.write_nab))
    if series is None or any(folder.rglob("*.npz")):
        measure = partial(evaluate_tables, folder)
        parts.append(
            (of_tables.check_benchmarks_vacant, measure, of_tables.benchmarks_as_text, of_tables.write_benchmarks)
        )
    for check, *_ in parts if directory is not None else ():
        check(directory, force=force)
    for _, evaluated, as_text, write in parts:
        record = evaluated(methods, parameters, console)
        click.echo(msgspec.json.encode(record) if as_json else as_text(record))
        for path in write(directory, record) if directory is not None else ():
            click.echo(path, err=True)


def _what(paths: tuple[Path, ...], options: dict[str, Any]) -> str:
    """Return what is to be evaluated: data sets, a table or logs."""
    if not paths:
        return "the data sets"
    return "a table" if len(paths) == 1 and options["labels"] is None else "logs"


def _check_options(what: str, paths: tuple[Path, ...], options: dict[str, Any]) -> None:
    """Check that there are not too many paths, and that the options apply.

    Raises:
        UsageError: there are, or one does not.
    """
    if len(paths) > 2:
        raise UsageError(f"name FILE.csv, or BATCH STREAM, or nothing for the data sets; got {len(paths)}")
    if paths and what == "the benchmarks":
        raise UsageError(f"--benchmarks names the folder of the tables; leave {paths[0]} out")
    for name, value in options.items():
        if value not in {None, ()} and ONLY[name] != what:
            raise UsageError(f"--{name} is for {ONLY[name]}; this is about {what}")
