"""Formats an evaluation as text and as a page with pictures."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Final, NamedTuple

import msgspec

from peerwatch.errors import RunError
from peerwatch.studies.evaluation import pictures
from peerwatch.studies.evaluation.crossing import Crossed, EvaluationRecord, Result, Section
from peerwatch.studies.evaluation.metrics import LabelledFigures, UnlabelledFigures
from peerwatch.studies.generate import vacant
from peerwatch.studies.pictures import check_installed

PAGE: Final = "evaluation.md"
FIGURES: Final = "results.json"
BESIDE: Final = "evaluation"
"""The directory beside the pages for figures and pictures."""
TEMPLATE: Final = Path(__file__).with_name("page.md")
WIDTH: Final = 1000
"""The width of a table in characters, so that no cell is cut."""


class FigureTable(NamedTuple):
    """A table whose first column is text and whose other columns are metrics."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def as_text(record: EvaluationRecord) -> str:
    """Format all sections as text for a terminal."""
    return "\n\n".join("\n".join((*_about(section), "", as_plain(_figures(section)))) for section in record.sections)


def _about(section: Section) -> list[str]:
    known = "without labels" if section.anomalous is None else f"{section.anomalous:,} of them anomalous"
    skipped = [f"{result.method} is left out: {result.skipped}" for result in section.results if result.skipped]
    return [f"{section.data}: {section.rows:,} rows, the last {section.judged:,} judged, {known}", *skipped]


def _figures(section: Section) -> FigureTable:
    if section.anomalous is None:
        header = ["detector", "flagged", "no score", "silhouette", "Calinski-Harabasz", "Davies-Bouldin"]
        rows = [_apart(result, result.unlabelled) for result in section.results if result.unlabelled is not None]
        return FigureTable(header, rows)
    header = [
        "detector", "precision", "recall", "F1", "accuracy", "ROC-AUC", "PR-AUC", "F1, folds", "ROC-AUC, folds",
        "TP", "FP", "FN", "TN", "no score",
    ]  # fmt: skip
    return FigureTable(
        header, [_met(result, result.labelled) for result in section.results if result.labelled is not None]
    )


def _apart(result: Result, found: UnlabelledFigures) -> list[str]:
    indices = (found.silhouette, found.calinski_harabasz, found.davies_bouldin)
    return [result.method, f"{result.flagged:,}", f"{result.no_score:,}", *map(figure, indices)]


def _met(result: Result, found: LabelledFigures) -> list[str]:
    shares = (found.precision, found.recall, found.f1, found.accuracy, found.roc_auc, found.pr_auc)
    counts = (found.true_positives, found.false_positives, found.false_negatives, found.true_negatives, result.no_score)
    folds = (_spread(found.f1_mean, found.f1_sd), _spread(found.roc_auc_mean, found.roc_auc_sd))
    return [result.method, *map(figure, shares), *folds, *(f"{each:,}" for each in counts)]


