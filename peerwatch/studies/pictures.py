"""Draws pictures with matplotlib, an extra."""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import product
from math import atan2, cos, dist, pi, sin
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peerwatch.errors import UsageError
from peerwatch.readable import readable, shown

if TYPE_CHECKING:
    from peerwatch.replay.explain import ExplanationRecord
    from peerwatch.studies.sweep_table import SweepRecord as Sweep

FORMATS: Final = (".svg", ".png")
MOST_DRAWN: Final = 1000
"""With more than twice as many members, only friends, members with a counting purchase and some others are drawn."""
NAME_POINTS: Final = 9
"""The distance between a member's point and its id, in points."""
NAME_ROOM: Final = 0.06
"""The smallest distance between members whose ids are written, as a share of the picture's radius."""
WIDE: Final = 20
"""Amounts are drawn on a logarithmic scale if the largest is this many times the median."""
INK, GREY, PALE, BLUE, RED = "#222222", "#8a8a8a", "#d9d9d9", "#2b6cb0", "#c53030"
MAGNITUDES: Final = 30
"""The axis is logarithmic if the largest share is more than this many times the smallest."""


def check(path: Path) -> None:
    """Check that a picture can be written to `path`, before the work begins.

    Raises:
        UsageError: the file name has another extension, its directory is missing, or matplotlib is not installed.
    """
    if path.suffix not in FORMATS:
        raise UsageError(f"{shown(path)}: a picture's name ends in {' or '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise UsageError(f"{shown(path)}: the directory {path.parent} does not exist; create it first")
    check_installed()


def check_installed() -> None:
    """Check that matplotlib is installed.

    Raises:
        UsageError: it is not installed.
    """
    if find_spec("matplotlib") is None:
        raise UsageError("pictures need matplotlib, which is not installed: pip install matplotlib")


def save(figure: Any, path: Path) -> None:
    """Write a figure; the same figure gives the same bytes.

    Raises:
        OSError: it could not be written.
    """
    import matplotlib as mpl  # noqa: PLC0415

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "peerwatch"}):
        figure.savefig(path, dpi=120, metadata={"Date": None} if path.suffix == ".svg" else {})


def draw_explanation(record: "ExplanationRecord", path: Path) -> None:
    """Draw the buyer's network by hops with the purchases that count, and the amount beside the window's amounts."""
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({"text.parse_math": False}):  # an id may have dollar signs
        figure = Figure(figsize=(13, 6.2), layout="constrained")
        network, window = figure.subplots(1, 2)
        who = f"User {readable(record.user)} paid {record.amount}"
        figure.suptitle(f"{who} on {record.timestamp[:10]}: {record.verdict}", fontsize=15)
        _draw_network(network, record)
        _draw_window(window, record)
        save(figure, path)


