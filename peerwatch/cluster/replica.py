"""A replica: the friend graph, and as a rule the purchases, of all users in a worker, on the synchronous core.

It opens no file, knows no event loop and no cluster. The same batches in the same order give the same answers on every
replica, so a lost one is built anew from columns and the batches since.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from peerwatch.judging.engine import AnsweredPurchases, answered, followed, verdicts_of, walked
from peerwatch.judging.judge import Judge, Mask, Reasons
from peerwatch.judging.quarantine import Quarantine
from peerwatch.judging.state import Arrays, arrays_of, columns_from, dealt, network_from
from peerwatch.kernels import Int64s
from peerwatch.network.decoder import Events
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.networks import PARTITION_ONLY, Networks


class ReplicaBatch(NamedTuple):
    """Events in log order, the first of them numbered `seq`. All dense users are below `users`."""

    seq: int
    users: int
    events: Events

    @property
    def through(self) -> int:
        """The number of the last event."""
        return self.seq + len(self.events) - 1


class ReasonsOfPart(NamedTuple):
    """The verdicts on some purchases of a batch with their reasons; `places` are indices in `networks`.

    The purchases themselves are numbered within the batch, as `Reasons.place` says.
    """

    places: Int64s
    networks: Networks
    reasons: list[Reasons]


class Replica:
    """Follows batches of events, and answers those whose turn it is."""

    def __init__(self, D: int, T: int, *, directed: bool = False, sizes: bool = False, context: bool = False) -> None:
        """Begin before the first event, with mutual friendships unless they are `directed`.

        `sizes` and `context` are those of `peerwatch.judging.engine.answered`.
        """
        self._D, self._T = D, T
        self._sizes, self._context = sizes, context
        self._directed = directed
        self._graph = FriendGraph(D, T, directed=directed)
        self._history = PurchaseHistory(T)

    @property
    def friendships(self) -> int:
        """The number of friendships in force."""
        return self._graph.friendships

    def restore(self, columns: Arrays, through: int) -> None:
        """Begin behind event `through` instead, with the `columns` that a replica had there.

        The replica owns the arrays from now on: its kernels write to them.
        """
        purchases = [columns_from(columns, 0)]
        self._graph, (self._history,) = network_from(
            self._D, self._T, columns, purchases, through, directed=self._directed
        )

    def columns(self) -> Arrays:
        """The friend graph and the purchases, as a checkpoint holds them. Copies."""
        degree, friends = self._graph.columns()
        return {"degree": degree, "friends": friends, **arrays_of(self._history.columns(), 0)}

    def follow(self, batch: ReplicaBatch) -> None:
        """Apply a batch."""
        followed(self._graph, self._history, batch.events, batch.seq, batch.users)

    def answer(self, batch: ReplicaBatch) -> Iterator[AnsweredPurchases]:
        """Apply a batch, and yield its purchases with their windows. The iterator must be used up."""
        return answered(
            self._graph, self._history, batch.events, batch.seq, batch.users, context=self._context, sizes=self._sizes
        )

    def judge(self, batch: ReplicaBatch, judge: Judge, wanted: Mask) -> Iterator[ReasonsOfPart]:
        """Apply a batch and judge its purchases, each on its own. The iterator must be used up.

        Yields the reasons of those that are flagged or in the mask `wanted`, shape [purchases].

        Raises:
            RunError: the detector failed.
        """
        begin = 0
        for _, networks, case in self.answer(batch):
            verdicts = verdicts_of(judge, case)
            end = begin + len(case.seq)
            which = verdicts.flagged | wanted[begin:end]
            reasons = [one._replace(place=begin + one.place) for one in judge.decisions(case, verdicts, which)]
            yield ReasonsOfPart(np.flatnonzero(which), networks, reasons)
            begin = end


class GraphReplica:
    """The friend graph alone: it answers with networks, which depend on no verdict."""

    def __init__(self, D: int, T: int, most: int, *, directed: bool = False, sizes: bool = False) -> None:
        """Begin before the first event. An answer holds `most` networks at most, and all their members."""
        self._D, self._T, self._most = D, T, most
        self._sizes = sizes
        self._directed = directed
        self._graph = FriendGraph(D, T, directed=directed, costs=PARTITION_ONLY)

    @property
    def friendships(self) -> int:
        """The number of friendships in force."""
        return self._graph.friendships

    def restore(self, columns: Arrays, through: int) -> None:  # noqa: ARG002 (friendships have no numbers)
        """Begin behind event `through` instead, with the `columns` that a replica had there."""
        degree, friends = columns["degree"], columns["friends"]
        self._graph = FriendGraph.from_columns(
            self._D, self._T, degree, friends, costs=PARTITION_ONLY, directed=self._directed
        )

    def columns(self) -> Arrays:
        """The friend graph, as a checkpoint holds it. Copies."""
        degree, friends = self._graph.columns()
        return {"degree": degree, "friends": friends}

    def follow(self, batch: ReplicaBatch) -> None:
        """Apply a batch."""
        self._graph.reserve(batch.users)
        for _ in walked(self._graph, batch.events, batch.seq, 0, judged=False):
            pass

    def walk(self, batch: ReplicaBatch) -> Iterator[Networks]:
        """Apply a batch, and yield its buyers' networks in order. The iterator must be used up."""
        self._graph.reserve(batch.users)
        for _, networks, _ in walked(self._graph, batch.events, batch.seq, self._most, sizes=self._sizes):
            yield networks


def columns_of(arrays: Arrays, shards: int) -> Arrays:
    """What a replica begins with that goes on from a checkpoint with these arrays, whatever its number of shards."""
    columns: Arrays = {"degree": arrays["degree"], "friends": arrays["friends"]}
    if Quarantine.restored(arrays) is not None:
        return columns
    (purchases,) = dealt(arrays, shards, 1)
    return {**columns, **arrays_of(purchases, 0)}
