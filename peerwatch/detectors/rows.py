"""Rows of a table as detectors get them: their column names, what is typical of them, and why a row stands out."""

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from peerwatch.errors import BadInput, NotFitted
from peerwatch.kernels import Int64s

Floats = NDArray[np.float64]
Names = NDArray[np.object_]

NORMAL_MAD: Final = 0.6745
"""The third quartile of the standard normal distribution: a MAD is that many standard deviations."""
NORMAL_MEAN_AD: Final = 1.253314
"""A normal distribution's standard deviation, in mean absolute deviations."""
LEAST_SPREAD: Final = 1e-150
"""The unit of distances where there is no spread at all: what is further away still scores higher."""
TOLD: Final = 3
"""The most columns that a reason names."""
WORTH: Final = 0.25
"""A reason names the columns that contribute at least this share of what the most unusual one does."""
SHOWN: Final = 5
"""The most names that a message lists."""


class Reason(NamedTuple):
    """A column that makes a row unusual.

    `distance` is how far the value lies from the median of the rows fitted on, in robust standard deviations (negative
    if below). `contribution` is by how much the column raises the row's score.
    """

    column: int
    name: str
    value: float
    distance: float
    contribution: float


class Reference(NamedTuple):
    """What is typical of the rows that a detector was fitted on, by column: medians and robust standard deviations."""

    typical: Floats
    spread: Floats

    @classmethod
    def of(cls, rows: Floats) -> Self:
        """The reference for rows of shape [n, columns]."""
        with np.errstate(over="ignore", invalid="ignore"):
            typical = np.median(rows, axis=0)
            return cls(typical, deviation(np.ascontiguousarray(rows.T), typical))

    def distance(self, rows: Floats) -> Floats:
        """How far rows lie from the typical one, in its spread; negative below it. Shape [n, columns]."""
        with np.errstate(over="ignore", invalid="ignore"):
            return (rows - self.typical) / self.spread


def deviation(window: Floats, middle: Floats) -> Floats:
    """Robust standard deviations of m windows of n values around their middles; shapes [m, n] and [m].

    The median absolute deviation decides; where more than half of the values are the same it is 0, and the mean
    absolute deviation takes its place (Iglewicz and Hoaglin, 1993).
    """
    away = np.abs(window - middle[:, None])
    median, mean = np.median(away, axis=1) / NORMAL_MAD, away.mean(axis=1) * NORMAL_MEAN_AD
    spread = np.where(median > 0, median, mean)
    return np.where(spread > 0, spread, LEAST_SPREAD)


def reasons_of(rows: Floats, contributions: Floats, reference: Reference, names: Sequence[str]) -> list[list[Reason]]:
    """For each of n rows the columns that make it unusual, the one that contributes most first.

    Where no column on its own raises the score, those that lie furthest from the typical value stand in.
    """
    distances = reference.distance(rows)
    found = []
    for row, by, distance in zip(rows.tolist(), contributions, distances, strict=True):
        weight = np.nan_to_num(by, nan=0.0, posinf=np.inf, neginf=0.0)
        if not (weight > 0).any():
            weight = np.nan_to_num(np.abs(distance), nan=0.0, posinf=np.inf)
        order = np.argsort(-weight, kind="stable")[:TOLD]
        told = [place for place in order.tolist() if weight[place] >= WORTH * weight[order[0]]]
        found.append([
            Reason(place, names[place], row[place], float(distance[place]), float(by[place])) for place in told
        ])  # fmt: skip
    return found


def names_of(X: Any) -> Names | None:
    """The names of a table's columns, as objects; None if it has none, or others than strings."""
    columns = getattr(X, "columns", None)
    if columns is None or callable(columns):
        return None
    names = [*columns]
    return np.array(names, dtype=object) if names and all(isinstance(name, str) for name in names) else None


def check_names(fitted: Names | None, names: Names | None) -> None:
    """Check that columns are the ones that were fitted, in the same order. Without names on either side all is well.

    Raises:
        BadInput: they are not; the message is scikit-learn's.
    """
    if fitted is None or names is None or fitted.tolist() == names.tolist():
        return
    unseen, missing = sorted({*names} - {*fitted}), sorted({*fitted} - {*names})
    message = "The feature names should match those that were passed during fit.\n"
    if unseen:
        message += f"Feature names unseen at fit time:\n{_listed(unseen)}"
    if missing:
        message += f"Feature names seen at fit time, yet now missing:\n{_listed(missing)}"
    if not unseen and not missing:
        message += "Feature names must be in the same order as they were in fit.\n"
    raise BadInput(message)


def _listed(names: Sequence[str]) -> str:
    shown = [f"- {name}\n" for name in names[:SHOWN]]
    return "".join(shown + ["- ...\n"] * (len(names) > SHOWN))


def not_fitted(name: str) -> NotFitted:
    """The error of a detector that is asked before it has been fitted.

    Whoever has imported scikit-learn can catch it as its NotFittedError.
    """
    library = sys.modules.get("sklearn.exceptions")
    kind = NotFitted if library is None else _known_to(library.NotFittedError)
    return kind(f"{name} has not been fitted; call fit first")


@cache
def _known_to(error: type[Exception]) -> type[NotFitted]:
    return type("NotFitted", (NotFitted, error), {"__module__": NotFitted.__module__, "__doc__": NotFitted.__doc__})


FIT: Final = "fit."
"""What the arrays begin with that hold what is kept of the rows fitted on."""


class Training(NamedTuple):
    """What is kept of the n rows that a detector was fitted on: their scores, what is typical, and the columns' names.

    The shapes of the scores and of the reference's columns are [n] and [columns].
    """

    scores: Floats
    reference: Reference
    names: Names | None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Itself as arrays without objects."""
        arrays: dict[str, NDArray[Any]] = {"scores": self.scores, **self.reference._asdict()}
        if self.names is not None:
            arrays["names"] = self.names.astype(np.str_)
        return {f"{FIT}{name}": array for name, array in arrays.items()}

    @classmethod
    def taken(cls, arrays: dict[str, NDArray[Any]]) -> "Training | None":
        """Take it out of the arrays of a saved detector; None if they are of a version that did not keep it.

        Raises:
            ValueError: the arrays are damaged.
        """
        held = {name: arrays.pop(name) for name in [*arrays] if name.startswith(FIT)}
        if not held:
            return None
        return cls._restored({name.removeprefix(FIT): array for name, array in held.items()})

    @classmethod
    def _restored(cls, held: Mapping[str, NDArray[Any]]) -> Self:
        names = held.get("names")
        floats = [held.get(name, np.empty(0, np.bool_)) for name in ("scores", "typical", "spread")]
        right = (
            len(held) == 3 + (names is not None)
            and all(array.dtype == np.float64 and array.ndim == 1 for array in floats)
            and len(floats[0]) > 0
            and len(floats[1]) == len(floats[2]) > 0
            and (names is None or (names.dtype.kind == "U" and names.shape == floats[1].shape))
        )
        if not right:
            raise ValueError("there is something wrong with what is kept of the rows")
        scores, typical, spread = floats
        return cls(scores, Reference(typical, spread), None if names is None else names.astype(object))


def picked(rows: Floats, places: Int64s | None) -> Floats:
    """Some of the rows; all without places."""
    return rows if places is None else rows[places]
