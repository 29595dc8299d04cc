"""What judges have in common: cases in, verdicts out, with their reasons."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from peerwatch.amounts import Amounts
from peerwatch.judging.adaptation import Adaptation
from peerwatch.judging.severity import Level, Severity
from peerwatch.judging.training import Learner
from peerwatch.kernels import Int64s
from peerwatch.network.statistics import Statistics
from peerwatch.network.windows import Windows

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
"""Whose verdicts count, and whose are only compared with them: names in snapshots, the journal and models' files."""
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Case(NamedTuple):
    """Purchases to be judged, in order: their windows, and columns of shape [q].

    `line` is in the log, from 1; `amount` is in millionths, `timestamp` in microseconds; `members` counts the network
    (-1: not counted). `own` are the buyers' own latest purchases before these; None if nobody has asked for them.
    """

    windows: Windows
    seq: Int64s
    line: Int64s
    amount: Amounts
    timestamp: Int64s
    members: Int64s
    own: Windows | None = None

    def statistics(self, place: int) -> Statistics:
        """The exact statistics of one purchase's window."""
        return Statistics.of(self.windows.amount[self.windows.window(place)].tolist())

    def part(self, begin: int, end: int) -> "Case":
        """The purchases from `begin` on, before `end`."""
        own = self.own.part(begin, end) if self.own is not None else None
        seq, line, timestamp, members = (
            column[begin:end] for column in (self.seq, self.line, self.timestamp, self.members)
        )
        return Case(self.windows.part(begin, end), seq, line, self.amount[begin:end], timestamp, members, own)


class BatchVerdicts(NamedTuple):
    """Verdicts on q purchases. Of shape [q]; what sigma has nothing to say on is None.

    `model` is the version of the model that spoke, 0 for none.
    """

    flagged: Mask
    score: Floats | None = None
    threshold: Floats | None = None
    model: Int64s | None = None


def joined(parts: Sequence[BatchVerdicts]) -> BatchVerdicts:
    """Verdicts on purchases that were judged part by part, one part at least."""
    score, threshold, model = (
        None if column[0] is None else np.concatenate(column)
        for column in zip(*(part[1:] for part in parts), strict=True)
    )
    return BatchVerdicts(np.concatenate([part.flagged for part in parts]), score, threshold, model)


class Scoring(NamedTuple):
    """A detector's own words: its name, the score it gave (NaN if it has none), its threshold, its model's version.

    The version is None for a detector that learns nothing, and 0 before the first model.
    """

    detector: str
    score: float
    threshold: float
    model: int | None = None


class Reasons(NamedTuple):
    """One verdict with its reasons. `place` is the purchase's place in the judged batch.

    `amount` is in millionths; `oldest` and `newest` are the timestamps (microseconds) at the window's ends, None if it
    is empty. `scoring` is what a detector other than sigma had to say; `severity` how bad a flagged purchase is, if
    levels are set.
    """

    place: int
    flagged: bool
    amount: int
    statistics: Statistics
    oldest: int | None
    newest: int | None
    scoring: Scoring | None = None
    severity: Level | None = None


class Judge(ABC):
    """What turns windows into verdicts.

    `detector` is the rule or model it judges by, `learner` what trains it, `adaptation` what moves its threshold.
    """

    detector: Any
    learner: Learner | None = None
    adaptation: Adaptation | None = None

    def __init__(self, severity: Severity | None = None) -> None:
        self.severity = severity

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters it judges by, if they are any detector's."""
        return {}

    @property
    def wants_context(self) -> bool:
        """Whether it wants to know more of a purchase than its window."""
        return False

    @property
    def stepwise(self) -> bool:
        """Whether how purchases are judged may change from one to the next."""
        return False

    def until(self, case: Case) -> int:
        """How many of the purchases may be judged before something may change how the others are."""
        return len(case.seq)

    def activate(self, model: Any) -> None:
        """Judge by a model, that of the learner's training set, from now on."""
        raise NotImplementedError(f"{type(self).__name__} learns nothing")

    @abstractmethod
    def verdicts(self, case: Case) -> BatchVerdicts:
        """Judge purchases; those of a run come in order, each once."""

    def decisions(self, case: Case, judged: BatchVerdicts, which: Mask) -> list[Reasons]:
        """Verdicts with their reasons, of the purchases `which` (shape [q]) says, in order.

        Mean and sd are exact whoever judges: they are written whoever does.
        """
        return [self._decision(case, judged, place) for place in np.flatnonzero(which).tolist()]

    def statistics(self, windows: Windows, place: int) -> Statistics:
        """The exact statistics of one window."""
        return Statistics.of(windows.amount[windows.window(place)].tolist())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All it remembers from one purchase to the next. Copies."""
        return {}

    def restore(  # noqa: B027 (most remember nothing)
        self, arrays: Mapping[str, NDArray[Any]], load_model: Callable[[int, Any], Any]
    ) -> None:
        """Remember what `arrays` held. `load_model` gives a model by its version, like the detector it is handed."""

    def _scoring(self, judged: BatchVerdicts, place: int) -> Scoring | None:  # noqa: ARG002
        return None

    def _decision(self, case: Case, judged: BatchVerdicts, place: int) -> Reasons:
        times = case.windows.timestamp[case.windows.window(place)]
        oldest, newest = (int(times.min()), int(times.max())) if len(times) else (None, None)
        amount, statistics = case.amount.exact(place), self.statistics(case.windows, place)
        scoring, flagged, level = self._scoring(judged, place), bool(judged.flagged[place]), None
        if self.severity is not None and flagged:
            level = self.severity.exact(statistics, amount) if scoring is None else self.severity.of(scoring.score)
        return Reasons(place, flagged, amount, statistics, oldest, newest, scoring, level)
