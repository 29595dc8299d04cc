"""The state divided among machines, simulated: what a purchase's network costs in bytes and time.

Users are divided by their number. Each machine keeps its own users' friend lists, and an index of its own users by
friend. For a purchase the buyer's machine sends the buyer's friend list to the others; each finds those of its own
users that are friends of one of them, and sends back their latest purchases. That is one round trip. The alternative,
*push*, goes along the friendships hop by hop, as Pregel does (Malewicz et al., 2010).
"""

import statistics
from typing import Any, Final, NamedTuple

import numpy as np
from scale_machine import SEED, Size, T, events_of, graph_of, taken

from peerwatch.amounts import Amounts
from peerwatch.judging.engine import BATCH_CAP, MOST_PLACES
from peerwatch.kernels import Int32s, Int64s
from peerwatch.network.events import Kind
from peerwatch.network.graph import FriendGraph
from peerwatch.network.history import PurchaseHistory
from peerwatch.network.networks import PARTITION_ONLY
from peerwatch.network.windows import Windows, merged

D: Final = 2
MACHINES: Final = (1, 4, 16, 64)
ID: Final = 4
"""Bytes of a user's number."""
PURCHASE: Final = 24
"""Bytes of a purchase in an answer: sequence number, timestamp, amount."""
HEAD: Final = 16
"""Bytes that each question and each answer has besides: sequence number, buyer, how many follow."""
BATCHES: Final = 3


class Csr(NamedTuple):
    """A friend graph: user u's friends are `friends[starts[u]:starts[u + 1]]`."""

    starts: Int64s
    friends: Int32s

    @property
    def users(self) -> int:
        """How many users there are."""
        return len(self.starts) - 1

    def of(self, user: int) -> Int32s:
        """A user's friends."""
        return self.friends[self.starts[user] : self.starts[user + 1]]


def csr_of(graph: FriendGraph) -> Csr:
    """The friendships of a graph."""
    degree, friends = graph.columns()
    return Csr(np.concatenate([[0], np.cumsum(degree, dtype=np.int64)]), friends)


def friends_of(csr: Csr, users: Int32s) -> tuple[Int64s, Int32s]:
    """The friends of some users, one user's after the other's; and whose each is, as a place in `users`."""
    begin, degree = csr.starts[users], csr.starts[users + 1] - csr.starts[users]
    whose = np.repeat(np.arange(len(users)), degree)
    places = np.arange(int(degree.sum())) + np.repeat(begin - np.cumsum(degree) + degree, degree)
    return whose, csr.friends[places]


def gathered(csr: Csr, buyer: int, machine: int, machines: int) -> Int32s:
    """The members of a buyer's network (two hops) that live on one machine, found there from the buyer's friends alone.

    The machine looks up each friend in its index of own users by friend.
    """
    friends = csr.of(buyer)
    _, beyond = friends_of(csr, friends)
    found = np.unique(np.concatenate([friends, beyond]))
    members: Int32s = found[(found % machines == machine) & (found != buyer)]
    return members


