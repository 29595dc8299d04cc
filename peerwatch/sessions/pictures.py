"""Pictures of how a session model does: confusion, ROC and precision-recall curves, scores, and what matters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from sklearn import metrics

from peerwatch.errors import UsageError
from peerwatch.readable import shown
from peerwatch.sessions.columns import Floats, Mask, SessionTable
from peerwatch.sessions.predictor import SessionModel, SessionScores

BLUE, RED, GREY, INK, PALE = "#2563eb", "#dc2626", "#9ca3af", "#111827", "#cbd5e1"
BINS: Final = 40
MOST_ROWS: Final = 500
"""Rows that the importance of features is measured on."""
MOST_FEATURES: Final = 15
NAMES: Final = ("confusion.png", "roc.png", "precision_recall.png", "scores.png", "importance.png")


def draw(
    directory: Path, model: SessionModel, scores: SessionScores, labels: Mask | None, *, force: bool
) -> list[Path]:
    """Draw the pictures into a directory; without labels only scores and importance. Returns their paths.

    Raises:
        UsageError: matplotlib is missing, or a picture exists and `force` is not set, or cannot be written.
    """
    try:
        import matplotlib as mpl  # noqa: PLC0415 (an extra, and slow to import)
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        raise UsageError("pictures need matplotlib; install it: pip install 'peerwatch[plot]'") from None
    limit = model.calibration.threshold
    both = labels is not None and bool(labels.any() and not labels.all())
    parts: dict[str, Callable[[Any], None]] = {}
    if labels is not None and both:
        parts["confusion.png"] = lambda axes: _confusion(axes, scores.flagged, labels)
        parts["roc.png"] = lambda axes: _roc(axes, scores.score, labels)
        parts["precision_recall.png"] = lambda axes: _precision_recall(axes, scores.score, labels)
    parts["scores.png"] = lambda axes: _scores(axes, scores.score, labels, limit)
    effect = importance(model, scores.table, scores.score)
    parts["importance.png"] = lambda axes: _importance(axes, effect)
    paths = [directory / name for name in parts]
    for path in paths:
        if path.exists() and not force:
            raise UsageError(f"{shown(path)} exists; name another directory, or add --force")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context({"font.size": 9, "text.parse_math": False}):
            for path, fill in zip(paths, parts.values(), strict=True):
                figure = Figure(figsize=(5.2, 3.8), layout="constrained")
                axes = figure.subplots()
                fill(axes)
                axes.spines[["top", "right"]].set_visible(False)
                figure.savefig(path, dpi=120)
    except OSError as error:
        raise UsageError(f"cannot write into {shown(directory)}: {error.strerror}") from None
    return paths


def importance(model: SessionModel, table: SessionTable, score: Floats) -> dict[str, float]:
    """By how much each feature moves the score on average over the highest scores, the most important first."""
    some = np.sort(np.argsort(-score, kind="stable")[:MOST_ROWS])
    matrix = model.features_of(table)[some]
    moved = np.concatenate([
        np.abs(model.effects(matrix[begin : begin + 50], score[some][begin : begin + 50]))
        for begin in range(0, len(some), 50)
    ] or [np.zeros((1, len(model.feature_names())))])  # fmt: skip
    found = dict(zip(model.feature_names(), moved.mean(axis=0).tolist(), strict=True))
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def _confusion(axes: Any, flagged: Mask, labels: Mask) -> None:
    counts = metrics.confusion_matrix(labels, flagged, labels=[False, True])
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), number in np.ndenumerate(counts):
        colour = "white" if share[row, column] > 0.6 else INK
        axes.text(column, row, f"{number:,}\n{share[row, column]:.1%}", ha="center", va="center", color=colour)
    axes.set_xticks([0, 1], ["not flagged", "flagged"])
    axes.set_yticks([0, 1], ["normal", "anomalous"])
    axes.set_title("confusion")


def _roc(axes: Any, score: Floats, labels: Mask) -> None:
    false, true, _ = metrics.roc_curve(labels, score)
    axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    axes.plot(false, true, color=BLUE)
    axes.set_xlabel("false positive rate")
    axes.set_ylabel("recall")
    axes.set_title(f"ROC, area {metrics.roc_auc_score(labels, score):.3f}")


def _precision_recall(axes: Any, score: Floats, labels: Mask) -> None:
    precision, recall, _ = metrics.precision_recall_curve(labels, score)
    axes.plot(recall, precision, color=BLUE, drawstyle="steps-post")
    axes.set_ylim(-0.02, 1.04)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.set_title(f"precision over recall, area {metrics.average_precision_score(labels, score):.3f}")


def _scores(axes: Any, score: Floats, labels: Mask | None, limit: float) -> None:
    bins = np.linspace(min(float(score.min()), limit) - 1e-9, max(float(score.max()), limit) + 1e-9, BINS + 1)
    normal = score if labels is None else score[~labels]
    axes.stairs(np.histogram(normal, bins)[0] / max(len(normal), 1), bins, fill=True, color=PALE, label="normal")
    if labels is not None and labels.any():
        found = score[labels]
        axes.stairs(np.histogram(found, bins)[0] / len(found), bins, color=RED, label="anomalous")
        axes.legend(frameon=False)
    axes.axvline(limit, color=INK, lw=0.9, ls="--")
    axes.set_xlabel("score; dashed: the threshold")
    axes.set_title("scores")


def _importance(axes: Any, effect: dict[str, float]) -> None:
    first = [*effect.items()][:MOST_FEATURES][::-1]
    axes.barh([name for name, _ in first], [size for _, size in first], color=BLUE)
    axes.set_xlabel("mean change of the score without it")
    axes.set_title("what matters")
