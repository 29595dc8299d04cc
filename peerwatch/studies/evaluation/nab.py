"""Scores detectors by the rules of the Numenta Anomaly Benchmark (Lavin and Ahmad, 2015).

Each value of a series is judged by those before it. One threshold per detector and profile counts for all series: the
one with the highest score. Of each labelled window the earliest detection counts, the more the earlier it is; each
detection outside windows costs, the less the sooner it comes after one; a window without a detection costs most. The
sum is scaled so that 0 is a detector that never detects anything, and 100 one that detects each window at its first row
and nothing else.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np

from peerwatch.detectors.base import Detector, Floats, Rule
from peerwatch.detectors.registry import DETECTORS, make
from peerwatch.detectors.series.causal import Causal, by_latest
from peerwatch.errors import BadInput, RunError, UsageError
from peerwatch.kernels import Int64s
from peerwatch.progress import Progress

PROBATION: Final = 0.15
"""The share of a series that is not judged, so that detectors can learn from it; of at most LONGEST rows."""
LONGEST: Final = 5000
BEHIND: Final = 3.0
"""A detection that many windows behind the latest window costs as much as one before any."""
LAGS: Final = 8
"""A learned detector judges the latest LAGS values as a row."""
ROWS: Final = 1000
"""The most rows that a learned detector is fitted on: the latest."""
EVERY: Final = 1000
"""A learned detector is fitted again after that many values."""
SLOW: Final = {"seasonal": "a decomposition of each window takes hours; name it to have it all the same"}
"""Detectors that are left out unless they are named, and why."""
QUIET: Final = 0.2
"""An alarm is told once within this share of the probation, as KNN-CAD does it (Burnaev and Ishimtsev, 2016)."""
DECIMALS: Final = 4
"""Scores are rounded to so many: their last bits may differ between processors."""


class Profile(NamedTuple):
    """What an application pays for one false detection, and for one window without a detection."""

    false: float
    missed: float


PROFILES: Final = {
    "standard": Profile(0.11, 1.0),
    "reward_low_FP_rate": Profile(0.22, 1.0),
    "reward_low_FN_rate": Profile(0.11, 2.0),
}
"""NAB's application profiles. A detection at the first row of a window earns 1 in each."""


class LabelledSeries(NamedTuple):
    """A series of values with its labelled windows: the first and last row of each, in order."""

    name: str
    values: Floats
    windows: Sequence[tuple[int, int]]


class NabScore(msgspec.Struct, frozen=True):
    """A detector's score in one profile, and the threshold that was chosen; None if it is best to detect nothing."""

    score: float
    threshold: float | None


class NabResult(msgspec.Struct, frozen=True):
    """A detector's score in each profile. If it was skipped, `skipped` is the reason and there are no scores."""

    method: str
    scores: dict[str, NabScore]
    skipped: str | None = None


class NabRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The scores of detectors on the series that were there, and the scores that were published, over all of NAB's."""

    series: int
    values: int
    windows: int
    results: list[NabResult]
    published: dict[str, dict[str, float]]


class Weighed(NamedTuple):
    """What a detection at each judged row of all series is worth. Columns have shape [rows].

    `window` is the number of the labelled window that the row is in, -1 outside. `weight` is what a detection earns: 1
    at a window's first row, down to -1 far behind the window before.
    """

    window: Int64s
    weight: Floats
    windows: int


def series_in(folder: Path) -> Path | None:
    """Return where a copy of NAB's data lies: in a folder, or in its folder `nab`; None if there is none."""
    return next((path for path in (folder, folder / "nab") if (path / "windows.json").is_file()), None)


def read_series(directory: Path) -> list[LabelledSeries]:
    """Read the series and their windows from a copy of NAB's data: `windows.json` and a folder for each group.

    Raises:
        UsageError: a file is missing or is not what it should be.
    """
    path = directory / "windows.json"
    windows = _read_json(path, dict[str, list[tuple[str, str]]])
    if not windows:
        raise UsageError(f"{path} names no series")
    return [_read_one(directory / name, name, windows[name]) for name in sorted(windows)]


