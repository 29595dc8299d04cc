"""Builds the state that an audit begins with: empty, or from the logs before a checkpoint."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from fractions import Fraction

import numpy as np
from anyio.to_thread import run_sync

from peerwatch.errors import PeerwatchError
from peerwatch.files.position import place_of
from peerwatch.judging.audit import BruteForce
from peerwatch.judging.state import State
from peerwatch.network.decoder import Decoder
from peerwatch.network.interner import ids_of
from peerwatch.replay.replay import Part, open_replay, parts
from peerwatch.settings.model import Layer
from peerwatch.storage.checkpoints import Facts


async def audit_from(
    state: State, facts: Facts | None, layers: Sequence[Layer], k: Fraction, warn: Callable[[str], None]
) -> BruteForce:
    """Build the audit state that corresponds to `state`, by reading the logs from their beginning.

    `state` itself is not trusted. Only if the logs no longer hold the events that it was built from does the audit
    begin with a copy of it, and `warn` is called.
    """
    if facts is None:
        return BruteForce(state.D, state.T, k, directed=state.graph.directed, quarantine=state.quarantine is not None)
    audit = BruteForce(state.D, state.T, k, directed=state.graph.directed)
    try:
        if state.quarantine is not None:
            why = "with quarantine it would have to decide again on every purchase before it"
        elif await _follow(audit, layers, facts):
            return audit
        else:
            why = "the logs no longer hold what it was built from"
    except PeerwatchError as error:
        why = str(error)
    await run_sync(warn, f"the audit trusts the checkpoint and can only find errors after it: {why}")
    return await run_sync(taken_from, state, k)


async def _follow(audit: BruteForce, layers: Sequence[Layer], facts: Facts) -> bool:
    """Apply all events read up to the checkpoint. Returns whether the logs still hold as many events and bytes."""
    events, size, end = 0, facts.progress.bytes, 0
    decoder, names = Decoder(), list[bytes]()

    def follow(part: Part) -> None:
        names.extend(ids_of(*decoder.interner.columns(), len(names)))
        chosen = np.zeros(len(part.events), np.bool_)
        audit.follow(part.events, part.seq, part.file, names, chosen)

    async with AsyncExitStack() as stack:
        opened = await open_replay(layers, lambda _: False, stack)
        async with aclosing(parts(opened.logs, decoder, 0, opened.bookmarks)) as read:
            async for part in read:
                size -= part.block.hole
                before = part._replace(events=part.events[part.events.start < size])
                await run_sync(follow, before)
                events += len(before.events)
                end = part.block.offset + size
                size -= len(part.block.content)
                if size <= 0:
                    break
    offset = place_of(facts.position).offset
    at_end = offset in {0, end}  # 0: a file had been rotated away, and nothing read of the next
    return size <= 0 and at_end and events == facts.progress.events


def taken_from(state: State, k: Fraction) -> BruteForce:
    """Build the audit state from `state`, trusting it."""
    audit = BruteForce(state.D, state.T, k, directed=state.graph.directed, quarantine=state.quarantine is not None)
    names = ids_of(*state.decoder.interner.columns(), 0)
    degree, friends = state.graph.columns()
    begin = 0
    for user, end in enumerate(np.cumsum(degree).tolist()):
        audit.friends[names[user]] = {names[friend] for friend in friends[begin:end].tolist()}
        begin = end
    for history in state.histories:
        held, seq, timestamp, amount = history.columns()
        buyers = np.repeat(np.arange(len(held)), held)
        columns = (column.tolist() for column in (buyers, timestamp, seq, amount))
        for buyer, when, number, paid in zip(*columns, strict=True):
            audit.buy(names[buyer], when, number, paid)
    if audit.quarantined is not None and state.quarantine is not None:
        kept_out = state.quarantine.held
        columns = (column.tolist() for column in (kept_out.seq, kept_out.user, kept_out.timestamp, kept_out.amount))
        for number, buyer, when, paid in zip(*columns, strict=True):
            audit.quarantined[number] = names[buyer], when, paid
    return audit
