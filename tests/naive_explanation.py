"""Explanations by the plainest means: the log replayed in dictionaries, each friendship and purchase left out."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from fractions import Fraction
from itertools import islice
from math import asinh, copysign, inf, isqrt, log, log1p
from statistics import fmean, median, pstdev
from typing import Any, NamedTuple

from reference import event_of, own_part


class Bought(NamedTuple):
    """A purchase, ordered as windows order them."""

    when: datetime
    seq: int
    user: str
    amount: int
    file: str
    line: int


class World:
    """Friends and purchases after some events."""

    def __init__(self, *, directed: bool = False) -> None:
        self.directed = directed
        self.friends: dict[str, set[str]] = {}
        self.purchases: list[Bought] = []

    def apply(self, event: tuple[Any, ...], seq: int, file: str, line: int) -> None:
        """One event."""
        kind, when, a, b = event
        if kind == "purchase":
            self.purchases.append(Bought(when, seq, a, b, file, line))
        elif kind == "befriend":
            self.friends.setdefault(a, set()).add(b)
            if not self.directed:
                self.friends.setdefault(b, set()).add(a)
        else:
            self.friends.get(a, set()).discard(b)
            if not self.directed:
                self.friends.get(b, set()).discard(a)

    def hops(self, user: str, D: int) -> dict[str, int]:
        """Everyone within D hops."""
        reached, frontier = {user: 0}, {user}
        for hop in range(1, D + 1):
            frontier = set().union(*(self.friends.get(member, set()) for member in frontier)) - reached.keys()
            reached |= dict.fromkeys(frontier, hop)
        return {member: hop for member, hop in reached.items() if member != user}

    def friendship(self, a: str, b: str) -> tuple[str, ...]:
        """By which a knows b: in both directions the same one, unless friendships are directed."""
        return (a, b) if self.directed else tuple(sorted((a, b)))

    def hanging(self, user: str, D: int) -> dict[tuple[str, ...], set[str]]:
        """Which members each friendship keeps in the network: it is on every path of at most D hops to them."""
        needed: dict[str, frozenset[tuple[str, ...]]] = {}
        paths: list[tuple[tuple[str, ...], frozenset[tuple[str, ...]]]] = [((user,), frozenset())]
        for _ in range(D):
            paths = [
                ((*path, friend), edges | {self.friendship(path[-1], friend)})
                for path, edges in paths
                for friend in self.friends.get(path[-1], set()).difference(path)
            ]
            for path, edges in paths:
                needed[path[-1]] = needed.get(path[-1], edges) & edges
        hanging: dict[tuple[str, ...], set[str]] = {}
        for member, edges in needed.items():
            for edge in edges:
                hanging.setdefault(edge, set()).add(member)
        return hanging


def events_of(content: bytes) -> Iterator[tuple[int, bytes, tuple[Any, ...]]]:
    """Line, text and event of each line that is an event."""
    for number, line in enumerate(content.split(b"\n"), 1):
        text = own_part(line).removesuffix(b"\r")
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            yield number, text, event_of(text)


def order(user: str) -> tuple[int, bytes]:
    """Numbers in their order."""
    return len(user.encode()), user.encode()


def paths_of(world: World, user: str, hops: dict[str, int]) -> dict[str, list[str]]:
    """From the owner to each member: at each hop by whoever comes first of those who know the next."""
    paths = {user: [user]}
    for hop in range(1, max(hops.values(), default=0) + 1):
        for member in sorted((other for other in hops if hops[other] == hop), key=order):
            known = (
                path
                for other, path in paths.items()
                if hops.get(other, 0) == hop - 1 and member in world.friends[other]
            )
            paths[member] = [*next(known), member]
    return paths


def judged(amounts: list[int], amount: int, k: Fraction) -> tuple[int, int, bool]:
    """S, n * Q - S * S, the verdict."""
    n, S = len(amounts), sum(amounts)
    spread = n * sum(a * a for a in amounts) - S * S
    d = n * amount - S
    return S, spread, n >= 2 and d > 0 and d * d > k * k * spread


def decimal(micros: int) -> str:
    """Millionths with two to six decimals."""
    whole, rest = str(micros // 10**6), f"{micros % 10**6:06}"
    return f"{whole}.{rest[:2]}{rest[2:].rstrip('0')}"


def cents(amounts: list[int], spread: int) -> tuple[str | None, str | None]:
    """The truncated mean and sd."""
    n = len(amounts)
    if n == 0:
        return None, None
    return tuple(f"{c // 100}.{c % 100:02}" for c in (sum(amounts) // n // 10**4, isqrt(spread) // n // 10**4))  # type: ignore[return-value]


def instant(when: datetime) -> str:
    """UTC with microseconds."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def explained(world: World, this: Bought, D: int, T: int, k: Fraction) -> dict[str, Any]:
    """What `peerwatch explain --json` should say of a purchase that `world` has not seen yet."""
    user, amount = this.user, this.amount
    hops = world.hops(user, D)
    bought = sorted((p for p in world.purchases if p.user in hops), reverse=True)
    window = bought[:T]
    amounts = [p.amount for p in window]
    paths = paths_of(world, user, hops)
    n, Q = len(amounts), sum(a * a for a in amounts)
    S, spread, flagged = judged(amounts, amount, k)
    mean, sd = cents(amounts, spread)
    root = isqrt(k.numerator**2 * spread)
    bound = (k.denominator * S + root) // (k.denominator * n * 10**4) if n else 0

    flips_at = None
    if n >= 2:  # bisection: the verdict is monotonic in the amount
        low, high = -1, 1
        while not judged(amounts, high, k)[2]:
            high *= 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if judged(amounts, middle, k)[2] else (middle, high)
        flips_at = low if flagged else high
        flips_at = None if flips_at < 0 else flips_at

    without = []
    for gone in window:
        rest = [p.amount for p in bought[: T + 1] if p is not gone][:T]
        if judged(rest, amount, k)[2] != flagged:
            without.append(_alternative(None, gone.seq, rest, judged(rest, amount, k)))
    buyers = {p.user for p in window}
    for edge, lost in world.hanging(user, D).items():
        if buyers & lost:
            rest = [p.amount for p in islice((p for p in bought if p.user not in lost), T)]
            if judged(rest, amount, k)[2] != flagged:
                without.append(_alternative(edge, None, rest, judged(rest, amount, k)))
    return {
        "seq": this.seq, "file": this.file, "line": this.line, "user": user, "timestamp": instant(this.when),
        "amount": decimal(amount), "D": D, "T": T, "k": str(k) if k.denominator == 1 else str(float(k)),
        "detector": "sigma", "verdict": "flagged" if flagged else "normal", "n": n, "S": str(S), "Q": str(Q),
        "mean": mean, "sd": sd, "threshold": f"{bound // 100}.{bound % 100:02}" if n else None,
        "d": str(n * amount - S), "left": str((k.denominator * (n * amount - S)) ** 2),
        "right": str(k.numerator**2 * spread),
        "flips_at": decimal(flips_at) if flips_at is not None else None,
        "cents_away": None if flips_at is None else -(-abs(flips_at - amount) // 10**4),
        "without": without,
        "network": [
            {"user": member, "hop": hop, "path": paths[member]}
            for member, hop in sorted(hops.items(), key=lambda item: (item[1], order(item[0])))
        ],
        "window": [
            {"seq": p.seq, "file": p.file, "line": p.line, "user": p.user, "hop": hops[p.user],
             "timestamp": instant(p.when), "amount": decimal(p.amount)}
            for p in window
        ],
    }  # fmt: skip


def _alternative(
    friendship: tuple[str, ...] | None, purchase: int | None, amounts: list[int], verdict: tuple[int, int, bool]
) -> dict[str, Any]:
    mean, sd = cents(amounts, verdict[1])
    return {
        "friendship": friendship, "purchase": purchase, "window_size": len(amounts), "mean": mean, "sd": sd,
        "verdict": "flagged" if verdict[2] else "normal",
    }  # fmt: skip


def comparable(record: dict[str, Any], *, directed: bool = False) -> dict[str, Any]:
    """The same without the order of what has none: alternatives, and the two sides of a mutual friendship."""
    order = list if directed else sorted
    ways = [way | {"friendship": way["friendship"] and order(way["friendship"])} for way in record["without"]]
    ways.sort(key=lambda way: (way["purchase"] or 0, way["friendship"] or []))
    return record | {"without": ways}


def shared(world: World, this: Bought, D: int, T: int) -> dict[str, Any]:
    """What `peerwatch explain --json` should say whoever has judged."""
    record = explained(world, this, D, T, Fraction(3))
    ours = ("k", "detector", "verdict", "threshold", "d", "left", "right", "flips_at", "cents_away", "without")
    return {key: value for key, value in record.items() if key not in ours}


def features(world: World, this: Bought, D: int, T: int) -> dict[str, float]:
    """What a learned detector should see of a purchase that `world` has not seen yet."""
    hops = world.hops(this.user, D)
    window = sorted(p for p in world.purchases if p.user in hops)[-T:]
    amounts, amount = [p.amount / 10**6 for p in window], this.amount / 10**6
    seen = dict.fromkeys(("deviations", "to median", "to largest", "spread"), 0.0)
    if amounts:
        mean, sd = fmean(amounts), pstdev(amounts)
        away = 0.0 if amount == mean else (amount - mean) / sd if sd else copysign(inf, amount - mean)
        seen = {
            "deviations": asinh(max(-1e6, min(away, 1e6))),
            "to median": asinh(amount) - asinh(median(amounts)),
            "to largest": asinh(amount) - asinh(max(amounts)),
            "spread": log1p(sd / mean if sd else 0.0),
        }
    own = sorted(p for p in world.purchases if p.user == this.user)[-T:]
    since = max((this.when - own[-1].when).total_seconds(), 0.0) if own else 86399.0
    paid = fmean([p.amount / 10**6 for p in own]) if own else 0.0
    return seen | {
        "window": log1p(len(amounts)),
        "members": log1p(len(hops)),
        "to own mean": asinh(amount) - asinh(paid) if own else 0.0,
        "own": log1p(len(own)),
        "since": log((1 + since) / 86400),
    }
