"""Recomputes decisions by brute force. Shares nothing with the code that judges but the decoded events.

The state consists of dictionaries, sets and sorted lists of Python integers, with users by their ids: far slower than
the kernels, and simple enough to trust.
"""

from bisect import insort
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from heapq import merge
from itertools import islice
from typing import Any, NamedTuple

from peerwatch.judging.judge import Mask
from peerwatch.network.decoder import Events
from peerwatch.network.events import Kind
from peerwatch.network.statistics import Statistics


class AuditedDecision(NamedTuple):
    """The decision on a purchase, and the purchase's file and line, and its time in microseconds since 1970 UTC."""

    seq: int
    file: str
    line: int
    statistics: Statistics
    flagged: bool
    timestamp: int

    def fields(self) -> dict[str, Any]:
        """The decision as logs and notices have it: S and Q are text, because they may have any number of digits."""
        n, S, Q = self.statistics
        known = n > 0
        return {
            "verdict": "flagged" if self.flagged else "normal",
            "n": n,
            "S": str(S),
            "Q": str(Q),
            "mean": self.statistics.mean() if known else None,
            "sd": self.statistics.sd() if known else None,
        }


class Difference(NamedTuple):
    """A decision as the run made it and as it was recomputed. One of them is None if it was not made there."""

    judged: AuditedDecision | None
    recomputed: AuditedDecision | None

    @property
    def known(self) -> AuditedDecision:
        """One that was made: the event, file and line of both are the same."""
        return next(each for each in (self.recomputed, self.judged) if each is not None)

    @property
    def where(self) -> str:
        """The event, with its file and line, as text."""
        known = self.known
        return f"event {known.seq:,} ({known.file}:{known.line})"

    def fields(self) -> dict[str, Any]:
        """Where it is, and both sides."""
        known = self.known
        sides = {"judged": self.judged, "recomputed": self.recomputed}
        return {
            "file": known.file,
            "line": known.line,
            **{name: side.fields() if side is not None else None for name, side in sides.items()},
        }


class BruteForce:
    """The friendships and each user's T latest purchases, as of an event.

    A purchase is a tuple (timestamp in microseconds, sequence number, amount in millionths), so tuples sort in time
    order.
    """

    def __init__(self, D: int, T: int, k: Fraction, *, directed: bool = False, quarantine: bool = False) -> None:
        self.D, self.T, self.k, self.directed = D, T, k, directed
        self.quarantined: dict[int, tuple[bytes, int, int]] | None = {} if quarantine else None
        """With quarantine: buyer, timestamp and amount of each flagged purchase that is in no window, by its event."""
        self.friends: dict[bytes, set[bytes]] = defaultdict(set)
        self.bought: dict[bytes, list[tuple[int, int, int]]] = defaultdict(list)

    def follow(
        self, events: Events, seq: int, file: str, names: Sequence[bytes], chosen: Mask, *, judged: bool = False
    ) -> list[AuditedDecision]:
        """Apply events of `file` in order, beginning with number `seq`, and return the decisions on the `chosen` ones.

        `chosen` has shape [events]. `names[user]` is the id of a dense user. With quarantine all purchases of a file
        that is `judged` are decided, and those that are flagged are kept out.
        """
        decides_all = judged and self.quarantined is not None
        outcomes = []
        columns = (events.kind, events.user, events.friend, events.amount, events.timestamp, events.line, chosen)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for number, (kind, user, friend, amount, timestamp, line, is_chosen) in enumerate(rows, seq):
            if kind == Kind.BEFRIEND:
                self.befriend(names[user], names[friend])
            elif kind == Kind.UNFRIEND:
                self.unfriend(names[user], names[friend])
            else:
                flagged = False
                if is_chosen or decides_all:
                    statistics, flagged = self.decide(names[user], amount)
                if is_chosen:
                    outcomes.append(AuditedDecision(number, file, line, statistics, flagged, timestamp))
                if flagged and self.quarantined is not None:
                    self.quarantined[number] = names[user], timestamp, amount
                else:
                    self.buy(names[user], timestamp, number, amount)
        return outcomes

    def release(self, seqs: Sequence[int]) -> None:
        """Let purchases that are kept out take their places; events that are not kept out are passed over."""
        for seq in seqs:
            kept_out = (self.quarantined or {}).pop(seq, None)
            if kept_out is not None:
                user, timestamp, amount = kept_out
                self.buy(user, timestamp, seq, amount)

    def befriend(self, a: bytes, b: bytes) -> None:
        """Add a friendship: `b` becomes a friend of `a`, and `a` one of `b` unless friendships are directed."""
        self.friends[a].add(b)
        if not self.directed:
            self.friends[b].add(a)

    def unfriend(self, a: bytes, b: bytes) -> None:
        """Remove a friendship, if there is one."""
        self.friends[a].discard(b)
        if not self.directed:
            self.friends[b].discard(a)

    def buy(self, user: bytes, timestamp: int, seq: int, amount: int) -> None:
        """Insert a purchase in time order, and keep the user's T latest: no window can hold more."""
        bought = self.bought[user]
        insort(bought, (timestamp, seq, amount))
        del bought[: -self.T]

    def decide(self, user: bytes, amount: int) -> tuple[Statistics, bool]:
        """Return the statistics of the window of a purchase that `user` makes now, and whether it is flagged."""
        latest_first = (reversed(self.bought.get(member, [])) for member in self.network(user))
        window = islice(merge(*latest_first, reverse=True), self.T)
        statistics = Statistics.of([paid for _, _, paid in window])
        return statistics, statistics.exceeded_by(amount, self.k)

    def network(self, user: bytes) -> set[bytes]:
        """Return the users within D hops, without the user."""
        reached, frontier = {user}, {user}
        for _ in range(self.D):
            frontier = {friend for member in frontier for friend in self.friends.get(member, ())} - reached
            if not frontier:
                break
            reached |= frontier
        return reached - {user}
