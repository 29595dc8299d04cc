"""The synchronous core: events in, verdicts out, without an event loop or files.

Actors run its parts concurrently; sweeps, evaluation and the Python API call it directly.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

import numpy as np

from peerwatch.detectors.base import Detector
from peerwatch.judging.judge import BatchVerdicts, Case, Judge, joined
from peerwatch.judging.state import State
from peerwatch.judging.training import fitted
from peerwatch.kernels import Int64s
from peerwatch.network.decoder import Events
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.networks import Networks, alone

BATCH_CAP: Final = 4096
"""The most events judged at once."""
MOST_PLACES: Final = 1 << 20
"""The number of members, or of purchases, after which a walk ends its answer: about 4 or 24 MiB of memory."""
WINDOW_PURCHASES: Final = 1 << 20
"""The most window purchases in one request, over all its windows. Bounds memory to some tens of MiB."""


class Walked(NamedTuple):
    """Purchases of a batch with their buyers' networks.

    `places` are the purchases' indices among the events; the first `gone` events have been applied.
    """

    places: Int64s
    networks: Networks
    gone: int


class JudgedBatch(NamedTuple):
    """Judged purchases in order: their events, the case that was judged, and the verdicts."""

    events: Events
    case: Case
    verdicts: BatchVerdicts


class AnsweredPurchases(NamedTuple):
    """Purchases in order: their events, their buyers' networks, and the case to judge."""

    events: Events
    networks: Networks
    case: Case


