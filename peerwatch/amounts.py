"""Columns of exact amounts, 64 bits wide, with room for larger ones."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from peerwatch.kernels import Bytes, Int64s

LARGEST_AMOUNT: Final = 2**62
"""The smallest amount (millionths) that is too large for a column."""
UNIT: Final = 10**6
"""Millionths in one unit of the log's amounts."""
FEW: Final = 64
"""New large amounts that are always accepted before unneeded ones are looked for."""
SHARE: Final = 8
"""Unneeded large amounts are looked for when there is a new one for every so many purchases, so each costs little."""


class Amounts(msgspec.Struct, frozen=True):
    """A column of amounts in millionths, of any size. Amounts that do not fit into 64 bits are kept beside it.

    `held` has shape [n]. A negative value is the name of a large amount, which is `large[name]`. A name refers to one
    purchase of a run, so columns of the same run can be joined; slices share the large amounts of their column.
    """

    held: Int64s
    large: Mapping[int, int] = msgspec.field(default_factory=dict)

    @classmethod
    def of(cls, amounts: Sequence[int], first: int = 0) -> "Amounts":
        """Make a column of Python integers. Large ones are named from `first` on."""
        large = {-1 - place: amount for place, amount in enumerate(amounts, first) if amount >= LARGEST_AMOUNT}
        held = [amount if amount < LARGEST_AMOUNT else -1 - place for place, amount in enumerate(amounts, first)]
        return cls(np.array(held, np.int64), large)

    @classmethod
    def joined(cls, columns: Sequence["Amounts"]) -> "Amounts":
        """Join columns of the same run."""
        return cls(np.concatenate([column.held for column in columns]), united([column.large for column in columns]))

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, which: slice | NDArray[Any]) -> "Amounts":
        return Amounts(self.held[which], self.large)

    def exact(self, place: int) -> int:
        """Return the amount at an index, in millionths."""
        held = int(self.held[place])
        return held if held >= 0 else self.large[held]

    def tolist(self) -> list[int]:
        """Return all amounts, in millionths."""
        return [held if held >= 0 else self.large[held] for held in self.held.tolist()]

    def units(self) -> NDArray[np.float64]:
        """Return the amounts in units of the log, approximated as floats, shape [n]."""
        units = self.held / UNIT
        for place in np.flatnonzero(self.held < 0).tolist():
            units[place] = self.exact(place) // UNIT  # so large that its fraction does not matter
        return units

    def spelled(self) -> Bytes:
        """Return the large amounts in the order of their names, one a line, in ASCII."""
        return np.frombuffer("\n".join(str(self.large[name]) for name in self.named()).encode(), np.uint8)

    @classmethod
    def from_spelled(cls, held: Int64s, spelled: Bytes) -> "Amounts":
        """The inverse of `spelled`."""
        names = np.unique(held[held < 0]).tolist()
        return cls(held, dict(zip(names, map(int, spelled.tobytes().split()), strict=True)))

    def named(self) -> list[int]:
        """Return the distinct names of large amounts in the column, in the order of their numbers."""
        return np.unique(self.held[self.held < 0]).tolist() if self.large else []


def united(parts: Sequence[Mapping[int, int]]) -> Mapping[int, int]:
    """Merge the large amounts of columns of the same run."""
    large = [part for part in parts if part]
    if len(large) == 1:
        return large[0]
    together: dict[int, int] = {}
    for part in large:
        together |= part
    return together


class LargeAmounts:
    """The large amounts of purchases that come and go, for an owner that keeps the purchases in columns of its own."""

    def __init__(self, amounts: Mapping[int, int] | None = None) -> None:
        """Hold these, by name, to begin with."""
        self._amounts: dict[int, int] = {**(amounts or {})}
        self._enough = max(FEW, len(self._amounts))

    def __len__(self) -> int:
        return len(self._amounts)

    def add(self, column: Amounts) -> None:
        """Add the large amounts of a column."""
        self._amounts |= {name: column.large[name] for name in column.named()}

    @property
    def all(self) -> Mapping[int, int]:
        """All amounts by name. Entries stay in the returned mapping even if they are dropped here later."""
        return self._amounts

    @property
    def crowded(self) -> bool:
        """Whether it is time to call `keep`."""
        return len(self._amounts) > self._enough

    def keep(self, *columns: Int64s) -> None:
        """Drop every amount that none of the columns names."""
        names = {name for held in columns for name in Amounts(held, self._amounts).named()}
        self._amounts = {name: self._amounts[name] for name in names}  # a new dict, because columns share the old one
        self._enough = len(names) + max(FEW, sum(map(len, columns)) // SHARE)
