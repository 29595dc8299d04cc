"""Formats the figures of public benchmarks as text and as a page."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from peerwatch.studies.evaluation.benchmarks import PYOD, SLOW, BenchmarkRecord, BenchmarkResult
from peerwatch.studies.evaluation.page import FigureTable, as_markdown, as_plain, check_vacant, figure, write_page

PAGE: Final = "benchmarks.md"
FIGURES: Final = "benchmarks.json"
ABOUT: Final = """\
# Public benchmarks

Made by `peerwatch evaluate --benchmarks FOLDER --write`, from {count} labelled tables of ADBench (Han et al., 2022).
The tables are not part of the project: they lie in FOLDER, or in its folder `adbench`, an `.npz` file each with the
arrays `X` and `y`.

Every detector has its default parameters. It is fitted on a whole table and scores it, and never sees the labels: that
is how these tables are used elsewhere, and unlike [evaluation.md](evaluation.md), where it judges rows that come later.
ROC-AUC is how likely the score of an anomalous row is above that of a normal one, PR-AUC the average precision. PyOD's
detectors are measured on the same rows in standard deviations, with their defaults. From tables of more than 10,000
rows as many are drawn. The same command gives the same figures. {slow} take minutes
to be trained on all tables, and are measured only if they are named.
"""


def benchmarks_as_text(record: BenchmarkRecord) -> str:
    """Format the means over all tables, and what failed, as text for a terminal."""
    return "\n".join([as_plain(_means(record)), *_failures(record)])


def benchmarks_as_page(record: BenchmarkRecord) -> str:
    """Format the means and the figures of each table as a Markdown page."""
    parts = [
        ABOUT.format(count=len(record.tables), slow=" and ".join(f"`{name}`" for name in SLOW)),
        f"## Means over the tables\n\n{as_markdown(_means(record))}\n",
        *(f"{line}\n" for line in _failures(record)),
        f"## ROC-AUC of each table\n\n{as_markdown(_each(record, 'roc_auc'))}\n",
        f"## PR-AUC of each table\n\n{as_markdown(_each(record, 'pr_auc'))}\n",
    ]
    return "\n".join(parts)


def check_benchmarks_vacant(directory: Path, *, force: bool) -> None:
    """Make the directory, and check that the page can be written.

    Raises:
        UsageError: a file exists and `force` is not set, or the directory cannot be made.
    """
    check_vacant(directory, PAGE, [FIGURES], force=force)


def write_benchmarks(directory: Path, record: BenchmarkRecord) -> list[Path]:
    """Write the page and its figures as JSON. Returns their paths.

    Raises:
        RunError: a file could not be written.
    """
    return write_page(directory, PAGE, benchmarks_as_page(record), FIGURES, record)


def _means(record: BenchmarkRecord) -> FigureTable:
    """Tabulate the means over all tables, each detector beside PyOD's; PyOD's others come last."""
    of: dict[str, list[BenchmarkResult]] = {}
    for result in record.results:
        of.setdefault(result.method, []).append(result)
    peers = {name: f"PyOD {path.partition(':')[2]}" for name, path in PYOD.items()}
    ours = [name for name in of if not name.startswith("PyOD ")]
    others = [name for name in of if name not in {*ours, *(peers.get(name) for name in ours)}]
    rows = [[name, *_mean_areas(of[name]), *_mean_areas(of.get(peers.get(name, ""), []))] for name in ours]
    rows += [[name, "", "", *_mean_areas(of[name])] for name in others]
    return FigureTable(["detector", "ROC-AUC", "PR-AUC", "PyOD's ROC-AUC", "PyOD's PR-AUC"], rows)


def _mean_areas(results: Sequence[BenchmarkResult]) -> list[str]:
    if not results:
        return ["", ""]
    return [_mean(result.roc_auc for result in results), _mean(result.pr_auc for result in results)]


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return figure(sum(known) / len(known) if known else None)


def _failures(record: BenchmarkRecord) -> list[str]:
    return [
        f"{result.method} is left out of {result.table}: {result.failed}" for result in record.results if result.failed
    ]


def _each(record: BenchmarkRecord, measure: str) -> FigureTable:
    """Tabulate one measure, a row a table, a column a detector of ours."""
    found = {(result.table, result.method): figure(getattr(result, measure)) for result in record.results}
    methods = [*dict.fromkeys(result.method for result in record.results if not result.method.startswith("PyOD "))]
    rows = [[table, *(found.get((table, method), "") for method in methods)] for table in record.tables]
    return FigureTable(["table", *methods], rows)
