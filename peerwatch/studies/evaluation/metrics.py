"""Figures of verdicts by scikit-learn, an extra that is imported only here and for the folds.

A figure that is a share of nothing is None. All are rounded to six decimals, so that a last bit which another processor
may compute differently does not show.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from peerwatch.detectors.base import Floats, Mask
from peerwatch.kernels import Int64s

DECIMALS: Final = 6
MOST_COMPARED: Final = 5_000
"""The most rows that the silhouette compares; from more rows this many are drawn at random."""
SEED: Final = 1
"""The seed of what is drawn at random."""


class Margins(NamedTuple):
    """For n rows: how far each score is above its threshold (NaN without a score), and whether the row is flagged.

    By how much is told in thresholds: what models that learned from more and more rows say can then be put together.
    Shapes [n].
    """

    excess: Floats
    flagged: Mask


class LabelledFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of verdicts compared with labels.

    `pr_auc` is the average precision. Mean and sd (the population's) are over the folds that have rows of both classes.
    """

    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    precision: float | None
    recall: float | None
    f1: float | None
    accuracy: float
    roc_auc: float | None
    pr_auc: float | None
    f1_mean: float | None
    f1_sd: float | None
    roc_auc_mean: float | None
    roc_auc_sd: float | None


class UnlabelledFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How far apart flagged and normal rows lie, in standardised columns; None where all rows are of one class.

    The silhouette (Rousseeuw, 1987) is between -1 and 1, Calinski-Harabasz (1974) from 0 on; higher is further apart.
    Davies-Bouldin (1979) is from 0 on; lower is further apart.
    """

    silhouette: float | None
    calinski_harabasz: float | None
    davies_bouldin: float | None


def ranked(excess: Floats) -> Int64s:
    """Ranks of the scores, equal ones alike: enough for the curves, which know no infinity. Without a score: lowest."""
    return np.asarray(np.unique(np.where(np.isnan(excess), -np.inf, excess), return_inverse=True)[1], np.int64)


def labelled(judged: Margins, labels: Mask, folds: Sequence[slice]) -> LabelledFigures:
    """The figures of the verdicts on n rows, over all of them and within the folds."""
    from sklearn import metrics  # noqa: PLC0415 (an extra, and slow to import)

    flagged, found = judged.flagged, metrics.confusion_matrix(labels, judged.flagged, labels=[False, True])
    (true_negatives, false_positives), (false_negatives, true_positives) = found.tolist()
    with_both = [fold for fold in folds if len(np.unique(labels[fold])) == 2]
    f1s = [float(metrics.f1_score(labels[fold], flagged[fold])) for fold in with_both]
    areas = [float(metrics.roc_auc_score(labels[fold], ranked(judged.excess[fold]))) for fold in with_both]
    both, order = bool(with_both) or len(np.unique(labels)) == 2, ranked(judged.excess)
    return LabelledFigures(
        true_positives=true_positives,
        false_positives=false_positives,
        false_negatives=false_negatives,
        true_negatives=true_negatives,
        precision=rounded(metrics.precision_score(labels, flagged, zero_division=np.nan)),
        recall=rounded(metrics.recall_score(labels, flagged, zero_division=np.nan)),
        f1=rounded(metrics.f1_score(labels, flagged, zero_division=np.nan)),
        accuracy=round(float(metrics.accuracy_score(labels, flagged)), DECIMALS),
        roc_auc=rounded(metrics.roc_auc_score(labels, order)) if both else None,
        pr_auc=rounded(metrics.average_precision_score(labels, order)) if both else None,
        f1_mean=rounded(np.mean(f1s)) if f1s else None,
        f1_sd=rounded(np.std(f1s)) if f1s else None,
        roc_auc_mean=rounded(np.mean(areas)) if areas else None,
        roc_auc_sd=rounded(np.std(areas)) if areas else None,
    )


def unlabelled(flagged: Mask, columns: Floats) -> UnlabelledFigures:
    """How far apart the flagged and the other rows are; `columns` has shape [n, columns]."""
    from sklearn import metrics  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    if len(np.unique(flagged)) < 2:
        return UnlabelledFigures(silhouette=None, calinski_harabasz=None, davies_bouldin=None)
    standardised = StandardScaler().fit_transform(columns)
    drawn = np.random.default_rng(SEED).permutation(len(flagged))[:MOST_COMPARED]
    some = len(drawn) > 2 and len(np.unique(flagged[drawn])) == 2
    return UnlabelledFigures(
        silhouette=rounded(metrics.silhouette_score(standardised[drawn], flagged[drawn])) if some else None,
        calinski_harabasz=rounded(metrics.calinski_harabasz_score(standardised, flagged)),
        davies_bouldin=rounded(metrics.davies_bouldin_score(standardised, flagged)),
    )


def rounded(value: Any) -> float | None:
    """A figure as it is saved: None if it is not a number."""
    return round(float(value), DECIMALS) if np.isfinite(value) else None
