"""Amounts of any size in columns of 64 bits."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from peerwatch.kernels import Int64s

LARGEST_AMOUNT: Final = 2**62
"""Amounts (millionths) from here on are too large for a column."""
UNIT: Final = 10**6
"""Millionths in a unit of the log."""
FEW: Final = 64
"""Large amounts that nobody needs to be rid of."""
SHARE: Final = 8
"""Purchases are looked through once an eighth as many large amounts have come: so that costs little for each."""


class Amounts(msgspec.Struct, frozen=True):
    """A column of amounts in millionths, whatever their size: what is too large for 64 bits is held beside it.

    `held` has shape [n]: where it is negative, it is the name of a large amount, and the amount is `large[name]`. A
    name stands for one purchase within a run, so columns of a run can be put together; those cut from one share its
    large amounts.
    """

    held: Int64s
    large: Mapping[int, int] = msgspec.field(default_factory=dict)

    @classmethod
    def of(cls, amounts: Sequence[int], first: int = 0) -> "Amounts":
        """A column of Python integers; large ones are named from `first` on."""
        large = {-1 - place: amount for place, amount in enumerate(amounts, first) if amount >= LARGEST_AMOUNT}
        held = [amount if amount < LARGEST_AMOUNT else -1 - place for place, amount in enumerate(amounts, first)]
        return cls(np.array(held, np.int64), large)

    @classmethod
    def joined(cls, columns: Sequence["Amounts"]) -> "Amounts":
        """One column of several of the same run."""
        return cls(np.concatenate([column.held for column in columns]), united([column.large for column in columns]))

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, which: slice | NDArray[Any]) -> "Amounts":
        return Amounts(self.held[which], self.large)

    def exact(self, place: int) -> int:
        """The amount at a place."""
        held = int(self.held[place])
        return held if held >= 0 else self.large[held]

    def tolist(self) -> list[int]:
        """All amounts."""
        return [held if held >= 0 else self.large[held] for held in self.held.tolist()]

    def units(self) -> NDArray[np.float64]:
        """In units of the log, as near as floats come."""
        units = self.held / UNIT
        for place in np.flatnonzero(self.held < 0).tolist():
            units[place] = self.exact(place) // UNIT  # too large for its fraction to matter
        return units

    def named(self) -> list[int]:
        """The names in the column, each once, in the order of their numbers."""
        return np.unique(self.held[self.held < 0]).tolist() if self.large else []


def united(parts: Sequence[Mapping[int, int]]) -> Mapping[int, int]:
    """All large amounts of the same run."""
    large = [part for part in parts if part]
    if len(large) == 1:
        return large[0]
    together: dict[int, int] = {}
    for part in large:
        together |= part
    return together


class LargeAmounts:
    """The large amounts of purchases that come and go, for whoever holds these in columns of its own."""

    def __init__(self, amounts: Mapping[int, int] | None = None) -> None:
        """Hold these, by name, to begin with."""
        self._amounts: dict[int, int] = {**(amounts or {})}
        self._enough = max(FEW, len(self._amounts))

    def __len__(self) -> int:
        return len(self._amounts)

    def add(self, column: Amounts) -> None:
        """Hold those of a column from now on."""
        self._amounts |= {name: column.large[name] for name in column.named()}

    @property
    def all(self) -> Mapping[int, int]:
        """All, by name: they are there for good, whatever is let go of here later; others may join them."""
        return self._amounts

    @property
    def crowded(self) -> bool:
        """Whether it is time to let go of those that are not needed any more."""
        return len(self._amounts) > self._enough

    def keep(self, *columns: Int64s) -> None:
        """Let go of all that none of the columns names."""
        names = {name for held in columns for name in Amounts(held, self._amounts).named()}
        self._amounts = {name: self._amounts[name] for name in names}  # a new one: columns share the one before
        self._enough = len(names) + max(FEW, sum(map(len, columns)) // SHARE)
