"""Draws why a setting is recommended: how good each one is, and along k how sure that is."""

from pathlib import Path
from typing import Any, Final

from peerwatch.studies.pictures import BLUE, GREY, RED, save
from peerwatch.studies.tune import PER, TuneRecord

SCORES: Final = {"f1": "F1", "cost": f"cost of {PER:,} purchases", "overlap": "least overlap with a neighbour"}


def draw_tuning(record: TuneRecord, path: Path) -> None:
    """Draw the scores of all settings, in a panel for each D, and below them those of the recommended D and T over k.

    A star is the recommended setting, a ring the current one, a dot one that cannot be told from the recommended one.
    The band is the 95 % interval.
    """
    import matplotlib as mpl  # noqa: PLC0415 (slow to import)
    from matplotlib.figure import Figure  # noqa: PLC0415

    Ds = sorted({setting.D for setting in record.settings})
    with mpl.rc_context({"font.size": 10, "text.parse_math": False}):
        figure = Figure(figsize=(max(3.4 * len(Ds), 6.4) + 1.2, 6.8), layout="constrained")
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.1, 1))[:, 0]
        panels = upper.subplots(1, len(Ds), sharey=True, squeeze=False)[0]
        for axes, D in zip(panels, Ds, strict=True):
            image = _draw_scores(axes, record, D)
        panels[0].set_ylabel("T, purchases in a window")
        upper.colorbar(image, ax=panels, label=SCORES[record.by])
        _draw_along_k(lower.subplots(), record)
        figure.suptitle(f"Recommended: {record.best.name}", fontsize=14)
        save(figure, path)


def _draw_scores(axes: Any, record: TuneRecord, D: int) -> Any:
    """Draw the scores of one D as colours over k and T."""
    import numpy as np  # noqa: PLC0415

    Ts, ks = (sorted({getattr(setting, name) for setting in record.settings}) for name in ("T", "k"))
    known = [setting.score for setting in record.settings if setting.score is not None]
    scores = np.full((len(Ts), len(ks)), np.nan)
    for i, setting in enumerate(record.settings):
        if setting.D != D:
            continue
        place = ks.index(setting.k), Ts.index(setting.T)
        scores[place[::-1]] = np.nan if setting.score is None else setting.score
        if i == record.recommended:
            axes.plot(*place, marker="*", markersize=17, color=RED, markeredgecolor="white")
        elif setting.equal:
            axes.plot(*place, marker="o", markersize=5, color="white", markeredgecolor=GREY)
        if i == record.current:
            axes.plot(*place, marker="o", markersize=15, markerfacecolor="none", markeredgecolor="white", mew=2)
    colours = "viridis_r" if record.by == "cost" else "viridis"
    image = axes.imshow(scores, aspect="auto", origin="lower", cmap=colours, vmin=min(known), vmax=max(known))
    axes.set_title(f"D={D}")
    axes.set_xticks(range(len(ks)), [f"{k:g}" for k in ks])
    axes.set_yticks(range(len(Ts)), [str(T) for T in Ts])
    axes.set_xlabel("k, standard deviations")
    return image


def _draw_along_k(axes: Any, record: TuneRecord) -> None:
    """Draw the score of the recommended D and T over k, with its interval, and the share that is flagged."""
    best = record.best
    alike = [each for each in record.settings if (each.D, each.T) == (best.D, best.T)]
    line = [each for each in alike if each.score_interval is not None]
    ks = [each.k for each in line]
    ends = [each.score_interval or (0.0, 0.0) for each in line]
    axes.fill_between(ks, [low for low, _ in ends], [high for _, high in ends], color=BLUE, alpha=0.2, lw=0)
    axes.plot(ks, [each.score for each in line], color=BLUE, marker="o", markersize=4, label=SCORES[record.by])
    axes.plot(best.k, best.score, marker="*", markersize=15, color=RED, linestyle="none", label="recommended")
    axes.set_xticks(ks, [f"{k:g}" for k in ks])
    axes.set_xlabel(f"k, standard deviations above the mean, at D={best.D} and T={best.T}")
    axes.set_ylabel(SCORES[record.by])
    share = axes.twinx()
    share.plot(ks, [100 * each.share for each in line], color=GREY, ls="--", label="flagged, % of purchases")
    share.set_ylabel("flagged, % of purchases")
    share.set_ylim(bottom=0)
    handles = [*axes.get_legend_handles_labels()[0], *share.lines]
    axes.legend(handles=handles, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=len(handles))
    axes.spines["top"].set_visible(False)
    share.spines["top"].set_visible(False)
