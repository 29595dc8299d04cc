"""The default rule, sigma: more than mean + k standard deviations, decided exactly."""

from fractions import Fraction
from typing import Final

import numpy as np

from peerwatch.amounts import Amounts
from peerwatch.judging.judge import BatchVerdicts, Case, Judge, Mask
from peerwatch.judging.severity import Severity
from peerwatch.kernels import Int8s, Int64s, kernel
from peerwatch.network.windows import Windows

NORMAL: Final = 0
FLAGGED: Final = 1
UNDECIDED: Final = 2
"""Floats cannot decide, or an amount is too large for its column: decide in integers."""


class Sigma:
    """Flags an amount above mean + k * sd (population) of its window.

    Floats decide clear cases, with a margin that their rounding errors cannot exceed. The others are UNDECIDED and left
    to `network.statistics`, so that all verdicts are those of integer arithmetic.
    """

    name: Final = "sigma"

    def __init__(self, k: Fraction) -> None:
        self.k = k

    def screen(self, offsets: Int64s, window: Int64s, amount: Int64s) -> Int8s:
        """Screen q purchases: `amount[i]` against `window[offsets[i]:offsets[i + 1]]`, in millionths.

        A negative amount stands for one too large for its column. Returns NORMAL, FLAGGED or UNDECIDED, shape [q].
        """
        codes = np.zeros(len(amount), np.int8)
        screen(offsets, window, amount, float(self.k * self.k), codes)
        return codes


class SigmaJudge(Judge):
    """The rule sigma, decided exactly."""

    def __init__(self, detector: Sigma, severity: Severity | None = None) -> None:
        super().__init__(severity)
        self.detector = detector

    @property
    def is_quick(self) -> bool:
        """Whether a few purchases are judged in microseconds."""
        return True

    def verdicts(self, case: Case) -> BatchVerdicts:
        """Judge purchases; each on its own."""
        return BatchVerdicts(self.flags(case.windows, case.amount))

    def flags(self, windows: Windows, amount: Amounts) -> Mask:
        """Which of q purchases are flagged. Shape [q]."""
        codes = self.detector.screen(windows.offsets, windows.amount.held, amount.held)
        flagged: Mask = codes == FLAGGED
        for place in np.flatnonzero(codes == UNDECIDED).tolist():
            flagged[place] = self.statistics(windows, place).exceeded_by(amount.exact(place), self.detector.k)
        return flagged


@kernel
def screen(offsets: Int64s, window: Int64s, amount: Int64s, k_squared: float, codes: Int8s) -> None:
    """Compare d^2 with k^2 * V, where d = n * x - S and V = n * Q - S^2, in floats with a proven margin.

    With c = S // n, e_i = a_i - c and r = S - n * c (0 <= r < n), V = n * sum(e_i^2) - r^2 exactly. S, c, e_i, r and d
    are exact int64 values (amounts below 2^62 / n are checked). Each float operation errs by at most u = 2^-53
    relatively, and all terms of the sum are positive, so n * sum(e_i^2) errs by at most (n + 5) u of itself, V by at
    most (n + 7) u (n * sum(e_i^2) + r^2), k^2 * V by two roundings more, d^2 by 3 u of itself. A margin of
    (n + 16) * 2^-52 times the sum of the magnitudes covers them all twice over.
    """
    for q in range(len(amount)):
        begin, end = offsets[q], offsets[q + 1]
        n, x = end - begin, amount[q]
        if n < 2:
            continue
        bound = (1 << 62) // (n + 1)
        small, total = 0 <= x <= bound, 0
        for i in range(begin, end):
            small &= 0 <= window[i] <= bound
            total += window[i]
        if not small:
            codes[q] = UNDECIDED
            continue
        d = n * x - total
        if d <= 0:
            continue
        centre = total // n
        rest = float(total - n * centre)
        squares = 0.0
        for i in range(begin, end):
            e = float(window[i] - centre)
            squares += e * e
        squares *= n
        left, right = float(d) * float(d), k_squared * (squares - rest * rest)
        margin = (n + 16) * 2.0**-52 * (left + k_squared * (squares + rest * rest))
        if left > right + margin:
            codes[q] = FLAGGED
        elif left >= right - margin:
            codes[q] = UNDECIDED
