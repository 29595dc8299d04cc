"""The synchronous core: events in, verdicts out. It knows no event loop and no file.

Actors run its parts side by side; sweeps, evaluation and the Python API call it as it stands.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from peerwatch.judging.judge import BatchVerdicts, Case, Judge, joined
from peerwatch.judging.state import State
from peerwatch.judging.training import fitted
from peerwatch.kernels import Int64s
from peerwatch.network.decoder import Events
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph, Networks, alone
from peerwatch.network.history import PurchaseHistory

BATCH_CAP: Final = 4096
"""Events judged at once at most."""
MOST_PLACES: Final = 1 << 20
"""Members or purchases after which an answer is complete before the next network is walked: 4 MiB or 24 of memory."""
WINDOW_PURCHASES: Final = 1 << 20
"""Window purchases in one request at most, over all its windows: bounds memory to some tens of MiB."""


class Walked(NamedTuple):
    """Some purchases of a batch and their buyers' networks: `places` among the events; `gone` events are done."""

    places: Int64s
    networks: Networks
    gone: int


class JudgedBatch(NamedTuple):
    """Purchases that have been judged, in order: their events, what they were judged by, and the verdicts."""

    events: Events
    case: Case
    verdicts: BatchVerdicts


def windows_at_once(T: int, shards: int = 1) -> int:
    """How many windows of T purchases are asked for at once."""
    return max(1, WINDOW_PURCHASES // (T * shards))


def walked(
    graph: FriendGraph, events: Events, seq: int, most: int, *, judged: bool = True, sizes: bool = False
) -> Iterator[Walked]:
    """Let a batch of events, the first of them number `seq`, go through the graph, each purchase answered if `judged`.

    An answer has at most `most` networks; the last one may have none. With `sizes` each network is counted. The graph
    must have room for all users.
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
    """Give a history the purchases among events, the first of them number `seq`, of `users` users."""
    history.reserve(users)
    bought = np.flatnonzero(events.kind == Kind.PURCHASE)
    through = seq + len(events) - 1
    history.append(seq + bought, events.user[bought], events.timestamp[bought], events.amount[bought], through)


def apply(state: State, events: Events, seq: int) -> None:
    """Let events, the first of them number `seq`, change a state of one shard; none of them is judged."""
    graph, history = state.graph, state.histories[0]
    users = len(state.decoder.interner)
    graph.reserve(users)
    for _ in walked(graph, events, seq, 0, judged=False):
        pass
    append(history, events, seq, users)
    history.raise_low(seq + len(events))
    history.settle()


def cases(
    state: State, events: Events, seq: int, *, context: bool = False, sizes: bool = False
) -> Iterator[tuple[Events, Case]]:
    """Let events, the first of them number `seq`, change a state of one shard; each purchase becomes a case.

    With `context` a case has the buyers' own latest purchases as well, with `sizes` the networks' sizes in any case.
    """
    graph, history = state.graph, state.histories[0]
    users, most = len(state.decoder.interner), windows_at_once(state.T)
    graph.reserve(users)
    for begin in range(0, len(events), BATCH_CAP):
        batch, first = events[begin : begin + BATCH_CAP], seq + begin
        history.raise_low(first)
        append(history, batch, first, users)
        for places, networks, _ in walked(graph, batch, first, most, sizes=sizes):
            purchases, numbers = batch[places], first + places
            windows = history.windows(numbers, networks)
            own = history.windows(numbers, alone(purchases.user)) if context else None
            yield (
                purchases,
                Case(windows, numbers, purchases.line, purchases.amount, purchases.timestamp, networks.size, own),
            )


def verdicts_of(judge: Judge, case: Case) -> BatchVerdicts:
    """Judge purchases; those of a run come in order, each once. A model is trained where it is due, here and now.

    Raises:
        RunError: the detector failed.
    """
    if not judge.stepwise or not len(case.seq):
        return judge.verdicts(case)
    parts: list[BatchVerdicts] = []
    begin, q = 0, len(case.seq)
    while begin < q:
        learner = judge.learner
        if learner is not None and learner.training_set is not None and learner.due:
            judge.activate(fitted(judge.detector, learner.training_set))
        rest = case.part(begin, q)
        end = begin + judge.until(rest)
        parts.append(judge.verdicts(case.part(begin, end)))
        begin = end
    return joined(parts)


class JudgingEngine:
    """A state and the judge of its purchases: one after the other, every event changes the one and asks the other."""

    def __init__(self, state: State, judge: Judge, *, sizes: bool = False) -> None:
        """`state` has one shard and everything before the first event; with `sizes` every network is counted."""
        self._sizes = sizes
        self.state = state
        self.judge = judge

    def apply(self, events: Events) -> None:
        """Take events that are not judged."""
        apply(self.state, events, self.state.progress.events + 1)
        self.state.advance(len(events), judged=0)

    def decide(self, events: Events) -> Iterator[JudgedBatch]:
        """Take events; each purchase is judged by what was there before it.

        Raises:
            RunError: the detector failed.
        """
        seq, judged = self.state.progress.events + 1, 0
        context = self.judge.wants_context
        for purchases, case in cases(self.state, events, seq, context=context, sizes=self._sizes):
            judged += len(purchases)
            yield JudgedBatch(purchases, case, verdicts_of(self.judge, case))
        self.state.advance(len(events), judged)
