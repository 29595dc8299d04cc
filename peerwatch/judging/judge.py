"""The contract of judges: cases in, verdicts out, with their reasons."""

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
"""The names of the two judges in snapshots, in the journal and in the names of model files."""
Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Case(NamedTuple):
    """Purchases to judge, in order: their windows, and columns of shape [q].

    `line` is the line number in the log, from 1, or 0 if labels cannot name the purchase by it; `amount` is in
    millionths, `timestamp` in microseconds; `members` is the size of the network, -1 if it was not counted. `own` are
    the buyers' own latest purchases, None if no judge needs them.
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
        """Return the purchases from `begin` up to, not including, `end`."""
        own = self.own.part(begin, end) if self.own is not None else None
        seq, line, timestamp, members = (
            column[begin:end] for column in (self.seq, self.line, self.timestamp, self.members)
        )
        return Case(self.windows.part(begin, end), seq, line, self.amount[begin:end], timestamp, members, own)


class BatchVerdicts(NamedTuple):
    """Verdicts on q purchases, in columns of shape [q]. Sigma sets only `flagged`.

    `model` is the version of the model that judged, 0 before the first model.
    """

    flagged: Mask
    score: Floats | None = None
    threshold: Floats | None = None
    model: Int64s | None = None


def joined(parts: Sequence[BatchVerdicts]) -> BatchVerdicts:
    """Join the verdicts on consecutive parts. There must be at least one part."""
    score, threshold, model = (
        None if column[0] is None else np.concatenate(column)
        for column in zip(*(part[1:] for part in parts), strict=True)
    )
    return BatchVerdicts(np.concatenate([part.flagged for part in parts]), score, threshold, model)


class Scoring(NamedTuple):
    """How a detector other than sigma scored a purchase: its name, the score, its threshold, its model's version.

    The score is NaN if it gave none. The version is None for a detector that is not trained, and 0 before the first
    model.
    """

    detector: str
    score: float
    threshold: float
    model: int | None = None


class Reasons(NamedTuple):
    """A verdict with its reasons. `place` is the purchase's index in the judged batch.

    `amount` is in millionths; `oldest` and `newest` are the timestamps (microseconds) at the window's ends, None if it
    is empty. `scoring` is set by detectors other than sigma, `severity` on flagged purchases if levels are configured.
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
    """Turns windows into verdicts.

    `detector` is the rule or model that it judges by, `learner` collects training sets, `adaptation` adapts the
    threshold.
    """

    detector: Any
    learner: Learner | None = None
    adaptation: Adaptation | None = None

    def __init__(self, severity: Severity | None = None) -> None:
        self.severity = severity

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of its detector; empty for sigma."""
        return {}

    @property
    def is_quick(self) -> bool:
        """Whether a few purchases are judged in microseconds. A detector may take any time, and even read files."""
        return False

    @property
    def wants_context(self) -> bool:
        """Whether it needs the buyers' own purchases besides the windows."""
        return False

    @property
    def stepwise(self) -> bool:
        """Whether model or threshold may change from one purchase to the next."""
        return False

    def until(self, case: Case) -> int:
        """Return how many purchases of the case can be judged before model or threshold may change."""
        return len(case.seq)

    def activate(self, model: Any) -> None:
        """Judge by `model` from now on. It must have been trained on the learner's training set.

        Raises:
            NotImplementedError: the detector is not trained.
        """
        raise NotImplementedError(f"{type(self).__name__} learns nothing")

    @abstractmethod
    def verdicts(self, case: Case) -> BatchVerdicts:
        """Judge purchases. Must be called with every purchase of a run, in order and once."""

    def decisions(self, case: Case, judged: BatchVerdicts, which: Mask) -> list[Reasons]:
        """Return the verdicts on the purchases in the mask `which` (shape [q]) with their reasons, in order.

        Mean and sd are exact for every detector, because they are written to the output.
        """
        return [self._decision(case, judged, place) for place in np.flatnonzero(which).tolist()]

    def statistics(self, windows: Windows, place: int) -> Statistics:
        """The exact statistics of one window."""
        return Statistics.of(windows.amount[windows.window(place)].tolist())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state that is kept from one purchase to the next, as copies."""
        return {}

    def restore(  # noqa: B027 (most remember nothing)
        self, arrays: Mapping[str, NDArray[Any]], load_model: Callable[[int, Any], Any]
    ) -> None:
        """Restore the state that `arrays` returned. `load_model` loads a version of a model."""

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
