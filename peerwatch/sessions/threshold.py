"""The score from which a session is flagged, and the probability that a score stands for.

Both are calibrated on sessions that the model was not fitted on, weighted so that the share of anomalies is the one
expected in production: a model may be trained where 40 % are anomalous and used where 4 % are.
"""

from typing import Final, Literal, NamedTuple, TypeAlias, get_args

import msgspec
import numpy as np

from peerwatch.errors import BadInput
from peerwatch.sessions.columns import Floats, Mask

Criterion: TypeAlias = Literal["f1", "share", "recall", "costs"]
STEPS: Final = 100
"""Newton steps of the calibration at most; a dozen are the rule."""


class ThresholdRule(msgspec.Struct, frozen=True):
    """How the threshold is chosen.

    By the best F1, by the expected `share` of flagged sessions, by a wanted `recall` at the best precision, or by the
    `cost` of a missed anomaly in false alarms.
    """

    by: Criterion = "f1"
    recall: float = 0.95
    cost: float = 10.0

    @classmethod
    def parsed(cls, text: str) -> "ThresholdRule":
        """The rule that is written `f1`, `share`, `recall=0.95` or `costs=20`.

        Raises:
            BadInput: it is none of them.
        """
        name, equals, value = text.partition("=")
        expected = f'the threshold is "{text}"; expected f1, share, recall=0.95 or costs=20'
        if name not in get_args(Criterion) or (equals and name not in {"recall", "costs"}):
            raise BadInput(expected)
        if not equals:
            return cls(name)  # type: ignore[arg-type]
        try:
            number = float(value)
        except ValueError:
            raise BadInput(expected) from None
        if name == "recall":
            if not 0 < number <= 1:
                raise BadInput(f"{expected}; a recall is above 0 and at most 1")
            return cls("recall", recall=number)
        if not 0 < number < np.inf:
            raise BadInput(f"{expected}; a cost is above 0")
        return cls("costs", cost=number)

    def __str__(self) -> str:
        """As it is written."""
        return {"recall": f"recall={self.recall:g}", "costs": f"costs={self.cost:g}"}.get(self.by, self.by)


class Calibration(msgspec.Struct, frozen=True):
    """A score's meaning: from `threshold` on it is flagged; its log odds are `slope` times it, plus `offset`."""

    threshold: float
    slope: float
    offset: float

    def probability(self, score: Floats) -> Floats:
        """The probability of an anomaly."""
        return _logistic(self.slope * score + self.offset)

    def confidence(self, score: Floats) -> Floats:
        """How far the probability lies from the threshold's: 0 on the threshold, 1 where it is certain."""
        share = self.probability(score)
        limit = float(self.probability(np.array([self.threshold]))[0])
        limit = min(max(limit, 1e-9), 1 - 1e-9)
        return np.clip(np.where(score >= self.threshold, (share - limit) / (1 - limit), (limit - share) / limit), 0, 1)


class Curve(NamedTuple):
    """What each threshold would mean, from the highest score down: scores, precision, recall, share flagged."""

    score: Floats
    precision: Floats
    recall: Floats
    share: Floats


def weights(labels: Mask, expected: float) -> Floats:
    """Weights with which `expected` is the share of anomalies; they sum up to 1."""
    anomalies = labels.sum()
    return np.asarray(np.where(labels, expected / max(anomalies, 1), (1 - expected) / max(len(labels) - anomalies, 1)))


def curve(score: Floats, labels: Mask, weight: Floats) -> Curve:
    """Precision, recall and share at each score that occurs."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    last = np.append(ordered[1:] != ordered[:-1], True)
    hits = np.cumsum(weight[order] * labels[order])[last]
    share = np.cumsum(weight[order])[last]
    return Curve(ordered[last], hits / np.maximum(share, 1e-300), hits / max(hits[-1], 1e-300), share)


def calibrated(score: Floats, labels: Mask, expected: float, rule: ThresholdRule) -> Calibration:
    """Choose a threshold and probabilities from scores of sessions that the model has not seen, and their labels."""
    weight = weights(labels, expected)
    found = curve(score, labels, weight)
    best = _chosen(found, expected, rule)
    below = found.score[best + 1] if best + 1 < len(found.score) else found.score[best]
    slope, offset = _fitted(score, labels, weight, expected)
    return Calibration(float((found.score[best] + below) / 2), slope, offset)


def uncalibrated(score: Floats, contamination: float) -> Calibration:
    """Without labels: the threshold flags the share `contamination` of the sessions that the model was fitted on.

    The probability is only a ranking then: one half on the threshold, more above it.
    """
    threshold = float(np.quantile(score, 1 - contamination))
    low, high = np.quantile(score, [0.25, 0.75])
    slope = 2.0 / max(float(high - low), 1e-12)
    return Calibration(threshold, slope, -slope * threshold)


def _chosen(found: Curve, expected: float, rule: ThresholdRule) -> int:
    if rule.by == "share":
        return int(np.argmin(np.abs(found.share - expected)))
    if rule.by == "recall":
        enough = found.recall >= min(rule.recall, float(found.recall[-1]))
        return int(np.argmax(np.where(enough, found.precision, -1.0)))
    if rule.by == "costs":
        false_alarms = found.share * (1 - found.precision)
        return int(np.argmin(false_alarms + rule.cost * expected * (1 - found.recall)))
    both = found.precision + found.recall
    return int(np.argmax(2 * found.precision * found.recall / np.maximum(both, 1e-300)))


def _fitted(score: Floats, labels: Mask, weight: Floats, expected: float) -> tuple[float, float]:
    """Slope and offset of the log odds (Platt, 1999), by Newton's method, with a slight pull towards no slope."""
    middle, spread = float(np.median(score)), float(score.std()) or 1.0
    x = np.column_stack([(score - middle) / spread, np.ones(len(score))])
    beta = np.array([1.0, np.log(expected / (1 - expected))])
    pull = np.diag([1e-4, 0.0])
    for _ in range(STEPS):
        share = _logistic(x @ beta)
        slope = x.T @ (weight * (share - labels)) + pull @ beta
        bend = (x * (weight * np.maximum(share * (1 - share), 1e-9))[:, None]).T @ x + pull
        step = np.linalg.solve(bend, slope)
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        beta -= step
        if np.abs(step).max() < 1e-8:
            break
    if beta[0] <= 0:  # the score says nothing, or the opposite
        beta = np.array([1e-6, np.log(expected / (1 - expected))])
    return float(beta[0] / spread), float(beta[1] - beta[0] * middle / spread)


def _logistic(odds: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -500, 500))))
