"""`peerwatch evaluate`: loads the data and evaluates detectors on it."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio

from peerwatch.errors import BadInput, UsageError
from peerwatch.progress import Progress
from peerwatch.settings.model import Layer
from peerwatch.studies.csv_table import parsed, read_csv_table
from peerwatch.studies.datasets.registry import dataset, write
from peerwatch.studies.datasets.stats import NO_MEASURES
from peerwatch.studies.datasets.table import DatasetOrder
from peerwatch.studies.evaluation.crossing import Crossed, check_learn, cross
from peerwatch.studies.evaluation.data import Data, Measures, measures, numeric
from peerwatch.studies.evaluation.purchases import read_purchases
from peerwatch.studies.generate import NAMES


def data_set(name: str, order: DatasetOrder) -> Data:
    """Make a seeded data set. Its files, if any, are removed once they have been read.

    Raises:
        UsageError: there is no such data set, or the order cannot be met.
    """
    found = dataset(name)
    if found.files != NAMES:
        (lines,) = found.make(order)
        sheet = parsed(name, lines)
        return measures(name, sheet, columns=numeric(sheet, NO_MEASURES), label="label", kind="kind")
    with TemporaryDirectory() as directory:
        batch, stream, labels = write(name, Path(directory), order, force=False)
        made = {"input.batch": str(batch), "input.stream": str(stream)}
        return logs(name, [Layer(made, dict.fromkeys(made, name))], labels)


def logs(name: str, layers: Sequence[Layer], labels: Path | None) -> Data:
    """Read the purchases of the stream log named in the settings.

    Raises:
        UsageError: a file cannot be used, or there is no purchase.
        SourceError: a log could not be read any further.
    """
    return anyio.run(partial(read_purchases, name, layers, labels))


def table(path: Path, columns: Sequence[str], label: str | None) -> Measures:
    """Read a user's table. `columns` default to those that begin with a number, except timestamp, id, label and kind.

    Raises:
        UsageError: the table cannot be used.
    """
    sheet = read_csv_table(path)
    return measures(path.name, sheet, columns=columns or numeric(sheet, (*NO_MEASURES, label)), label=label)


def evaluate(
    all_data: Sequence[Data], methods: Sequence[str], parameters: Mapping[str, Any], console: Progress
) -> list[Crossed]:
    """Evaluate detectors on all data; every available one without `methods`.

    Raises:
        UsageError: a named method can judge none of the data, there are too few rows, or nothing can be judged.
    """
    check_learn()
    for method in methods:
        _check(method, parameters, all_data)
    done = count()
    with console.progress(sum(len(methods or data.methods()) for data in all_data)):
        crossed = [
            cross(data, methods or data.methods(), parameters, lambda what: console.moved(next(done), what))
            for data in all_data
        ]
    results = [(each.section.data, result) for each in crossed for result in each.section.results]
    if all(result.skipped for _, result in results):
        name, result = results[0]
        raise UsageError(f"{name}: {result.skipped}")
    return crossed


def _check(method: str, parameters: Mapping[str, Any], all_data: Sequence[Data]) -> None:
    errors = []
    for data in all_data:
        try:
            data.judging(method, parameters)
        except BadInput as error:
            errors.append(error)
    if len(errors) == len(all_data):
        raise UsageError(str(errors[0]))
