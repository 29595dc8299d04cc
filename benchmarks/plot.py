"""The picture of the last results."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "peerwatch", "font.family": "sans-serif", "font.size": 10}


def plot(results: dict[str, Any], path: Path) -> None:
    """Wall-clock seconds of each case, beside the C++ loop where it was measured; a logarithmic axis."""
    rows = results["cases"][::-1]
    figure = Figure(figsize=(8, 0.62 * len(rows) + 1.2), layout="constrained")
    axes = figure.add_subplot()
    for shift, color, name, seconds in (
        (0.2, "#b9bec6", "C++ loop, clean logs only", [row["yardstick"] and row["yardstick"]["wall"] for row in rows]),
        (-0.2, "#1769aa", "peerwatch, start-up included", [row["wall"] for row in rows]),
    ):
        for place, value in enumerate(seconds):
            if value:
                axes.barh(place + shift, value, 0.38, color=color, label=name if place == len(rows) - 1 else None)
                axes.text(value * 1.04, place + shift, f"{value:.2f} s", va="center", fontsize=8, color="#444")
    axes.set_yticks(
        range(len(rows)), [f"{row['case']}\n{row['events'] / 1e6:.2g} M events, D={row['D']}" for row in rows]
    )
    axes.set_xscale("log")
    axes.set_xlim(right=axes.get_xlim()[1] * 1.6)
    axes.set_xlabel("seconds, logarithmic")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper right", frameon=False)
    figure.savefig(path, metadata={"Date": None})
