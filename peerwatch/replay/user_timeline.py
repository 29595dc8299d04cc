"""`peerwatch state`: a user's state at any moment, from the logs."""

from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec
import numpy as np

from peerwatch.errors import UsageError
from peerwatch.judging.explanation import latest_of
from peerwatch.network.neighbourhood import members_of, path_to
from peerwatch.network.statistics import Statistics, decimal, shown_k
from peerwatch.readable import aligned, by_hop, listed, readable, rows, short
from peerwatch.replay.event_selectors import id_of, selector_of
from peerwatch.replay.explain import Names, NetworkMember
from peerwatch.replay.replay import open_replay, past, places_of
from peerwatch.runtime.decision_log import moment
from peerwatch.settings.model import SIGMA, Layer


class HeldPurchase(msgspec.Struct, frozen=True):
    """A purchase of the user: event, file, line, time and amount."""

    seq: int
    file: str
    line: int
    timestamp: str
    amount: str


class UserState(msgspec.Struct, frozen=True, kw_only=True):
    """A user's state after event `seq`: friends, network, purchases, and the window of a purchase made now.

    `purchases` are the user's T latest, newest first; older ones cannot be in a window. Mean and sd of the window are
    null if it is empty. `k` and `threshold` (an amount) are set for sigma only.
    """

    seq: int
    user: str
    D: int
    T: int
    k: str | None
    friends: list[str]
    network: list[NetworkMember]
    purchases: list[HeldPurchase]
    window_size: int
    mean: str | None
    sd: str | None
    threshold: str | None


async def state_of(layers: Sequence[Layer], user: str, at: str) -> UserState:
    """Return a user's state after event number `at`, or before the first event later than the timestamp `at`.

    Raises:
        UsageError: the user did not exist then, the logs have no event `at`, or `at` is not a timestamp.
    """
    target = selector_of(at)
    async with AsyncExitStack() as stack:
        opened = await open_replay(layers, target.suits, stack)
        then = await past(opened, target, [id_of(user)])
        dense = int(then.state.decoder.named[0])
        if dense in then.unseen:
            raise UsageError(
                f"user {readable(user)} does not exist as of event {then.seq - 1:,}: no event has named it yet"
            )
    k = opened.settings.detector.exact_k() if opened.settings.detector.name == SIGMA else None
    name = Names(then)
    members = members_of(then.state.graph, dense, opened.D, then.key)
    columns = then.history.columns_of(np.array(sorted({dense, *members}), np.int64))
    own = latest_of(columns, {dense}, opened.T)
    statistics = Statistics.of([each.amount for each in latest_of(columns, set(members), opened.T)])
    places = await places_of(opened, np.array([each.seq for each in own], np.int64), then.lines)
    known = statistics.n > 0
    return UserState(
        seq=then.seq - 1,
        user=user,
        D=opened.D,
        T=opened.T,
        k=shown_k(k) if k is not None else None,
        friends=[name[friend] for friend, member in members.items() if member.hop == 1],
        network=[
            NetworkMember(name[other], member.hop, [name[step] for step in path_to(other, members)])
            for other, member in members.items()
        ],
        purchases=[
            HeldPurchase(
                each.seq, places[each.seq].file, places[each.seq].line, moment(each.timestamp) or "",
                decimal(each.amount),
            )
            for each in own
        ],
        window_size=statistics.n,
        mean=statistics.mean() if known else None,
        sd=statistics.sd() if known else None,
        threshold=statistics.threshold(k) if known and k is not None else None,
    )  # fmt: skip


def as_text(state: UserState) -> str:
    """Format the state as text."""
    hops = by_hop(member.hop for member in state.network)
    window = f"{state.window_size} purchases, mean {state.mean}, sd {state.sd}"
    if state.window_size < 2:
        window = "fewer than two purchases: nothing would be flagged"
    elif state.threshold is not None:
        window += f": a purchase above {state.threshold} would be flagged (T={state.T}, k={state.k})"
    table = [
        (short(each.timestamp), each.amount, f"event {each.seq:,}", f"{each.file}:{each.line}")
        for each in state.purchases
    ]
    return "\n".join([
        rows([("user", f"{readable(state.user)}, as of event {state.seq:,}")]),
        listed("friends", state.friends, before=f"{len(state.friends):,}: " if state.friends else "none"),
        rows([
            ("network", f"{len(state.network):,} users within {state.D} hops{hops}"),
            ("window", window),
            ("purchases", f"the {len(table):,} latest" if table else "none"),
            *(("", line) for line in aligned(table, right=(1, 2))),
        ]),
    ])  # fmt: skip
