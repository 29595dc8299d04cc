"""Quarantine: a flagged purchase stays out of every window until it is labelled normal.

Here is what is kept out, and how labels release it; `peerwatch.judging.turn_judge` judges with it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from peerwatch.amounts import Amounts
from peerwatch.judging.labels import Label
from peerwatch.kernels import Int64s

MOST: Final = 1 << 20
"""The most purchases that can be released: the latest ones that were flagged. Earlier ones stay out for good."""
PREFIX: Final = "quarantine."
"""Of the names of its arrays in a snapshot."""


class Purchases(NamedTuple):
    """Purchases by ascending sequence number. Columns of shape [n]; `line` is 0 in the batch log."""

    seq: Int64s
    line: Int64s
    user: Int64s
    timestamp: Int64s
    amount: Amounts

    def those(self, which: NDArray[Any] | slice) -> "Purchases":
        """Those that a mask, indices or a slice name."""
        seq, line, user, timestamp, amount = self
        return Purchases(seq[which], line[which], user[which], timestamp[which], amount[which])

    def then(self, more: "Purchases") -> "Purchases":
        """These, and `more` behind them."""
        seq, line, user, timestamp, amount = self
        return Purchases(
            np.concatenate([seq, more.seq]),
            np.concatenate([line, more.line]),
            np.concatenate([user, more.user]),
            np.concatenate([timestamp, more.timestamp]),
            Amounts.joined([amount, more.amount]),
        )


NOTHING: Final = np.zeros(0, np.int64)
NO_PURCHASES: Final = Purchases(NOTHING, NOTHING, NOTHING, NOTHING, Amounts(NOTHING))


class LabelHistory(Protocol):
    """Labels, and the event before which each was read. `heard` is an opaque position up to which they were read."""

    def since(self, heard: int) -> int | None:
        """The event before which the labels after `heard` were read, None if there are none."""

    def hear(self, seq: int, heard: int) -> tuple[list[Label], int]:
        """The labels after `heard` that were read before event `seq`, and the new position."""


class Quarantine:
    """The flagged purchases that are in no window."""

    def __init__(self, held: Purchases = NO_PURCHASES, heard: int = 0, *, most: int = MOST) -> None:
        self._held = held
        self._most = most
        self.heard = heard
        """The position up to which labels have been read, as the source of the labels counts it."""

    def __len__(self) -> int:
        return len(self._held.seq)

    @property
    def held(self) -> Purchases:
        """The purchases."""
        return self._held

    def put(self, flagged: Purchases) -> None:
        """Add purchases that have been flagged; all others were flagged before them."""
        if len(flagged.seq):
            self._held = self._held.then(flagged).those(slice(-self._most, None))

    def hear(self, labels: Sequence[Label], through: int) -> Purchases:
        """Apply labels; return the purchases that are released. `through` is the position up to which they were read.

        A label that names a line refers to the latest purchase with that line.
        """
        self.heard = through
        out = np.zeros(len(self), np.bool_)
        for label in labels:
            column, named = (self._held.seq, label.seq) if label.seq is not None else (self._held.line, label.line)
            places = np.flatnonzero(column == named)
            if not label.anomaly and len(places):
                out[places[-1]] = True
        released = self._held.those(out)
        if len(released.seq):
            self._held = self._held.those(~out)
        return released

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The state as arrays, enough for `restored`."""
        seq, line, user, timestamp, amount = self._held
        return {
            f"{PREFIX}heard": np.array([self.heard], np.int64),
            f"{PREFIX}purchases": np.stack([seq, line, user, timestamp, amount.held]),
            f"{PREFIX}large": amount.spelled(),
        }

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[Any]]) -> "Quarantine | None":
        """The quarantine that a snapshot's arrays hold, None if that was taken without one."""
        if f"{PREFIX}heard" not in arrays:
            return None
        seq, line, user, timestamp, amount = np.ascontiguousarray(arrays[f"{PREFIX}purchases"])
        held = Purchases(seq, line, user, timestamp, Amounts.from_spelled(amount, arrays[f"{PREFIX}large"]))
        return cls(held, int(arrays[f"{PREFIX}heard"][0]))


def until_hearing(seq: Int64s, since: int | None) -> int:
    """How many of the events `seq` come before the next reading of labels, of which the first does."""
    return len(seq) if since is None or since <= seq[0] else int(np.searchsorted(seq, since))


def heard_before(quarantine: Quarantine, labels: LabelHistory, seq: int) -> Iterator[Purchases]:
    """Read the labels that were read before event `seq`, and yield what they release."""
    since = labels.since(quarantine.heard)
    while since is not None and since <= seq:
        yield quarantine.hear(*labels.hear(seq, quarantine.heard))
        since = labels.since(quarantine.heard)
