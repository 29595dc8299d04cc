"""The synchronous core with quarantine: events in, verdicts out, each flagged purchase kept out of later windows."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from peerwatch.judging.engine import BATCH_CAP, JudgedBatch, ModelHistory, verdicts_of, walked, windows_at_once
from peerwatch.judging.judge import Case, Judge
from peerwatch.judging.labels import Label
from peerwatch.judging.quarantine import NO_PURCHASES, LabelHistory, Purchases, heard_before, until_hearing
from peerwatch.judging.state import State
from peerwatch.judging.turn_judge import TurnJudge, split
from peerwatch.kernels import Int64s
from peerwatch.network.decoder import Events
from peerwatch.network.networks import Networks, alone


class QuarantineEngine:
    """Judges purchases by a state with one shard, which must have a quarantine, and keeps flagged ones out of it."""

    def __init__(
        self,
        state: State,
        judge: Judge,
        T: int,
        labels: LabelHistory | None = None,
        models: ModelHistory | None = None,
    ) -> None:
        """Windows of T purchases; the state may keep more of each user.

        `labels` are those that a run has read, `models` those that it has had.

        Raises:
            ValueError: the state has no quarantine.
        """
        if state.quarantine is None:
            raise ValueError("the state has no quarantine")
        self._state, self._quarantine, self._labels = state, state.quarantine, labels
        self._context = judge.wants_context
        self._turns, self._judge = TurnJudge(T), partial(verdicts_of, judge, models=models)
        self._most = windows_at_once(state.T)
        self._in_batch_log = False

    def decide(self, events: Events, seq: int, *, in_batch_log: bool = False) -> Iterator[JudgedBatch]:
        """Apply judged events, the first of them numbered `seq`, and yield the purchases with their verdicts."""
        self._in_batch_log = in_batch_log
        state, users = self._state, len(self._state.decoder.interner)
        state.graph.reserve(users)
        state.histories[0].reserve(users)
        for first in range(0, len(events), BATCH_CAP):
            batch = events[first : first + BATCH_CAP]
            for places, networks, _ in walked(state.graph, batch, seq + first, self._most):
                yield from self._judged(batch[places], seq + first + places, networks)
        self._append(NO_PURCHASES, seq + len(events) - 1)

    def hear(self, seq: int) -> None:
        """Release what labels have released before event `seq`, which must be behind all that has been decided."""
        if self._labels is None:
            return
        for released in heard_before(self._quarantine, self._labels, seq):
            self._insert(released)

    def release(self, label: Label) -> bool:
        """Apply a label after all that has been decided; return whether it has released a purchase."""
        released = self._quarantine.hear([label], self._quarantine.heard)
        self._insert(released)
        return len(released.seq) > 0

    def _judged(self, purchases: Events, seq: Int64s, networks: Networks) -> Iterator[JudgedBatch]:
        begin = 0
        while begin < len(seq):
            self.hear(int(seq[begin]))
            since = self._labels.since(self._quarantine.heard) if self._labels is not None else None
            end = begin + until_hearing(seq[begin:], since)
            yield self._part(purchases[begin:end], seq[begin:end], networks.part(begin, end))
            begin = end

    def _part(self, purchases: Events, seq: Int64s, networks: Networks) -> JudgedBatch:
        history, users = self._state.histories[0], len(self._state.decoder.interner)
        before = np.full(len(seq), seq[0])
        windows = history.windows(before, networks)
        own = history.windows(before, alone(purchases.user)) if self._context else None
        case = Case(windows, seq, purchases.line, purchases.amount, purchases.timestamp, networks.size, own)
        case, verdicts = self._turns.judged(case, purchases.user, networks, users, self._judge)
        counted, flagged = split(case, purchases.user, verdicts.flagged, in_batch_log=self._in_batch_log)
        self._quarantine.put(flagged)
        self._append(counted, int(seq[-1]))
        return JudgedBatch(purchases, case, verdicts)

    def _insert(self, released: Purchases) -> None:
        history = self._state.histories[0]
        history.insert(released.seq, released.user, released.timestamp, released.amount)

    def _append(self, counted: Purchases, through: int) -> None:
        history = self._state.histories[0]
        history.append(counted.seq, counted.user.astype(np.int32), counted.timestamp, counted.amount, through)
        history.raise_low(through + 1)
        history.settle()
