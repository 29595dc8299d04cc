"""How well a session model does: figures against labels, and as text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from sklearn import metrics

from peerwatch.errors import UsageError
from peerwatch.readable import shown
from peerwatch.sessions.columns import BadSessionRow, Floats, Mask

DECIMALS = 6


class SessionFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of verdicts on labelled sessions. A share of nothing is None."""

    sessions: int
    anomalous: int
    flagged: int
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    accuracy: float
    precision: float | None
    recall: float | None
    f1: float | None
    roc_auc: float | None
    pr_auc: float | None


def figures(score: Floats, flagged: Mask, labels: Mask) -> SessionFigures:
    """Compare verdicts with labels, at least one."""
    hits, false_alarms = int((flagged & labels).sum()), int((flagged & ~labels).sum())
    missed, passed = int((~flagged & labels).sum()), int((~flagged & ~labels).sum())
    both = bool(labels.any() and not labels.all())
    precision, recall = _share(hits, hits + false_alarms), _share(hits, hits + missed)
    return SessionFigures(
        sessions=len(labels),
        anomalous=hits + missed,
        flagged=hits + false_alarms,
        true_positives=hits,
        false_positives=false_alarms,
        false_negatives=missed,
        true_negatives=passed,
        accuracy=round((hits + passed) / len(labels), DECIMALS),
        precision=precision,
        recall=recall,
        f1=_share(2 * hits, 2 * hits + false_alarms + missed),
        roc_auc=round(float(metrics.roc_auc_score(labels, score)), DECIMALS) if both else None,
        pr_auc=round(float(metrics.average_precision_score(labels, score)), DECIMALS) if both else None,
    )


def precision_at(score: Floats, labels: Mask, recall: float) -> float:
    """The best precision of all thresholds with at least this recall."""
    precision, reached, _ = metrics.precision_recall_curve(labels, score)
    return float(np.max(precision[reached >= recall]))


def as_text(found: SessionFigures) -> str:
    """The figures, a line each for what was judged, how well, and how the verdicts divide."""
    shares = (
        ("precision", found.precision), ("recall", found.recall), ("F1", found.f1), ("ROC-AUC", found.roc_auc),
        ("PR-AUC", found.pr_auc), ("accuracy", found.accuracy),
    )  # fmt: skip
    return (
        f"{found.sessions:,} sessions, {found.anomalous:,} of them anomalous, {found.flagged:,} flagged\n"
        + ", ".join(f"{name} {'-' if value is None else f'{value:.3f}'}" for name, value in shares)
        + f"\n{found.true_positives:,} anomalies found, {found.false_negatives:,} missed, {found.false_positives:,}"
        f" false alarms, {found.true_negatives:,} passed"
    )


def bad_rows_told(bad: Sequence[BadSessionRow], name: str, total: int) -> str:
    """One sentence about the rows that were set apart."""
    first = bad[0]
    return (
        f"{len(bad):,} of the {total:,} rows of {name} cannot be used, the first on line {first.line}: {first.reason}"
    )


def write_metrics(path: Path, found: Any) -> None:
    """Write figures as JSON.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    except OSError as error:
        raise UsageError(f"cannot write {shown(path)}: {error.strerror}") from None


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, DECIMALS) if whole else None
