"""Recommends one D, T and k: with labels the best, without labels the one whose neighbours flag much the same."""

from collections.abc import Sequence
from pathlib import Path
from signal import Signals
from textwrap import fill
from typing import Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from peerwatch.errors import UsageError
from peerwatch.kernels import Int64s
from peerwatch.progress import Progress
from peerwatch.readable import WIDTH, aligned
from peerwatch.settings.model import Layer
from peerwatch.studies.block_counts import BlockCounts, BlockTally
from peerwatch.studies.sweep import sweep
from peerwatch.studies.sweep_table import Cell, Setting, SettingGrid, SweepRecord

USUAL: Final = SettingGrid((1, 2, 3), (10, 20, 50, 100, 200), (2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0))
"""What is tried, beside the current setting, where nothing else is asked for."""
INTERVAL: Final = (2.5, 97.5)
"""The percentiles between which 95 % of the resampled values lie."""
FEWEST: Final = 10
"""Without labels, a setting that flags fewer purchases is not chosen: what it shares with others is chance."""
REGION: Final = 0.9
"""A setting can belong to the stable region if its least overlap is at least this share of the recommended one's."""
PER: Final = 1_000
"""Costs are given for so many purchases."""
LISTED: Final = 10
"""The most settings in the table, and in a sentence."""
DECIMALS: Final = 6
Floats = NDArray[np.float64]
By = Literal["f1", "cost", "overlap"]
Ends = tuple[float, float]
"""The ends of a 95 % interval."""


class Costs(NamedTuple):
    """What a labelled purchase costs that is not flagged, and what a flagged one costs that is not labelled."""

    miss: float = 1.0
    false_alarm: float = 1.0


class TunedSetting(msgspec.Struct, frozen=True, kw_only=True):
    """What one setting flags, and how good that is. Each interval holds 95 % of the resampled values.

    `score` is what settings are chosen by: F1, the costs of 1,000 purchases, or the least Jaccard index with a
    neighbour; `worse` is how much worse that is than the recommended one's, below 0 if it is better, and `equal` says
    that the interval of `worse` does not exclude 0. All of these are None for a setting that cannot be chosen.
    `precision`, `recall` and `f1` are None without labels, or where they are undefined.
    """

    D: int
    T: int
    k: float
    flagged: int
    share: float
    share_interval: Ends
    precision: float | None
    recall: float | None
    f1: float | None
    score: float | None
    score_interval: Ends | None
    worse: float | None
    worse_interval: Ends | None
    equal: bool

    @property
    def name(self) -> str:
        """The setting as it stands in sentences."""
        return f"D={self.D} T={self.T} k={self.shown_k}"

    @property
    def shown_k(self) -> str:
        """Its k in decimals."""
        return Setting(self.D, self.T, self.k).shown_k


class TuneRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A recommendation with its reasons.

    `by` is what settings are chosen by, `blocks` the number of blocks of time that the intervals are made from.
    `recommended`, `current`, `equal` and `region` are indices of `settings`: `current` is None if it was not tried,
    `equal` are the settings that cannot be told from the recommended one, and `region` is the stable region around it,
    None with labels.
    """

    judged: int
    labelled: int | None
    by: By
    blocks: int
    recommended: int
    current: int | None
    equal: list[int]
    region: list[int] | None
    sentence: str
    reasons: list[str]
    settings: list[TunedSetting]

    @property
    def best(self) -> TunedSetting:
        """The recommended setting."""
        return self.settings[self.recommended]


async def tune(
    layers: Sequence[Layer], wanted: SettingGrid, console: Progress, *, labels: Path | None, costs: Costs | None
) -> TuneRecord | Signals:
    """Sweep the logs and recommend a setting. A signal ends the sweep and is returned.

    With `labels` that is the setting of the highest F1, or of the least `costs`.

    Raises:
        UsageError: as for a sweep; `costs` without labels; or nothing can be recommended.
        SourceError: a log could not be read any further.
    """
    if costs is not None and labels is None:
        raise UsageError("costs of misses and false alarms need --labels, which say what is one")
    blocks = BlockCounts(USUAL)
    record = await sweep(layers, wanted, console, labels=labels, blocks=blocks)
    return record if isinstance(record, Signals) else recommend(record, blocks, costs)


def recommend(record: SweepRecord, blocks: BlockCounts, costs: Costs | None) -> TuneRecord:
    """Choose among the settings of a sweep.

    Raises:
        UsageError: only one setting was tried, no purchase is labelled, or no setting flags enough to choose by it.
    """
    if len(record.settings) == 1:
        raise UsageError("one setting alone is no choice; name several values with --D, --T or --k")
    if record.labelled == 0:
        raise UsageError("the labels name no purchase; without --labels the most stable setting is recommended")
    by: By = "overlap" if record.labelled is None else "f1" if costs is None else "cost"
    counts = blocks.counts()
    sums, resampled = blocks.tally(counts.sum(0)), blocks.tally(blocks.resampled())
    goods = [_goodness(by, tally, blocks, costs or Costs()) for tally in (sums, resampled)]
    may = sums.flagged >= FEWEST if by == "overlap" else np.ones(len(record.settings), np.bool_)
    good = np.where(may, goods[0], -np.inf)
    best = _best(good, record, by)
    if by != "overlap":
        best = _among_good(best, goods[0], goods[1], record, blocks.pairs)
    f1 = _goodness("f1", sums, blocks, Costs()) if record.labelled else np.full(len(may), np.nan)
    shares = resampled.flagged / resampled.judged
    sign = -1 if by == "cost" else 1
    worse = goods[0][best] - goods[0]
    worse_ends, ends = _ends(goods[1][:, [best]] - goods[1]), _ends(sign * goods[1])
    settings = [
        TunedSetting(
            D=cell.D, T=cell.T, k=cell.k, flagged=cell.flagged, share=cell.share, share_interval=share,
            precision=cell.precision, recall=cell.recall, f1=_rounded(f1[i]),
            score=_rounded(sign * goods[0][i]) if may[i] else None,
            score_interval=ends[i] if may[i] else None,
            worse=_rounded(worse[i]) if may[i] else None,
            worse_interval=worse_ends[i] if may[i] else None,
            equal=bool(may[i]) and i != best and worse_ends[i][0] <= 0,
        )
        for i, (cell, share) in enumerate(zip(record.settings, _ends(shares), strict=True))
    ]  # fmt: skip
    found = TuneRecord(
        judged=record.judged, labelled=record.labelled, by=by, blocks=len(counts), recommended=best,
        current=blocks.current, equal=[i for i, setting in enumerate(settings) if setting.equal],
        region=_region(best, good, blocks.pairs) if by == "overlap" else None, sentence="", reasons=[],
        settings=settings,
    )  # fmt: skip
    return msgspec.structs.replace(found, sentence=_sentence(found), reasons=_reasons(found, blocks.grid))


def _goodness(by: By, tally: BlockTally, blocks: BlockCounts, costs: Costs) -> Floats:
    """How good each setting is, higher is better; shape [..., settings]."""
    if by == "f1":
        good: Floats = 2 * tally.hits / np.maximum(tally.flagged + tally.labelled, 1)
    elif by == "cost":
        missed, false = tally.labelled - tally.hits, tally.flagged - tally.hits
        good = -PER * (costs.miss * missed + costs.false_alarm * false) / tally.judged
    else:
        good = np.full(tally.flagged.shape, np.inf)
        overlap = _overlaps(tally, blocks)
        for pair, settings in enumerate(blocks.pairs.tolist()):
            for i in settings:
                good[..., i] = np.minimum(good[..., i], overlap[..., pair])
    return good


def _overlaps(tally: BlockTally, blocks: BlockCounts) -> Floats:
    """The Jaccard index of each pair of neighbours, shape [..., pairs]; 0 where neither flags anything."""
    one, other = (tally.flagged[..., blocks.pairs[:, side]] for side in (0, 1))
    overlap: Floats = tally.shared / np.maximum(one + other - tally.shared, 1)
    return overlap


def _first(good: Floats, record: SweepRecord) -> int:
    """The best setting; of equal ones that with the smallest D, then the smallest T, then the largest k."""

    def order(i: int) -> tuple[float, int, int, float]:
        cell: Cell = record.settings[i]
        return -good[i], cell.D, cell.T, -cell.k

    return min(range(len(good)), key=order)


def _best(good: Floats, record: SweepRecord, by: By) -> int:
    """The best setting.

    Raises:
        UsageError: none is any good.
    """
    best = _first(good, record)
    if by == "f1" and good[best] == 0:
        raise UsageError(f"none of the {len(good)} settings flags a labelled purchase; try a smaller k")
    if by == "overlap" and good[best] <= 0:
        raise UsageError(
            f"no setting flags at least {FEWEST} purchases and any that a neighbour flags; try smaller k, or a longer"
            " stream"
        )
    return best


def _among_good(best: int, good: Floats, resampled: Floats, record: SweepRecord, pairs: Int64s) -> int:
    """Of the settings that cannot be told from the best one, the one with the best neighbours.

    The best of many settings owes some of its lead to chance. What its neighbours do is nearly the same, and their
    chances differ: a setting and its neighbours together say more about later purchases than it does alone.
    """
    total, size = good.copy(), np.ones(len(good))
    for one, other in (pairs.T, pairs.T[::-1]):
        np.add.at(total, one, good[other])
        np.add.at(size, one, 1)
    lead = np.percentile(resampled[:, [best]] - resampled, INTERVAL[0], axis=0)
    alike = lead <= 0
    return _first(np.where(alike, np.round(total / size, DECIMALS), -np.inf), record)


def _region(best: int, good: Floats, pairs: Int64s) -> list[int]:
    """The settings nearly as good as the best one that can be reached from it over neighbours that are."""
    inside = pairs[(good[pairs] >= REGION * good[best]).all(1)]
    region = {best}
    while more := {*inside[np.isin(inside, [*region]).any(1)].ravel().tolist()} - region:
        region |= more
    return sorted(region)


def _ends(samples: Floats) -> list[Ends]:
    """The 95 % interval of each column of samples."""
    low, high = np.percentile(samples, INTERVAL, axis=0)
    return [(round(float(a), DECIMALS), round(float(b), DECIMALS)) for a, b in zip(low, high, strict=True)]


def _rounded(value: float) -> float | None:
    return round(float(value), DECIMALS) if np.isfinite(value) else None


def _shown(by: By, value: float) -> str:
    if by == "overlap":
        return f"{value:.0%}"
    return f"{value:.3f}" if by == "f1" else f"{value:,.4g}"


def _between(by: By, ends: Ends) -> str:
    return f"{_shown(by, ends[0])} to {_shown(by, ends[1])}"


def _sentence(record: TuneRecord) -> str:
    best, by = record.best, record.by
    score, ends = _shown(by, best.score or 0.0), _between(by, best.score_interval or (0.0, 0.0))
    tried = f"of the {len(record.settings)} settings tried"
    if _ahead(record) is not None:
        what = f"its F1 is {score}" if by == "f1" else f"it costs {score} for {PER:,} purchases"
        return f"Use {best.name}: {what} ({ends}), and {tried} none is clearly better."
    return (
        f"Use {best.name}: "
        + {
            "f1": f"{tried}, it has the highest F1, {score} ({ends}).",
            "cost": f"{tried}, it costs least, {score} for {PER:,} purchases ({ends}).",
            "overlap": f"{tried}, it is the most stable: its least overlap with a neighbour is {score} ({ends}).",
        }[by]
    )


def _ahead(record: TuneRecord) -> TunedSetting | None:
    """The setting with the best score, if that is not the recommended one's."""
    first = min(record.settings, key=lambda setting: setting.worse if setting.worse is not None else 0.0)
    return first if first.worse is not None and first.worse < 0 else None


