"""What a learned detector sees of a purchase: how it stands beside its window and what its buyer did before.

Amounts are compared as arcsinh, which is a logarithm for large numbers of either sign and has a value at 0.
"""

from typing import Final

import numpy as np

from peerwatch.detectors.base import Context, Floats, by_size, check_finite, ratio
from peerwatch.kernels import Int64s

FEATURES: Final = (
    "deviations",  # standard deviations above the window's mean, as arcsinh
    "to median",  # log ratio to the window's median
    "to largest",  # log ratio to the window's largest
    "spread",  # standard deviations in the mean, as log1p
    "window",  # log1p of the purchases in the window
    "members",  # log1p of the users in the network
    "to own mean",  # log ratio to the mean of what the buyer paid before
    "own",  # log1p of how many those are
    "since",  # log of the time since the buyer's latest purchase, in days
)
"""The columns, in order. Whatever is not known (no context, nothing bought before) is 0, which is nothing unusual.

Saved models were taught them: with any change `peerwatch.storage.models.VERSION` goes up.
The hour of the day is not among them: a busy log's lesson may span minutes, and every later hour would be unheard of.
"""
LARGEST: Final = 1e100
"""Larger amounts are cut to this one, whose square is still a float."""
MANY: Final = 1e6
"""Larger ratios are cut to this one: without any spread they would be infinite."""
DAY: Final = 86400.0


def features(offsets: Int64s, window: Floats, amount: Floats, context: Context | None) -> Floats:
    """The features of q purchases, the i-th with `window[offsets[i]:offsets[i + 1]]`. Shape [q, len(FEATURES)].

    All values are finite, and a row is the same, bit by bit, whatever others it is computed with.

    Raises:
        BadInput: an amount, or something in the context but `since`, is not a finite number.
    """
    check_finite(window)
    check_finite(amount)
    amount = np.clip(amount, -LARGEST, LARGEST)
    columns = np.zeros((len(FEATURES), len(amount)))
    columns[4] = np.log1p(np.diff(offsets).astype(np.float64))
    for rows, held in by_size(offsets, window):
        if held.shape[1]:
            columns[:4, rows] = _beside(np.clip(held, -LARGEST, LARGEST), amount[rows])
    if context is not None:
        columns[5:] = _known(amount, context)
    return np.ascontiguousarray(columns.T)


def _beside(window: Floats, amount: Floats) -> Floats:
    """The first four features, for windows of one size; shapes [m, n] and [m]. Returns shape [4, m]."""
    first = window[:, 0]
    rest = window - first[:, None]  # what is constant has no rounding error then
    mean, sd = first + rest.mean(axis=1), rest.std(axis=1)
    distance, size = amount - mean, np.arcsinh(amount)
    deviations = np.sign(distance) * np.minimum(ratio(np.abs(distance), sd), MANY)
    spread = np.minimum(ratio(sd, np.abs(mean)), MANY)
    median, largest = np.median(window, axis=1), window.max(axis=1)
    return np.array([np.arcsinh(deviations), size - np.arcsinh(median), size - np.arcsinh(largest), np.log1p(spread)])


def _known(amount: Floats, context: Context) -> Floats:
    """The features that come from the context. Returns shape [len(FEATURES) - 5, q]."""
    check_finite(context.own)
    since = np.where(np.isnan(context.since), DAY - 1, context.since)
    check_finite(since)
    count = np.diff(context.own_offsets)
    bought = np.flatnonzero(count)  # what reduceat makes of an empty part is not its sum
    own = np.clip(context.own[: context.own_offsets[-1]], -LARGEST, LARGEST)
    mean = np.add.reduceat(own, context.own_offsets[bought]) / count[bought]
    to_own = np.zeros(len(amount))
    to_own[bought] = np.arcsinh(amount[bought]) - np.arcsinh(mean)
    return np.array(
        [
            np.log1p(context.members.astype(np.float64)),
            to_own,
            np.log1p(count.astype(np.float64)),
            np.log((1 + np.maximum(since, 0.0)) / DAY),
        ]
    )
