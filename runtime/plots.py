"""Pictures, drawn by matplotlib, which is an extra and imported only here."""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np

from peerwatch.network.errors import UsageError
from peerwatch.runtime.comparison import Record as Sweep
from peerwatch.runtime.explain import Record
from peerwatch.runtime.names import shown

FORMATS: Final = (".svg", ".png")
MAGNITUDES: Final = 30
"""How many times the smallest share the largest may be on an axis that is not logarithmic."""


def check(path: Path) -> None:
    """See that a picture can be drawn to `path`, before any work is done for it.

    Raises:
        UsageError: the name has another ending, its directory is missing, or matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"{shown(path)}: a picture's name ends in {' or '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise UsageError(f"{shown(path)}: the directory {path.parent} does not exist; create it first")
    if find_spec("matplotlib") is None:
        raise UsageError("pictures need matplotlib, which is not installed: pip install 'peerwatch[plot]'")


def draw_explanation(record: Record, path: Path) -> None:
    """The buyer's network by hops, and the amount beside the window's amounts."""
    raise NotImplementedError(record, path)


def draw_sweep(record: Sweep, path: Path) -> None:
    """The share that each setting flags over k: a panel for each D, a line for each T; below, how labels are met."""
    import matplotlib as mpl  # noqa: PLC0415 (slow to import)
    from matplotlib.figure import Figure  # noqa: PLC0415

    cells, current = record.settings, record.settings[record.current]
    Ds, Ts, ks = (sorted({getattr(cell, name) for cell in cells}) for name in ("D", "T", "k"))
    names = ("share", "precision", "recall") if record.labelled is not None else ("share",)
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(Ts)))
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "peerwatch", "font.size": 10}):
        figure = Figure(figsize=(max(2.4 * len(Ds), 3.6) + 1.8, 2.4 * len(names) + 0.8), layout="constrained")
        panels = figure.subplots(len(names), len(Ds), sharex=True, sharey="row", squeeze=False)
        for (row, name), (column, D) in product(enumerate(names), enumerate(Ds)):
            axes = panels[row, column]
            for T, colour in zip(Ts, colours, strict=True):
                values = [getattr(cell, name) for cell in cells if (cell.D, cell.T) == (D, T)]
                axes.plot(ks, values, marker="o", markersize=4, color=colour, label=f"T={T}")
            if current.D == D and getattr(current, name) is not None:
                ring = {"markersize": 11, "markerfacecolor": "none", "markeredgecolor": "#d1495b", "linestyle": "none"}
                axes.plot(current.k, getattr(current, name), marker="o", label="current", **ring)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", color="#e4e6ea")
            axes.set_title(f"D={D}" if row == 0 else "")
        for axes, name in zip(panels[:, 0], names, strict=True):
            _scale(axes, [getattr(cell, name) for cell in cells])
            axes.set_ylabel("flagged, share of judged" if name == "share" else name)
        panels[-1, 0].set_xticks(ks, [f"{k:g}" for k in ks])
        figure.supxlabel("k, standard deviations above the mean", fontsize="medium")
        handles, labels = panels[0, Ds.index(current.D)].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _scale(axes: Any, values: Sequence[float | None]) -> None:
    """Shares from 0 on, as percentages; on a logarithmic axis if they are of different magnitudes."""
    from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: PLC0415

    known = [value for value in values if value is not None]
    if known and min(known) > 0 and max(known) > MAGNITUDES * min(known):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
