"""Windows and what they flag by the plainest means, with and without a purchase."""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from naive_explanation import Bought, World, decimal, events_of, judged


class Judged(NamedTuple):
    """A judged purchase, its window from the oldest to the newest, and whether it is flagged."""

    bought: Bought
    window: list[Bought]
    flagged: bool


def window_of(world: World, user: str, D: int, T: int) -> list[Bought]:
    """The T latest purchases of a user's network."""
    members = world.hops(user, D)
    return sorted(one for one in world.purchases if one.user in members)[-T:]


def judge_all(
    batch: bytes, stream: bytes, D: int, T: int, k: Fraction, *, without: int | None = None, directed: bool = False
) -> dict[int, Judged]:
    """Every decision, by event; one purchase may be left out of all windows."""
    world, seq, found = World(directed=directed), 0, dict[int, Judged]()
    for file, content in (("batch", batch), ("stream", stream)):
        for line, _, event in events_of(content):
            seq += 1
            if event[0] == "purchase" and file == "stream":
                bought = Bought(event[1], seq, event[2], event[3], file, line)
                window = window_of(world, bought.user, D, T)
                found[seq] = Judged(bought, window, flags(window, bought.amount, k))
            if seq != without:
                world.apply(event, seq, file, line)
    return found


def flags(window: Sequence[Bought], amount: int, k: Fraction) -> bool:
    """Whether a window flags an amount."""
    return judged([one.amount for one in window], amount, k)[2]


def limit_of(window: Sequence[Bought], k: Fraction) -> str | None:
    """The highest amount that a window does not flag, found by halving; None where it flags nothing."""
    if len(window) < 2:
        return None
    low, high = -1, 1
    while not flags(window, high, k):
        high *= 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if flags(window, middle, k) else (middle, high)
    return decimal(low)


def micros(amount: str) -> int:
    """Millionths of a decimal number."""
    return int(Fraction(amount) * 10**6)
