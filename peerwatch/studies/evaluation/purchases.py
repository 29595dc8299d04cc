"""Reads logs and keeps the windows of the stream's purchases, as detectors judge them in a run."""

from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import NamedTuple

import numpy as np
from anyio.to_thread import run_sync

from peerwatch.actors.graph import MOST_PLACES
from peerwatch.amounts import Amounts
from peerwatch.detectors.base import Mask
from peerwatch.errors import UsageError
from peerwatch.judging.detector_input import detector_input
from peerwatch.judging.judge import Case
from peerwatch.judging.state import State
from peerwatch.kernels import Int64s
from peerwatch.network.decoder import Decoder, Events
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph, alone
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.windows import Windows
from peerwatch.replay.replay import append, apply, open_replay, parts
from peerwatch.runtime.pipeline import BATCH_CAP, WINDOW_PURCHASES
from peerwatch.settings.model import Layer
from peerwatch.studies.evaluation.data import StreamPurchases
from peerwatch.studies.sweep import check_labels, read_labels


class _Asked(NamedTuple):
    """Some purchases: their numbers, their windows, their buyers' own purchases, and the sizes of their networks."""

    events: Events
    seq: Int64s
    windows: Windows
    own: Windows
    members: Int64s


async def read_purchases(name: str, layers: Sequence[Layer], labels: Path | None) -> StreamPurchases:
    """The stream log's purchases with their windows, and which of them are labelled, if there are labels.

    Raises:
        UsageError: something is missing or cannot be used, nothing is there to judge, or a label names no purchase.
        SourceError: a log could not be read any further.
    """
    named = await run_sync(read_labels, labels) if labels is not None else {}
    async with AsyncExitStack() as stack:
        opened = await open_replay(layers, lambda _: False, stack)
        stream = opened.logs[-1].name
        graph, history = FriendGraph(opened.D, opened.T, sizes=True), PurchaseHistory(opened.T)
        state = State(opened.D, opened.T, Decoder(), graph, [history])
        asked: list[_Asked] = []
        async with aclosing(parts(opened.logs, state.decoder, 0)) as found:
            async for part in found:
                if part.judged:
                    asked += await run_sync(_ask, state, part.events, part.seq)
                else:
                    await run_sync(apply, state, part.events, part.seq)
    if not sum(len(each.events) for each in asked):
        raise UsageError(f"{stream} holds no purchase: there is nothing to judge")
    lines = np.concatenate([each.events.line for each in asked])
    check_labels(named, set(lines.tolist()), labels or Path(), stream)
    kinds = [named[line].kind if line in named else "" for line in lines.tolist()]
    return _kept(name, asked, np.isin(lines, [*named]) if labels is not None else None, kinds)


def _ask(state: State, events: Events, seq: int) -> list[_Asked]:
    """The windows of the purchases among events, the first of them number `seq`."""
    asked, graph, history = [], state.graph, state.histories[0]
    users, most = len(state.decoder.interner), max(1, WINDOW_PURCHASES // state.T)
    graph.reserve(users)
    for begin in range(0, len(events), BATCH_CAP):
        rest, at = events[begin : begin + BATCH_CAP], seq + begin
        history.low = at
        append(history, rest, at, users)
        while len(rest):
            done, networks = graph.walk(
                rest.kind, rest.user, rest.friend, rest.timestamp, rest.amount, at, most, MOST_PLACES
            )
            bought = np.flatnonzero(rest.kind == Kind.PURCHASE)[: len(networks.plan)]
            purchases, numbers = rest[bought], at + bought
            windows = history.windows(numbers, networks)
            own = history.windows(numbers, alone(purchases.user))
            asked.append(_Asked(purchases, numbers, windows, own, networks.size))
            rest, at = rest[done:], at + done
    return asked


def _kept(name: str, asked: Sequence[_Asked], labels: Mask | None, kinds: Sequence[str]) -> StreamPurchases:
    windows, own = _joined([each.windows for each in asked]), _joined([each.own for each in asked])
    columns = ((each.seq, each.events.line, each.events.timestamp) for each in asked)
    seq, line, timestamp = (np.concatenate(column) for column in zip(*columns, strict=True))
    amount = Amounts.joined([each.events.amount for each in asked])
    members = np.concatenate([each.members for each in asked])
    case = Case(windows, seq, line, amount, timestamp, members, own)
    return StreamPurchases(name, labels, kinds, case, detector_input(case))


def _joined(parts: Sequence[Windows]) -> Windows:
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    seq, timestamp = (np.concatenate([getattr(part, name) for part in parts]) for name in ("seq", "timestamp"))
    amount = Amounts.joined([part.amount for part in parts])
    return Windows(np.concatenate([[0], np.cumsum(sizes)]), seq, timestamp, amount)