def windows_at_once(T: int, shards: int = 1) -> int:
    """Return how many windows of T purchases to request at once."""
    return max(1, WINDOW_PURCHASES // (T * shards))


def walked(
    graph: FriendGraph, events: Events, seq: int, most: int, *, judged: bool = True, sizes: bool = False
) -> Iterator[Walked]:
    """Apply a batch of events to the graph; if `judged`, yield each purchase with its buyer's network as of then.

    The first event has number `seq`. Each answer holds at most `most` networks; the last may hold none. With `sizes`
    each network is counted. The graph must have room for all users.
    """
    places = np.flatnonzero(events.kind == Kind.PURCHASE) if judged else np.zeros(0, np.int64)
    gone = answered = 0
    while True:
        rest = slice(gone, None)
        done, networks = graph.walk(
            events.kind[rest], events.user[rest], events.friend[rest], events.timestamp[rest], events.amount[rest],
            seq + gone, min(most, len(places) - answered), MOST_PLACES, sizes=sizes,
        )  # fmt: skip
        new = slice(answered, answered + len(networks.plan))
        gone, answered = gone + done, new.stop
        yield Walked(places[new], networks, gone)
        if gone == len(events):
            return


def append(history: PurchaseHistory, events: Events, seq: int, users: int) -> None:
    """Append the purchases among events to a history for `users` users. The first event has number `seq`."""
    history.reserve(users)
    bought = np.flatnonzero(events.kind == Kind.PURCHASE)
    through = seq + len(events) - 1
    history.append(seq + bought, events.user[bought], events.timestamp[bought], events.amount[bought], through)


def followed(graph: FriendGraph, history: PurchaseHistory, events: Events, seq: int, users: int) -> None:
    """Apply events without judging them, to a graph and the one history of all `users`. The first has number `seq`."""
    graph.reserve(users)
    for _ in walked(graph, events, seq, 0, judged=False):
        pass
    append(history, events, seq, users)
    history.raise_low(seq + len(events))
    history.settle()


def answered(
    graph: FriendGraph,
    history: PurchaseHistory,
    events: Events,
    seq: int,
    users: int,
    *,
    context: bool = False,
    sizes: bool = False,
) -> Iterator[AnsweredPurchases]:
    """Apply events to a graph and the one history of all `users`, and yield the purchases with networks and cases.

    The first event has number `seq`. With `context` a case also holds the buyers' own latest purchases, with `sizes`
    the sizes of the networks.
    """
    graph.reserve(users)
    history.raise_low(seq)
    append(history, events, seq, users)
    for places, networks, _ in walked(graph, events, seq, windows_at_once(history.T), sizes=sizes):
        purchases, numbers = events[places], seq + places
        windows = history.windows(numbers, networks)
        own = history.windows(numbers, alone(purchases.user)) if context else None
        case = Case(windows, numbers, purchases.line, purchases.amount, purchases.timestamp, networks.size, own)
        yield AnsweredPurchases(purchases, networks, case)


def apply(state: State, events: Events, seq: int) -> None:
    """Apply events to a state with one shard, without judging. The first event has number `seq`."""
    followed(state.graph, state.histories[0], events, seq, len(state.decoder.interner))


def cases(
    state: State, events: Events, seq: int, *, context: bool = False, sizes: bool = False
) -> Iterator[tuple[Events, Case]]:
    """Apply events to a state with one shard, and yield the purchases as cases. The first event has number `seq`.

    With `context` a case also holds the buyers' own latest purchases, with `sizes` the sizes of the networks.
    """
    graph, history, users = state.graph, state.histories[0], len(state.decoder.interner)
    for begin in range(0, len(events), BATCH_CAP):
        batch, first = events[begin : begin + BATCH_CAP], seq + begin
        for purchases, _, case in answered(graph, history, batch, first, users, context=context, sizes=sizes):
            yield purchases, case


class ModelHistory(Protocol):
    """The models of a run, and the event from which each was active."""

    def since(self, version: int) -> int | None:
        """The event from which a model was active, None if it is active once it is due."""

    def load(self, version: int, like: Detector) -> Detector:
        """That model; `like` is a detector of its type."""


def verdicts_of(judge: Judge, case: Case, models: ModelHistory | None = None) -> BatchVerdicts:
    """Judge purchases. Must be called with every purchase of a run, in order and once.

    If a model is due, it is trained synchronously, unless it is one of `models`, which a run has had.

    Raises:
        RunError: the detector failed.
    """
    if not judge.stepwise or not len(case.seq):
        return judge.verdicts(case)
    parts: list[BatchVerdicts] = []
    begin, q = 0, len(case.seq)
    while begin < q:
        since = _attended(judge, int(case.seq[begin]), models)
        rest = case.part(begin, q)
        until = q - begin if since is None else int(np.searchsorted(rest.seq, since))
        end = begin + min(judge.until(rest), until)
        parts.append(judge.verdicts(case.part(begin, end)))
        begin = end
    return joined(parts)


def _attended(judge: Judge, seq: int, models: ModelHistory | None) -> int | None:
    """Activate the model that judges from event `seq` on, if there is a new one.

    Returns the later event from which the next model is known to be active, None if none is known.
    """
    learner = judge.learner
    if learner is None or learner.training_set is None:
        return None
    version = learner.training_set.version
    since = models.since(version) if models is not None else None
    if since is not None and models is not None:
        if seq < since:
            return since
        judge.activate(models.load(version, judge.detector))
    elif learner.due:
        judge.activate(fitted(judge.detector, learner.training_set))
    return None


class JudgingEngine:
    """Applies events to a state one after the other, and judges each purchase by the state before it."""

    def __init__(self, state: State, judge: Judge, *, sizes: bool = False) -> None:
        """Begin with `state`, which must have one shard. With `sizes` every network is counted."""
        self._sizes = sizes
        self.state = state
        self.judge = judge

    def apply(self, events: Events) -> None:
        """Apply events without judging them."""
        apply(self.state, events, self.state.progress.events + 1)
        self.state.advance(len(events), judged=0)

    def decide(self, events: Events) -> Iterator[JudgedBatch]:
        """Apply events, and yield their purchases with verdicts. Each purchase is judged by the state before it.

        Raises:
            RunError: the detector failed.
        """
        seq, judged = self.state.progress.events + 1, 0
        context = self.judge.wants_context
        for purchases, case in cases(self.state, events, seq, context=context, sizes=self._sizes):
            judged += len(purchases)
            yield JudgedBatch(purchases, case, verdicts_of(self.judge, case))
        self.state.advance(len(events), judged)
