"""Applies a detector to a whole data set, and compares what it flags with the labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from peerwatch.detectors.base import Floats, Mask
from peerwatch.network.events import Kind, parse_event
from peerwatch.studies.csv_table import read_csv_table
from peerwatch.studies.datasets.registry import dataset, write
from peerwatch.studies.datasets.stats import NO_MEASURES, DatasetStatistics, LabelledLine, statistics
from peerwatch.studies.datasets.table import DatasetOrder
from peerwatch.studies.generate import NAMES
from peerwatch.studies.table_detection import Detection, detection

ORDER = DatasetOrder()
"""The size and seed of each data set."""
MILLIONTHS = 1_000_000


class DatasetDetection(Detection, frozen=True, kw_only=True):
    """What a detector flags in a data set. Precision and recall are null where nothing is flagged or labelled."""

    dataset: str
    columns: list[str]
    labelled: int
    found: int
    precision: float | None
    recall: float | None


def dataset_detection(name: str, method: str, parameters: Mapping[str, Any]) -> DatasetDetection:
    """Apply a detector to all measurements of a data set, of which each row is judged knowing all of them.

    Of `social` the amounts of the purchases in the stream log are judged, as a series without its network.

    Raises:
        UsageError: there is no such data set.
        BadInput: the method does not exist or does not take these parameters.
    """
    with TemporaryDirectory() as directory:
        paths = write(name, Path(directory), ORDER, force=False)
        columns, labels = _social(Path(directory)) if len(paths) > 1 else _table(name, paths[0])
    judged = detection(columns, method, parameters)
    flagged = np.array(judged.flagged)
    labelled, found = int(labels.sum()), int((labels & flagged).sum())
    return DatasetDetection(
        **msgspec.structs.asdict(judged),
        dataset=name,
        columns=[*columns],
        labelled=labelled,
        found=found,
        precision=found / int(flagged.sum()) if flagged.any() else None,
        recall=found / labelled if labelled else None,
    )


def measures_of(name: str) -> Sequence[str]:
    """Return the names of a data set's measurements.

    Raises:
        UsageError: there is no such data set.
    """
    return [column.name for column in dataset(name).columns if column.name not in NO_MEASURES]


def _table(name: str, path: Path) -> tuple[dict[str, Floats], Mask]:
    sheet = read_csv_table(path)
    return {column: sheet.numbers(column) for column in measures_of(name)}, sheet.numbers("label") == 1


def _social(directory: Path) -> tuple[dict[str, Floats], Mask]:
    _, stream, labels = (directory / name for name in NAMES)
    labelled = {found.line for found in msgspec.json.Decoder(LabelledLine).decode_lines(labels.read_bytes())}
    bought, odd = [], []
    for line, text in enumerate(stream.read_bytes().splitlines(), 1):
        event = parse_event(text)
        if event.kind is Kind.PURCHASE:
            bought.append(event.amount / MILLIONTHS)
            odd.append(line in labelled)
    return {"amount": np.array(bought)}, np.array(odd)


def dataset_statistics(name: str) -> DatasetStatistics:
    """Compute the statistics of a data set.

    Raises:
        UsageError: there is no such data set.
    """
    with TemporaryDirectory() as directory:
        paths = write(name, Path(directory), ORDER, force=False)
        return statistics(Path(directory) if len(paths) > 1 else paths[0])
