"""Going through logs for the windows of the stream's purchases: what detectors judge in a run, kept."""

from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from anyio.to_thread import run_sync
from numpy.typing import NDArray

from peerwatch.actors.graph import MOST_MEMBERS
from peerwatch.detectors.base import Context, Floats, Mask
from peerwatch.detectors.rule_judge import UNIT
from peerwatch.network.decoder import Decoder, Events
from peerwatch.network.errors import UsageError
from peerwatch.network.events import Kind
from peerwatch.network.graph import COMPARED, FriendGraph, Networks, Plan
from peerwatch.network.history import PurchaseHistory, Windows
from peerwatch.network.kernels import Int32s, Int64s
from peerwatch.runtime.evaluation.data import Purchases
from peerwatch.runtime.pipeline import BATCH_CAP, WINDOW_PURCHASES
from peerwatch.runtime.replay import append, apply, open_replay, parts
from peerwatch.runtime.settings import Layer
from peerwatch.runtime.state import State
from peerwatch.runtime.sweep import check_labels, read_labels

MICROS: Final = 1_000_000
DAY: Final = 86_400 * MICROS
HOUR: Final = 3_600 * MICROS


class _Asked(NamedTuple):
    """Some purchases: their windows and their buyers' own, in order of time, and the sizes of their networks."""

    events: Events
    windows: Windows
    own: Windows
    members: Int64s


async def read_purchases(name: str, layers: Sequence[Layer], labels: Path | None) -> Purchases:
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
    return _kept(name, asked, state.decoder.large, np.isin(lines, [*named]) if labels is not None else None, kinds)


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
            done, networks = graph.walk(rest.kind, rest.user, rest.friend, rest.timestamp, at, most, MOST_MEMBERS)
            bought = np.flatnonzero(rest.kind == Kind.PURCHASE)[: len(networks.plan)]
            purchases, numbers = rest[bought], at + bought
            windows = in_time(history.windows(numbers, networks))
            own = in_time(history.windows(numbers, _alone(purchases.user)))
            asked.append(_Asked(purchases, windows, own, networks.size))
            rest, at = rest[done:], at + done
    return asked


def _alone(user: Int32s) -> Networks:
    """Networks in which each user is alone."""
    q = len(user)
    plan, expected = np.full(q, Plan.PARTITION, np.int8), np.full((q, COMPARED), -1, np.int64)
    return Networks(np.arange(q + 1, dtype=np.int64), user, plan, np.ones(q, np.int64), expected)


def in_time(windows: Windows) -> Windows:
    """The same windows, each in order of (timestamp, sequence number)."""
    owner = np.repeat(np.arange(len(windows.offsets) - 1), np.diff(windows.offsets))
    order = np.lexsort((windows.seq, windows.timestamp, owner))
    return Windows(windows.offsets, *(column[order] for column in windows[1:]))


def _kept(
    name: str, asked: Sequence[_Asked], large: Sequence[int], labels: Mask | None, kinds: Sequence[str]
) -> Purchases:
    windows, own = _joined([each.windows for each in asked]), _joined([each.own for each in asked])
    timestamp = np.concatenate([each.events.timestamp for each in asked])
    amount = np.concatenate([each.events.amount for each in asked])
    members = np.concatenate([each.members for each in asked])
    since = np.full(len(amount), np.nan)
    bought = np.flatnonzero(np.diff(own.offsets))
    since[bought] = (timestamp[bought] - own.timestamp[own.offsets[bought + 1] - 1]) / MICROS
    context = Context(own.offsets, units(own.amount, large), since, timestamp % DAY / HOUR, members)
    return Purchases(
        name, labels, kinds, windows, amount, large, units(windows.amount, large), units(amount, large), context
    )


def _joined(parts: Sequence[Windows]) -> Windows:
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    columns: list[NDArray[np.int64]] = [np.concatenate(column) for column in list(zip(*parts, strict=True))[1:]]
    return Windows(np.concatenate([[0], np.cumsum(sizes)]), *columns)


def units(held: Int64s, large: Sequence[int]) -> Floats:
    """Amounts in units of the log, as near as floats come; where -1 - i is held, it is `large[i]`."""
    amounts = held / UNIT
    for place in np.flatnonzero(held < 0).tolist():
        amounts[place] = large[-1 - int(held[place])] // UNIT  # too large for its fraction to matter
    return amounts