def read_published(directory: Path) -> dict[str, dict[str, float]]:
    """Read the published scores, by detector and profile; none if `published_scores.json` is not there.

    Raises:
        UsageError: the file is not what it should be.
    """
    path = directory / "published_scores.json"
    return _read_json(path, dict[str, dict[str, float]]) if path.exists() else {}


def _read_json(path: Path, kind: Any) -> Any:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path}: {error}") from None


def _read_one(path: Path, name: str, windows: Iterable[tuple[str, str]]) -> LabelledSeries:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        times = [datetime.fromisoformat(row["timestamp"]) for row in rows]
        values = np.array([row["value"] for row in rows], np.float64)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError):
        raise UsageError(f'{path}: expected the columns "timestamp" and "value" with times and numbers') from None
    try:
        places = [tuple(times.index(datetime.fromisoformat(time)) for time in window) for window in windows]
    except ValueError:
        raise UsageError(f"{path}: a window in windows.json begins or ends at a time that has no row") from None
    return LabelledSeries(name, values, [(first, last) for first, last in sorted(places)])


def probation(rows: int) -> int:
    """Return how many rows of a series are not judged."""
    return int(min(PROBATION * rows, PROBATION * LONGEST))


def weigh(all_series: Sequence[LabelledSeries]) -> Weighed:
    """Return what a detection at each judged row is worth."""
    windows, weights, known = [], [], 0
    for series in all_series:
        rows = len(series.values)
        window, weight = np.full(rows, -1), np.full(rows, -1.0)
        for number, (first, last) in enumerate(series.windows, known):
            width = last - first + 1
            inside, behind = np.arange(first, last + 1), np.arange(last + 1, rows)
            window[inside] = number
            weight[inside] = _sigmoid((inside - last - 1) / width) / _sigmoid(-1.0)
            far = (behind - last) / max(width - 1, 1)
            weight[behind] = np.where(far < BEHIND, _sigmoid(far), -1.0)
        known += len(series.windows)
        begin = probation(rows)
        windows.append(window[begin:])
        weights.append(weight[begin:])
    return Weighed(np.concatenate(windows), np.concatenate(weights), known)


def _sigmoid(position: Any) -> Any:
    """NAB's scaled sigmoid of a position in widths of a window, 0 at its end: from 1 far before to -1 far behind."""
    return 2 / (1 + np.exp(5 * position)) - 1


def sweep(weighed: Weighed, scores: Floats, profile: Profile) -> tuple[Floats, Floats]:
    """Return every threshold, falling from infinity (nothing is detected), and the unscaled score that it gives.

    `scores` are those of the judged rows, shape [rows]. A row is detected if its score is at least the threshold; one
    without a score (NaN) never is.
    """
    known = np.flatnonzero(~np.isnan(scores))
    order = known[np.argsort(-scores[known], kind="stable")]
    window, weight, ranked = weighed.window[order], weighed.weight[order], scores[order]
    gain = np.where(window < 0, profile.false * weight, 0.0)
    for number in range(weighed.windows):
        inside = np.flatnonzero(window == number)
        reached = np.maximum.accumulate(weight[inside])
        gain[inside] = np.diff(reached, prepend=-profile.missed)
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], [True] * (len(ranked) > 0)))  # of those that tie
    raw = np.concatenate([[0.0], np.cumsum(gain)[last]]) - profile.missed * weighed.windows
    return np.concatenate([[np.inf], ranked[last]]), raw


def scaled(raw: float, windows: int, profile: Profile) -> float:
    """Scale a score: 0 if nothing is detected, 100 if each window is, at its first row, and nothing else."""
    return 100 * (raw + profile.missed * windows) / ((1 + profile.missed) * windows)


def best(weighed: Weighed, scores: Floats, profile: Profile) -> NabScore:
    """Return the highest score that any threshold gives. `scores` are those of the judged rows, shape [rows]."""
    thresholds, raw = sweep(weighed, scores, profile)
    place = int(np.argmax(raw))
    score = scaled(float(raw[place]), weighed.windows, profile)
    return NabScore(round(score, DECIMALS), float(thresholds[place]) if place else None)