def _draw_network(axes: Any, record: "ExplanationRecord") -> None:
    from matplotlib.collections import LineCollection  # noqa: PLC0415

    counts: dict[str, int] = {}
    for bought in record.window:
        counts[bought.user] = counts.get(bought.user, 0) + 1
    on_paths = {step for member in record.network if member.user in counts for step in member.path}
    step = max(1, len(record.network) // MOST_DRAWN)
    others = [member for member in record.network if member.user not in on_paths]
    left_out = {member.user for place, member in enumerate(others) if member.hop > 1 and place % step}
    parents: dict[str, str] = {}
    for member in record.network:
        parent = member.path[-2]
        if member.user not in left_out and (parent in parents or parent == record.user):
            parents[member.user] = parent
    at = _radial(record.user, parents)
    hops = max((member.hop for member in record.network), default=0)
    turn = [2 * pi * step / 200 for step in range(201)]
    for hop in range(1, hops + 1):
        axes.plot([hop * cos(a) for a in turn], [hop * sin(a) for a in turn], color=PALE, lw=0.8, zorder=0)
        axes.annotate(f"hop {hop}", (0, 0.07 * hops - hop), color=GREY, fontsize=9, ha="center", va="center", zorder=4,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    for counted, color, width in ((False, PALE, 0.5), (True, BLUE, 1.2)):
        lines = [(at[parents[user]], at[user]) for user in parents if (user in on_paths) == counted]
        axes.add_collection(LineCollection(lines, colors=color, linewidths=width, zorder=1))
    silent = [at[user] for user in parents if user not in counts]
    axes.scatter([x for x, _ in silent], [y for _, y in silent], s=10, color=GREY, zorder=2)
    buyers = [user for user in at if user in counts]
    xs, ys = [at[user][0] for user in buyers], [at[user][1] for user in buyers]
    axes.scatter(xs, ys, s=[40 + 25 * counts[user] for user in buyers], color=BLUE, zorder=3)
    between = [user for user in parents if user in on_paths and user not in counts]
    for user in _with_room([*between, *sorted(buyers, key=lambda user: -counts[user])], at, NAME_ROOM * hops):
        x, y = at[user]
        angle = atan2(y, x)
        if user in counts:  # outside, along the ray
            left = abs(angle) > pi / 2
            place, side, turned = NAME_POINTS, "right" if left else "left", angle * 180 / pi + (180 if left else 0)
        else:  # inside, where there are fewer lines
            place, side, turned = -2 * NAME_POINTS, "center", 0.0
        axes.annotate(
            readable(user), (x, y), xytext=(place * cos(angle), place * sin(angle)), textcoords="offset points",
            rotation=turned, rotation_mode="anchor", fontsize=9, color=INK, ha=side, va="center", zorder=5,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )  # fmt: skip
    axes.scatter([0], [0], marker="*", s=340, color=RED, zorder=6)
    more = f" ({len(at) - 1:,} drawn)" if len(at) <= len(record.network) else ""
    hop_or_hops = "hop" if record.D == 1 else "hops"
    axes.set_title(
        f"{len(record.network):,} users within {record.D} {hop_or_hops}{more}\n"
        f"blue: the {len(buyers)} whose purchases count, larger for more of them",
        fontsize=11,
    )
    axes.set_xlim(-1.25 * max(hops, 1), 1.25 * max(hops, 1))
    axes.set_ylim(-1.25 * max(hops, 1), 1.25 * max(hops, 1))
    axes.set_aspect("equal")
    axes.set_axis_off()


def _with_room(users: list[str], at: dict[str, tuple[float, float]], room: float) -> list[str]:
    """Return the users whose ids can be written without touching those of users before them."""
    named: list[str] = []
    for user in users:
        if all(dist(at[user], at[other]) > room for other in named):
            named.append(user)
    return named


def _radial(centre: str, parents: dict[str, str]) -> dict[str, tuple[float, float]]:
    """Lay out a tree in rings around its root. Each branch gets an angle in proportion to its leaves."""
    children: dict[str, list[str]] = {centre: []}
    for user, parent in parents.items():  # parents stand before their children
        children[user] = []
        children[parent].append(user)
    leaves: dict[str, int] = {}
    for user in reversed(children):
        leaves[user] = sum(leaves[child] for child in children[user]) or 1
    at = {centre: (0.0, 0.0)}
    stack = [(centre, 0, 0.0, 2 * pi)]
    while stack:
        user, hop, begin, end = stack.pop()
        leaf = (end - begin) / leaves[user]
        for child in children[user]:
            width = leaf * leaves[child]
            angle = begin + width / 2
            at[child] = ((hop + 1) * cos(angle), (hop + 1) * sin(angle))
            stack.append((child, hop + 1, begin, begin + width))
            begin += width
    return at


def _draw_window(axes: Any, record: "ExplanationRecord") -> None:
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415

    from peerwatch.replay.explain import ScoredExplanation  # noqa: PLC0415 (a sweep's picture does without)

    amounts = [float(bought.amount) for bought in record.window]
    amount = float(record.amount)
    places = range(1, len(amounts) + 1)
    hops = sorted({bought.hop for bought in record.window})
    for hop, marker in zip(hops, "osD^v<>phX" * len(hops), strict=False):
        which = [place for place, bought in zip(places, record.window, strict=True) if bought.hop == hop]
        axes.scatter([amounts[place - 1] for place in which], which, s=34, marker=marker, color=BLUE, alpha=0.75,
                     edgecolor="white", linewidth=0.6, label=f"bought at hop {hop}", zorder=3)  # fmt: skip
    if record.mean is not None:
        axes.axvline(float(record.mean), color=GREY, lw=1.4, label=f"mean {record.mean} (sd {record.sd})", zorder=1)
        if record.n >= 2 and record.threshold is not None:
            axes.axvline(float(record.threshold), color=RED, lw=1.4, ls="--",
                         label=f"mean + {record.k} sd = {record.threshold}", zorder=1)  # fmt: skip
    axes.scatter([amount], [0], marker="*", s=340, color=RED, label=f"this purchase, {record.amount}", zorder=4)
    median = sorted(amounts)[len(amounts) // 2] if amounts else 0.0
    if min((*amounts, amount)) > 0 and max((*amounts, amount)) > WIDE * median > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(max(len(amounts), 1) + 0.5, -1.5)
    axes.set_xlabel("amount")
    axes.set_ylabel("the window's purchases, the newest on top")
    axes.set_yticks([place for place in (1, *range(10, len(amounts) + 1, 10)) if place <= len(amounts)])
    axes.grid(axis="x", color=PALE, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
    if isinstance(record, ScoredExplanation):
        why = f"{record.detector}: score {record.score}; above {record.score_threshold} a purchase is flagged"
    elif record.flips_at:
        why = f"{record.cents_away:,} cents away from flipping, at {record.flips_at}"
    else:
        why = "cannot flip"
    axes.set_title(f"{record.n} latest purchases of the network (T={record.T})\n{why}", fontsize=11)


def draw_sweep(record: "Sweep", path: Path) -> None:
    """Draw the share flagged by each setting over k, in a panel for each D and a line for each T.

    If there are labels, precision and recall are drawn below.
    """
    import matplotlib as mpl  # noqa: PLC0415 (slow to import)
    from matplotlib.figure import Figure  # noqa: PLC0415

    cells, current = record.settings, record.settings[record.current]
    Ds, Ts, ks = (sorted({getattr(cell, name) for cell in cells}) for name in ("D", "T", "k"))
    names = ("share", "precision", "recall") if record.labelled is not None else ("share",)
    colours = mpl.colormaps["viridis"]([0.85 * place / len(Ts) for place in range(len(Ts))])
    with mpl.rc_context({"font.size": 10}):
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
        save(figure, path)


def _scale(axes: Any, values: Sequence[float | None]) -> None:
    """Format an axis of shares as percentages; logarithmic if their magnitudes differ."""
    from matplotlib.ticker import FuncFormatter, NullFormatter  # noqa: PLC0415

    known = [value for value in values if value is not None]
    if known and min(known) > 0 and max(known) > MAGNITUDES * min(known):
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))
