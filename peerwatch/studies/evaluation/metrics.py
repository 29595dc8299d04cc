"""Metrics of verdicts, computed by scikit-learn, which is an extra.

An undefined metric is None. All are rounded to six decimals, because their last bits may differ between processors.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from peerwatch.detectors.base import Floats, Mask
from peerwatch.kernels import Int64s

DECIMALS: Final = 6
MOST_COMPARED: Final = 5_000
"""The most rows for the silhouette. From more rows this many are sampled."""
SEED: Final = 1
"""The seed of the sample."""


class Margins(NamedTuple):
    """For n rows: by how much each score exceeds its threshold (NaN without a score), and whether the row is flagged.

    The excess is in multiples of the threshold, so that models trained on different numbers of rows can be compared.
    Shapes [n].
    """

    excess: Floats
    flagged: Mask


class LabelledFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics of verdicts compared with labels.

    `pr_auc` is the average precision. Mean and sd (population) are over the folds that have rows of both classes.
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
    """How far apart flagged and normal rows lie, in standardised columns. None if all rows are of one class.

    The silhouette (Rousseeuw, 1987) is between -1 and 1, Calinski-Harabasz (1974) is at least 0; higher is further
    apart. Davies-Bouldin (1979) is at least 0; lower is further apart.
    """

    silhouette: float | None
    calinski_harabasz: float | None
    davies_bouldin: float | None


def ranked(excess: Floats) -> Int64s:
    """Return the ranks of the scores, equal for ties, which also orders infinite scores. No score ranks lowest."""
    return np.asarray(np.unique(np.where(np.isnan(excess), -np.inf, excess), return_inverse=True)[1], np.int64)


def labelled(judged: Margins, labels: Mask, folds: Sequence[slice]) -> LabelledFigures:
    """Compute the metrics of the verdicts on n rows, over all of them and within the folds."""
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
    """Compute how far apart flagged and other rows are; `columns` has shape [n, columns]."""
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
    """Round a metric for storage; None if it is not a number."""
    return round(float(value), DECIMALS) if np.isfinite(value) else None
