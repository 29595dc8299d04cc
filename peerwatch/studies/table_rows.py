"""The rows of a table as a detector gets them: in order of time, missing values filled in, earlier values added."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peerwatch.detectors.base import Floats, Mask
from peerwatch.errors import UsageError
from peerwatch.kernels import Int64s
from peerwatch.studies.csv_table import MICROS, CsvTable
from peerwatch.studies.datasets.stats import NO_MEASURES

IMPUTE: Final = ("median", "previous", "linear")
"""What fills in a missing value: its column's median, the value before it, or what lies between its neighbours."""
TIME: Final = "timestamp"
"""The column whose times are used, unless another is named."""
UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
DURATION: Final = re.compile(r"(\d+)([smhd]?)")


class TableOptions(NamedTuple):
    """How the rows of a table are judged.

    With `window` each row is judged by that many rows before it, with `by` by those of the same id in that column; a
    detector that learns is trained again after `every` rows. `lags` earlier values of each column are columns of their
    own. `impute` fills in missing values. After an alarm none is given for `quiet`: a number of rows, or a time as 30m.
    `time` is the column with the times.
    """

    window: int | None = None
    every: int = 100
    by: str | None = None
    lags: int = 0
    impute: str | None = None
    quiet: str | None = None
    time: str | None = None

    @property
    def own_past(self) -> bool:
        """Whether each row is judged by rows before it only."""
        return self.window is not None or self.by is not None

    @property
    def in_order(self) -> bool:
        """Whether the order of rows matters, whatever the detector."""
        return self.own_past or self.lags > 0 or self.quiet is not None or self.impute in {"previous", "linear"}


PLAIN: Final = TableOptions()
"""Each row is judged knowing all of them."""


@dataclass(frozen=True)
class NamedRows:
    """Rows with the names of their columns, and an index of times, as detectors take them from tables of pandas."""

    values: Floats
    columns: Sequence[str]
    index: NDArray[np.datetime64] | None

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> Floats:  # noqa: FBT001
        """The values, as numpy asks for them."""
        return self.values


class TableRows(NamedTuple):
    """The judged rows of a table by group, each in order of time, and their places in the table.

    Without a column of ids there is one group.
    """

    names: list[str]
    groups: list[tuple[Int64s, Floats]]
    times: Int64s | None

    def named(self, places: Int64s, values: Floats) -> NamedRows:
        """Rows with their names and times."""
        times = None if self.times is None else self.times[places].astype("datetime64[us]")
        return NamedRows(values, self.names, times)

    def alarms(self, flagged: Mask, quiet: str | None) -> Mask:
        """Which flagged rows of the table to tell of: of a group none within the quiet time after an alarm.

        Raises:
            UsageError: the quiet time is none, or there are no times to measure it in.
        """
        if quiet is None:
            return flagged
        found = DURATION.fullmatch(quiet)
        if found is None:
            raise UsageError(f"--quiet-time {quiet}: expected a number of rows, or a time as 90s, 30m, 12h or 7d")
        if found[2] and self.times is None:
            raise UsageError(f"--quiet-time {quiet}: there are no times; name their column with --time")
        length = int(found[1]) * UNITS.get(found[2], 1) * (MICROS if found[2] else 1)
        told = np.zeros_like(flagged)
        for places, _ in self.groups:
            at = self.times[places] if found[2] and self.times is not None else np.arange(len(places))
            last: int | None = None
            for place, moment in zip(places[flagged[places]].tolist(), at[flagged[places]].tolist(), strict=True):
                if last is None or moment - last > length:
                    told[place], last = True, moment
        return told


def columns_to_judge(sheet: CsvTable, named: Sequence[str], ranges: Sequence[str], options: TableOptions) -> list[str]:
    """Return the columns to judge: those named, those of the ranges, or without either all that begin with a number.

    Raises:
        UsageError: a column does not exist or is named twice, or there is none.
    """
    but = (*NO_MEASURES, options.by, options.time)
    numeric = sheet.numeric(but)
    for place, column in enumerate(named):
        if column in named[:place]:
            raise UsageError(f"--column {column}: given twice")
    columns = [*dict.fromkeys([*named, *(column for text in ranges for column in sheet.between(text, numeric))])]
    if not columns and not named and not ranges:
        columns = numeric
    if not columns:
        raise UsageError(f"{sheet.name}:{sheet.first}: no column begins with a number; name those to judge")
    for column in columns:
        sheet.texts(column)
    return columns


def rows_of(sheet: CsvTable, columns: Sequence[str], options: TableOptions, *, in_order: bool) -> TableRows:
    """Return the rows to judge. With `in_order` they are put in order of time, if the table has times.

    Raises:
        UsageError: a column does not exist, or a value is none that can be judged.
    """
    values = np.column_stack([sheet.numbers(column, missing=True) for column in columns])
    in_order = in_order or options.in_order
    time = options.time or (TIME if in_order and TIME in sheet.header else None)
    times = sheet.times(time) if time is not None else None
    order = np.argsort(times, kind="stable") if times is not None else np.arange(len(values))
    groups = []
    for places in _groups(sheet, options.by, order):
        filled = _imputed(sheet, columns, values[places], places, options.impute)
        groups.append(_lagged(places, filled, options.lags))
    names = [*columns, *(f"{column} {lag} before" for lag in range(1, options.lags + 1) for column in columns)]
    return TableRows(names, groups, times)


def _groups(sheet: CsvTable, by: str | None, order: Int64s) -> list[Int64s]:
    """The places of each id's rows, in order."""
    if by is None:
        return [order]
    _, ids = np.unique(np.array(sheet.texts(by), dtype=np.str_), return_inverse=True)
    return [order[ids[order] == each] for each in range(ids.max(initial=-1) + 1)]


def _imputed(sheet: CsvTable, columns: Sequence[str], values: Floats, places: Int64s, impute: str | None) -> Floats:
    """The values with what is missing filled in.

    Raises:
        UsageError: something is missing, and nothing is to be filled in, or there is nothing to fill it in with.
    """
    filled = values.copy()
    for column, name in enumerate(columns):
        missing = np.isnan(values[:, column])
        if not missing.any():
            continue
        line = sheet.lines[places[np.argmax(missing)]]
        if impute is None:
            raise UsageError(f'{sheet.name}:{line}: "{name}" has no value; --impute fills in what is missing')
        known = np.flatnonzero(~missing)
        if not len(known):
            raise UsageError(f'{sheet.name}:{line}: "{name}" has no value in any row to fill it in with')
        gaps = np.flatnonzero(missing)
        if impute == "median":
            filled[gaps, column] = np.median(values[known, column])
        elif impute == "linear":
            filled[gaps, column] = np.interp(gaps, known, values[known, column])
        else:
            before = np.maximum(np.searchsorted(known, gaps) - 1, 0)  # in front of the first known one: that one
            filled[gaps, column] = values[known[before], column]
    return filled


def _lagged(places: Int64s, values: Floats, lags: int) -> tuple[Int64s, Floats]:
    """Each row with the values of `lags` rows before it; the first rows, which have not as many, are left out."""
    if not lags:
        return places, values
    parts = [values[lags - lag : max(len(values) - lag, 0)] for lag in range(lags + 1)]
    return places[lags:], np.column_stack(parts) if len(values) > lags else np.empty((0, values.shape[1] * (lags + 1)))
