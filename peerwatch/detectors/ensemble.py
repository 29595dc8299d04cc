"""Several detectors that vote."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peerwatch.detectors.base import Context, Detector, Floats, Mask, Verdicts, check_finite, columns_of, positive
from peerwatch.detectors.registry import make
from peerwatch.errors import BadInput
from peerwatch.kernels import Int64s

KEYS: Final = {"name", "parameters", "weight"}
MEMBERS: Final = ({"name": "zscore"}, {"name": "iqr"}, {"name": "mad"})
"""The default members."""


class Ensemble(Detector):
    """Flags what more than a share of its members flag.

    `members` are mappings: the `name` of a detector, its `parameters` (none) and the `weight` of its vote (1). The
    score is the share of the weight, among the members that have an answer, of those that flag; it is NaN if none has.
    """

    name: ClassVar[str] = "ensemble"

    def __init__(self, *, members: Sequence[Mapping[str, Any]] = MEMBERS, threshold: float = 0.5) -> None:
        self.members = members
        self.threshold = threshold

    def check(self) -> None:
        """Check that there are members, each can be made, weights are above 0, and the threshold is a share.

        Raises:
            BadInput: one of them is not so.
        """
        if (
            isinstance(self.threshold, bool)
            or not isinstance(self.threshold, Real)
            or not 0 <= float(self.threshold) < 1
        ):
            raise BadInput(
                f'{self.name}: "threshold" is {self.threshold!r}; expected a number that is at least 0 and below 1'
            )
        if not isinstance(self.members, Sequence) or isinstance(self.members, str) or not self.members:
            raise BadInput(f'{self.name}: "members" is {self.members!r}; expected a list, as [{{name: mad}}]')
        for place, member in enumerate(self.members, 1):
            if not isinstance(member, Mapping) or not isinstance(member.get("name"), str) or member.keys() - KEYS:
                raise BadInput(
                    f"{self.name}: member {place} is {member!r}; expected a name, and perhaps parameters and a weight"
                )
            positive(f"{self.name}, member {place}", weight=member.get("weight", 1))
            if not isinstance(member.get("parameters", {}), Mapping):
                raise BadInput(f"{self.name}, member {place}: parameters are names with values")
        self._all()

    @property
    def trains(self) -> bool:
        """Whether a member is trained."""
        return any(member.trains for member in self._all())

    @property
    def wants_context(self) -> bool:
        """Whether a member uses a context."""
        return any(member.wants_context for member in self._all())

    @property
    def in_order(self) -> bool:
        """Whether the order of rows matters to a member."""
        return any(member.in_order for member in self._all())

    @property
    def libraries(self) -> tuple[str, ...]:
        """The libraries of all members."""
        return tuple(sorted({library for member in self._all() for library in member.libraries}))

    def judge(self, offsets: Int64s, window: Floats, amount: Floats, context: Context | None = None) -> Verdicts:
        """Have each member judge, and count the votes."""
        check_finite(window)
        check_finite(amount)
        return self._counted([member.judge(offsets, window, amount, context)[::2] for member in self._all()])

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit every member."""
        self.check()
        for member in self._all():
            member.fit(X, y)
        votes = [
            (member.decision_scores_, member.labels_ == 1) if hasattr(member, "training_") else member.look_back(X)[::2]
            for member in self._all()
        ]
        self.remember(X, columns_of(X), self._counted(votes).score)
        return self

    @property
    def threshold_(self) -> float:  # type: ignore[override]
        """The share of the votes above which a row is flagged."""
        self._training()
        return float(self.threshold)

    def contributions(self, X: ArrayLike, places: Int64s | None = None) -> Floats:
        """The mean over the members, each of whose contributions add up to 1. Shape [rows, columns]."""
        return self._shared([member.contributions(X, places) for member in self._all()])

    def looking_back(self, X: ArrayLike, places: Int64s | None = None) -> Floats:
        """The same, looking back at the whole of X. Shape [rows, columns]."""
        return self._shared([member.looking_back(X, places) for member in self._all()])

    def __sklearn_is_fitted__(self) -> bool:
        """What scikit-learn asks."""
        return hasattr(self, "training_")

    def look_back(self, X: ArrayLike) -> Verdicts:
        """Have each member look back, and count the votes."""
        self.check()
        return self._counted([member.look_back(X)[::2] for member in self._all()])

    def score_samples(self, X: ArrayLike) -> Floats:
        """How normal each row of X is: the share of the votes against it, negated. Shape [n]."""
        return -self._voted(X).score

    def decision_function(self, X: ArrayLike) -> Floats:
        """How far below the threshold each row's share is; negative if it is flagged. Shape [n]."""
        return self.threshold - self._voted(X).score

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of all members; the names begin with the member's place."""
        members = {
            f"{place}.{name}": array
            for place, member in enumerate(self._all())
            for name, array in member.arrays().items()
        }
        return members | (self.training_.arrays() if self.training_ is not None else {})

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Restore each member from its own arrays."""
        parts: list[dict[str, NDArray[Any]]] = [{} for _ in self._all()]
        rest_of_all = dict(arrays)
        training = self._kept_training(rest_of_all)
        for name, array in rest_of_all.items():
            place, _, rest = name.partition(".")
            if not place.isdecimal() or int(place) >= len(parts):
                raise BadInput(f"these are not what an {self.name} of {len(parts)} has learned")
            parts[int(place)][rest] = array
        self.members_ = [
            make(member["name"], member.get("parameters", {})).restore(part)
            for member, part in zip(self.members, parts, strict=True)
        ]
        self.training_ = training
        if training is not None:
            self.n_features_in_ = len(training.reference.typical)
        return self

    def _all(self) -> list[Detector]:
        """The members, made when they are first asked for."""
        if not hasattr(self, "members_"):
            self.members_ = [make(member["name"], member.get("parameters", {})) for member in self.members]
        return self.members_

    def _shared(self, contributions: Sequence[Floats]) -> Floats:
        """Weighted mean of the members' contributions, each row's scaled to add up to 1."""
        weights = [float(member.get("weight", 1)) for member in self.members]
        total = np.zeros_like(contributions[0])
        for weight, found in zip(weights, contributions, strict=True):
            raised = np.maximum(np.nan_to_num(found), 0.0)
            with np.errstate(invalid="ignore"):
                total += weight * np.nan_to_num(raised / raised.sum(axis=1, keepdims=True))
        return total / sum(weights)

    def _voted(self, X: ArrayLike) -> Verdicts:
        return self._counted([(member.score_samples(X), member.decision_function(X) < 0) for member in self._all()])

    def _counted(self, votes: Sequence[tuple[Floats, Mask]]) -> Verdicts:
        """Add up the members' votes; a member whose score is NaN does not vote."""
        weights = [float(member.get("weight", 1)) for member in self.members]
        count = len(votes[0][0])
        against, given = np.zeros(count), np.zeros(count)
        for weight, (score, flagged) in zip(weights, votes, strict=True):
            given += np.where(np.isnan(score), 0.0, weight)
            against += np.where(flagged, weight, 0.0)
        share = np.full(count, np.nan)
        np.divide(against, given, out=share, where=given > 0)
        return Verdicts(share, np.full(count, float(self.threshold)), share > self.threshold)
