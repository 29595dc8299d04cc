"""Cross-validation in time order: fit on earlier rows, judge later ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from peerwatch.detectors.base import Mask
from peerwatch.errors import BadInput, RunError, UsageError
from peerwatch.studies.evaluation.data import Data, RowJudge
from peerwatch.studies.evaluation.metrics import LabelledFigures, Margins, UnlabelledFigures, labelled, unlabelled

FOLDS: Final = 5
"""The number of folds. Rows are cut into FOLDS + 1 parts; each but the first is judged by a fit on all before it."""
LEAST: Final = 4 * (FOLDS + 1)
"""The fewest rows, so that each part has some."""


class Found(msgspec.Struct, frozen=True):
    """How many of the anomalous rows of one kind are flagged."""

    kind: str
    rows: int
    flagged: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one detector.

    `no_score` counts rows without a score, such as purchases with too small a window. `labelled` is set if there are
    labels, otherwise `unlabelled`. If the detector was skipped, `skipped` is the reason and nothing else is set.
    """

    method: str
    flagged: int = 0
    no_score: int = 0
    labelled: LabelledFigures | None = None
    unlabelled: UnlabelledFigures | None = None
    kinds: list[Found] = []
    skipped: str | None = None


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """The results of all detectors on one data set.

    The last `judged` of its `rows` were judged; `anomalous` of those are anomalous.
    """

    data: str
    rows: int
    judged: int
    anomalous: int | None
    results: list[Result]


class EvaluationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The results of all detectors on all data sets, with the number of folds, and `made`: what was evaluated how."""

    made: str
    folds: int
    sections: list[Section]


class Crossed(NamedTuple):
    """A section with the data of its pictures: the labels of the judged rows, and each method's verdicts on them."""

    section: Section
    labels: Mask | None
    judged: Mapping[str, Margins]


def check_learn() -> None:
    """Check that scikit-learn is installed.

    Raises:
        UsageError: it is not.
    """
    try:
        import sklearn  # noqa: F401, PLC0415 (an extra, and slow to import)
    except ImportError:
        raise UsageError(
            "evaluate needs scikit-learn, which is not installed: pip install scikit-learn, or peerwatch with the extra"
            " learn"
        ) from None


def cross(
    data: Data, methods: Sequence[str], parameters: Mapping[str, Any], progressed: Callable[[str], None]
) -> Crossed:
    """Evaluate detectors on the same rows. `progressed` is called before each one.

    A detector that cannot judge these rows is skipped, and the reason recorded.

    Raises:
        UsageError: there are too few rows, or all judged rows have the same label.
        RunError: a detector failed.
    """
    splits = folds(data)
    begin = splits[0].start
    labels = data.labels[begin:] if data.labels is not None else None
    if labels is not None and len(np.unique(labels)) < 2:
        which = "every one" if labels.any() else "none"
        raise UsageError(
            f"{data.name}: of the {len(labels):,} rows that are judged (those after the first"
            f" {begin:,}) {which} is labelled; the figures need both"
        )
    results, found = [], {}
    for method in methods:
        progressed(f"{data.name}, {method}")
        try:
            found[method] = judged = pooled(data.judging(method, parameters), splits)
        except BadInput as error:
            results.append(Result(method=method, skipped=str(error)))
            continue
        except Exception as error:  # a user's own code
            raise RunError(f"the detector {method} failed: {type(error).__name__}: {error}") from error
        results.append(_result(method, judged, data, splits, labels))
    section = Section(
        data=data.name, rows=len(data), judged=len(data) - begin, results=results,
        anomalous=int(labels.sum()) if labels is not None else None,
    )  # fmt: skip
    return Crossed(section, labels, found)


def folds(data: Data) -> list[slice]:
    """Return the folds in time order, by scikit-learn's TimeSeriesSplit.

    Raises:
        UsageError: there are too few rows.
    """
    from sklearn.model_selection import TimeSeriesSplit  # noqa: PLC0415

    if len(data) < LEAST:
        raise UsageError(f"{data.name} has {len(data)} rows; cross-validation in time order needs at least {LEAST}")
    splits = TimeSeriesSplit(FOLDS).split(range(len(data)))
    return [slice(int(tested[0]), int(tested[-1]) + 1) for _, tested in splits]


def pooled(judging: RowJudge, splits: Sequence[slice]) -> Margins:
    """Return the verdicts of all folds, concatenated."""
    parts = [judging(fold.start, fold.stop) for fold in splits]
    return Margins(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _result(method: str, judged: Margins, data: Data, splits: Sequence[slice], labels: Mask | None) -> Result:
    begin = splits[0].start
    own = [slice(fold.start - begin, fold.stop - begin) for fold in splits]
    kinds = data.kinds[begin:]
    flagged: dict[str, list[bool]] = {kind: [] for kind in sorted({*kinds} - {""})}
    for kind, flag in zip(kinds, judged.flagged.tolist(), strict=True):
        if kind:
            flagged[kind].append(flag)
    return Result(
        method=method,
        flagged=int(judged.flagged.sum()),
        no_score=int(np.isnan(judged.excess).sum()),
        labelled=labelled(judged, labels, own) if labels is not None else None,
        unlabelled=unlabelled(judged.flagged, data.columns(begin, len(data))) if labels is None else None,
        kinds=[Found(kind, len(flags), sum(flags)) for kind, flags in flagged.items()],
    )
