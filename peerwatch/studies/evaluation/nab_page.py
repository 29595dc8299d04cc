"""Formats scores by NAB's rules as text and as a page."""

from pathlib import Path
from typing import Final

from peerwatch.detectors.series.causal import WINDOW
from peerwatch.studies.evaluation.nab import EVERY, LAGS, PROBATION, PROFILES, QUIET, ROWS, NabRecord
from peerwatch.studies.evaluation.page import FigureTable, as_markdown, as_plain, check_vacant, write_page

PAGE: Final = "nab.md"
FIGURES: Final = "nab.json"
ABOUT: Final = """\
# Series: the Numenta Anomaly Benchmark

Made by `peerwatch evaluate --benchmarks FOLDER --write` from the series that lie in FOLDER/nab: {series} series of
{values:,} values in all, with {windows} labelled windows. The data are not part of the project.

Each value is judged by those before it. Scores are by NAB's rules (Lavin and Ahmad, 2015), which are written anew
here because NAB's own code needs old versions of its libraries: the first {probation:.0%} of a series (750 values at
most) are not judged; one threshold for all series is chosen for each detector and profile, the best; in each labelled
window the earliest detection counts, the more the earlier it is; each detection outside costs, and each window
without one. 0 is a detector that never detects anything, 100 one that makes no mistake.

A rule judges a value by the {window:,} before it, a rule with a memory by all. A detector that learns gets rows of the
latest {lags} values, and is fitted again every {every} values, on the latest {rows:,} rows. `zscore` is then NAB's
`windowedGaussian`. Parameters are the defaults. Where a detector is "told once", an alarm (a score above the detector's
own threshold) keeps the scores after it at that threshold for {quiet:.0%} of the rows that are not judged, as KNN-CAD
does: a user is told of an anomaly once. Published scores are over all seven groups of NAB, so they stand beside
ours for comparison only, unless all seven lie in FOLDER.
"""


def nab_as_text(record: NabRecord) -> str:
    """Format the scores as text for a terminal."""
    head = f"NAB: {record.series} series of {record.values:,} values, {record.windows} labelled windows"
    return "\n".join([head, "", as_plain(_table(record)), *_skipped(record)])


def nab_as_page(record: NabRecord) -> str:
    """Format the scores as a Markdown page."""
    about = ABOUT.format(
        series=record.series, values=record.values, windows=record.windows, probation=PROBATION, window=WINDOW,
        lags=LAGS, every=EVERY, rows=ROWS, quiet=QUIET,
    )  # fmt: skip
    return "\n".join([about, as_markdown(_table(record)), *(f"\n{line}" for line in _skipped(record)), ""])


def check_nab_vacant(directory: Path, *, force: bool) -> None:
    """Make the directory, and check that the page can be written.

    Raises:
        UsageError: a file exists and `force` is not set, or the directory cannot be made.
    """
    check_vacant(directory, PAGE, [FIGURES], force=force)


def write_nab(directory: Path, record: NabRecord) -> list[Path]:
    """Write the page and its figures as JSON. Returns their paths.

    Raises:
        RunError: a file could not be written.
    """
    return write_page(directory, PAGE, nab_as_page(record), FIGURES, record)


def _table(record: NabRecord) -> FigureTable:
    """Tabulate all scores, the best first."""
    rows = [(each.method, {name: score.score for name, score in each.scores.items()}) for each in record.results]
    rows += [(f"published: {name}", scores) for name, scores in record.published.items()]
    known = sorted((row for row in rows if row[1]), key=lambda row: -row[1]["standard"])
    return FigureTable(
        ["detector", *(name.replace("_", " ") for name in PROFILES)],
        [[method, *(f"{scores[name]:.1f}" for name in PROFILES)] for method, scores in known],
    )


def _skipped(record: NabRecord) -> list[str]:
    return [f"{each.method} is left out: {each.skipped}" for each in record.results if each.skipped]
