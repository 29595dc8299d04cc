"""Compares the settings of a sweep; formats the result as a record, text or CSV."""

import csv
import io
from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from peerwatch.kernels import Int64s
from peerwatch.network.statistics import shown_k

WIDTH: Final = 1000
"""The width of the table in characters, large enough that no cell is cut."""
COLUMNS: Final = ("D", "T", "k", "flagged", "share", "shared", "jaccard", "precision", "recall")
"""The columns of the table, which are the fields of a cell."""


class SettingGrid(NamedTuple):
    """The settings to try: every combination of D, T and k, each sorted."""

    D: Sequence[int]
    T: Sequence[int]
    k: Sequence[float]

    def settings(self) -> "list[Setting]":
        """All settings, in the order in which verdicts are counted."""
        return [Setting(*setting) for setting in product(*self)]


class Setting(NamedTuple):
    """A setting: one D, T and k."""

    D: int
    T: int
    k: float

    @property
    def shown_k(self) -> str:
        """Its k in decimals."""
        return shown_k(Fraction(repr(self.k)))

    @property
    def file_name(self) -> str:
        """The name of its file of flagged purchases."""
        return f"D{self.D}-T{self.T}-k{self.shown_k}.json"


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What one setting flags of the judged purchases.

    `shared` counts purchases that the current setting flags as well. `jaccard` is their share of the purchases that
    either flags, 1 if neither flags any. `precision` is the share of flagged purchases that are labelled, `recall` the
    share of labelled purchases that are flagged. These are null if undefined or without labels.
    """

    D: int
    T: int
    k: float
    flagged: int
    share: float
    shared: int
    jaccard: float
    precision: float | None
    recall: float | None


class SweepRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The results of all settings. `current` is the index of the setting that the others are compared with.

    `shared[i][j]` is the number of purchases that both setting i and setting j flag, `jaccard[i][j]` their share of the
    purchases that either flags.
    """

    judged: int
    labelled: int | None
    current: int
    settings: list[Cell]
    shared: list[list[int]]
    jaccard: list[list[float]]


def compared(
    settings: Sequence[Setting], own: Setting, judged: int, shared: Int64s, *, has_labels: bool
) -> SweepRecord:
    """Make the record of a sweep from the number of purchases that any two settings both flag.

    `shared` has shape [settings + 1, settings + 1]; the labels come last, as if they were a setting.
    """
    flagged = np.diag(shared)
    jaccard = _jaccard(shared)
    current = settings.index(own) if own in settings else 0
    cells = [
        Cell(
            D=setting.D,
            T=setting.T,
            k=setting.k,
            flagged=int(flagged[i]),
            share=int(flagged[i]) / judged,
            shared=int(shared[i, current]),
            jaccard=float(jaccard[i, current]),
            precision=int(shared[i, -1]) / int(flagged[i]) if has_labels and flagged[i] else None,
            recall=int(shared[i, -1]) / int(flagged[-1]) if has_labels and flagged[-1] else None,
        )
        for i, setting in enumerate(settings)
    ]
    return SweepRecord(
        judged=judged,
        labelled=int(flagged[-1]) if has_labels else None,
        current=current,
        settings=cells,
        shared=shared[:-1, :-1].tolist(),
        jaccard=jaccard[:-1, :-1].tolist(),
    )


def _jaccard(shared: Int64s) -> NDArray[np.float64]:
    """Compute the Jaccard index of any two sets from the sizes of their intersections."""
    size = np.diag(shared)
    either = size[:, None] + size - shared
    return np.where(either, shared / np.maximum(either, 1), 1.0)


def as_text(record: SweepRecord) -> str:
    """Format the settings as a table, with the current one marked."""
    from rich.console import Console as RichConsole  # noqa: PLC0415 (slow to import)
    from rich.table import Table  # noqa: PLC0415

    names = COLUMNS if record.labelled is not None else COLUMNS[:-2]
    table = Table(box=None, pad_edge=False, show_edge=False)
    for name in names:
        table.add_column(name, justify="right")
    table.add_column()
    for place, cell in enumerate(record.settings):
        texts = {
            "k": Setting(cell.D, cell.T, cell.k).shown_k, "flagged": f"{cell.flagged:,}", "share": f"{cell.share:.2%}",
            "shared": f"{cell.shared:,}", "jaccard": f"{cell.jaccard:.3f}",
            "precision": _ratio(cell.precision), "recall": _ratio(cell.recall),
        }  # fmt: skip
        row = [texts.get(name, str(getattr(cell, name))) for name in names]
        table.add_row(*row, "current" if place == record.current else "")
    out = io.StringIO()
    RichConsole(file=out, width=WIDTH, highlight=False).print(table)
    labelled = f", {record.labelled:,} of them labelled" if record.labelled is not None else ""
    lines = [f"{record.judged:,} purchases judged{labelled}", "", *out.getvalue().splitlines()]
    return "\n".join(line.rstrip() for line in lines)


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def as_csv(record: SweepRecord) -> str:
    """Format the settings as CSV with a header line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(cell, name) for name in COLUMNS] for cell in record.settings)
    return out.getvalue().removesuffix("\n")
