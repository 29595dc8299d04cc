"""Several detectors together: they vote, or their scores are combined."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from peerwatch.detectors.base import Context, Detector, Floats, Mask, Verdicts, check_finite, columns_of, positive
from peerwatch.detectors.learned.base import check_contamination, exceeded_by, expect, finite_floats
from peerwatch.detectors.learned.tails import rarities
from peerwatch.detectors.registry import make
from peerwatch.errors import BadInput
from peerwatch.kernels import Int64s

KEYS: Final = {"name", "parameters", "weight"}
MEMBERS: Final[tuple[Mapping[str, Any], ...]] = (
    {"name": "isolation_forest"},
    {"name": "mcd"},
    {"name": "ecod"},
    {"name": "knn", "parameters": {"neighbours": 10}, "weight": 0.5},
)
"""The default members: they fail in different places."""
VOTE: Final = "vote"
QUADRATIC: Final = "quadratic"
COMBINATIONS: Final = (VOTE, "mean", "max", "tail", QUADRATIC)
CALIBRATION: Final = "calibration"
THRESHOLD: Final = "threshold"

Answer = tuple[Floats, Mask]
"""A member's scores and flags. Shapes [q]."""


class Ensemble(Detector):
    """Flags what its members find unusual together.

    `members` are mappings: the `name` of a detector, its `parameters` (none) and its `weight` (1). With `combine: vote`
    the score is the share of the weight, among the members that have an answer, of those that flag; a row is flagged
    above `threshold`. Otherwise each score is taken for the probability that it has, or a higher one, among the scores
    of the rows that the member has learned from: the score is the mean of 1 - probability (`mean`), the mean of
    -log probability (`tail`), their root mean square (`quadratic`) or the largest of them (`max`, without weights). A
    row is flagged then if its score is above all but the share `contamination` of those of the training rows. Not
    given, `members` are the default ones and combined by `quadratic`; members of your own vote. The score is NaN if no
    member has an answer.
    """

    name: ClassVar[str] = "ensemble"

    def __init__(
        self,
        *,
        members: Sequence[Mapping[str, Any]] | None = None,
        combine: str | None = None,
        threshold: float = 0.5,
        contamination: float = 0.01,
    ) -> None:
        self.members = members
        self.combine = combine
        self.threshold = threshold
        self.contamination = contamination

    def check(self) -> None:
        """Check the members, that each can be made, how they are combined, and the numbers.

        Raises:
            BadInput: one of them cannot be used.
        """
        if (
            isinstance(self.threshold, bool)
            or not isinstance(self.threshold, Real)
            or not 0 <= float(self.threshold) < 1
        ):
            raise BadInput(
                f'{self.name}: "threshold" is {self.threshold!r}; expected a number that is at least 0 and below 1'
            )
        check_contamination(self.name, self.contamination)
        if self.combine is not None and self.combine not in COMBINATIONS:
            raise BadInput(f'{self.name}: "combine" is {self.combine!r}; expected one of {", ".join(COMBINATIONS)}')
        if self.members is not None:
            self._check_members(self.members)
        for place, member in enumerate(self._all(), 1):
            if not (self._votes or member.trains):
                raise BadInput(
                    f"{self.name}: member {place}, {member.name}, does not learn from rows, so its scores cannot be"
                    f' combined with others: set "combine" to {VOTE}, or name detectors that learn'
                )

    def _check_members(self, members: Any) -> None:
        if not isinstance(members, Sequence) or isinstance(members, str) or not members:
            raise BadInput(f'{self.name}: "members" is {members!r}; expected a list, as [{{name: mad}}]')
        for place, member in enumerate(members, 1):
            if not isinstance(member, Mapping) or not isinstance(member.get("name"), str) or member.keys() - KEYS:
                raise BadInput(
                    f"{self.name}: member {place} is {member!r}; expected a name, and perhaps parameters and a weight"
                )
            positive(f"{self.name}, member {place}", weight=member.get("weight", 1))
            if not isinstance(member.get("parameters", {}), Mapping):
                raise BadInput(f"{self.name}, member {place}: parameters are names with values")

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
        """Have each member judge, and combine the answers."""
        check_finite(window)
        check_finite(amount)
        if not (self._votes or self._is_fitted):
            unknown = np.full(len(amount), np.nan)
            return Verdicts(unknown, unknown.copy(), np.zeros(len(amount), np.bool_))
        answers = [member.judge(offsets, window, amount, context)[::2] for member in self._all()]
        return self._counted(answers) if self._votes else self._verdicts(self._score([score for score, _ in answers]))

    def fit(self, X: ArrayLike, y: object = None) -> Self:
        """Fit every member, and learn how its scores are distributed."""
        self.check()
        for member in self._all():
            member.fit(X, y)
        answers = [
            (member.decision_scores_, member.labels_ == 1) if hasattr(member, "training_") else member.look_back(X)[::2]
            for member in self._all()
        ]
        if self._votes:
            self.remember(X, columns_of(X), self._counted(answers).score)
            return self
        scores = [score for score, _ in answers]
        self.calibration_ = np.sort(scores)
        check_finite(self.calibration_)
        self.remember(X, columns_of(X), self._score(scores))
        self.exceeded_ = exceeded_by(self.contamination, self.decision_scores_)
        return self

    @property
    def threshold_(self) -> float:  # type: ignore[override]
        """The score above which a row is flagged."""
        self._training()
        return float(self.threshold) if self._votes else self.exceeded_

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
        """Judge each row of X by an ensemble of the same parameters that knows all of them."""
        fresh = type(self)(**self.get_params())
        if self._votes:
            fresh.check()
            return fresh._counted([member.look_back(X)[::2] for member in fresh._all()])  # noqa: SLF001 (one of its own)
        fresh.fit(X)
        return fresh._verdicts(fresh.decision_scores_)  # noqa: SLF001

    def score_samples(self, X: ArrayLike) -> Floats:
        """How normal each row of X is: the score, negated. Shape [n]."""
        return -self._judged(X).score

    def decision_function(self, X: ArrayLike) -> Floats:
        """How far below the threshold each row's score is; negative if it is flagged. Shape [n]."""
        score, threshold, _ = self._judged(X)
        return threshold - score

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays of all members, whose names begin with the member's place, and what is kept of training rows."""
        learned = {
            f"{place}.{name}": array
            for place, member in enumerate(self._all())
            for name, array in member.arrays().items()
        }
        if not self._votes:
            learned |= {CALIBRATION: self.calibration_, THRESHOLD: np.array(self.exceeded_)}
        return learned | (self.training_.arrays() if self.training_ is not None else {})

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Restore each member from its own arrays."""
        members, rest = self._made(), dict(arrays)
        parts: list[dict[str, NDArray[Any]]] = [{} for _ in members]
        training = self._kept_training(rest)
        if not self._votes:
            calibration, threshold = self._revived(rest, len(members))
        for name, array in rest.items():
            place, _, own = name.partition(".")
            if not place.isdecimal() or int(place) >= len(parts):
                raise BadInput(f"these are not what an {self.name} of {len(parts)} has learned")
            parts[int(place)][own] = array
        self.members_ = [member.restore(part) for member, part in zip(members, parts, strict=True)]
        self.training_ = training
        if training is not None:
            self.n_features_in_ = len(training.reference.typical)
        if not self._votes:
            self.calibration_, self.exceeded_ = calibration, threshold
        return self

    def _revived(self, rest: dict[str, NDArray[Any]], count: int) -> tuple[Floats, float]:
        """The calibration and the threshold, which are taken out of `rest`."""
        try:
            calibration, threshold = finite_floats(rest.pop(CALIBRATION), 2), finite_floats(rest.pop(THRESHOLD), 0)
            expect(len(calibration) == count and calibration.size > 0, "its calibration")
            expect(bool((np.diff(calibration) >= 0).all()), "the order of its calibration")
        except (KeyError, ValueError) as error:  # a BadInput is a ValueError
            raise BadInput(f"these are not what an {self.name} of {count} has learned ({error})") from error
        return calibration, float(threshold)

    @property
    def _combination(self) -> str:
        return self.combine or (QUADRATIC if self.members is None else VOTE)

    @property
    def _votes(self) -> bool:
        return self._combination == VOTE

    @property
    def _is_fitted(self) -> bool:
        return hasattr(self, "calibration_")

    def _given(self) -> Sequence[Mapping[str, Any]]:
        return MEMBERS if self.members is None else self.members

    def _made(self) -> list[Detector]:
        return [make(member["name"], member.get("parameters", {})) for member in self._given()]

    def _all(self) -> list[Detector]:
        """The members, made when they are first asked for."""
        if not hasattr(self, "members_"):
            self.members_ = self._made()
        return self.members_

    def _shared(self, contributions: Sequence[Floats]) -> Floats:
        """Weighted mean of the members' contributions, each row's scaled to add up to 1."""
        weights = self._weights()
        total = np.zeros_like(contributions[0])
        for weight, found in zip(weights, contributions, strict=True):
            raised = np.maximum(np.nan_to_num(found), 0.0)
            with np.errstate(invalid="ignore"):
                total += weight * np.nan_to_num(raised / raised.sum(axis=1, keepdims=True))
        return total / sum(weights)

    def _judged(self, X: ArrayLike) -> Verdicts:
        scores = [-member.score_samples(X) for member in self._all()]
        if not self._votes:
            return self._verdicts(self._score(scores))
        flags = [member.decision_function(X) < 0 for member in self._all()]
        return self._counted(list(zip(scores, flags, strict=True)))

    def _verdicts(self, score: Floats) -> Verdicts:
        return Verdicts(score, np.full(len(score), self.exceeded_), score > self.exceeded_)

    def _weights(self) -> list[float]:
        return [float(member.get("weight", 1)) for member in self._given()]

    def _counted(self, answers: Sequence[Answer]) -> Verdicts:
        """Add up the members' votes; a member whose score is NaN does not vote."""
        share = _mean([np.where(np.isnan(score), np.nan, flagged) for score, flagged in answers], self._weights())
        return Verdicts(share, np.full(len(share), float(self.threshold)), share > self.threshold)

    def _score(self, scores: Sequence[Floats]) -> Floats:
        """Combine the scores of all members, each of shape [q]."""
        rarity = np.array([rarities(score, learned) for score, learned in zip(scores, self.calibration_, strict=True)])
        match self._combination:
            case "max":
                return np.fmax.reduce(rarity)  # type: ignore[no-any-return]
            case "mean":
                return _mean(-np.expm1(-rarity), self._weights())
            case "quadratic":
                return np.sqrt(_mean(np.square(rarity), self._weights()))
            case _:
                return _mean(rarity, self._weights())


def _mean(values: Sequence[Floats] | Floats, weights: Sequence[float]) -> Floats:
    """The weighted mean over the members whose value is not NaN; NaN if there is none. Shape [q].

    Added up one by one: a sum of numpy's would depend on q.
    """
    given, total = np.zeros(len(values[0])), np.zeros(len(values[0]))
    for weight, value in zip(weights, values, strict=True):
        known = ~np.isnan(value)
        given += np.where(known, weight, 0.0)
        total += np.where(known, weight * value, 0.0)
    mean = np.full(len(given), np.nan)
    np.divide(total, given, out=mean, where=given > 0)
    return mean