def _reasons(record: TuneRecord, grid: SettingGrid) -> list[str]:
    """The reasons, a sentence each."""
    best = record.best
    low, high = best.share_interval
    flags = f"It flags {best.flagged:,} of {record.judged:,} purchases, {best.share:.2%} ({low:.2%} to {high:.2%})"
    reasons = [f"{flags}."]
    if best.precision is not None and best.recall is not None:
        hits = round(best.recall * (record.labelled or 0))
        found = f"precision {best.precision:.3f}, recall {best.recall:.3f}"
        reasons = [f"{flags}, among them {hits:,} of the {record.labelled:,} that are labelled: {found}."]
    if record.region is not None:
        some = [record.settings[i] for i in record.region]
        values = ", ".join(f"{name} {_span([getattr(setting, name) for setting in some])}" for name in ("D", "T", "k"))
        least, most = (pick(setting.share for setting in some) for pick in (min, max))
        many = f"{len(some)} settings ({values}), which flag {least:.2%} to {most:.2%}"
        reasons.append(
            f"The stable region around it has {many}." if len(some) > 1 else "No neighbour is nearly as stable."
        )
    ahead = _ahead(record)
    if ahead is not None:
        here = f"{'an F1 of' if record.by == 'f1' else 'costs of'} {_shown(record.by, ahead.score or 0.0)} here"
        reasons.append(f"{ahead.name} has {here}, but cannot be told from it, and its neighbours are worse.")
    reasons += [_equals(record), *_compared(record)]
    reasons += [
        f"{name}={best.shown_k if name == 'k' else getattr(best, name)} is the {end} tried; try {more} ones."
        for name, values in zip(("D", "T", "k"), grid, strict=True)
        for place, end, more in ((0, "smallest", "smaller"), (-1, "largest", "larger"))
        if len(values) > 1 and getattr(best, name) == values[place] and not (name == "D" and values[place] == 1)
    ]
    return reasons


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _equals(record: TuneRecord) -> str:
    """What is said of settings that are as good."""
    same = [record.settings[i] for i in record.equal if record.settings[i].worse == 0]
    others = [record.settings[i] for i in record.equal if record.settings[i].worse != 0]
    if not record.equal:
        return "No other setting is as good: the intervals of the differences exclude 0."
    said = []
    if same:
        said.append(
            f"{len(same)} other{'s are' if len(same) > 1 else ' is'} exactly as good ({_named(same)}); it is named"
            f" because{' its neighbours are as good or better, and' if record.by != 'overlap' else ''} it has the"
            " smallest D, then the smallest T, then the largest k."
        )
    if others:
        said.append(f"{len(others)} cannot be told from it by this stream ({_named(others)}).")
    return " ".join(said)


