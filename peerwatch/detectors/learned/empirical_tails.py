"""The detectors `ecod` and `copod`: how far out a row is in each column, by the empirical distribution."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np

from peerwatch.detectors.base import Floats
from peerwatch.detectors.learned.base import Arrays, Learned, expect, finite_floats
from peerwatch.detectors.learned.tails import rarities


class Tails(NamedTuple):
    """The sorted values of each column and the sign of its skewness. Shapes [columns, n] and [columns]."""

    values: Floats
    skew: Floats


class EmpiricalTails(Learned):
    """A detector that sums, over the columns, -log of the shares of rows to the left and to the right.

    Outside the range of the training rows the share falls with the distance from their median.
    """

    modules: ClassVar[tuple[str, ...]] = ("sklearn.preprocessing",)

    def __init__(self, *, contamination: float = 0.01) -> None:
        self.contamination = contamination

    @abstractmethod
    def _unusual(self, left: Floats, right: Floats, skew: float) -> Floats:
        """How unusual values of one column are, by -log of their left and right shares. Shapes [n]."""

    def _learn(self, rows: Floats) -> tuple[Any, Floats]:
        centered = rows - rows.mean(axis=0)
        model = Tails(np.sort(rows.T), np.sign(np.power(centered, 3).mean(axis=0)))
        return model, self._score(model, rows)

    def _score(self, model: Any, rows: Floats) -> Floats:
        total = np.zeros(len(rows))
        for column, values, skew in zip(rows.T, model.values, model.skew.tolist(), strict=True):
            total += self._unusual(rarities(-column, -values[::-1]), rarities(column, values), skew)
        return total

    def _kept(self, model: Any) -> Arrays:
        return model._asdict()  # type: ignore[no-any-return]

    def _revived(self, arrays: Arrays, columns: int) -> Any:
        model = Tails(finite_floats(arrays["values"], 2), finite_floats(arrays["skew"], 1))
        expect(len(arrays) == len(Tails._fields), "its columns")
        expect(len(model.values) == columns and model.values.shape[1] >= self.least, "its values")
        expect(bool((np.diff(model.values) >= 0).all()), "the order of its values")
        expect(model.skew.shape == (columns,) and bool(np.isin(model.skew, [-1, 0, 1]).all()), "its skewness")
        return model


class Ecod(EmpiricalTails):
    """Flags rows in the tails of many columns, whichever tail it is (Li et al., 2022)."""

    name: ClassVar[str] = "ecod"

    def _unusual(self, left: Floats, right: Floats, skew: float) -> Floats:  # noqa: ARG002 (the larger tail is used)
        return np.maximum(left, right)


class Copod(EmpiricalTails):
    """Flags rows in the tails of many columns, above all in the longer tail of each (Li et al., 2020)."""

    name: ClassVar[str] = "copod"

    def _unusual(self, left: Floats, right: Floats, skew: float) -> Floats:
        longer = left if skew < 0 else right if skew > 0 else left + right
        return np.maximum(longer, (left + right) / 2)
