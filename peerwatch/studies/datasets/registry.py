"""The data sets by name, and the files of each."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from peerwatch.errors import UsageError
from peerwatch.studies.datasets import behaviour, cards, sensors, social, traffic
from peerwatch.studies.datasets.table import Column, DatasetOrder, Table
from peerwatch.studies.generate import NAMES, vacant, write_files


class Dataset(NamedTuple):
    """A data set: its title, columns and kinds of anomalies, and the function that makes its files."""

    about: str
    columns: Sequence[Column]
    kinds: Sequence[str]
    files: Sequence[str]
    make: Callable[[DatasetOrder], Iterable[Iterable[str]]]


def _csv(
    name: str, about: str, columns: Sequence[Column], kinds: Sequence[str], make: Callable[[DatasetOrder], Table]
) -> Dataset:
    return Dataset(about, columns, kinds, (f"{name}.csv",), lambda order: (make(order).lines(columns, kinds),))


AMOUNT: Final = Column("amount", "units of money", "paid in a purchase", 2)
DATASETS: Final = {
    "social": Dataset("purchases in a social network", (AMOUNT,), social.KINDS, NAMES, social.make),
    "cards": _csv("cards", "card transactions: amount, time, place", cards.COLUMNS, cards.KINDS, cards.make),
    "traffic": _csv("traffic", "network traffic of some servers", traffic.COLUMNS, traffic.KINDS, traffic.make),
    "sensors": _csv("sensors", "heat, pressure, vibration of pumps", sensors.COLUMNS, sensors.KINDS, sensors.make),
    "behaviour": _csv("behaviour", "sessions of users", behaviour.COLUMNS, behaviour.KINDS, behaviour.make),
}


def dataset(name: str) -> Dataset:
    """Return the data set with this name.

    Raises:
        UsageError: it does not exist.
    """
    if name not in DATASETS:
        raise UsageError(f"there is no data set {name}; there are {', '.join(DATASETS)}")
    return DATASETS[name]


def write(name: str, directory: Path, order: DatasetOrder, *, force: bool) -> list[Path]:
    """Make a data set and write its files to a directory. Returns their paths.

    Raises:
        UsageError: the data set does not exist, the order cannot be met, a file exists and `force` is not set, or the
            directory cannot be made.
        RunError: a file could not be written.
    """
    found = dataset(name)
    order.counts(found.kinds)  # reject a bad order before making a directory
    paths = vacant(directory, found.files, force=force)
    write_files(paths, found.make(order))
    return paths


def describe() -> str:
    """List the data sets as text, one a line."""
    return "\n".join(f"{name:<11}{found.about:<40}{', '.join(found.kinds)}" for name, found in DATASETS.items())
