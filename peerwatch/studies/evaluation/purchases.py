"""Reads logs and keeps the windows of the stream's purchases, as detectors get them in a run."""

from collections.abc import Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import numpy as np
from anyio.to_thread import run_sync

from peerwatch.amounts import Amounts
from peerwatch.detectors.base import Mask
from peerwatch.errors import UsageError
from peerwatch.judging.detector_input import detector_input
from peerwatch.judging.engine import apply, cases
from peerwatch.judging.judge import Case
from peerwatch.judging.state import State
from peerwatch.network.decoder import Events
from peerwatch.network.windows import Windows
from peerwatch.replay.replay import open_replay, parts
from peerwatch.settings.model import Layer
from peerwatch.studies.evaluation.data import StreamPurchases
from peerwatch.studies.sweep import check_labels, read_labels


async def read_purchases(name: str, layers: Sequence[Layer], labels: Path | None) -> StreamPurchases:
    """Read the stream log's purchases with their windows and, if given, their labels.

    Raises:
        UsageError: something is missing or cannot be used, there is no purchase, or a label names no purchase.
        SourceError: a log could not be read any further.
    """
    named = await run_sync(read_labels, labels) if labels is not None else {}
    async with AsyncExitStack() as stack:
        opened = await open_replay(layers, lambda _: False, stack)
        stream = opened.logs[-1].name
        state = State.fresh(opened.D, opened.T, 1, directed=opened.settings.directed)
        kept: list[Case] = []
        async with aclosing(parts(opened.logs, state.decoder, 0)) as found:
            async for part in found:
                if part.judged:
                    kept += await run_sync(_cases, state, part.events, part.seq)
                else:
                    await run_sync(apply, state, part.events, part.seq)
    if not kept:
        raise UsageError(f"{stream} holds no purchase: there is nothing to judge")
    lines = np.concatenate([case.line for case in kept])
    check_labels(named, set(lines.tolist()), labels or Path(), stream)
    kinds = [named[line].kind if line in named else "" for line in lines.tolist()]
    return _kept(name, kept, np.isin(lines, [*named]) if labels is not None else None, kinds)


def _cases(state: State, events: Events, seq: int) -> list[Case]:
    """The purchases among events, the first of them number `seq`, with all that they are judged by."""
    return [case for _, case in cases(state, events, seq, context=True, sizes=True) if len(case.seq)]


def _kept(name: str, parts: Sequence[Case], labels: Mask | None, kinds: Sequence[str]) -> StreamPurchases:
    windows, own = _joined([part.windows for part in parts]), _joined([part.own for part in parts if part.own])
    columns = ((part.seq, part.line, part.timestamp, part.members) for part in parts)
    seq, line, timestamp, members = (np.concatenate(column) for column in zip(*columns, strict=True))
    amount = Amounts.joined([part.amount for part in parts])
    case = Case(windows, seq, line, amount, timestamp, members, own)
    return StreamPurchases(name, labels, kinds, case, detector_input(case))


def _joined(parts: Sequence[Windows]) -> Windows:
    sizes = np.concatenate([np.diff(part.offsets) for part in parts])
    seq, timestamp = (np.concatenate([getattr(part, name) for part in parts]) for name in ("seq", "timestamp"))
    amount = Amounts.joined([part.amount for part in parts])
    return Windows(np.concatenate([[0], np.cumsum(sizes)]), seq, timestamp, amount)