def bytes_a_purchase(csr: Csr, held: Int64s, buyers: Int32s, machines: int) -> dict[str, float]:
    """Mean bytes between machines for each of the buyers' purchases, of both ways, and how many machines have members.

    `held` are the purchases of each user. `windows` is what comes back if each machine sends its T latest, `bounded` if
    the question says since when the T latest of all should be and a machine sends only these, half as many too many.
    """
    sums = dict.fromkeys(("gather", "push", "windows", "bounded", "with_members", "members", "friends"), 0.0)
    for buyer in buyers.tolist():
        friends, own = csr.of(buyer), buyer % machines
        whose, beyond = friends_of(csr, friends)
        members = np.unique(np.concatenate([friends, beyond]))
        members = members[members != buyer]
        home = members % machines
        there = np.bincount(home, minlength=machines)
        counts = np.bincount(home, weights=held[members], minlength=machines)
        counts[own] = there[own] = 0  # what lives with the buyer crosses no wire
        sums["with_members"] += np.count_nonzero(there)
        sums["gather"] += (machines - 1) * (HEAD + ID * len(friends))
        sums["windows"] += (machines - 1) * HEAD + PURCHASE * np.minimum(counts, T).sum()
        sums["bounded"] += (machines - 1) * HEAD + PURCHASE * min(1.5 * T, counts.sum())
        first = np.count_nonzero(friends % machines != own)
        sender = friends[whose] % machines
        sent = np.unique(sender.astype(np.int64) * csr.users + beyond)
        abroad = np.count_nonzero(sent % csr.users % machines != sent // csr.users)
        sums["push"] += ID * (first + abroad)
        sums["members"] += len(members)
        sums["friends"] += len(friends)
    return {name: total / len(buyers) for name, total in sums.items()}


def time_a_purchase(csr: Csr, purchases: int, machines: int) -> dict[str, float]:
    """CPU microseconds a purchase takes on one machine of several, with peerwatch's own kernels, and to be merged.

    The machine's index of its own users by friend is a friend graph in which every user has those friends alone that
    live there; each buyer is one more user, with the whole list of friends that was sent. Every network is walked in
    full, whatever the planner would choose.
    """
    rng = np.random.default_rng(SEED)
    here = csr.friends % machines == 0
    degree = np.diff(np.concatenate([[0], np.cumsum(here)])[csr.starts])
    buyers = rng.integers(0, csr.users, (BATCHES + 1) * BATCH_CAP).astype(np.int32)
    _, lists = friends_of(csr, buyers)
    listed = csr.starts[buyers + 1] - csr.starts[buyers]
    graph = FriendGraph.from_columns(
        D, T, np.concatenate([degree, listed]).astype(np.int32), np.concatenate([csr.friends[here], lists]),
        costs=PARTITION_ONLY,
    )  # fmt: skip
    history = local_history(csr.users, purchases, machines, rng)
    history.reserve(csr.users + len(buyers))
    costs, merging = [], []
    for batch in range(BATCHES + 1):
        user = np.arange(batch * BATCH_CAP, (batch + 1) * BATCH_CAP, dtype=np.int64) + csr.users
        events = events_of(Kind.PURCHASE, user, user, user, user)
        windows: list[Windows] = []
        seconds = taken(answer, graph, history, events, windows)
        parts = windows[0]
        again = [parts._replace(amount=Amounts(parts.amount.held.copy())) for _ in range(machines)]
        merge = taken(merged, again, T)
        if batch:
            costs.append(1e6 * seconds / BATCH_CAP)
            merging.append(1e6 * merge / (len(parts.offsets) - 1))
    return {"answer": statistics.median(costs), "merge": statistics.median(merging)}


def answer(graph: FriendGraph, history: PurchaseHistory, events: Any, windows: list[Windows]) -> None:
    """Walk the networks of a batch and select the windows, in as many answers as it takes."""
    gone, seq = 0, history.applied + 1
    while gone < len(events):
        done, networks = graph.walk(
            events.kind[gone:], events.user[gone:], events.friend[gone:], events.timestamp[gone:], events.amount[gone:],
            seq + gone, len(events) - gone, MOST_PLACES,
        )  # fmt: skip
        windows.append(history.windows(np.full(len(networks.plan), seq), networks))
        gone += done


def local_history(users: int, purchases: int, machines: int, rng: np.random.Generator) -> PurchaseHistory:
    """The histories of the users of machine 0, with as many purchases each on average."""
    history = PurchaseHistory(T)
    history.reserve(users)
    count = users * purchases
    for begin in range(0, count, 1 << 18):
        seq = np.arange(begin + 1, min(begin + (1 << 18), count) + 1)
        user = rng.integers(0, users, len(seq))
        mine = user % machines == 0
        seq, user = seq[mine], user[mine]
        bought = events_of(Kind.PURCHASE, user, user, seq, rng.integers(100, 10_000, len(seq)))
        history.append(seq, bought.user, bought.timestamp, bought.amount, begin + (1 << 18))
        history.raise_low(history.applied + 1)
        history.settle()
    return history


def simulated(size: Size, asked: int) -> dict[str, Any]:
    """Both for each number of machines. `asked` purchases are counted in bytes."""
    rng = np.random.default_rng(SEED)
    csr = csr_of(graph_of(size, D, rng))
    held = rng.poisson(size.purchases, size.users).astype(np.int64)
    buyers = rng.integers(0, size.users, asked).astype(np.int32)
    found: dict[str, Any] = {"largest": int(np.diff(csr.starts).max()), "asked": asked}
    for machines in MACHINES:
        figures = {**bytes_a_purchase(csr, held, buyers, machines), **time_a_purchase(csr, size.purchases, machines)}
        found[str(machines)] = figures
        print(machines, figures, flush=True)
    return found
