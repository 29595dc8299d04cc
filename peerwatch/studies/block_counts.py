"""Counts what many settings flag in each of some blocks of a stream, for intervals of what is measured over all."""

from typing import Final, NamedTuple

import numpy as np

from peerwatch.judging.judge import Mask
from peerwatch.kernels import Int64s
from peerwatch.studies.sweep_table import Setting, SettingGrid

BLOCKS: Final = 20
"""The fewest blocks of a stream with at least as many purchases; there are at most twice as many."""
RESAMPLES: Final = 2_000
SEED: Final = 1


class BlockTally(NamedTuple):
    """Counts over some blocks: purchases, what each setting flags, what of that is labelled, and so on.

    Shapes [..., 1], [..., settings], [..., settings], [..., 1] and [..., pairs]; the last is what both settings of a
    pair flag.
    """

    judged: Int64s
    flagged: Int64s
    hits: Int64s
    labelled: Int64s
    shared: Int64s


class BlockCounts:
    """Counts over blocks of purchases that follow each other in the log, as many in each.

    Purchases that are close in time are alike, so it is whole blocks that are drawn again (Künsch's block bootstrap,
    1989). The blocks depend on the number of purchases alone: as the stream goes on, neighbouring ones are joined.
    """

    def __init__(self, usual: SettingGrid) -> None:
        """Where a sweep is not told which values of a parameter to try, it tries the current and the `usual` ones."""
        self.usual = usual
        self.grid = SettingGrid((), (), ())
        self.current: int | None = None
        """The index of the current setting, if it is tried."""
        self.pairs: Int64s = np.zeros((0, 2), np.int64)
        """The indices of settings that are neighbours: one value apart in one of D, T and k. Shape [pairs, 2]."""
        self._size = 1
        self._blocks: list[Int64s] = []
        self._last = 0
        """The purchases in the last block."""

    def begin(self, grid: SettingGrid, own: Setting) -> None:
        """Take what is tried, before anything is added."""
        settings = grid.settings()
        self.grid, self.current = grid, settings.index(own) if own in settings else None
        places = np.arange(len(settings)).reshape([len(values) for values in grid])
        beside = [
            np.stack([places.take(range(n - 1), axis).ravel(), places.take(range(1, n), axis).ravel()], 1)
            for axis, n in enumerate(places.shape)
        ]
        self.pairs = np.concatenate(beside)

    def add(self, flagged: Mask) -> None:
        """Add purchases: which of them each setting flags, and in the last row, which are labelled."""
        done = 0
        while done < flagged.shape[1]:
            if not self._blocks or self._last == self._size:
                self._begin_block(1 + 2 * len(flagged) + len(self.pairs))
            taken = flagged[:, done : done + self._size - self._last]
            one, other = taken[self.pairs[:, 0]], taken[self.pairs[:, 1]]
            self._blocks[-1] += np.concatenate([
                [taken.shape[1]], taken.sum(1), (taken & taken[-1]).sum(1), (one & other).sum(1),
            ])  # fmt: skip
            self._last += taken.shape[1]
            done += taken.shape[1]

    def _begin_block(self, width: int) -> None:
        if len(self._blocks) == 2 * BLOCKS:
            pairs = zip(self._blocks[::2], self._blocks[1::2], strict=True)
            self._blocks = [one + other for one, other in pairs]
            self._size *= 2
        self._blocks.append(np.zeros(width, np.int64))
        self._last = 0

    def counts(self) -> Int64s:
        """The counts of each block, shape [blocks, ...]; `tally` says what they are.

        A last block of less than half the size is counted with the one before it.
        """
        blocks = self._blocks
        if len(blocks) > 1 and 2 * self._last < self._size:
            blocks = [*blocks[:-2], blocks[-2] + blocks[-1]]
        return np.stack(blocks)

    def resampled(self) -> Int64s:
        """The sums over as many blocks, drawn again RESAMPLES times with replacement. Shape [RESAMPLES, ...]."""
        counts = self.counts()
        n = len(counts)
        drawn: Int64s = np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), RESAMPLES) @ counts
        return drawn

    def tally(self, counts: Int64s) -> BlockTally:
        """Name what is in counts, which may be those of blocks or their sums."""
        settings = len(self.grid.settings())
        ends = np.cumsum([1, settings, 1, settings, 1])
        judged, flagged, labelled, hits, _, shared = np.split(counts, ends, axis=-1)
        return BlockTally(judged, flagged, hits, labelled, shared)