def _named(settings: Sequence[TunedSetting]) -> str:
    first = sorted(settings, key=lambda setting: (setting.worse or 0.0, setting.D, setting.T, -setting.k))
    more = f", and {len(first) - LISTED} more" if len(first) > LISTED else ""
    return "; ".join(setting.name for setting in first[:LISTED]) + more


def _compared(record: TuneRecord) -> list[str]:
    """The sentence about the current setting, if there is something to say."""
    if record.current is None:
        return []
    current, by = record.settings[record.current], record.by
    if record.current == record.recommended:
        return ["It is the current setting."]
    if current.score is None or current.worse is None or current.worse_interval is None:
        return [f"The current setting, {current.name}, flags too few purchases to compare it."]
    what = {"f1": "an F1 of ", "cost": "costs of ", "overlap": "a least overlap of "}[by]
    how = "not clearly worse" if current.equal else f"worse by {_between(by, current.worse_interval)}"
    return [f"The current setting, {current.name}, has {what}{_shown(by, current.score)}: {how}."]


def as_text(record: TuneRecord) -> str:
    """Format the recommendation, its reasons and the best settings as text."""
    order = sorted(
        (i for i, setting in enumerate(record.settings) if setting.worse is not None),
        key=lambda i: (i != record.recommended, record.settings[i].worse, i),
    )
    shown = order[:LISTED] + [i for i in order[LISTED:] if i == record.current]
    title = {"f1": "F1", "cost": f"cost of {PER:,}", "overlap": "least overlap"}[record.by]
    table = [
        ("D", "T", "k", "flagged", "share", *(("precision", "recall") if record.labelled else ()), title, "95 %", "")
    ]
    for i in shown:
        setting = record.settings[i]
        ratios = (setting.precision, setting.recall) if record.labelled else ()
        table.append((
            str(setting.D), str(setting.T), setting.shown_k, f"{setting.flagged:,}", f"{setting.share:.2%}",
            *("-" if ratio is None else f"{ratio:.3f}" for ratio in ratios),
            _shown(record.by, setting.score or 0.0), _between(record.by, setting.score_interval or (0.0, 0.0)),
            "recommended" if i == record.recommended else "current" if i == record.current else
            "as good" if setting.equal else "",
        ))  # fmt: skip
    reasons = [
        fill(f"- {reason}", WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for reason in record.reasons
    ]
    return "\n".join([record.sentence, "", *reasons, "", *aligned(table, right=range(len(table[0]) - 2))])
