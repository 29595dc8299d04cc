"""Pictures of how detectors performed: a row for each, with the curves of the others in pale colours behind."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from peerwatch.detectors.base import Floats, Mask
from peerwatch.studies.evaluation.crossing import Crossed
from peerwatch.studies.evaluation.metrics import Margins, ranked
from peerwatch.studies.pictures import BLUE, GREY, INK, PALE, RED

BINS: Final = 40
ROW, COLUMN = 1.7, 2.9
"""The height and width of a panel, in inches."""
APART: Final = 0.16
"""The smallest distance between ticks, as a share of the axis."""
LONGEST: Final = 16
"""The most letters of a name that fit beside a row; a longer one takes two lines."""
DPI: Final = 120
COLOURS: Final = 64
"""The number of colours in a picture's palette, which halves the size of the file."""


def draw(crossed: Crossed, path: Path) -> None:
    """Draw ROC and precision-recall curves, scores and confusions of each detector; without labels only scores."""
    import matplotlib as mpl  # noqa: PLC0415 (an extra, and slow to import)
    from matplotlib.figure import Figure  # noqa: PLC0415

    judged, labels = crossed.judged, crossed.labels
    wide, tall = (4 if labels is not None else 1), len(judged)
    with mpl.rc_context({"font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=(COLUMN * max(wide, 2), ROW * tall + 0.4), layout="constrained")
        panels = figure.subplots(tall, wide, squeeze=False)
        curves = (
            {method: _curves(verdicts, labels) for method, verdicts in judged.items()} if labels is not None else {}
        )
        for row, (method, verdicts) in zip(panels, judged.items(), strict=True):
            name = method.replace("_", "_\n", 1) if len(method) > LONGEST else method
            row[0].set_ylabel(name, fontsize=12, fontweight="bold", color=INK, labelpad=8)
            if labels is not None:
                _draw_curves(row[:2], method, curves)
                _draw_confusion(row[3], verdicts.flagged, labels)
            _draw_scores(row[2 if labels is not None else 0], verdicts, labels)
        _name_columns(panels, labelled=labels is not None)
        path.write_bytes(_as_png(figure))


def _as_png(figure: Any) -> bytes:
    """Encode a figure as PNG with a palette."""
    from PIL import Image  # noqa: PLC0415 (matplotlib's own)

    drawn, reduced = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, dpi=DPI)
    with Image.open(drawn) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(reduced, "png", optimize=True)
    return reduced.getvalue()


def _name_columns(panels: Any, *, labelled: bool) -> None:
    scores = (
        "scores: grey normal, red anomalous" if labelled else "scores",
        "above the threshold, in thresholds",
    )
    curves = (("ROC", "false positive rate"), ("precision over recall", "recall"))
    names = (*curves, scores, ("confusion", "")) if labelled else (scores,)
    for axes, (title, _) in zip(panels[0], names, strict=True):
        axes.set_title(title, fontsize=10)
    for axes, (_, below) in zip(panels[-1], names, strict=True):
        axes.set_xlabel(below)


def _curves(judged: Margins, labels: Mask) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """Return the x and y of the ROC curve and of the precision-recall curve."""
    from sklearn import metrics  # noqa: PLC0415

    order = ranked(judged.excess)
    false, true, _ = metrics.roc_curve(labels, order)
    precision, recall, _ = metrics.precision_recall_curve(labels, order, drop_intermediate=True)
    return (false, true), (recall, precision)


def _draw_curves(panels: Any, method: str, curves: Mapping[str, Any]) -> None:
    for place, axes in enumerate(panels):
        for other, found in curves.items():
            own = other == method
            axes.plot(*found[place], color=BLUE if own else PALE, lw=1.8 if own else 0.9, zorder=3 if own else 1,
                      drawstyle="steps-post" if place else "default")  # fmt: skip
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.04)
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].plot([0, 1], [0, 1], color=GREY, lw=0.7, ls=":", zorder=0)


def _draw_scores(axes: Any, judged: Margins, labels: Mask | None) -> None:
    """Draw histograms of normal and anomalous rows, each with a sum of 1, linear near the threshold, else logarithmic.

    Infinite scores are drawn at the right end.
    """
    known = ~np.isnan(judged.excess)
    excess = judged.excess[known]
    finite = excess[np.isfinite(excess)]
    unit = float(np.median(np.abs(finite))) or 1.0 if len(finite) else 1.0
    bent = np.arcsinh(np.clip(excess, finite.min(initial=0), finite.max(initial=0)) / unit)
    bins = np.linspace(bent.min(initial=-1), bent.max(initial=1), BINS + 1)
    for rows, look in (
        (known if labels is None else ~labels, {"fill": True, "color": PALE}),
        (np.zeros_like(known) if labels is None else labels, {"color": RED, "lw": 1.4}),
    ):
        of = bent[rows[known]]
        axes.stairs(np.histogram(of, bins)[0] / max(1, len(of)), bins, **look)
    axes.axvline(0, color=INK, lw=0.9, ls="--")
    ticks = _ticks(bins[0], bins[-1], unit)
    axes.set_xticks([np.arcsinh(tick / unit) for tick in ticks], [f"{tick:,g}" for tick in ticks])
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)


def _ticks(low: float, high: float, unit: float) -> list[float]:
    """Return ticks for an axis from `low` to `high`: 0, and round numbers from the ends inwards, spaced apart."""
    steps = [step * 10.0**power for power in range(160, -10, -1) for step in (3, 1)]
    ticks, places = [0.0], [0.0]
    for tick in (sign * step for step in steps for sign in (1, -1)):
        place = float(np.arcsinh(tick / unit))
        if low <= place <= high and min(abs(place - other) for other in places) >= APART * (high - low):
            ticks.append(tick)
            places.append(place)
    return ticks


def _draw_confusion(axes: Any, flagged: Mask, labels: Mask) -> None:
    """Draw the rows of each class by whether they are flagged, shaded by their share of the class."""
    from sklearn.metrics import confusion_matrix  # noqa: PLC0415

    counts = confusion_matrix(labels, flagged, labels=[False, True])
    share = counts / counts.sum(axis=1, keepdims=True)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), number in np.ndenumerate(counts):
        dark = share[row, column] > 0.6
        axes.text(column, row, f"{number:,}\n{share[row, column]:.1%}", ha="center", va="center",
                  color="white" if dark else INK, fontsize=9)  # fmt: skip
    axes.set_xticks([0, 1], ["not flagged", "flagged"])
    axes.set_yticks([0, 1], ["normal", "anomalous"], rotation=90, va="center")
    axes.tick_params(length=0)