def online(detector: Detector, values: Floats) -> Floats:
    """Score each value of a series by those before it, as if they came one by one. Shape [n]; NaN without a score.

    A rule that looks along a series in this way does so, another rule sees the latest values. A learned detector judges
    rows of LAGS values by a model of the latest ROWS rows, which is fitted again every EVERY values. The score is by
    how much a row exceeds the threshold of its model.
    """
    if isinstance(detector, Causal):
        return detector.along(values)
    return by_latest(detector, values) if isinstance(detector, Rule) else _by_models(detector, values)


def _by_models(detector: Detector, values: Floats) -> Floats:
    scores = np.full(len(values), np.nan)
    rows = np.lib.stride_tricks.sliding_window_view(values, LAGS)  # the last row that ends at place is place - LAGS + 1
    first = probation(len(values))
    for begin in range(first, len(values), EVERY):
        known, end = begin - LAGS + 1, min(begin + EVERY, len(values))
        if known < 2:
            continue
        detector.fit(rows[max(0, known - ROWS) : known])
        scores[begin:end] = -detector.decision_function(rows[known : end - LAGS + 1])
    return scores


def told_once(scores: Floats, threshold: float) -> Floats:
    """Keep the scores after each alarm, one above the threshold, at no more than the threshold for a while."""
    found, quiet = scores.copy(), int(QUIET * probation(len(scores)))
    place, alarms = 0, np.flatnonzero(scores > threshold)
    while place < len(alarms):
        alarm = int(alarms[place])
        behind = slice(alarm + 1, alarm + 1 + quiet)
        found[behind] = np.minimum(found[behind], threshold)
        place = int(np.searchsorted(alarms, alarm + 1 + quiet))
    return found


def evaluate_series(
    directory: Path, methods: Sequence[str], parameters: Mapping[str, Any], console: Progress
) -> NabRecord:
    """Score detectors on the series in a directory; without `methods` all but the slow ones.

    Each is also scored with an alarm told once. A detector that cannot judge a series is skipped, and the reason
    recorded.

    Raises:
        UsageError: the directory holds no copy of NAB's data, or a detector cannot be made.
        RunError: a detector failed.
    """
    all_series, names = read_series(directory), methods or [name for name in DETECTORS if name not in SLOW]
    try:
        detectors = [make(name, parameters) for name in names]
    except BadInput as error:
        raise UsageError(str(error)) from None
    weighed, results = weigh(all_series), list[NabResult]()
    with console.progress(len(names)):
        for place, (name, detector) in enumerate(zip(names, detectors, strict=True)):
            console.moved(place, f"NAB, {name}")
            results += _results(name, detector, all_series, weighed)
    results += [NabResult(name, {}, why) for name, why in SLOW.items() if name not in names]
    return NabRecord(
        series=len(all_series), values=sum(len(each.values) for each in all_series), windows=weighed.windows,
        results=results, published=read_published(directory),
    )  # fmt: skip


def _results(name: str, detector: Detector, all_series: Sequence[LabelledSeries], weighed: Weighed) -> list[NabResult]:
    try:
        scores = [online(detector, each.values) for each in all_series]
    except BadInput as error:
        return [NabResult(name, {}, str(error))]
    except Exception as error:  # a user's own code
        raise RunError(f"the detector {name} failed: {type(error).__name__}: {error}") from error
    threshold = detector.threshold if isinstance(detector, Rule) else 0.0
    once = [told_once(each, threshold) for each in scores]
    return [_scored(name, weighed, scores), _scored(f"{name}, told once", weighed, once)]


def _scored(name: str, weighed: Weighed, scores: Sequence[Floats]) -> NabResult:
    joined = np.concatenate([each[probation(len(each)) :] for each in scores])
    return NabResult(name, {which: best(weighed, joined, profile) for which, profile in PROFILES.items()})