def figure(value: float | None) -> str:
    """Format a metric; a dash if it is undefined."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3f}"


def _spread(mean: float | None, sd: float | None) -> str:
    return f"{figure(mean)} ± {figure(sd)}" if mean is not None else "-"


def _kinds(section: Section) -> FigureTable:
    """Tabulate how many rows of each kind each detector flags; empty if kinds are unknown."""
    rows = [
        [result.method, *(f"{found.flagged} of {found.rows}" for found in result.kinds), f"{_false(result):,}"]
        for result in section.results
        if result.kinds
    ]
    kinds = [found.kind for result in section.results for found in result.kinds]
    return FigureTable(("detector", *dict.fromkeys(kinds), "normal"), rows)


def _false(result: Result) -> int:
    return result.flagged - sum(found.flagged for found in result.kinds)


def _overview(record: EvaluationRecord) -> FigureTable:
    """Tabulate F1 and average precision of each detector on all labelled data."""
    sections = [section for section in record.sections if section.anomalous is not None]
    rows: dict[str, dict[str, str]] = {}
    for section in sections:
        for result in section.results:
            if result.labelled is not None:
                cell = f"{figure(result.labelled.f1)}, {figure(result.labelled.pr_auc)}"
                rows.setdefault(result.method, {})[section.data] = cell
    names = [section.data for section in sections]
    return FigureTable(
        ["detector", *names], [[method, *(cells.get(name, "") for name in names)] for method, cells in rows.items()]
    )


def as_plain(grid: FigureTable) -> str:
    """Format a table for a terminal."""
    from rich.console import Console as RichConsole  # noqa: PLC0415 (slow to import)
    from rich.table import Table  # noqa: PLC0415

    found = Table(box=None, pad_edge=False, show_edge=False)
    for place, name in enumerate(grid.header):
        found.add_column(name, justify="right" if place else "left")
    for row in grid.rows:
        found.add_row(*row)
    out = io.StringIO()
    RichConsole(file=out, width=WIDTH, highlight=False).print(found)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def as_markdown(grid: FigureTable) -> str:
    """Format a table as Markdown."""
    lines = [grid.header, ["---", *["--:"] * (len(grid.header) - 1)], *grid.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_page(record: EvaluationRecord) -> str:
    """Format the record as a Markdown page with links to its pictures."""
    sections = []
    for section in record.sections:
        about, *skipped = _about(section)
        parts = [f"## {section.data}", about.partition(": ")[2].capitalize() + ".", *skipped]
        parts.append(as_markdown(_figures(section)))
        kinds = _kinds(section)
        if kinds.rows:
            parts += ["Flagged rows of each kind:", as_markdown(kinds)]
        sections.append("\n\n".join([*parts, f"![{section.data}]({_picture(section)})"]))
    overview = _overview(record)
    if len(overview.header) > 2:
        sections.insert(0, f"## All together\n\nF1 and PR-AUC of each detector:\n\n{as_markdown(overview)}")
    text = Template(TEMPLATE.read_text(encoding="utf-8"))
    return text.substitute(made=record.made, folds=record.folds, parts=record.folds + 1, sections="\n\n".join(sections))


def _picture(section: Section) -> str:
    return f"{BESIDE}/{Path(section.data).stem}.png"


def places(directory: Path, names: Sequence[str], *, force: bool) -> None:
    """Make the directories for a page about data with these names, and check that it can be written.

    Raises:
        UsageError: matplotlib is not installed, a file exists and `force` is not set, or a directory cannot be made.
    """
    check_installed()
    check_vacant(directory, PAGE, [FIGURES, *(f"{Path(name).stem}.png" for name in names)], force=force)


def check_vacant(directory: Path, page: str, beside: Sequence[str], *, force: bool) -> None:
    """Make the directories for a page and the files `beside` it, and check that they can be written.

    Raises:
        UsageError: a file exists and `force` is not set, or a directory cannot be made.
    """
    vacant(directory, [page], force=force)
    vacant(directory / BESIDE, beside, force=force)


def write(directory: Path, record: EvaluationRecord, crossed: Sequence[Crossed]) -> list[Path]:
    """Write the page, its figures as JSON and its pictures. Returns their paths.

    The same record gives the same bytes.

    Raises:
        RunError: a file could not be written.
    """
    written = write_page(directory, PAGE, as_page(record), FIGURES, record)
    with _told(directory):
        for each in crossed:
            written.append(directory / _picture(each.section))
            pictures.draw(each, written[-1])
    return written


def write_page(directory: Path, page: str, text: str, figures: str, record: msgspec.Struct) -> list[Path]:
    """Write a page, and the record of its figures as JSON beside it. Returns their paths.

    Raises:
        RunError: a file could not be written.
    """
    written = [directory / page, directory / BESIDE / figures]
    with _told(directory):
        written[0].write_text(text, encoding="utf-8")
        written[1].write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    return written


@contextmanager
def _told(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write into {directory}: {error.strerror}") from None
